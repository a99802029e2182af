package survey

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lunboot/store"
)

// Two that answer for one address are both known, and neither for longer than an
// answer counts.
func TestWhoAnswersForAnAddressIsKnownForAWhile(t *testing.T) {
	one, two, three := store.MAC{2, 0, 0, 0, 0, 1}, store.MAC{2, 0, 0, 0, 0, 2}, store.MAC{2, 0, 0, 0, 0, 3}
	noon := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	f := found{check: Unchecked}.heard(one, noon).heard(two, noon.Add(time.Second)).heard(one, noon.Add(2*time.Second))
	if got := f.users(); f.check != Taken || !slices.Equal(got, []store.MAC{two, one}) {
		t.Errorf("%v, %v", f.check, got)
	}
	if got := f.heard(three, noon.Add(3*time.Second)).users(); !slices.Equal(got, []store.MAC{one, three}) {
		t.Errorf("of three: %v", got)
	}
	// The one that left is forgotten, though the other goes on.
	if got := f.heard(one, noon.Add(takenLife+5*time.Second)).users(); !slices.Equal(got, []store.MAC{one}) {
		t.Errorf("much later: %v", got)
	}
}

var at = netip.MustParseAddr

// probing is a prober with a clock, whose questions are answered by hand.
func probing() (p *Prober, pass func(time.Duration)) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	p = NewProber(func() time.Time { return now }, slog.New(slog.DiscardHandler))
	return p, func(d time.Duration) { now = now.Add(d) }
}

// ask is a question for an address, which some answer within its window.
func (p *Prober) ask(a netip.Addr, ahead bool, answers ...store.MAC) map[netip.Addr][]store.MAC {
	ask, asked := []netip.Addr{a}, p.now()
	p.expect(ask, ahead)
	defer p.done(ask)
	for _, by := range answers {
		p.hear(by, a)
	}
	return p.conclude(ask, asked)
}

func (p *Prober) is(t *testing.T, a netip.Addr, want Check, due bool, when string) {
	t.Helper()
	if got, by := p.Checked(a); got != want || p.Due(a) != due {
		t.Errorf("%s: %d by %v, due %v; want %d, due %v", when, got, by, p.Due(a), want, due)
	}
}

// A hypervisor has its reserved address on a bridge, whose MAC nobody enrolled, and is
// up within the minute: it is no stranger to its own address.
func TestWhoUsesAnAddressThatWasGivenIsNotHeardOutsideOfAQuestion(t *testing.T) {
	reserved, bridge, stranger := at("10.77.0.7"), store.MAC{2, 0, 0, 0, 0, 1}, store.MAC{2, 0, 0, 0, 0, 2}
	p, pass := probing()
	p.is(t, reserved, Unchecked, true, "never asked")
	p.ask(reserved, false)
	p.is(t, reserved, Quiet, false, "nobody answered")
	pass(40 * time.Second)
	p.hear(bridge, reserved)
	p.is(t, reserved, Quiet, false, "its own bridge is heard")

	// One that answers the question is another; it does not last because of him.
	p.ask(reserved, false, stranger)
	p.is(t, reserved, Taken, false, "a stranger answered")
	for range 3 {
		pass(4 * time.Minute)
		p.hear(stranger, reserved)
	}
	p.is(t, reserved, Unchecked, true, "twelve minutes later")

	p.ask(reserved, false, stranger)
	pass(sameBoot + time.Second)
	p.is(t, reserved, Taken, true, "the next boot asks again")
	if taken := p.ask(reserved, false); len(taken) != 0 {
		t.Errorf("who left answers still: %v", taken)
	}
	p.is(t, reserved, Quiet, false, "the stranger is gone")
}

// A free address is listened for until somebody is given it, or it is not among the
// next ones any more.
func TestAFreeAddressIsListenedForUntilItIsGiven(t *testing.T) {
	a, b, c, bridge := at("10.77.0.100"), at("10.77.0.101"), at("10.77.0.102"), store.MAC{2, 0, 0, 0, 0, 1}
	p, pass := probing()
	for _, x := range []netip.Addr{a, b, c} {
		p.ask(x, true)
	}
	pass(time.Second)
	p.Given(a)
	p.forget([]netip.Addr{c})
	for _, x := range []netip.Addr{a, b, c} {
		p.hear(bridge, x)
	}
	p.is(t, a, Quiet, false, "given")
	p.is(t, b, Quiet, false, "not among the next ones")
	p.is(t, c, Taken, false, "free")
	if !p.stale(a) || !p.stale(b) || p.stale(c) {
		t.Error("what was not listened for is asked for again when it is free, and no other")
	}
}

// Whoever makes us ask again and again has one question asked, and what a machine
// declined is asked for before what is only offered.
func TestAnAddressWaitsOnceToBeAskedFor(t *testing.T) {
	p, _ := probing()
	for range 200 {
		p.Doubt(at("10.77.0.7"), false)
	}
	p.Doubt(at("10.77.0.8"), false)
	p.Doubt(at("10.77.0.9"), true)
	p.Doubt(at("10.77.0.8"), true) // which waits
	p.Doubt(at("10.77.0.9"), false)
	want := []netip.Addr{at("10.77.0.9"), at("10.77.0.8"), at("10.77.0.7")}
	if got := p.doubts(); !slices.Equal(got, want) {
		t.Errorf("%v are asked for, want %v", got, want)
	}
	p.Doubt(at("10.77.0.7"), false)
	if got := p.doubts(); len(got) != 0 {
		t.Errorf("%v is asked for while it is asked for", got)
	}
	p.letGo(want...)
	p.Doubt(at("10.77.0.7"), false)
	if got := p.doubts(); len(got) != 1 {
		t.Errorf("later: %v", got)
	}
}

func TestADeclinedAddressHasRoomAmongManyThatAreOffered(t *testing.T) {
	p, _ := probing()
	for i := range 200 {
		p.Doubt(netip.AddrFrom4([4]byte{10, 77, 1, byte(i)}), false)
	}
	p.Doubt(at("10.77.0.9"), true)
	got := p.doubts()
	if len(got) != maxDoubts || got[0] != at("10.77.0.9") {
		t.Errorf("%d are asked for, first %v", len(got), got[0])
	}
	p.Doubt(at("10.77.0.8"), true)
	if got := p.doubts(); len(got) != 0 {
		t.Errorf("%d more are asked for meanwhile", len(got))
	}
}

// The wire is asked for each that waits, in one question, and the range is told of each.
func TestDoubtsAreSettledOnTheWire(t *testing.T) {
	if !alone(t) {
		return
	}
	newLab(t)
	ifi, err := net.InterfaceByName("srv0")
	require.NoError(t, err)
	p := NewProber(time.Now, slog.New(slog.DiscardHandler))
	told := make(toldOf, 8)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { p.Run(ctx, told, ifi) })
	defer wg.Wait()
	defer cancel()
	require.Eventually(t, p.Asks, 5*time.Second, 10*time.Millisecond)
	for range 5 {
		p.Doubt(at("10.77.0.9"), false)
		p.Doubt(at("10.77.0.2"), true)
	}
	for _, want := range []netip.Addr{at("10.77.0.2"), at("10.77.0.9")} {
		select {
		case got := <-told:
			require.Equal(t, want, got)
		case <-time.After(5 * time.Second):
			t.Fatal("nothing was told of " + want.String())
		}
	}
	check, _ := p.Checked(at("10.77.0.2"))
	require.Equal(t, Taken, check)
	select {
	case a := <-told:
		t.Error(a, "was asked for twice")
	case <-time.After(2 * answerTime):
	}
}

// toldOf is a range that gives nothing, and takes what the wire said.
type toldOf chan netip.Addr

func (c toldOf) Next(context.Context) ([]netip.Addr, error)            { return nil, nil }
func (c toldOf) Holds(context.Context, netip.Addr, store.MAC) bool     { return false }
func (c toldOf) Asked(_ context.Context, a netip.Addr, by []store.MAC) { c <- a }
