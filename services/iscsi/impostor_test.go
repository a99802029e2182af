package iscsi_test

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"

	"lunboot/services/iscsi"
	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// holders says that every address is one machine's.
type holders struct{ holder atomic.Pointer[iscsi.Holder] }

func (h *holders) Other(_ context.Context, addr netip.Addr, machine store.MachineID) (iscsi.Holder, bool) {
	o := h.holder.Load()
	if o == nil || o.Machine == machine || !addr.IsLoopback() || addr.Is4In6() {
		return iscsi.Holder{}, false
	}
	return *o, true
}

// A machine that gives another one's name is never served that one's volumes,
// though it knows the secret, as a copied image does.
func TestAMachineIsNotLetInUnderAnothersName(t *testing.T) {
	h := &holders{}
	b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
	startWith(t, b, iscsi.Config{Holders: h})
	b.enroll(alice, map[store.LUN]disk{2: {id: 1, volume: newMemory(1 << 20)}})
	b.enroll(bob, map[store.LUN]disk{0: {id: 2, volume: newMemory(1 << 20)}})
	machine := func(n store.IQN) store.MachineID {
		a, err := b.catalog.Access(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		return a.Machine
	}
	b.login(t, alice, Linux(1)).Must(t, Ready(2)) // whose the address is, nobody knows
	h.holder.Store(&iscsi.Holder{Machine: machine(bob), Name: "lab-12", By: "its lease"})
	b.login(t, bob, Linux(1)).Must(t, Ready(0))
	stolen := Options{Name: string(alice), Target: string(target), ISID: Linux(2)}
	wantRefused(t, b, stolen, pdu.LoginAuthorizationFail, "is the address of lab-12, by its lease; nobody is served another machine's volumes")
	for _, e := range b.journal.all(store.EventISCSIRefused) {
		if e.Machine != machine(bob) {
			t.Errorf("it is told of machine %d, and the address is %d's", e.Machine, machine(bob))
		}
		if a, err := b.catalog.Access(t.Context(), alice); err != nil || e.Detail.Cause != store.CauseOtherMachine || e.Detail.Asked != a.Name {
			t.Errorf("the cause is %q, of %q", e.Detail.Cause, e.Detail.Asked)
		}
	}
	stranger := stolen
	stranger.Name = "iqn.2026-11.test:nobody"
	wantRefused(t, b, stranger, pdu.LoginAuthorizationFail, "no machine has the initiator name")
	h.holder.Store(&iscsi.Holder{Machine: machine(alice), Name: "lab-07", By: "the neighbour table"})
	b.login(t, alice, Linux(3)).Must(t, Ready(2))
}
