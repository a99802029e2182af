package circle

import (
	"net/netip"
	"testing"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

func TestACircleIsThreeFetchesSoonAfterEachOther(t *testing.T) {
	now := time.Unix(0, 0)
	l := New(func() time.Time { return now })
	a := Road{Addr: netip.MustParseAddr("10.0.0.1"), Loader: boot.Undionly}
	for range 9 {
		l.Fetched(a)
		now = now.Add(46 * time.Second)
	}
	if l.Circling(a) {
		t.Error("one fetch in three quarters of a minute counts as a circle")
	}
	l.Forget(a.Addr)
	for range After { // each round waits 16 s for a router that there is not
		l.Fetched(a)
		now = now.Add(22 * time.Second)
	}
	if !l.Circling(a) {
		t.Error("three fetches in 44 s are no circle 22 s later")
	}
	if now = now.Add(time.Minute); l.Circling(a) {
		t.Error("a circle is remembered for longer than a minute")
	}
	for i := range 3 * maxRoads {
		l.Fetched(Road{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), store.MAC{}, boot.Undionly})
	}
	if len(l.seen) > maxRoads {
		t.Errorf("it remembers %d addresses", len(l.seen))
	}
	// Machines behind one router have one address, and each its own MAC.
	for i := range byte(9) {
		l.Fetched(Road{a.Addr, store.MAC{2, i}, boot.Undionly})
	}
	if l.Circling(Road{a.Addr, store.MAC{2}, boot.Undionly}) {
		t.Error("one fetch of each of nine machines counts as a circle")
	}
}
