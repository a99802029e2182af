package inventory

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

func TestLeasesAreDroppedAsTheyWereSeen(t *testing.T) {
	now := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	h := newHouse(t, func(c *Config) {
		c.Now = func() time.Time { return now }
		c.Sessions = live{{Initiator: "iqn.2026-11.lab:a", Addr: "192.168.40.101:1025"}, {Initiator: "iqn.2026-11.lab:b", Addr: "elsewhere"}}
	})
	lease := func(n byte, mac byte, state store.LeaseState, expires time.Duration) store.Lease {
		t.Helper()
		l := store.Lease{Address: netip.AddrFrom4([4]byte{192, 168, 40, n}), MAC: store.MAC{2, 0, 0, 0, 0, mac}, State: state, Expires: now.Add(expires)}
		must(t, h.db.PutLease(t.Context(), l))
		return l
	}
	inUse, runs := lease(100, 1, store.LeaseBound, time.Hour), lease(101, 2, store.LeaseBound, time.Hour)
	over, renewedSince, others := lease(102, 3, store.LeaseBound, 0), lease(103, 4, store.LeaseBound, -time.Hour), lease(104, 5, store.LeaseOffered, -time.Hour)
	declined, gone := lease(105, 6, store.LeaseDeclined, time.Hour), lease(106, 7, store.LeaseBound, -time.Hour)
	lease(103, 4, store.LeaseBound, time.Hour)
	lease(104, 8, store.LeaseOffered, time.Minute)
	must(t, h.db.DropLease(t.Context(), ada, gone.Address))
	spec := store.LeaseDropSpec{Leases: []store.Lease{inUse, runs, over, renewedSince, others, declined, gone}, DryRun: true}
	fate := func() string {
		t.Helper()
		done, err := h.DropLeases(t.Context(), ada, spec)
		must(t, err)
		var words []string
		for _, d := range done {
			word := fmt.Sprint(d.Address.As4()[3])
			if d.Dropped != (d.Problem == "") {
				t.Errorf("%+v", d)
			}
			if !d.Dropped {
				word += " stays"
			}
			words = append(words, word)
		}
		return strings.Join(words, ", ")
	}
	const want = "100 stays, 101 stays, 102, 103 stays, 104 stays, 105, 106 stays"
	before := h.db.Revision()
	if got := fate(); got != want || h.db.Revision() != before {
		t.Errorf("a dry run says %s, and changes the database: %t", got, h.db.Revision() != before)
	}
	if spec.DryRun = false; fate() != want {
		t.Error("what is done is not what a dry run says")
	}
	spec.Leases, spec.InUse = []store.Lease{inUse, runs}, true
	if got := fate(); got != "100, 101 stays" {
		t.Errorf("those in use: %s", got)
	}
	left, err := h.db.Leases(t.Context())
	must(t, err)
	if len(left) != 3 {
		t.Errorf("left are %+v", left)
	}
	h.wantRefusal(t, store.KindInUse, []string{"iqn.2026-11.lab:a has its volume open from 192.168.40.101"}, func() error { return h.DropLease(t.Context(), ada, runs.Address) })
	must(t, h.DropLease(t.Context(), ada, renewedSince.Address))
	if _, err := h.DropLeases(t.Context(), ada, store.LeaseDropSpec{}); store.KindOf(err) != store.KindInvalid {
		t.Errorf("none: %v", err)
	}
	// Whoever goes away in the middle is told how far it came.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if done, err := h.DropLeases(ctx, ada, store.LeaseDropSpec{Leases: []store.Lease{others, others}}); err == nil || len(done) != 0 {
		t.Errorf("after the end: %+v, %v", done, err)
	}
}
