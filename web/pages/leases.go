package pages

import (
	"context"
	"net/http"
	"net/netip"

	"lunboot/store"
	"lunboot/store/listing"
)

// LeaseActs are the operator's acts on leases.
type LeaseActs interface {
	DropLease(context.Context, store.Actor, netip.Addr) error
	DropLeases(context.Context, store.Actor, store.LeaseDropSpec) ([]store.LeaseDropped, error)
}

type leasesView struct {
	Rows []listing.Lease
	List tableQuery
	All  int // that there are, found or not

	Match   string              // stands for all that match
	Expired int                 // of all that there are
	Over    string              // stands for these
	Sure    *question           // what has to be agreed to
	Runs    map[netip.Addr]bool // addresses from which volumes are open
}

func (s *site) leases(w http.ResponseWriter, r *http.Request) {
	s.showLeases(w, r, http.StatusOK, page{})
}

func (s *site) showLeases(w http.ResponseWriter, r *http.Request, status int, p page) {
	s.leasesPage(w, r, status, p, nil)
}

// leasesPage shows the leases, with what has to be agreed to before an act, nil
// for nothing.
func (s *site) leasesPage(w http.ResponseWriter, r *http.Request, status int, p page, sure *question) {
	all, err := s.lists().Leases(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v := leasesView{All: len(all), Sure: sure, Runs: s.running()}
	var bad error
	v.List, v.Rows, bad = listedBy(listing.Leases(), narrowing{"state", [][2]string{{"bound", "In use"}, {"offered", "Offered"}, {"declined", "Declined"}, {listing.LeaseOver, "Expired"}}},
		"/leases", "machine:lab-03, mac:0007e9, port:Gi0/4", r, all)
	v.List.Table = "leases"
	if found, err := leasesOf(v.List, all); err == nil {
		v.Match = listing.LeaseDigest(found)
	}
	over := expired(all)
	v.Expired, v.Over = len(over), listing.LeaseDigest(over)
	status, p.Error = refused(status, p.Error, bad)
	p.Title, p.Nav, p.Live, p.List, p.Data = "Leases", "leases", true, v.List.URL(), v
	s.render(w, r, status, "leases", p)
}

// leaseWords is where a lease stands.
func leaseWords(l listing.Lease) string {
	switch {
	case l.Over:
		return "Expired"
	case l.State == store.LeaseBound:
		return "In use"
	case l.State == store.LeaseDeclined:
		return "Declined"
	}
	return "Offered"
}

// dropLease drops a lease. One that is in use is somebody's address still:
// whoever drops it has to have said so.
func (s *site) dropLease(w http.ResponseWriter, r *http.Request) {
	text := r.PostFormValue("address")
	addr, err := netip.ParseAddr(text)
	if err != nil {
		err = store.Invalid("address", "%q is not an address", text)
	} else if err = s.mayDrop(r, addr); err == nil {
		err = s.Leases.DropLease(r.Context(), by(r), addr)
	}
	if err != nil {
		status, problem := told(r, err)
		s.showLeases(w, r, status, page{Error: problem})
		return
	}
	s.showLeases(w, r, http.StatusOK, page{Said: "The lease of " + addr.String() + " was dropped."})
}

func (s *site) mayDrop(r *http.Request, addr netip.Addr) error {
	if r.PostFormValue("sure") != "" {
		return nil
	}
	all, err := s.lists().Leases(r.Context())
	for _, l := range all {
		if l.Address == addr && l.InUse() {
			return store.Invalid("sure", "nothing was dropped: %s is in use; tick that another machine may be given it", addr)
		}
	}
	return err
}
