package storetest

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"lunboot/store"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func newSubnet() store.Subnet {
	return store.Subnet{Interface: "eth1", Prefix: netip.MustParsePrefix("192.168.40.0/24"), Mode: store.DHCPFull,
		Range:  store.Range{From: addr("192.168.40.100"), To: addr("192.168.40.199")},
		Router: addr("192.168.40.1"), DNS: []netip.Addr{addr("9.9.9.9"), addr("1.1.1.1")}, Domain: "lab.example", LeaseTime: time.Hour,
		Search: []string{"lab.example", "example"}, NTP: []netip.Addr{addr("192.168.40.1")}, NextServer: addr("192.168.40.2")}
}

func subnetRoundTrip(k *kit) {
	ctx := k.Context()
	in := newSubnet()
	made := must(k.PutSubnet(ctx, actor, in))(k)
	in.ID, in.Revision = made.ID, 1
	same(k, "the subnet as made", in, made)
	bare := must(k.PutSubnet(ctx, actor, store.Subnet{Prefix: netip.MustParsePrefix("10.1.2.3/8"), Mode: store.DHCPOff}))(k)
	if bare.Prefix.String() != "10.0.0.0/8" {
		k.Errorf("the network is %s", bare.Prefix)
	}
	k.reopen()
	same(k, "all subnets", []store.Subnet{bare, made}, must(k.Subnets(ctx))(k))
	k.unchanged(func() { same(k, "the subnet", made, must(k.PutSubnet(ctx, actor, made))(k)) })

	in.ID, in.Revision, in.Mode = 0, 0, store.DHCPProxy // found by interface and network
	changed := must(k.PutSubnet(ctx, actor, in))(k)
	if changed.ID != made.ID || changed.Revision != 2 {
		k.Errorf("changed by its key: id %d, revision %d", changed.ID, changed.Revision)
	}
	changed.Interface = "eth2"
	changed = must(k.PutSubnet(ctx, actor, changed))(k)
	same(k, "all subnets", []store.Subnet{bare, changed}, must(k.Subnets(ctx))(k))
	k.ok(k.DeleteSubnet(ctx, actor, bare.ID))
	same(k, "what is left", []store.Subnet{changed}, must(k.Subnets(ctx))(k))
}

func subnetInvalid(k *kit) {
	ctx := k.Context()
	first := must(k.PutSubnet(ctx, actor, newSubnet()))(k)
	other := newSubnet()
	other.Interface = "eth2"
	second := must(k.PutSubnet(ctx, actor, other))(k)
	for field, change := range map[string]func(*store.Subnet){
		"mode":       func(s *store.Subnet) { s.Mode = "maybe" },
		"prefix":     func(s *store.Subnet) { s.Prefix = netip.Prefix{} },
		"range":      func(s *store.Subnet) { s.Range.To = addr("192.168.41.9") },
		"router":     func(s *store.Subnet) { s.Router = addr("10.0.0.1") },
		"dns":        func(s *store.Subnet) { s.DNS = []netip.Addr{addr("2001:db8::53")} },
		"lease_time": func(s *store.Subnet) { s.LeaseTime = -time.Second },

		"ntp":         func(s *store.Subnet) { s.NTP = []netip.Addr{addr("0.0.0.0")} },
		"domain":      func(s *store.Subnet) { s.Domain = "lab..example" },
		"search":      func(s *store.Subnet) { s.Search = []string{"lab.example", "no spaces"} },
		"next_server": func(s *store.Subnet) { s.NextServer = addr("224.0.0.1") },
	} {
		k.unchanged(func() {
			s := newSubnet()
			change(&s)
			_, err := k.PutSubnet(ctx, actor, s)
			k.refused(err, store.KindInvalid, field)
		})
	}
	k.unchanged(func() {
		s := second
		s.Interface = first.Interface
		_, err := k.PutSubnet(ctx, actor, s)
		k.refused(err, store.KindConflict, "prefix", "eth1", "192.168.40.0/24")
		s = first
		s.Revision, s.Domain = 7, "elsewhere"
		_, err = k.PutSubnet(ctx, actor, s)
		k.refused(err, store.KindConflict, "revision")
		s.ID = 4711
		_, err = k.PutSubnet(ctx, actor, s)
		k.refused(err, store.KindNotFound, "")
		k.refused(k.DeleteSubnet(ctx, actor, 4711), store.KindNotFound, "")
	})
}

// bound is a lease of MAC n that lasts an hour.
func bound(n int, a string) store.Lease {
	return store.Lease{Address: addr(a), MAC: mac(n), State: store.LeaseBound, Expires: time.Now().Add(time.Hour).Round(0).UTC(), Updated: time.Now().Round(0).UTC()}
}

func leaseBelongs(k *kit) {
	ctx := k.Context()
	l := bound(1, "192.168.40.100")
	l.ClientID, l.Hostname, l.Machine, l.Interface = "01525400000001", "lab-01", 7, "eth1"
	l.Relay, l.Port, l.PortSeen = addr("192.168.40.1"), "switch tor, port Gi0/3 (VLAN 12)", l.Updated
	k.ok(k.PutLease(ctx, l))
	same(k, "the lease by MAC", l, must(k.LeaseByMAC(ctx, mac(1)))(k))
	same(k, "the lease by address", l, must(k.LeaseByAddress(ctx, addr("::ffff:192.168.40.100")))(k))
	k.reopen()
	same(k, "the lease after a restart", l, must(k.LeaseByMAC(ctx, mac(1)))(k))

	// Another client identifier of the same MAC is the same machine.
	l.ClientID, l.Expires = "ff00000001", l.Expires.Add(time.Hour)
	k.ok(k.PutLease(ctx, l))
	same(k, "the lease as renewed", []store.Lease{l}, must(k.Leases(ctx))(k))

	k.unchanged(func() {
		k.refused(k.PutLease(ctx, bound(2, "192.168.40.100")), store.KindConflict, "address", mac(1).String())
		offer := bound(2, "192.168.40.100")
		offer.State = store.LeaseOffered
		k.refused(k.PutLease(ctx, offer), store.KindConflict, "address", mac(1).String())
	})
	// An offer of another address changes nothing of what is bound.
	offer := bound(1, "192.168.40.20")
	offer.State, offer.Updated = store.LeaseOffered, l.Updated.Add(time.Minute)
	k.ok(k.PutLease(ctx, offer))
	same(k, "the lease beside an offer", l, must(k.LeaseByMAC(ctx, mac(1)))(k))
	same(k, "leases by address", []store.Lease{offer, l}, must(k.Leases(ctx))(k))
	// Taking it gives up the other: one machine has one address.
	offer.State = store.LeaseBound
	k.ok(k.PutLease(ctx, offer))
	same(k, "the lease that it moved to", []store.Lease{offer}, must(k.Leases(ctx))(k))
	bound2 := bound(2, "192.168.40.100")
	k.ok(k.PutLease(ctx, bound2))

	// What a card has in another network, on another VLAN, is none of its business.
	vlan, moved := bound(1, "10.40.0.100"), bound(1, "10.40.0.101")
	vlan.Network = netip.MustParsePrefix("10.40.0.0/24")
	moved.Network = vlan.Network
	k.ok(k.PutLease(ctx, vlan))
	k.ok(k.PutLease(ctx, moved))
	moved.Network = netip.Prefix{}
	same(k, "a lease in each of two networks", []store.Lease{moved, offer, bound2}, must(k.Leases(ctx))(k))
	k.ok(k.DeleteLease(ctx, moved.Address))

	// An expired lease gives its address up to another MAC.
	old := bound(3, "192.168.40.30")
	old.Expires = time.Now().Add(-time.Second)
	k.ok(k.PutLease(ctx, old))
	k.ok(k.PutLease(ctx, bound(4, "192.168.40.30")))
	if _, err := k.LeaseByMAC(ctx, mac(3)); !store.IsNotFound(err) {
		k.Errorf("the expired lease is still there: %v", err)
	}
	// A declined address is nobody's lease, and is remembered.
	bad := bound(4, "192.168.40.30")
	bad.State = store.LeaseDeclined
	k.ok(k.PutLease(ctx, bad))
	if _, err := k.LeaseByMAC(ctx, mac(4)); !store.IsNotFound(err) {
		k.Errorf("a declined address is a lease: %v", err)
	}
	k.ok(k.PutLease(ctx, bound(4, "192.168.40.31")))
	if l := must(k.LeaseByAddress(ctx, bad.Address))(k); l.State != store.LeaseDeclined {
		k.Errorf("the declined address is %s", l.State)
	}
	k.ok(k.DeleteLease(ctx, bad.Address))
	k.unchanged(func() { k.ok(k.DeleteLease(ctx, bad.Address)) })
	if _, err := k.LeaseByAddress(ctx, bad.Address); !store.IsNotFound(err) {
		k.Errorf("the lease is still there: %v", err)
	}
}

// leaseProlonged: a lease that is prolonged gives nothing and ends nothing.
func leaseProlonged(k *kit) {
	ctx := k.Context()
	l := bound(1, "192.168.40.100")
	l.Hostname = "lab-01"
	k.ok(k.PutLease(ctx, l))
	later := l
	later.Hostname, later.Expires, later.Updated = "not this", l.Expires.Add(time.Hour), l.Updated.Add(time.Minute)
	k.ok(k.ProlongLease(ctx, later))
	l.Expires, l.Updated = later.Expires, later.Updated
	same(k, "the lease as prolonged", []store.Lease{l}, must(k.Leases(ctx))(k))
	k.unchanged(func() {
		k.refused(k.ProlongLease(ctx, bound(1, "192.168.40.101")), store.KindNotFound, "", "192.168.40.101")
		k.refused(k.ProlongLease(ctx, bound(2, "192.168.40.100")), store.KindNotFound, "", mac(2).String())
	})
	moved := bound(1, "192.168.40.101")
	k.ok(k.PutLease(ctx, moved))
	k.unchanged(func() { k.refused(k.ProlongLease(ctx, later), store.KindNotFound, "") })
	moved.State = store.LeaseDeclined
	k.ok(k.PutLease(ctx, moved))
	k.unchanged(func() { k.refused(k.ProlongLease(ctx, moved), store.KindNotFound, "") })
}

// leasePort: what a switch says of a machine's port outlives its lease.
func leasePort(k *kit) {
	ctx := k.Context()
	m := k.machine(1)
	at := time.Now().Round(0).UTC()
	l := bound(1, "192.168.40.100")
	l.Machine, l.Port, l.PortSeen = m.ID, "port 0/3", at
	k.ok(k.PutLease(ctx, l))
	want := m
	want.Port, want.PortSeen = "port 0/3", at
	same(k, "the machine", want, must(k.Machine(ctx, m.ID))(k))
	l.Port, l.PortSeen = "port 0/9", at.Add(-time.Minute)
	k.ok(k.PutLease(ctx, l))
	same(k, "the machine after an older word", want, must(k.Machine(ctx, m.ID))(k))
	l.Port, l.PortSeen = "", time.Time{}
	k.ok(k.PutLease(ctx, l))
	k.reopen()
	same(k, "the machine after a switch that says nothing", want, must(k.Machine(ctx, m.ID))(k))
	// An editor that loaded the machine before sets nothing back.
	m.Notes = "changed"
	if m = must(k.UpdateMachine(ctx, actor, m))(k); m.Port != "port 0/3" || !m.PortSeen.Equal(at) {
		k.Errorf("an edit set back where it is plugged in: %q, %v", m.Port, m.PortSeen)
	}
	// Who is enrolled keeps what was known before.
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(2), Port: "port 0/4", PortSeen: at}))
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(2)}))
	if u := must(k.UnknownMachine(ctx, mac(2)))(k); u.Port != "port 0/4" || !u.PortSeen.Equal(at) {
		k.Errorf("the unknown machine: %+v", u)
	}
	other := k.machine(2)
	if other.Port != "port 0/4" || !other.PortSeen.Equal(at) {
		k.Errorf("the enrolled machine: %q, %v", other.Port, other.PortSeen)
	}
	same(k, "the enrolled machine", other, must(k.Machine(ctx, other.ID))(k))
}

// leaseFollowed keeps what a reader needs that has every lease and machine in
// memory: a number that rises when somebody else changed one, and stands still
// for what the reader writes himself.
func leaseFollowed(k *kit) {
	ctx := k.Context()
	moves := func(what string, clients, leases int64, act func() error) {
		k.Helper()
		c, l := k.ClientRevision(), k.LeaseRevision()
		k.ok(act())
		if c, l = k.ClientRevision()-c, k.LeaseRevision()-l; c != clients || l != leases {
			k.Errorf("%s moved the client revision by %d and the lease revision by %d, not %d and %d", what, c, l, clients, leases)
		}
	}
	m := k.machine(1)
	moves("a machine", 1, 0, func() error { k.machine(2); return nil })
	moves("a reserved address", 1, 0, func() (err error) {
		m.Address = addr("192.168.40.7")
		m, err = k.UpdateMachine(ctx, actor, m)
		return err
	})
	moves("a lease", 0, 0, func() error { return k.PutLease(ctx, bound(1, "192.168.40.100")) })
	moves("a renewal", 0, 0, func() error { return k.PutLease(ctx, bound(1, "192.168.40.101")) })
	moves("a machine that speaks", 0, 0, func() error { return k.SeenMachine(ctx, m.ID, "UEFI", "x86-64", time.Now()) })
	moves("an unknown machine", 0, 0, func() error { return k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(9)}) })
	moves("an unknown machine that is ignored", 1, 0, func() error { return k.IgnoreUnknown(ctx, actor, mac(9), true) })
	if all := must(k.IgnoredMACs(ctx))(k); len(all) != 1 || all[0] != mac(9) {
		k.Errorf("ignored are %v", all)
	}
	moves("one that no longer is", 1, 0, func() error { return k.IgnoreUnknown(ctx, actor, mac(9), false) })
	if all := must(k.IgnoredMACs(ctx))(k); len(all) != 0 {
		k.Errorf("ignored are %v", all)
	}
	moves("a lease that moves", 0, 1, func() error { return k.MoveLease(ctx, actor, mac(1), mac(4)) })
	moves("a lease that is dropped", 0, 1, func() error { return k.DropLease(ctx, actor, addr("192.168.40.101")) })
	k.ok(k.PutLease(ctx, bound(1, "192.168.40.102")))
	moves("a lease that is deleted", 0, 1, func() error { return k.DeleteLease(ctx, addr("192.168.40.102")) })
	moves("a machine that is removed", 1, 1, func() error { return k.DeleteMachine(ctx, actor, m.ID) })
}

func leaseInvalid(k *kit) {
	ctx := k.Context()
	for field, change := range map[string]func(*store.Lease){
		"address": func(l *store.Lease) { l.Address = netip.Addr{} },
		"mac":     func(l *store.Lease) { l.MAC = store.MAC{} },
		"state":   func(l *store.Lease) { l.State = "" },
	} {
		l := bound(1, "192.168.40.100")
		change(&l)
		k.unchanged(func() { k.refused(k.PutLease(ctx, l), store.KindInvalid, field) })
	}
}

func leaseDropped(k *kit) {
	ctx := k.Context()
	k.ok(k.PutLease(ctx, bound(1, "192.168.40.100")))
	k.ok(k.DropLease(ctx, actor, addr("192.168.40.100")))
	log, _, err := k.Audit(ctx, store.Page{})
	k.ok(err)
	if len(log) != 1 || log[0].Action != "lease.drop" || log[0].Subject != "192.168.40.100" {
		k.Errorf("the audit log: %+v", log)
	}
	k.unchanged(func() {
		k.refused(k.DropLease(ctx, actor, addr("192.168.40.100")), store.KindNotFound, "", "192.168.40.100")
		k.refused(k.DropLeaseIf(ctx, actor, addr("192.168.40.100"), func(store.Lease) error { k.Error("nobody's lease is shown"); return nil }), store.KindNotFound, "", "192.168.40.100")
	})
	// Whoever asks for it is shown the lease as it is, and has the last word.
	k.ok(k.PutLease(ctx, bound(2, "192.168.40.101")))
	shown := store.Lease{}
	k.unchanged(func() {
		k.refused(k.DropLeaseIf(ctx, actor, addr("192.168.40.101"), func(l store.Lease) error {
			shown = l
			return store.InUse("it is in use")
		}), store.KindInUse, "", "in use")
	})
	same(k, "the lease that is shown", must(k.LeaseByAddress(ctx, addr("192.168.40.101")))(k), shown)
	k.ok(k.DropLeaseIf(ctx, actor, addr("192.168.40.101"), func(store.Lease) error { return nil }))
	_, err = k.LeaseByAddress(ctx, addr("192.168.40.101"))
	k.refused(err, store.KindNotFound, "")
}

func leaseMoved(k *kit) {
	ctx := k.Context()
	old, waiting := bound(1, "192.168.40.100"), bound(2, "192.168.40.101")
	old.Machine, old.ClientID, waiting.Updated = 7, "01:old", waiting.Updated.Add(time.Hour) // by a clock that was set back since
	k.ok(k.PutLease(ctx, old))
	k.ok(k.PutLease(ctx, waiting))
	k.ok(k.MoveLease(ctx, actor, mac(1), mac(2)))
	got := must(k.LeaseByMAC(ctx, mac(2)))(k)
	if got.Address != old.Address || got.Machine != 7 || got.ClientID != "" || !got.Expires.Equal(old.Expires) || got.State != store.LeaseBound {
		k.Errorf("the lease of the new MAC is %+v", got)
	}
	same(k, "the address that it holds meanwhile", waiting, must(k.LeaseByAddress(ctx, addr("192.168.40.101")))(k))
	if _, err := k.LeaseByMAC(ctx, mac(1)); !store.IsNotFound(err) {
		k.Errorf("the old MAC has a lease still: %v", err)
	}
	log, _, err := k.Audit(ctx, store.Page{})
	k.ok(err)
	if len(log) != 1 || log[0].Action != "lease.move" || log[0].Subject != "192.168.40.100" || log[0].Actor != actor {
		k.Errorf("the audit log: %+v", log)
	}
	k.ok(k.PutLease(ctx, got)) // it asks, and the other is free again
	if _, err := k.LeaseByAddress(ctx, addr("192.168.40.101")); !store.IsNotFound(err) {
		k.Errorf("one MAC holds two addresses: %v", err)
	}
	k.unchanged(func() {
		k.refused(k.MoveLease(ctx, actor, mac(1), mac(2)), store.KindNotFound, "", mac(1).String())
		k.refused(k.MoveLease(ctx, actor, mac(2), store.MAC{}), store.KindInvalid, "mac")
		k.ok(k.MoveLease(ctx, actor, mac(2), mac(2)))
	})
}

func leaseRush(k *kit) {
	ctx := k.Context()
	const machines = 500
	var wg sync.WaitGroup
	errs := make([]error, 2*machines)
	for n := range machines {
		a := netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})
		for i, who := range []int{n, n + machines} { // two MACs ask for each address
			wg.Add(1)
			go func() {
				defer wg.Done()
				l := bound(who+1, a.String())
				if err := k.PutLease(ctx, l); err != nil {
					errs[2*n+i] = err
					return
				}
				if got, err := k.LeaseByAddress(ctx, a); err != nil || got.MAC != l.MAC {
					errs[2*n+i] = fmt.Errorf("%s was accepted for %s and %s has it (%w)", a, l.MAC, got.MAC, err)
				}
			}()
		}
	}
	wg.Wait()
	for n := range machines {
		a, b := errs[2*n], errs[2*n+1]
		if (a == nil) == (b == nil) {
			k.Fatalf("address %d: %v and %v; one of two was due", n, a, b)
		}
		k.refused(errors.Join(a, b), store.KindConflict, "address")
	}
	k.reopen()
	if ls := must(k.Leases(ctx))(k); len(ls) != machines {
		k.Errorf("%d leases after a restart", len(ls))
	}
}
