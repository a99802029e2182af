package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lunboot/services/attempts"
	"lunboot/services/boot"
	"lunboot/services/dhcp"
	"lunboot/services/events"
	"lunboot/services/explain"
	"lunboot/services/loaders"
	"lunboot/store"
)

// dryRuns makes dry runs out of the parts that answer machines.
func (a *appliance) dryRuns() *explain.Explainer {
	return explain.New(explain.Config{
		Offers: a.network, Scripts: a.scripts, Logins: logins{a}, Files: files{a.loaders.Set}, Inventory: a.db, Attempts: past{a.runner, a.journal},
		Boot: func(m store.Machine) netip.AddrPort { return a.bootAddr(a.network.localFor(m)) }, Now: time.Now,
	})
}

// ExplainOffer asks the DHCP servers what they would answer. Of several that
// would, the one speaks that knows the machine: an address of its own is there.
func (n *network) ExplainOffer(ctx context.Context, q store.OfferQuery) (store.OfferExplanation, error) {
	n.mu.Lock()
	var servers []*dhcp.Server
	for _, s := range n.servers {
		for _, part := range s.parts {
			if svc, ok := part.(*dhcp.Server); ok {
				servers = append(servers, svc)
			}
		}
	}
	n.mu.Unlock()
	var would []store.OfferExplanation
	for _, s := range servers {
		e, ok, err := s.ExplainOffer(ctx, q)
		if err != nil {
			return store.OfferExplanation{}, err
		}
		if ok {
			would = append(would, e)
		}
	}
	if len(would) == 0 {
		return silence(q, len(servers)), nil
	}
	return slices.MinFunc(would, func(a, b store.OfferExplanation) int {
		return cmp.Or(cmp.Compare(strangeness(a), strangeness(b)), strings.Compare(a.Interface, b.Interface))
	}), nil
}

// strangeness is how little an offer has of the machine: a free address is any
// machine's.
func strangeness(e store.OfferExplanation) int {
	if !e.Address.IsValid() {
		return 2
	}
	for _, f := range e.Fields {
		if f.Name == "yiaddr" && strings.HasPrefix(f.Why, "a free one") {
			return 1
		}
	}
	return 0
}

// silence says why nobody would answer.
func silence(q store.OfferQuery, servers int) store.OfferExplanation {
	p, _ := boot.PlatformOf(q.Arch)
	e := store.OfferExplanation{Client: p.String() + " firmware", Verdict: dhcp.Drop.String(), Why: "DHCP is off here: nobody chose a network to give addresses on"}
	if q.IPXE {
		e.Client = "iPXE"
	}
	switch {
	case servers > 0 && q.Relay.IsValid():
		e.Why = fmt.Sprintf("no subnet here holds the relay's address %s; make it known with: lunboot subnet add", q.Relay)
	case servers > 0:
		e.Why = "nothing is given to those who ask directly, only through relays"
	}
	return e
}

// logins asks the target's catalogue how a login would end.
type logins struct{ a *appliance }

// ExplainLogin looks a machine's initiator up as its login does. No boot fires,
// and what is opened to see whether it can be is closed again; a volume that
// turns out to be broken is told of as at a login.
func (l logins) ExplainLogin(ctx context.Context, m store.Machine) (store.LoginExplanation, error) {
	c := newCatalog(l.a.db, l.a.pool)
	access, err := c.Access(ctx, m.Initiator)
	if err != nil {
		return store.LoginExplanation{}, err
	}
	out := store.LoginExplanation{Target: l.a.iqn, Initiator: m.Initiator, Auth: access.Auth}
	if access.Auth != store.AuthNone {
		out.User = access.CHAP.User
	}
	if access.Auth == store.AuthMutual {
		out.ReverseUser = access.Reverse.User
	}
	r, err := c.find(ctx, m.Initiator)
	if err != nil {
		return out, err
	}
	open, fault, err := c.open(ctx, m.Initiator, false)
	if err != nil {
		return out, err
	}
	defer open.Release()
	for _, mp := range r.mappings {
		v := r.volumes[mp.Volume]
		u := store.UnitExplanation{LUN: mp.LUN, Volume: v.Name, ID: v.ID, Size: v.Size, ReadOnly: mp.ReadOnly || v.ReadOnly, Boot: mp.Boot}
		if _, ok := open.LUNs[mp.LUN]; !ok {
			u.Problem = "it cannot be opened now"
			if v.State != store.VolumeReady {
				u.Problem = fmt.Sprintf("it is %s", v.State)
			}
		}
		out.Units = append(out.Units, u)
	}
	switch {
	case len(open.LUNs) > 0:
	case fault != nil:
		out.Refused = fault.Error()
	default:
		out.Refused = "no volume is mapped to it"
	}
	return out, nil
}

// files shows the loaders' manifest.
type files struct{ set *loaders.Set }

// ExplainFile describes one loader.
func (f files) ExplainFile(name boot.Loader) store.FileExplanation {
	for _, i := range f.set.Manifest() {
		if i.Name == name {
			return store.FileExplanation{Loader: string(name), Version: i.Version, Size: i.Size, SHA256: i.SHA256, Source: i.Source}
		}
	}
	return store.FileExplanation{Loader: string(name), Missing: true}
}

// past is what was seen of earlier boots.
type past struct {
	*attempts.Runner
	journal *events.Journal
}

// maxPast bounds the events of an attempt that are looked through: a machine
// that runs for weeks has many.
const maxPast = 20000

// EventsOf returns the events of an attempt's machine while it lasted.
func (p past) EventsOf(ctx context.Context, a store.Attempt) ([]store.Event, error) {
	var out []store.Event
	for after, end := a.FirstSeq-1, min(a.LastSeq, a.FirstSeq+maxPast); after < end; {
		items, err := p.journal.After(ctx, after, 500)
		if err != nil || len(items) == 0 {
			return out, err
		}
		for _, e := range items {
			after = e.Seq
			if e.Seq <= end && (e.Attempt == a.ID || e.Machine != 0 && e.Machine == a.Machine || !e.MAC.IsZero() && e.MAC == a.MAC) {
				out = append(out, e)
			}
		}
	}
	return out, nil
}
