package ledger

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"lunboot/store"
)

// slow finds what can be given by walking the whole range and every lease: the
// definition, where the ledger has indexes.
type slow struct {
	*disk
	held   map[netip.Addr]heldFor
	given  map[netip.Addr]time.Time // leases of strangers, and when they were given
	subnet *store.Subnet
}

type heldFor struct {
	mac      store.MAC
	stranger bool
	until    time.Time
}

// open returns the addresses that nobody holds: those never used, in order, and
// those whose lease ended, the first to end first.
func (s slow) open(aside []netip.Addr) (never, ended []netip.Addr) {
	for a := s.subnet.Range.From; s.subnet.Range.Contains(a); a = a.Next() {
		h, held := s.held[a]
		reserved := slices.ContainsFunc(s.machines, func(m store.Machine) bool { return m.Address == a })
		if held && h.until.After(s.now) || reserved || !Usable(s.subnet.Prefix, a) || slices.Contains(aside, a) || s.inUse[a] {
			continue
		}
		switch r, used := s.leases[a]; {
		case !used:
			never = append(never, a)
		case !r.Expires.After(s.now):
			ended = append(ended, a)
		}
	}
	slices.SortStableFunc(ended, func(a, b netip.Addr) int { return s.leases[a].Expires.Compare(s.leases[b].Expires) })
	return never, ended
}

func (s slow) enrolled(mac store.MAC) bool {
	return slices.ContainsFunc(s.machines, func(m store.Machine) bool { return slices.Contains(m.MACs, mac) })
}

// strangers counts the addresses that strangers were offered, have or set aside.
func (s slow) strangers() (n int) {
	for a := s.subnet.Range.From; s.subnet.Range.Contains(a); a = a.Next() {
		reserved := slices.ContainsFunc(s.machines, func(m store.Machine) bool { return m.Address == a })
		r, used := s.leases[a]
		_, strange := s.given[a]
		h, held := s.held[a]
		switch {
		case held && h.until.After(s.now):
			if h.stranger && !s.enrolled(h.mac) {
				n++
			}
		case !reserved && Usable(s.subnet.Prefix, a) && used && strange && r.Expires.After(s.now) && !s.enrolled(r.MAC):
			n++
		}
	}
	return n
}

// put notes what a lease that was written does to who is a stranger.
func (s slow) put(r store.Lease, before map[netip.Addr]store.Lease) {
	given := r.Updated
	if r.State == store.LeaseBound {
		for a, o := range before {
			if o.MAC != r.MAC || o.State != store.LeaseBound {
				continue
			}
			at, strange := s.given[a]
			if half := r.Expires.Sub(r.Updated) / 2; !strange || half > 0 && r.Updated.Sub(at) >= half {
				given = time.Time{}
			} else {
				given = at
			}
		}
	}
	for a := range before {
		if _, still := s.leases[a]; !still {
			delete(s.given, a)
		}
	}
	if s.given[r.Address] = given; given.IsZero() {
		delete(s.given, r.Address)
	}
}

func (s slow) kept() (n int) {
	for _, m := range s.machines {
		holds := m.Address.IsValid()
		for _, r := range s.leases {
			holds = holds || slices.Contains(m.MACs, r.MAC) && r.State == store.LeaseBound && r.Expires.After(s.now)
		}
		if !holds {
			n++
		}
	}
	return min(n, Size(s.subnet.Range)/2)
}

// want is what a pool owes.
func (s slow) want(w Want) (netip.Addr, bool) {
	never, ended := s.open(w.Aside)
	all := slices.Concat(never, ended)
	switch {
	case len(all) == 0,
		w.Stranger && s.strangers() >= max(1, Size(s.subnet.Range)/2),
		!w.Enrolled && len(all) <= s.kept():
		return netip.Addr{}, false
	case slices.Contains(all, w.Hint):
		return w.Hint, true
	}
	if i := slices.IndexFunc(never, w.Quiet); i >= 0 {
		return never[i], true
	}
	return all[0], true
}

// Whatever happens in whatever order, the ledger gives what the walk would.
func TestTheLedgerGivesWhatTheWalkGives(outer *testing.T) {
	rapid.Check(outer, func(t *rapid.T) {
		s := slow{disk: newDisk(), held: map[netip.Addr]heldFor{}, given: map[netip.Addr]time.Time{}, subnet: subnet("10.77.0.96/28", "10.77.0.96-10.77.0.103")}
		l := ledgerOf(s.disk)
		ctx := context.Background()
		turn(outer, l, s.now, func(Turn) {})
		anyMAC := rapid.Custom(func(t *rapid.T) store.MAC { return mac(rapid.IntRange(1, 9).Draw(t, "mac")) })
		anyAddr := rapid.Custom(func(t *rapid.T) netip.Addr {
			return address(number(s.subnet.Range.From) + uint32(rapid.IntRange(0, 9).Draw(t, "address")))
		})
		seconds := rapid.SampledFrom([]int{0, 1, 30, 60, 61, 600, 3600, 3601})
		drop := func(mac store.MAC) {
			maps.DeleteFunc(s.held, func(_ netip.Addr, h heldFor) bool { return h.mac == mac })
		}
		t.Repeat(map[string]func(*rapid.T){
			"time passes": func(t *rapid.T) { s.now = s.now.Add(time.Duration(seconds.Draw(t, "seconds")) * time.Second) },
			"hold": func(t *rapid.T) {
				m, a, strange := anyMAC.Draw(t, "mac"), anyAddr.Draw(t, "address"), rapid.Bool().Draw(t, "stranger")
				turn(outer, l, s.now, func(x Turn) { x.Hold(m, s.subnet.Prefix, a, strange) })
				drop(m)
				s.held[a] = heldFor{m, strange, s.now.Add(HoldTime)}
			},
			"withdraw": func(t *rapid.T) {
				m := anyMAC.Draw(t, "mac")
				l.Withdraw(m, s.subnet.Prefix)
				drop(m)
			},
			"put": func(t *rapid.T) {
				r := store.Lease{Address: anyAddr.Draw(t, "address"), MAC: anyMAC.Draw(t, "mac"), Updated: s.now}
				r.State = rapid.SampledFrom([]store.LeaseState{store.LeaseBound, store.LeaseBound, store.LeaseDeclined}).Draw(t, "state")
				r.Expires = s.now.Add(time.Duration(seconds.Draw(t, "seconds")) * time.Second)
				before := maps.Clone(s.leases)
				if l.Put(ctx, r) == nil { // refused when it is another's; then the next turn reads
					s.put(r, before)
				}
				turn(outer, l, s.now, func(Turn) {})
			},
			"decline": func(t *rapid.T) {
				m, a := anyMAC.Draw(t, "mac"), anyAddr.Draw(t, "address")
				var back []store.Lease
				turn(outer, l, s.now, func(x Turn) { back = x.GiveBack(m, s.subnet, a) })
				r := store.Lease{Address: a, MAC: m, State: store.LeaseDeclined, Updated: s.now, Expires: s.now.Add(10 * time.Minute)}
				if l.Put(ctx, r) == nil {
					s.put(r, nil)
				} else {
					turn(outer, l, s.now, func(Turn) {})
					return
				}
				for _, r := range back {
					if err := l.Put(ctx, r); err != nil {
						t.Fatal(err)
					}
					s.put(r, nil)
				}
				own, all := 0, 0
				for b, r := range s.leases {
					if r.State != store.LeaseDeclined || !r.Expires.After(s.now) {
						continue
					}
					if r.MAC == m {
						own++
					}
					h, held := s.held[b]
					reserved := slices.ContainsFunc(s.machines, func(m store.Machine) bool { return m.Address == b })
					if s.subnet.Range.Contains(b) && Usable(s.subnet.Prefix, b) && !reserved && !(held && h.until.After(s.now)) {
						all++
					}
				}
				if own > declinesOfOne || all > Size(s.subnet.Range)/4 {
					t.Fatalf("%d addresses are set aside, %d by %s", all, own, m)
				}
			},
			"drop": func(t *rapid.T) {
				a := anyAddr.Draw(t, "address")
				s.drop(a)
				delete(s.given, a)
				turn(outer, l, s.now, func(Turn) {})
			},
			"enroll": func(t *rapid.T) {
				m := store.Machine{ID: store.MachineID(len(s.machines) + 1), MACs: []store.MAC{anyMAC.Draw(t, "mac")}}
				if rapid.Bool().Draw(t, "reserved") {
					m.Address = anyAddr.Draw(t, "address")
				}
				if len(s.machines) > 3 {
					s.machines = s.machines[1:]
				}
				s.enroll(m)
			},
			"a volume opens or closes": func(t *rapid.T) {
				// Leases of addresses in use are prolonged before they end.
				if a := anyAddr.Draw(t, "address"); s.leases[a].Expires.After(s.now) {
					s.inUse[a] = true
				} else {
					delete(s.inUse, a)
				}
			},
			"": func(t *rapid.T) {
				for a := range s.inUse {
					if r, ok := s.leases[a]; !ok || !r.Expires.After(s.now) {
						delete(s.inUse, a)
					}
				}
				quiet, hinted := anyAddr.Draw(t, "quiet"), anyAddr.Draw(t, "hint")
				w := Want{Subnet: s.subnet, Hint: hinted, Stranger: rapid.Bool().Draw(t, "stranger"), Enrolled: rapid.Bool().Draw(t, "enrolled"),
					Aside: []netip.Addr{ip("10.77.0.97"), {}}, Quiet: func(a netip.Addr) bool { return a == quiet }, Ahead: 32}
				if !rapid.Bool().Draw(t, "hints") {
					w.Hint = netip.Addr{}
				}
				want, ok := s.want(w)
				turn(outer, l, s.now, func(x Turn) {
					got, reason := x.Pick(w)
					if got != want || ok != (reason == "") {
						t.Fatalf("%s (%s), but the walk gives %s", got, reason, want)
					}
					never, ended := s.open(w.Aside)
					if next := x.Next(s.subnet, w.Aside, 5); !slices.Equal(next, slices.Concat(never, ended)[:min(5, len(never)+len(ended))]) {
						t.Fatalf("next are %v, but the walk says %v and then %v", next, never, ended)
					}
				})
				for n := 1; n <= 9; n++ {
					known := slices.ContainsFunc(s.machines, func(m store.Machine) bool { return m.MACs[0] == mac(n) })
					for _, r := range s.leases {
						known = known || r.MAC == mac(n)
					}
					for _, h := range s.held {
						known = known || h.mac == mac(n) && h.until.After(s.now)
					}
					if l.Known(mac(n)) != known {
						t.Fatalf("%s is known: %t", mac(n), !known)
					}
				}
			},
		})
	})
}
