package power

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lunboot/services/power/fault"
	"lunboot/store"
)

func TestAnOrderFitsTheMachineThatItIsFor(t *testing.T) {
	const on, off = store.PowerStateOn, store.PowerStateOff
	for _, c := range []struct {
		act  store.PowerAct
		is   store.PowerState
		want store.PowerAct
	}{
		{store.PowerOn, off, store.PowerOn}, {store.PowerOn, on, ""}, {store.PowerOn, store.PowerUnknown, store.PowerOn},
		{store.PowerOff, on, store.PowerOff}, {store.PowerOff, off, ""}, {store.PowerShutdown, off, ""},
		{store.PowerCycle, on, store.PowerCycle}, {store.PowerCycle, off, store.PowerOn}, {store.PowerReset, on, store.PowerReset},
	} {
		if got, err := fitting(store.Machine{Name: "lab-01"}, c.act, c.is); got != c.want || err != nil {
			t.Errorf("%s of one that is %q comes to %q, %v; want %q", c.act, c.is, got, err, c.want)
		}
	}
	if _, err := fitting(store.Machine{Name: "lab-01"}, store.PowerReset, off); store.KindOf(err) != store.KindConflict {
		t.Errorf("a reset of a machine that is off: %v", err)
	}
}

func TestAMachineWithoutABMCIsTold(t *testing.T) {
	c := NewController(slog.New(slog.DiscardHandler))
	_, err := c.State(t.Context(), store.Machine{Name: "lab-01"})
	if store.KindOf(err) != store.KindConflict || !strings.Contains(err.Error(), "--bmc redfish://") {
		t.Error(err)
	}
}

// One order at a time: two that cross would leave a machine as neither meant it.
func TestAMachineHasOneOrderAtATime(t *testing.T) {
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c := NewController(slog.New(slog.DiscardHandler))
	m := store.Machine{ID: 7, Name: "lab-01", BMC: store.BMC{Protocol: store.BMCIPMI, Address: silent.LocalAddr().String(), User: "ana", Secret: "x"}}
	never := func(context.Context) error { return errors.New("it was ready") }
	first := make(chan error, 1)
	go func() {
		_, err := c.Order(context.Background(), m, store.PowerOrder{Act: store.PowerOn}, never)
		first <- err
	}()
	if _, _, err := silent.ReadFrom(make([]byte, 64)); err != nil { // the first speaks to its BMC
		t.Fatal(err)
	}
	if _, err := c.Order(t.Context(), m, store.PowerOrder{Act: store.PowerOff}, never); store.KindOf(err) != store.KindConflict {
		t.Errorf("a second order: %v", err)
	}
	silent.Close()
	if err := <-first; store.KindOf(err) != store.KindUnavailable {
		t.Errorf("the first: %v", err)
	}
	if _, err := c.Order(t.Context(), m, store.PowerOrder{Act: store.PowerOff}, never); store.KindOf(err) == store.KindConflict {
		t.Errorf("one after it: %v", err)
	}
}

// fake is a BMC as a test wants it.
type fake struct {
	state func() (store.PowerState, error)
	arm   func() error
	do    func(store.PowerAct) error
}

func (f fake) State() (store.PowerState, error)                { return f.state() }
func (f fake) BootNetworkOnce() error                          { return f.arm() }
func (f fake) Do(act store.PowerAct, _ store.PowerState) error { return f.do(act) }
func (f fake) Close()                                          {}
func says(s store.PowerState) func() (store.PowerState, error) {
	return func() (store.PowerState, error) { return s, nil }
}
func bad(why fault.Why) error                                                    { return fault.New(why, nil, "it fails") }
func ready(context.Context) error                                                { return nil }
func (f fake) open(context.Context, store.Machine, *slog.Logger) (driver, error) { return f, nil }

// lab makes a Controller whose machines have this BMC.
func lab(f fake) (*Controller, store.Machine) {
	c := NewController(slog.New(slog.DiscardHandler))
	c.open = f.open
	return c, store.Machine{ID: 7, Name: "lab-01", BMC: store.BMC{Protocol: store.BMCIPMI, Address: "bmc", User: "ana", Secret: "x"}}
}

func TestAnOrderTellsWhatWasCarriedOut(t *testing.T) {
	const on, off = store.PowerStateOn, store.PowerStateOff
	for _, c := range []struct {
		order store.PowerAct
		is    store.PowerState
		want  store.PowerAct
	}{{store.PowerOff, on, store.PowerOff}, {store.PowerOff, off, ""}, {store.PowerOn, on, ""}, {store.PowerCycle, off, store.PowerOn}, {store.PowerShutdown, off, ""}} {
		var did []store.PowerAct
		ctl, m := lab(fake{state: says(c.is), do: func(a store.PowerAct) error { did = append(did, a); return nil }})
		out, err := ctl.Order(t.Context(), m, store.PowerOrder{Act: c.order}, ready)
		if err != nil || out.Act != c.want || out.State != c.is || len(did) > 1 || (len(did) == 1) != (c.want != "") || len(did) == 1 && did[0] != c.want {
			t.Errorf("%s of one that is %s: %+v (%v), and its BMC was told %v", c.order, c.is, out, err, did)
		}
	}
}

func TestAnOrderThatFailsTellsWhatItLeavesBehind(t *testing.T) {
	const still, may = "its next boot is still one from the network", "its next boot may be one from the network"
	for name, c := range map[string]struct {
		arm, ready, do error
		says           string // of the next boot
		maybe          bool
	}{
		"the BMC cannot choose the next boot": {arm: bad(fault.Unable)},
		"it says yes, and does not show it":   {arm: bad(fault.Ignored), says: may},
		"it falls silent over it":             {arm: bad(fault.Silent), says: may},
		"the profile is not taken":            {ready: store.Invalid("once_profile", "there is none"), says: still},
		"the act is refused":                  {do: bad(fault.Rights), says: still},
		"its certificate is another by then":  {do: &store.UntrustedBMC{Machine: "lab-01"}, says: still},
		"it falls silent over the act":        {do: bad(fault.Silent), says: still, maybe: true},
		"it does half of the act":             {do: fault.New(fault.Half, bad(fault.Busy), "half"), says: still, maybe: true},
		"it fails in a way of its own":        {do: errors.New("a fault"), says: still, maybe: true},
	} {
		for _, network := range []bool{true, false} {
			if !network && c.arm != nil {
				continue
			}
			ctl, m := lab(fake{state: says(store.PowerStateOn), arm: func() error { return c.arm }, do: func(store.PowerAct) error { return c.do }})
			out, err := ctl.Order(t.Context(), m, store.PowerOrder{Act: store.PowerCycle, Network: network}, func(context.Context) error { return c.ready })
			if err == nil || out.Act != "" || out.Maybe != c.maybe || c.ready != nil && !errors.Is(err, c.ready) {
				t.Errorf("%s: %+v, %v", name, out, err)
			}
			want := c.says
			if !network {
				want = ""
			}
			if want == "" && strings.Contains(err.Error(), "next boot") || !strings.Contains(err.Error(), want) || store.KindOf(err) == store.KindInternal {
				t.Errorf("%s, of a boot from the network %v: it says %v", name, network, err)
			}
		}
	}
}

// Between the BMC that is armed and the profile that goes with it nobody hangs up.
func TestAnOrderDoesNotEndWithWhoGaveIt(t *testing.T) {
	ctx, hangUp := context.WithCancel(t.Context())
	did := false
	ctl, m := lab(fake{state: says(store.PowerStateOff), arm: func() error { hangUp(); return nil }, do: func(store.PowerAct) error { did = true; return nil }})
	_, err := ctl.Order(ctx, m, store.PowerOrder{Act: store.PowerOn, Network: true}, func(ctx context.Context) error {
		if _, ends := ctx.Deadline(); !ends {
			t.Error("its context has no end")
		}
		return ctx.Err()
	})
	if err != nil || !did {
		t.Errorf("done %v: %v", did, err)
	}
}

func TestABMCIsAskedOnceForAllWhoAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logins atomic.Int32
		ctl, m := lab(fake{state: says(store.PowerStateOn), do: func(store.PowerAct) error { return nil }})
		ctl.open = func(_ context.Context, m store.Machine, _ *slog.Logger) (driver, error) {
			logins.Add(1)
			time.Sleep(time.Second)
			if m.BMC.Secret == "x" {
				return nil, bad(fault.Password)
			}
			return fake{state: says(store.PowerStateOff)}, nil
		}
		look := func(m store.Machine, want fault.Why, ever int32) {
			t.Helper()
			if is, err := ctl.State(t.Context(), m); fault.Of(err) != want || (is == store.PowerStateOff) != (want == "") || logins.Load() != ever {
				t.Errorf("it is %q (%v) after %d logins, want %q after %d", is, err, logins.Load(), want, ever)
			}
		}
		var all sync.WaitGroup
		for range 32 {
			all.Go(func() { look(m, fault.Password, 1) })
		}
		all.Wait()
		look(m, fault.Password, 1)
		other := m
		other.ID++
		look(other, fault.Password, 2)
		mended := m
		mended.BMC.Secret = "y" // who corrects the password does not get the old answer
		look(mended, "", 3)
		look(mended, "", 3)
		// An order makes what was seen before it old.
		if _, err := ctl.Order(t.Context(), mended, store.PowerOrder{Act: store.PowerOff}, ready); err != nil {
			t.Error(err)
		}
		look(mended, "", 5)
		time.Sleep(freshTime)
		look(mended, "", 6)
		if len(ctl.looks) != 1 {
			t.Errorf("%d answers are kept", len(ctl.looks))
		}
	})
}

func TestWhoHangsUpLeavesTheQuestionToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logins atomic.Int32
		ctl, m := lab(fake{})
		ctl.open = func(ctx context.Context, _ store.Machine, _ *slog.Logger) (driver, error) {
			logins.Add(1)
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Second):
				return fake{state: says(store.PowerStateOn)}, nil
			}
		}
		ctx, hangUp := context.WithCancel(t.Context())
		var all sync.WaitGroup
		ask := func(ctx context.Context, want store.PowerState) {
			all.Go(func() {
				if is, err := ctl.State(ctx, m); is != want || (err == nil) != (want == store.PowerStateOn) {
					t.Errorf("it is %q (%v), want %q", is, err, want)
				}
			})
			synctest.Wait()
		}
		ask(ctx, store.PowerUnknown)
		ask(ctx, store.PowerUnknown) // waits, and hangs up too
		for range 5 {
			ask(t.Context(), store.PowerStateOn)
		}
		hangUp()
		all.Wait()
		if logins.Load() != 2 {
			t.Errorf("%d logins", logins.Load())
		}
	})
}

func TestLooksAreNotInTheWayOfOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctl, m := lab(fake{})
		ctl.open = func(ctx context.Context, m store.Machine, _ *slog.Logger) (driver, error) {
			if m.ID >= 100 { // that of one who is looked at says nothing
				<-ctx.Done()
				return nil, fault.Network(ctx.Err(), "bmc", "UDP 623")
			}
			return fake{state: says(store.PowerStateOff), do: func(store.PowerAct) error { return nil }}, nil
		}
		var all sync.WaitGroup
		var full atomic.Int32
		for i := range 3 * maxOrders {
			all.Go(func() {
				m := m
				m.ID = store.MachineID(100 + i)
				_, err := ctl.State(t.Context(), m)
				if store.KindOf(err) != store.KindUnavailable {
					t.Error(err)
				}
				if strings.Contains(err.Error(), "8 BMCs are being spoken to already") {
					full.Add(1)
				}
			})
		}
		synctest.Wait()
		start := time.Now()
		if out, err := ctl.Order(t.Context(), m, store.PowerOrder{Act: store.PowerOn}, ready); err != nil || out.Act != store.PowerOn || time.Since(start) != 0 {
			t.Errorf("after %s: %+v %v", time.Since(start), out, err)
		}
		all.Wait()
		if full.Load() == 0 {
			t.Error("there are slots for all who look")
		}
	})
}

// What a BMC sends instead of an answer is not the log's to keep.
func TestTheLogHasAShortLineOfWhatABMCSaid(t *testing.T) {
	var log strings.Builder
	ctl, m := lab(fake{state: func() (store.PowerState, error) {
		return "", fault.New(fault.Answer, errors.New("500: \x1b[2J"+strings.Repeat("x", 4<<20)), "it failed")
	}})
	ctl.log = slog.New(slog.NewTextHandler(&log, nil))
	if _, err := ctl.State(t.Context(), m); fault.Of(err) != fault.Answer {
		t.Error(err)
	}
	if text := log.String(); !strings.Contains(text, "500: [2Jxxx") || len(text) > 1000 || strings.Contains(text, "x1b") {
		t.Errorf("%d bytes: %.200q", len(text), text)
	}
}
