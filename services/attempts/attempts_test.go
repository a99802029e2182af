package attempts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"lunboot/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tape is a journal in memory.
type tape struct {
	mu   sync.Mutex
	all  []store.Event
	wake chan struct{}
}

func (p *tape) Emit(e store.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.At.IsZero() {
		e.At = time.Now()
	}
	e.Seq = int64(len(p.all)) + 1
	p.all = append(p.all, e)
	if p.wake != nil {
		close(p.wake)
		p.wake = nil
	}
}

func (p *tape) After(ctx context.Context, seq int64, limit int) ([]store.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	seq = min(max(seq, 0), int64(len(p.all)))
	return slices.Clone(p.all[seq:min(int(seq)+limit, len(p.all))]), nil
}

func (p *tape) LastSeq() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(len(p.all))
}

func (p *tape) Wake(seq int64) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int64(len(p.all)) > seq {
		c := make(chan struct{})
		close(c)
		return c
	}
	if p.wake == nil {
		p.wake = make(chan struct{})
	}
	return p.wake
}

// cache is the table of attempts.
type cache struct {
	mu   sync.Mutex
	rows map[store.AttemptID]store.Attempt
	puts int
	fail error
}

func (c *cache) PutAttempts(_ context.Context, attempts []store.Attempt) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	if c.rows == nil {
		c.rows = map[store.AttemptID]store.Attempt{}
	}
	for _, a := range attempts {
		c.puts++
		c.rows[a.ID] = a
	}
	return nil
}

func (c *cache) Attempt(_ context.Context, id store.AttemptID) (store.Attempt, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := c.rows[id]; ok {
		return a, nil
	}
	return store.Attempt{}, store.NotFound("attempt", fmt.Sprint(id))
}

func (c *cache) Attempts(_ context.Context, f store.AttemptFilter) ([]store.Attempt, int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []store.Attempt
	for _, a := range c.rows {
		if (f.Machine == 0 || a.Machine == f.Machine) && (f.MAC.IsZero() || a.MAC == f.MAC) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b store.Attempt) int { return int(b.ID - a.ID) })
	n := len(out)
	if f.Limit > 0 {
		out = out[min(f.Offset, n):min(f.Offset+f.Limit, n)]
	}
	return out, n, nil
}

func (c *cache) EveryAttempt(ctx context.Context, f store.AttemptFilter) (store.Parts[store.Attempt], error) {
	all, _, err := c.Attempts(ctx, f)
	return func(context.Context) (part []store.Attempt, _ error) {
		part, all = all, nil
		return part, nil
	}, err
}

func (c *cache) LastAttemptID(context.Context) (store.AttemptID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var last store.AttemptID
	for id := range c.rows {
		last = max(last, id)
	}
	return last, nil
}

// inventory knows machines by MAC, each with one volume.
type inventory struct {
	mu       sync.Mutex
	machines map[store.MachineID]store.Machine
	maps     map[store.MachineID][]store.Mapping
}

func (v *inventory) Machine(_ context.Context, id store.MachineID) (store.Machine, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if m, ok := v.machines[id]; ok {
		return m, nil
	}
	return store.Machine{}, store.NotFound("machine", fmt.Sprint(id))
}

func (v *inventory) MachineByMAC(_ context.Context, mac store.MAC) (store.Machine, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.machines {
		if slices.Contains(m.MACs, mac) {
			return m, nil
		}
	}
	return store.Machine{}, store.NotFound("machine", mac.String())
}

func (v *inventory) Look(context.Context, store.Volume) (store.Preflight, error) {
	return store.Preflight{}, errors.New("there is no volume")
}

func (v *inventory) Volumes(context.Context) ([]store.Volume, error) { return nil, nil }

func (v *inventory) Mappings(context.Context) ([]store.Mapping, error) { return nil, nil }
func (v *inventory) Machines(context.Context, store.MachineFilter) ([]store.Machine, int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Collect(maps.Values(v.machines)), len(v.machines), nil
}

func (v *inventory) Profiles(context.Context) ([]store.Profile, error) { return nil, nil }

func (v *inventory) MappingsOf(_ context.Context, id store.MachineID) ([]store.Mapping, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.maps[id]), nil
}

func (v *inventory) Volume(context.Context, store.VolumeID) (store.Volume, error) {
	return store.Volume{ID: 1, Name: "win11", BlockSize: 512, State: store.VolumeReady}, nil
}

func (v *inventory) enroll(id store.MachineID, name string, mac store.MAC) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.machines[id] = store.Machine{ID: id, Name: name, MACs: []store.MAC{mac}, Profile: "custom", Initiator: store.IQN("iqn.2026-11.lunboot:" + name)}
	v.maps[id] = []store.Mapping{{Machine: id, Volume: 1, LUN: 2, Boot: true}}
}

// bench is a runner with everything around it.
type bench struct {
	*Runner
	tape  *tape
	cache *cache
	inv   *inventory
	stop  func()
	told  []string // of the ends of boots; cache.mu guards it
	own   func() []netip.Addr
}

func newBench() *bench {
	b := &bench{tape: &tape{}, cache: &cache{}, inv: &inventory{machines: map[store.MachineID]store.Machine{}, maps: map[store.MachineID][]store.Mapping{}}}
	b.inv.enroll(7, "lab-12", theMAC)
	b.start()
	return b
}

func (b *bench) start() {
	b.Runner = New(b.tape, b.cache, b.inv, slog.New(slog.NewTextHandler(io.Discard, nil)), time.Now)
	r := b.Runner
	r.Own = b.own
	r.OnEnd = func(a store.Attempt) {
		b.cache.mu.Lock()
		defer b.cache.mu.Unlock()
		b.told = append(b.told, fmt.Sprint(a.ID, " ", a.Outcome, " ", len(a.Diagnoses)))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx) }()
	b.stop = func() { cancel(); <-done }
}

// kill ends the appliance without a last word: what was not kept is lost.
func (b *bench) kill() {
	b.cache.mu.Lock()
	saved := map[store.AttemptID]store.Attempt{}
	for id, a := range b.cache.rows {
		saved[id] = a
	}
	b.cache.mu.Unlock()
	b.stop()
	b.cache.mu.Lock()
	b.cache.rows = saved
	b.cache.mu.Unlock()
}

var (
	theMAC  = store.MAC{0x52, 0x54, 0, 0x77, 0, 0x0a}
	theAddr = netip.MustParseAddr("10.77.0.50")
	ipxe    = store.Detail{PXE: true, IPXE: true, Firmware: "BIOS", Arch: "x86", Interface: "eth0"}
)

const (
	ipxeID = "400027231234"
	osID   = "00023d000001"
)

func (b *bench) see(kind store.EventKind, d store.Detail) {
	b.tape.Emit(store.Event{Kind: kind, MAC: theMAC, Addr: theAddr, Detail: d})
}

// target is an event of the iSCSI target: it knows the machine, or only where
// it came from.
func (b *bench) target(machine store.MachineID, kind store.EventKind, d store.Detail) {
	b.tape.Emit(store.Event{Kind: kind, Addr: theAddr, Machine: machine, Detail: d})
}

func (b *bench) dora() {
	b.see(store.EventDHCPDiscover, ipxe)
	b.see(store.EventDHCPOffer, ipxe)
	b.see(store.EventDHCPRequest, ipxe)
	b.see(store.EventDHCPAck, ipxe)
}

func (b *bench) script(t *testing.T) (store.AttemptID, string) {
	t.Helper()
	id, key, err := b.Begin(t.Context(), theMAC, 7)
	if err != nil {
		t.Fatal(err)
	}
	b.tape.Emit(store.Event{Kind: store.EventScriptSent, MAC: theMAC, Addr: theAddr, Machine: 7, Attempt: id, Detail: store.Detail{Profile: "san", MatchedBy: "mac", Key: key, Script: "sanboot iscsi:10.77.0.1::::iqn"}})
	return id, key
}

func session(isid string) store.Detail {
	n := 2
	return store.Detail{ISID: isid, Session: isid, Auth: "mutual CHAP with MD5", LUN: &n, Volume: "win11"}
}

func (b *bench) boot(t *testing.T) store.AttemptID {
	b.dora()
	id, _ := b.script(t)
	for _, isid := range []string{ipxeID, osID} {
		b.target(7, store.EventISCSILogin, session(isid))
		b.target(7, store.EventISCSIFirstRead, session(isid))
	}
	return id
}

func (b *bench) want(t *testing.T, id store.AttemptID, outcome store.Outcome, stage store.StageName, titles ...string) store.Attempt {
	t.Helper()
	a, err := b.Attempt(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range a.Diagnoses {
		got = append(got, d.Title)
	}
	if a.Outcome != outcome || a.Stage != stage || !slices.Equal(got, titles) {
		t.Errorf("attempt %d is %s at %s: %q\nwant %s at %s: %q", id, a.Outcome, a.Stage, got, outcome, stage, titles)
	}
	return a
}

func TestABootIsFollowedToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		id := b.boot(t)
		a := b.want(t, id, store.OutcomeUp, store.StageUp)
		if a.Name != "lab-12" || a.Machine != 7 || a.MAC != theMAC || a.Address != "10.77.0.50" {
			t.Errorf("%+v", a)
		}
		if got, ok := b.Latest(7, store.MAC{}); !ok || got.ID != id {
			t.Error("the machine's latest attempt is another one")
		}
		if got, ok := b.Latest(0, theMAC); !ok || got.ID != id {
			t.Error("the MAC's latest attempt is another one")
		}
		all, n, err := b.Attempts(t.Context(), store.AttemptFilter{Machine: 7})
		if err != nil || n != 1 || all[0].Outcome != store.OutcomeUp {
			t.Errorf("%+v, %d, %v", all, n, err)
		}
	})
}

func TestTheFoundingFailureIsExplainedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		b.dora()
		id, key := b.script(t)
		b.target(7, store.EventISCSILogin, session(ipxeID))
		zero := 0
		b.target(7, store.EventISCSINoLUN, store.Detail{ISID: ipxeID, LUN: &zero, Mapped: []int{2}, Sense: "05/25/00"})
		if !b.Check(id, key) {
			t.Error("the report is not taken for genuine")
		}
		b.tape.Emit(store.Event{Kind: store.EventReport, Addr: theAddr, Attempt: id, Detail: store.Detail{Step: "sanboot", Code: "1d704539"}})
		// No time passes: the machine waits for the words with a black screen.
		b.want(t, id, store.OutcomeFailed, store.StageRead, "lab-12 asked for LUN 0, but its volume “win11” is LUN 2")
	})
}

func TestTheEndOfABootIsToldOnceAlsoAcrossARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.boot(t)
		time.Sleep(time.Minute)
		b.dora()
		_, _ = b.script(t)
		b.target(7, store.EventISCSILogin, session(ipxeID))
		zero := 0
		b.target(7, store.EventISCSINoLUN, store.Detail{ISID: ipxeID, LUN: &zero, Mapped: []int{2}, Sense: "05/25/00"})
		time.Sleep(5 * time.Minute) // silence
		b.stop()
		b.start()
		defer func() { b.stop() }()
		time.Sleep(5 * time.Minute)
		b.boot(t)
		time.Sleep(time.Minute)
		want := []string{"1 up 0", "2 failed 1", "3 up 0"}
		b.cache.mu.Lock()
		defer b.cache.mu.Unlock()
		if !slices.Equal(b.told, want) {
			t.Errorf("told %q, want %q", b.told, want)
		}
	})
}

func TestSilenceIsNoticedWithoutAnyEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		b.dora()
		id, _ := b.script(t)
		version := b.Version()
		time.Sleep(29 * time.Second)
		b.want(t, id, store.OutcomeRunning, store.StageScript)
		changed := b.Changed(b.Version())
		time.Sleep(2 * time.Second)
		select {
		case <-changed:
		default:
			t.Error("nobody who watches was told")
		}
		b.want(t, id, store.OutcomeFailed, store.StageLogin, "lab-12 never tried to reach its volume “win11”")
		if b.Version() <= version {
			t.Error("the version stands still")
		}
		// And a late packet turns it back, and takes the words away.
		b.target(7, store.EventISCSILogin, session(ipxeID))
		b.target(7, store.EventISCSIFirstRead, session(ipxeID))
		b.want(t, id, store.OutcomeRunning, store.StageRead)
	})
}

func TestAScriptAskedForAgainIsTheSameAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		b.dora()
		id, key := b.script(t)
		time.Sleep(3 * time.Second)
		if again, same := b.script(t); again != id || same != key {
			t.Errorf("attempt %d became %d", id, again)
		}
		b.target(7, store.EventISCSILogin, session(ipxeID))
		next, other := b.script(t)
		if next == id || other == key {
			t.Error("a script after a login belongs to the boot before")
		}
		if b.Check(id, other) || b.Check(next, key) || b.Check(next, "") || b.Check(0, "") || b.Check(99, "x") {
			t.Error("a wrong key is taken")
		}
		time.Sleep(time.Minute)
		if !b.Check(id, key) {
			t.Error("the key of an attempt that is only kept is forgotten")
		}
	})
}

func TestAnUnknownMachineThatIsEnrolledKeepsItsAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		mac := store.MAC{0x52, 0x54, 0, 0x77, 0, 0x0b}
		see := func(kind store.EventKind, machine store.MachineID) {
			b.tape.Emit(store.Event{Kind: kind, MAC: mac, Machine: machine, Addr: netip.MustParseAddr("10.77.0.51"), Detail: ipxe})
		}
		see(store.EventDHCPDiscover, 0)
		see(store.EventDHCPAck, 0)
		see(store.EventScriptWaiting, 0)
		time.Sleep(time.Second)
		a, ok := b.Latest(0, mac)
		if !ok || len(a.Diagnoses) != 1 || a.Diagnoses[0].Title != "52:54:00:77:00:0b is waiting to be enrolled" {
			t.Fatalf("%+v", a)
		}
		b.inv.enroll(8, "lab-13", mac)
		b.tape.Emit(store.Event{Kind: store.EventMachineChanged, MAC: mac, Machine: 8})
		id, _, err := b.Begin(t.Context(), mac, 8)
		if err != nil || id != a.ID {
			t.Errorf("the attempt %d became %d, %v", a.ID, id, err)
		}
		b.tape.Emit(store.Event{Kind: store.EventScriptSent, MAC: mac, Machine: 8, Attempt: id, Detail: store.Detail{Profile: "san"}})
		if got := b.want(t, id, store.OutcomeRunning, store.StageScript); got.Name != "lab-13" || got.Machine != 8 {
			t.Errorf("%+v", got)
		}
		if got, ok := b.Latest(8, store.MAC{}); !ok || got.ID != id {
			t.Error("the machine does not have the attempt of its MAC")
		}
		if len(b.current) != 1 || b.unknown != 0 {
			t.Errorf("%d attempts are followed, %d of unknown machines", len(b.current), b.unknown)
		}
	})
}

// Whoever was enrolled too late is told that, and is offered nothing that was done.
func TestAMachineThatIsEnrolledAfterItStoppedAskingHasNotFailed(t *testing.T) {
	for name, late := range map[string]bool{"while it waited": false, "after it had stopped": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench()
				defer b.stop()
				mac := store.MAC{0x52, 0x54, 0, 0x77, 0, 0x0b}
				for _, kind := range []store.EventKind{store.EventDHCPDiscover, store.EventDHCPAck, store.EventScriptWaiting} {
					b.tape.Emit(store.Event{Kind: kind, MAC: mac, Addr: netip.MustParseAddr("10.77.0.51"), Detail: ipxe})
				}
				time.Sleep(time.Second)
				a, _ := b.Latest(0, mac)
				if late {
					time.Sleep(2 * time.Minute)
					b.want(t, a.ID, store.OutcomeNotEnrolled, store.StageScript, "52:54:00:77:00:0b was not enrolled, and stopped waiting")
				}
				b.inv.enroll(8, "lab-13", mac)
				b.tape.Emit(store.Event{Kind: store.EventMachineChanged, MAC: mac, Machine: 8})
				time.Sleep(2 * time.Minute)
				got := b.want(t, a.ID, store.OutcomeNotEnrolled, store.StageScript, "lab-13 stopped waiting before it was enrolled")
				for _, f := range got.Diagnoses[0].Fixes {
					if f.Action != "" {
						t.Errorf("it offers %q", f.Label)
					}
				}
				latest, ok := b.Latest(8, store.MAC{})
				if state := store.BootStateOf(latest, ok); latest.ID != a.ID || state != store.BootNever {
					t.Errorf("the machine is %s", state)
				}
				if _, _, err := b.Attempts(t.Context(), store.AttemptFilter{}); err != nil {
					t.Fatal(err)
				}
				b.cache.mu.Lock()
				defer b.cache.mu.Unlock()
				if want := []string{fmt.Sprint(a.ID, " not-enrolled 1")}; !slices.Equal(b.told, want) {
					t.Errorf("told of %v", b.told)
				}
			})
		})
	}
}

// The loader's transfer names no MAC when firmware asks for the bare file, and
// the target knows an unknown initiator only by its address.
func TestEventsWithoutANameAreSortedByAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		b.dora()
		b.tape.Emit(store.Event{Kind: store.EventTFTPStart, Addr: theAddr, Detail: store.Detail{File: "undionly.kpxe"}})
		id, _ := b.script(t)
		b.tape.Emit(store.Event{Kind: store.EventISCSIRefused, Addr: theAddr, Detail: store.Detail{ISID: ipxeID, Status: "0202", Initiator: "iqn.2010-04.org.ipxe:lab-12", Reason: "no machine has that name"}})
		a := b.want(t, id, store.OutcomeFailed, store.StageLogin, "lab-12 used an iSCSI name that no machine has here")
		if a.Stages[2].At.IsZero() {
			t.Error("the loader's transfer is missing")
		}
	})
}

func TestAForeignIPXEIsExplainedByItsAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		b.tape.Emit(store.Event{Kind: store.EventISCSIRefused, Addr: netip.MustParseAddr("10.77.0.99"), Detail: store.Detail{ISID: ipxeID, Status: "0202", Reason: "no machine has that name"}})
		b.tape.Emit(store.Event{Kind: store.EventISCSIRefused, Addr: netip.MustParseAddr("10.77.0.98"), Detail: store.Detail{ISID: osID, Status: "0202"}})
		all, n, _ := b.Attempts(t.Context(), store.AttemptFilter{})
		if n != 1 || len(all[0].Diagnoses) != 1 {
			t.Fatalf("%+v", all)
		}
		next, err := b.EveryAttempt(t.Context(), store.AttemptFilter{})
		if err != nil {
			t.Fatal(err)
		}
		if part, err := next(t.Context()); len(part) != 1 || !reflect.DeepEqual(part[0], all[0]) || err != nil {
			t.Errorf("in parts they are %+v, %v", part, err)
		}
	})
}

func TestUnknownMachinesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		b.dora()
		for i := range maxUnknown + 100 {
			mac := store.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}
			b.tape.Emit(store.Event{Kind: store.EventDHCPDiscover, At: time.Now().Add(time.Duration(i) * time.Millisecond), MAC: mac, Detail: ipxe})
		}
		time.Sleep(time.Second)
		b.mu.Lock()
		followed, unknown, held := len(b.current), b.unknown, len(b.byID)
		b.mu.Unlock()
		if unknown != maxUnknown || followed != maxUnknown+1 || held > maxUnknown+1 {
			t.Errorf("%d are followed, %d of them unknown, %d held", followed, unknown, held)
		}
		if _, ok := b.Latest(0, store.MAC{2}); ok {
			t.Error("the oldest is still there")
		}
		if _, ok := b.Latest(7, store.MAC{}); !ok {
			t.Error("the enrolled machine went instead")
		}
	})
}

func TestABootThatIsReadAllDayKeepsMemoryBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		id := b.boot(t)
		b.want(t, id, store.OutcomeUp, store.StageUp)
		for i := range 5000 {
			d := session(osID)
			d.Bytes = int64(i) << 20
			b.target(7, store.EventISCSIIO, d)
			if i%3 == 0 {
				b.target(7, store.EventISCSIIOFailed, session(osID))
			}
		}
		a := b.want(t, id, store.OutcomeUp, store.StageUp, "lab-12 could not read “win11”, because its storage failed")
		if !strings.Contains(a.Stages[5].Detail, "5.2 GB read so far") {
			t.Errorf("%q", a.Stages[5].Detail)
		}
		b.mu.Lock()
		n := len(b.byID[id].events)
		b.mu.Unlock()
		if n > maxEvents {
			t.Errorf("%d events are held", n)
		}
	})
}

func TestTheCacheIsNotWrittenForEverySample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		b.boot(t)
		time.Sleep(20 * time.Second)
		b.cache.mu.Lock()
		before := b.cache.puts
		b.cache.mu.Unlock()
		for i := range 60 {
			d := session(osID)
			d.Bytes = int64(i) << 20
			b.target(7, store.EventISCSIIO, d)
			time.Sleep(time.Second)
		}
		b.cache.mu.Lock()
		defer b.cache.mu.Unlock()
		if n := b.cache.puts - before; n > 8 || n < 5 {
			t.Errorf("a minute of samples made %d writes", n)
		}
	})
}

func TestARestartGoesOnWhereItWas(t *testing.T) {
	for _, how := range []string{"stop", "kill"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench()
				first := b.boot(t)
				time.Sleep(time.Minute)
				b.dora()
				id, key := b.script(t)
				b.target(7, store.EventISCSILogin, session(ipxeID))
				b.want(t, id, store.OutcomeRunning, store.StageLogin)
				if how == "stop" {
					b.stop()
				} else {
					b.kill()
				}
				time.Sleep(10 * time.Minute) // nobody listens
				b.start()
				defer b.stop()
				time.Sleep(time.Second)
				b.want(t, first, store.OutcomeUp, store.StageUp)
				a := b.want(t, id, store.OutcomeRunning, store.StageLogin)
				if a.Name != "lab-12" || a.Stages[4].Detail != "Logged in with mutual CHAP" {
					t.Errorf("%+v", a)
				}
				if !b.Check(id, key) {
					t.Error("the key is lost")
				}
				// The silence while nobody listened does not count.
				time.Sleep(18 * time.Second)
				b.want(t, id, store.OutcomeRunning, store.StageLogin)
				b.target(7, store.EventISCSIFirstRead, session(ipxeID))
				b.target(7, store.EventISCSILogin, session(osID))
				b.target(7, store.EventISCSIFirstRead, session(osID))
				b.want(t, id, store.OutcomeUp, store.StageUp)
				if _, n, _ := b.Attempts(t.Context(), store.AttemptFilter{}); n != 2 {
					t.Errorf("%d attempts after the restart", n)
				}
				b.dora()
				if next, _ := b.script(t); next != id+1 {
					t.Errorf("the next attempt has number %d after %d", next, id)
				}
			})
		})
	}
}

// What the journal holds gives the same attempts, however often it is read.
func TestManyRestartsChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.boot(t)
		time.Sleep(time.Minute)
		b.dora()
		b.script(t)
		time.Sleep(40 * time.Second)
		before, n, _ := b.Attempts(t.Context(), store.AttemptFilter{})
		for range 3 {
			b.stop()
			b.start()
			time.Sleep(time.Second)
		}
		defer b.stop()
		after, m, _ := b.Attempts(t.Context(), store.AttemptFilter{})
		if n != 2 || m != 2 {
			t.Fatalf("%d attempts became %d", n, m)
		}
		for i := range before {
			if before[i].ID != after[i].ID || before[i].Outcome != after[i].Outcome || len(before[i].Diagnoses) != len(after[i].Diagnoses) || before[i].FirstSeq != after[i].FirstSeq {
				t.Errorf("%+v\nbecame\n%+v", before[i], after[i])
			}
		}
	})
}

func TestACacheThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		b.cache.mu.Lock()
		b.cache.fail = errors.New("disk full")
		b.cache.mu.Unlock()
		id := b.boot(t)
		time.Sleep(5 * time.Second)
		if got, ok := b.Latest(7, store.MAC{}); !ok || got.Outcome != store.OutcomeUp {
			t.Error("the attempt is lost while the cache is broken")
		}
		b.cache.mu.Lock()
		b.cache.fail = nil
		b.cache.mu.Unlock()
		time.Sleep(2 * time.Second)
		if a, err := b.cache.Attempt(t.Context(), id); err != nil || a.Outcome != store.OutcomeUp {
			t.Errorf("%+v, %v", a, err)
		}
	})
}

// On a full disk nothing is kept, and everything is seen.
func TestBootsAreListedWhileTheyCannotBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		fail := func(err error) {
			b.cache.mu.Lock()
			defer b.cache.mu.Unlock()
			b.cache.fail = err
		}
		list := func(f store.AttemptFilter) string {
			t.Helper()
			all, total, err := b.Attempts(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			out := ""
			for _, a := range all {
				out += fmt.Sprint(a.ID, " ", a.Outcome, " ")
			}
			return out + fmt.Sprint("of ", total)
		}
		want := func(want string, f store.AttemptFilter) {
			t.Helper()
			if got := list(f); got != want {
				t.Errorf("%+v lists %q, want %q", f, got, want)
			}
		}
		b.boot(t)
		time.Sleep(time.Hour)
		b.boot(t)
		time.Sleep(time.Minute)
		want("2 up 1 up of 2", store.AttemptFilter{})
		fail(errors.New("disk full"))
		// What the cache has goes on as well.
		b.inv.enroll(8, "lab-13", store.MAC{0x52, 0x54, 0, 0x77, 0, 0x0b})
		b.tape.Emit(store.Event{Kind: store.EventMachinePower, Machine: 8, Detail: store.Detail{Step: string(store.PowerWake)}})
		b.boot(t)
		time.Sleep(time.Minute)
		want("4 up 3 running 2 up 1 up of 4", store.AttemptFilter{})
		time.Sleep(10 * time.Minute)
		want("4 up 3 failed 2 up 1 up of 4", store.AttemptFilter{})
		want("4 up 3 failed 2 up of 4", store.AttemptFilter{Page: store.Page{Limit: 3}})
		want("4 up of 4", store.AttemptFilter{Page: store.Page{Limit: 1}})
		want("3 failed 2 up of 4", store.AttemptFilter{Page: store.Page{Limit: 2, Offset: 1}})
		want("1 up of 4", store.AttemptFilter{Page: store.Page{Limit: 2, Offset: 3}})
		want("of 4", store.AttemptFilter{Page: store.Page{Limit: 2, Offset: 9}})
		want("3 failed of 1", store.AttemptFilter{Machine: 8})
		next, err := b.EveryAttempt(t.Context(), store.AttemptFilter{})
		var ids []store.AttemptID
		for part := []store.Attempt{{}}; err == nil && len(part) > 0; {
			if part, err = next(t.Context()); err == nil {
				for _, a := range part {
					ids = append(ids, a.ID)
				}
			}
		}
		if err != nil || !slices.Equal(ids, []store.AttemptID{4, 3, 2, 1}) {
			t.Errorf("all of them are %v, %v", ids, err)
		}
		fail(nil)
		time.Sleep(5 * time.Second)
		want("4 up 3 failed 2 up 1 up of 4", store.AttemptFilter{})
		if n := len(b.cache.rows); n != 4 {
			t.Errorf("the cache has %d", n)
		}
	})
}

func TestBeginNeedsAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		if _, _, err := b.Begin(t.Context(), store.MAC{}, 0); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%v", err)
		}
	})
}

func TestAnAttemptWhoseScriptNeverLeftIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		if _, _, err := b.Begin(t.Context(), theMAC, 7); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Minute)
		if _, n, _ := b.Attempts(t.Context(), store.AttemptFilter{}); n != 0 {
			t.Errorf("%d attempts", n)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.byID) != 0 {
			t.Error("it is still held")
		}
	})
}

func TestASlowMachineIsGivenMoreTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		for range 3 {
			b.dora()
			b.script(t)
			time.Sleep(20 * time.Second) // usually, from its script to its login
			for _, isid := range []string{ipxeID, osID} {
				b.target(7, store.EventISCSILogin, session(isid))
				b.target(7, store.EventISCSIFirstRead, session(isid))
			}
			time.Sleep(time.Minute)
		}
		b.dora()
		id, _ := b.script(t)
		time.Sleep(55 * time.Second)
		b.want(t, id, store.OutcomeRunning, store.StageScript)
		time.Sleep(10 * time.Second)
		b.want(t, id, store.OutcomeFailed, store.StageLogin, "lab-12 never tried to reach its volume “win11”")
		a, err := b.Attempt(t.Context(), id)
		if err != nil || a.UsualMillis < 20000 || a.UsualMillis > 25000 {
			t.Errorf("its boots usually take %d ms, %v", a.UsualMillis, err)
		}
		if e := strings.Join(a.Diagnoses[0].Evidence, "\n"); !strings.Contains(e, "where it usually takes 20 s") {
			t.Errorf("the evidence does not say what is usual:\n%s", e)
		}
	})
}

func TestManyMachinesAtOnce(t *testing.T) {
	b := newBench()
	defer b.stop()
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			mac := store.MAC{2, 1, 0, 0, 0, byte(n)}
			b.inv.enroll(store.MachineID(100+n), fmt.Sprintf("lab-%d", 100+n), mac)
			for range 5 {
				b.tape.Emit(store.Event{Kind: store.EventDHCPDiscover, MAC: mac, Machine: store.MachineID(100 + n), Detail: ipxe})
				id, _, err := b.Begin(context.Background(), mac, store.MachineID(100+n))
				if err != nil {
					t.Error(err)
					return
				}
				b.tape.Emit(store.Event{Kind: store.EventScriptSent, MAC: mac, Machine: store.MachineID(100 + n), Attempt: id, Detail: store.Detail{Profile: "san"}})
				if a, err := b.Attempt(context.Background(), id); err != nil || a.Stage != store.StageScript {
					t.Errorf("%+v, %v", a, err)
				}
				_, _ = b.Latest(store.MachineID(100+n), mac)
				_, _, _ = b.Attempts(context.Background(), store.AttemptFilter{Machine: store.MachineID(100 + n)})
			}
		})
	}
	wg.Wait()
	if _, n, _ := b.Attempts(context.Background(), store.AttemptFilter{}); n != 100 {
		t.Errorf("%d attempts", n)
	}
}

func TestMACsThatAreNearlyAlike(t *testing.T) {
	of := func(s string) store.MAC {
		m, err := store.ParseMAC(s)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for other, want := range map[string]bool{
		"52:54:00:77:00:0a": false, // the same
		"52:54:00:77:00:0b": true,
		"5a:54:00:77:00:0a": true,
		"52:45:00:77:00:0a": true, // two changed places
		"52:54:00:77:00:a0": true,
		"52:54:00:77:00:bb": false,
		"52:54:00:78:00:0b": false,
		"02:54:00:77:50:0a": false,
	} {
		if mistyped(of("52:54:00:77:00:0a"), of(other)) != want {
			t.Errorf("%s: want %v", other, want)
		}
	}
}

// A system that runs and is kept out when it logs in again is said, though its boot
// went well: whoever looks at the machine wants to know. So it is after a restart,
// and when the machine was removed.
func TestARunningSystemThatIsKeptOutIsExplained(t *testing.T) {
	const title = "lab-12 ran, and was refused its volume when it logged in again"
	refused := store.Detail{ISID: osID, Status: "0202", Initiator: "iqn.2026-11.lunboot:old", Reason: "no machine has the initiator name iqn.2026-11.lunboot:old"}
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer func() { b.stop() }()
		id := b.boot(t)
		b.want(t, id, store.OutcomeUp, store.StageUp)
		b.target(0, store.EventISCSIRefused, refused)
		b.want(t, id, store.OutcomeUp, store.StageUp, title)
		b.target(7, store.EventISCSILogin, session(osID))
		b.want(t, id, store.OutcomeUp, store.StageUp)
		b.kill()
		b.start()
		b.target(0, store.EventISCSIRefused, refused)
		b.want(t, id, store.OutcomeUp, store.StageUp, title)
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer b.stop()
		id := b.boot(t)
		b.want(t, id, store.OutcomeUp, store.StageUp)
		b.inv.mu.Lock()
		delete(b.inv.machines, 7)
		b.inv.mu.Unlock()
		b.tape.Emit(store.Event{Kind: store.EventMachineChanged, MAC: theMAC, Machine: 7, Detail: store.Detail{Hostname: "lab-12", Cause: store.CauseRemoved}})
		b.see(store.EventReportUp, store.Detail{}) // under its MAC, which is nobody's
		b.target(0, store.EventISCSIRefused, refused)
		b.want(t, id, store.OutcomeUp, store.StageUp, title)
	})
}

// A machine that runs from its volume and does not come back is "up" no more, also
// when the appliance was started anew meanwhile.
func TestASystemThatDoesNotComeBackIsNoticedWithoutAnyEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.stop()
		b.own = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("10.77.0.9")} }
		b.start()
		defer func() { b.stop() }()
		state := func(want store.BootState) {
			t.Helper()
			synctest.Wait()
			a, ok := b.Latest(7, store.MAC{})
			if got := store.BootStateOf(a, ok); got != want {
				t.Errorf("it is %s, want %s: %+v", got, want, a.Stages)
			}
		}
		os := session(osID)
		os.Mapped = []int{2}
		b.dora()
		id, _ := b.script(t)
		b.target(7, store.EventISCSILogin, session(ipxeID))
		b.target(7, store.EventISCSIFirstRead, session(ipxeID))
		b.target(7, store.EventISCSILogin, os)
		b.target(7, store.EventISCSIFirstRead, os)
		b.want(t, id, store.OutcomeUp, store.StageUp)
		time.Sleep(10 * time.Hour)
		state(store.BootUp)
		b.target(7, store.EventISCSIClosed, os)
		time.Sleep(4 * time.Minute)
		state(store.BootUp)
		time.Sleep(2 * time.Minute)
		state(store.BootLost)
		const title = "lab-12 ran from its volume at 10.77.0.1, which is not the appliance’s address any more"
		b.want(t, id, store.OutcomeUp, store.StageUp, title)
		b.target(7, store.EventISCSILogin, os)
		b.want(t, id, store.OutcomeUp, store.StageUp)
		state(store.BootUp)
		// The appliance is killed, and with it every session.
		time.Sleep(time.Minute)
		b.kill()
		time.Sleep(time.Hour)
		b.start()
		time.Sleep(4 * time.Minute)
		state(store.BootUp)
		time.Sleep(2 * time.Minute)
		state(store.BootLost)
	})
}

func TestAMachineThatIsWokenAndNotHeardIsExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer func() { b.stop() }()
		b.tape.Emit(store.Event{Kind: store.EventMachinePower, MAC: theMAC, Machine: 7, Detail: store.Detail{Step: string(store.PowerWake), Reason: "magic packets were sent on eth0"}})
		time.Sleep(4 * time.Minute)
		a, ok := b.Latest(7, theMAC)
		if !ok || a.Outcome != store.OutcomeRunning {
			t.Fatalf("%+v", a)
		}
		time.Sleep(2 * time.Minute)
		b.want(t, a.ID, store.OutcomeFailed, store.StageAsk, "lab-12 was sent a magic packet, and nothing was heard of it")
		// What it says after all is of the same boot, and that boot is as good as any.
		if id := b.boot(t); id != a.ID {
			t.Errorf("its boot is attempt %d, want %d", id, a.ID)
		}
		b.want(t, a.ID, store.OutcomeUp, store.StageUp)
	})
}

// A boot from the machine's own disk ends in silence, also across a restart that came
// meanwhile: whoever waits for ends is told, and whose boot it was.
func TestASilentBootOfTheOwnDiskIsToldAsAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		defer func() { b.stop() }()
		b.dora()
		id, key, err := b.Begin(t.Context(), theMAC, 7)
		if err != nil {
			t.Fatal(err)
		}
		b.tape.Emit(store.Event{Kind: store.EventScriptSent, MAC: theMAC, Addr: theAddr, Machine: 7, Attempt: id,
			Detail: store.Detail{Profile: "local", Key: key, Owned: true, Script: "#!ipxe\nexit\n"}})
		time.Sleep(time.Minute)
		b.stop()
		b.start()
		time.Sleep(5 * time.Minute)
		b.cache.mu.Lock()
		defer b.cache.mu.Unlock()
		if want := []string{fmt.Sprint(id, " up-unconfirmed 1")}; !slices.Equal(b.told, want) || !b.cache.rows[id].Owned {
			t.Errorf("told %q, want %q; kept is %+v", b.told, want, b.cache.rows[id])
		}
	})
}
