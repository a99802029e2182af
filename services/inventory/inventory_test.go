package inventory

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lunboot/store"
	"lunboot/store/sqlite"
	"lunboot/store/volume"
	"lunboot/store/volume/stage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ada store.Actor = "ada"

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// journal keeps the events that were emitted.
type journal struct {
	mu     sync.Mutex
	events []store.Event
}

func (j *journal) Emit(e store.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, e)
}

func (j *journal) last() store.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.events) == 0 {
		return store.Event{}
	}
	return j.events[len(j.events)-1]
}

// live are the sessions of a target.
type live []store.Session

func (l live) Sessions() []store.Session { return l }

// house is an inventory on a real database and a real folder.
type house struct {
	*Inventory
	dir     string
	db      *sqlite.DB
	pool    *volume.Pool
	shelf   *stage.Shelf
	journal *journal
}

var theApplianceIs = netip.MustParseAddr("192.168.40.1")

func newHouse(t *testing.T, change ...func(*Config)) *house {
	t.Helper()
	return reopen(t, t.TempDir(), change...)
}

// reopen starts an appliance on a folder.
func reopen(t testing.TB, dir string, change ...func(*Config)) *house {
	t.Helper()
	h := &house{dir: dir, journal: &journal{}}
	var err error
	h.db, err = sqlite.Open(context.Background(), dir, time.Now)
	must(t, err)
	h.pool, err = volume.OpenPool(filepath.Join(dir, "volumes"), quiet())
	must(t, err)
	h.shelf, err = stage.Open(filepath.Join(dir, "uploads"), quiet(), time.Now)
	must(t, err)
	c := Config{
		DB: h.db, Volumes: h.pool, Shelf: h.shelf, Emit: h.journal, Log: quiet(), Now: time.Now,
		Own: func() []netip.Addr { return []netip.Addr{theApplianceIs} },
	}
	for _, fn := range change {
		fn(&c)
	}
	h.Inventory, err = New(c)
	must(t, err)
	t.Cleanup(h.stop)
	return h
}

func (h *house) stop() {
	h.Inventory.Close()
	h.shelf.Close()
	h.pool.Close()
	h.db.Close()
}

// wantRefusal checks an error's kind and that its sentence holds every part,
// and that nothing of the inventory changed.
func (h *house) wantRefusal(t *testing.T, kind store.Kind, parts []string, act func() error) {
	t.Helper()
	before, files := h.db.Revision(), h.files(t)
	err := act()
	wantSentence(t, err, kind, parts...)
	if after := h.db.Revision(); after != before {
		t.Errorf("a refused act wrote to the database (%v)", err)
	}
	if got := h.files(t); got != files {
		t.Errorf("a refused act changed the folder from %q to %q", files, got)
	}
}

func wantSentence(t *testing.T, err error, kind store.Kind, parts ...string) {
	t.Helper()
	if err == nil || store.KindOf(err) != kind {
		t.Errorf("error %v of kind %v, want one of kind %v", err, store.KindOf(err), kind)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

// files lists the volumes' folder.
func (h *house) files(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(h.dir, "volumes"))
	must(t, err)
	var names []string
	for _, e := range entries {
		if e.Name() != ".lock" {
			names = append(names, e.Name())
		}
	}
	return strings.Join(names, " ")
}

func mac(t *testing.T, s string) store.MAC {
	t.Helper()
	m, err := store.ParseMAC(s)
	must(t, err)
	return m
}

func (h *house) machine(t *testing.T, name, address string) store.Machine {
	t.Helper()
	m, err := h.AddMachine(t.Context(), ada, store.MachineSpec{Name: name, MACs: []store.MAC{mac(t, address)}})
	must(t, err)
	return m
}

func (h *house) volume(t testing.TB, name string, size int64) store.Volume {
	t.Helper()
	v, err := h.CreateVolume(t.Context(), ada, store.VolumeSpec{Name: name, Size: size})
	must(t, err)
	return v
}

func (h *house) mapped(t *testing.T, m store.Machine, v store.Volume) store.Mapping {
	t.Helper()
	out, err := h.Map(t.Context(), ada, store.MappingSpec{Machine: m.ID, Volume: v.ID})
	must(t, err)
	return out
}

func ptr[T any](v T) *T { return &v }

// audited checks that the newest line of the audit log is this act of this
// actor.
func (h *house) audited(t *testing.T, by store.Actor, action, subject string) {
	t.Helper()
	lines, _, err := h.db.Audit(t.Context(), store.Page{Limit: 1})
	must(t, err)
	if len(lines) != 1 || lines[0].Actor != by || lines[0].Action != action || lines[0].Subject != subject {
		t.Errorf("the audit log ends with %+v, want %s: %s %s", lines, by, action, subject)
	}
}

func TestAFolderThatAnotherApplianceHoldsIsNamed(t *testing.T) {
	h := newHouse(t)
	_, err := volume.OpenPool(filepath.Join(h.dir, "volumes"), quiet())
	wantSentence(t, err, store.KindInUse, "another lunboot (process ", "uses this folder")
}

func TestABadInitiatorPrefixIsRefused(t *testing.T) {
	if _, err := New(Config{InitiatorPrefix: "lunboot", Log: quiet(), Now: time.Now}); store.KindOf(err) != store.KindInvalid {
		t.Errorf("New returned %v", err)
	}
}

func TestTheHostsOwnAddressesAreKnown(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Own = nil })
	if own := h.own(); len(own) == 0 {
		t.Error("no address of this host was found")
	}
}

func TestProfilesAreCheckedByTheRenderer(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Renderer = refusing{} })
	bad := store.Profile{Name: "broken", Kind: store.ProfileCustom, Text: "#!ipxe\n{{ nothing }}"}
	h.wantRefusal(t, store.KindInvalid, []string{"line 2"}, func() error { _, err := h.PutProfile(t.Context(), ada, bad); return err })
	h.wantRefusal(t, store.KindInvalid, []string{"name"}, func() error { _, err := h.PutProfile(t.Context(), ada, store.Profile{}); return err })
	good := store.Profile{Name: "mine", Kind: store.ProfileCustom, Text: "#!ipxe\nshell\n"}
	p, err := h.PutProfile(t.Context(), ada, good)
	must(t, err)
	h.audited(t, ada, "profile.put", "mine")
	if p.ID == 0 || p.Text != good.Text {
		t.Errorf("the profile is %+v", p)
	}
	// A change of what somebody removed meanwhile makes nothing anew.
	seen := store.Expecting(t.Context(), store.Expectation{Noun: "profile", Key: "mine", Revision: p.Revision})
	must(t, h.DeleteProfile(t.Context(), ada, "mine"))
	if _, err := h.PutProfile(seen, ada, good); store.KindOf(err) != store.KindStale {
		t.Errorf("a change of a profile that is gone: %v", err)
	}
	// Of two who make one name, the second changes nothing.
	fresh := store.Expecting(t.Context(), store.Expectation{Noun: "profile", Key: "mine", Revision: store.Absent})
	first, err := h.PutProfile(fresh, ada, good)
	must(t, err)
	other := store.Profile{Name: "mine", Kind: store.ProfileCustom, Text: "#!ipxe\nreboot\n"}
	if _, err := h.PutProfile(fresh, ada, other); store.KindOf(err) != store.KindStale || !strings.Contains(err.Error(), "profile mine exists already") {
		t.Errorf("one that exists is made: %v", err)
	}
	if p, err := h.db.Profile(t.Context(), "mine"); err != nil || p.Text != good.Text || p.Revision != first.Revision {
		t.Errorf("it is %+v, %v", p, err)
	}
}

// refusing is a renderer that knows no variables.
type refusing struct{}

func (refusing) Check(_ context.Context, p store.Profile) error {
	if strings.Contains(p.Text, "{{") {
		return store.Invalid("text", "line 2: there is no variable nothing")
	}
	return nil
}

func TestAProfileInUseStays(t *testing.T) {
	h := newHouse(t)
	_, err := h.PutProfile(t.Context(), ada, store.Profile{Name: "mine", Kind: store.ProfileCustom, Text: "#!ipxe\nshell\n"})
	must(t, err)
	m := h.machine(t, "lab-1", "00:07:e9:00:00:01")
	_, err = h.SetMachine(t.Context(), ada, m.ID, store.MachinePatch{Profile: ptr("mine")})
	must(t, err)
	h.wantRefusal(t, store.KindInUse, []string{"lab-1"}, func() error { return h.DeleteProfile(t.Context(), ada, "mine") })
	h.wantRefusal(t, store.KindDenied, []string{"built in"}, func() error { return h.DeleteProfile(t.Context(), ada, "san") })
	h.wantRefusal(t, store.KindNotFound, nil, func() error { return h.DeleteProfile(t.Context(), ada, "other") })
	_, err = h.SetMachine(t.Context(), ada, m.ID, store.MachinePatch{Profile: ptr("san")})
	must(t, err)
	must(t, h.DeleteProfile(t.Context(), ada, "mine"))
}

func subnet(prefix, iface string) store.Subnet {
	return store.Subnet{Interface: iface, Prefix: netip.MustParsePrefix(prefix), Mode: store.DHCPFull}
}

func TestSubnetsDoNotOverlap(t *testing.T) {
	h := newHouse(t)
	s, err := h.PutSubnet(t.Context(), ada, subnet("192.168.40.7/24", "eth1"))
	must(t, err)
	if s.Prefix.String() != "192.168.40.0/24" {
		t.Errorf("the prefix is %s", s.Prefix)
	}
	h.wantRefusal(t, store.KindConflict, []string{"192.168.40.0/24", "eth1"}, func() error {
		_, err := h.PutSubnet(t.Context(), ada, subnet("192.168.0.0/16", "eth2"))
		return err
	})
	h.wantRefusal(t, store.KindInvalid, []string{"IPv4"}, func() error {
		_, err := h.PutSubnet(t.Context(), ada, store.Subnet{Mode: store.DHCPOff})
		return err
	})
	s.LeaseTime = time.Hour
	_, err = h.PutSubnet(t.Context(), ada, s) // itself is in nobody's way
	must(t, err)
	_, err = h.PutSubnet(t.Context(), ada, subnet("192.168.41.0/24", "eth2"))
	must(t, err)
	must(t, h.DeleteSubnet(t.Context(), ada, s.ID))
	if err := h.DeleteSubnet(t.Context(), ada, s.ID); !store.IsNotFound(err) {
		t.Errorf("removing it again: %v", err)
	}
}

func TestAnErrorsSentenceIsTheOperators(t *testing.T) {
	inner := &store.Error{Kind: store.KindInternal, Op: "op", Msg: "the sentence", Err: errors.New("cause")}
	if got := sentence(errors.Join(inner)); got != "the sentence" {
		t.Errorf("sentence = %q", got)
	}
	if got := sentence(io.EOF); got != "EOF" {
		t.Errorf("sentence = %q", got)
	}
}
