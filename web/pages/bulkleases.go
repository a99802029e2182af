package pages

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"lunboot/store"
	"lunboot/store/listing"
)

// leasesOf are all leases that a list finds, on whichever of its pages.
func leasesOf(q tableQuery, all []listing.Lease) ([]listing.Lease, error) {
	found, _, err := listing.Leases().Find(all, listing.Query{Search: q.Search})
	if err == nil && q.Show != "" {
		found = listing.Leases().With(found, "state", q.Show)
	}
	return found, err
}

// expired are the leases whose time is over.
func expired(all []listing.Lease) []listing.Lease {
	return listing.Leases().With(all, "state", listing.LeaseOver)
}

// running are the addresses from which volumes are open.
func (s *site) running() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, session := range s.Sessions.Sessions() {
		if from, err := netip.ParseAddrPort(session.Addr); err == nil {
			out[from.Addr().Unmap()] = true
		}
	}
	return out
}

func countLeases(n int) string {
	if n == 1 {
		return "1 lease"
	}
	return fmt.Sprintf("%d leases", n)
}

// bulkLeases drops the leases that are ticked, all that match, or all that have
// expired.
func (s *site) bulkLeases(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, store.Invalid("form", "the form cannot be read"))
		return
	}
	refuse := func(err error) {
		status, text := told(r, err)
		s.showLeases(w, r, status, page{Error: text})
	}
	all, err := s.lists().Leases(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	chosen, err := chosenLeases(r, all)
	if err != nil {
		refuse(err)
		return
	}
	if r.PostFormValue("act") != "drop" {
		refuse(store.Invalid("act", "choose what to do with the leases"))
		return
	}
	sure, err := s.sureOfLeases(r, chosen)
	if err != nil {
		refuse(err)
		return
	}
	if sure != nil {
		if status, problem := sure.refused(r); status != 0 {
			s.leasesPage(w, r, status, page{Error: problem}, sure)
			return
		}
	}
	spec := store.LeaseDropSpec{InUse: sure != nil}
	for _, l := range chosen {
		spec.Leases = append(spec.Leases, l.Lease)
	}
	done, err := s.Leases.DropLeases(r.Context(), by(r), spec)
	t := tally{count: countLeases}
	for _, d := range done {
		var problem error
		if !d.Dropped {
			problem = fmt.Errorf("%s", d.Problem)
		}
		t.add(d.Address.String(), "", problem)
	}
	status, p := t.page()
	if err != nil { // the rest was not tried
		var text string
		status, text = told(r, err)
		p.Error = strings.TrimSpace(p.Error + " " + text)
	}
	s.showLeases(w, r, status, p)
}

// chosenLeases are the leases that a form names: those that have expired, all that
// match the list, when they are still those of which the form speaks, or the
// ticked ones.
func chosenLeases(r *http.Request, all []listing.Lease) (out []listing.Lease, err error) {
	switch {
	case r.PostFormValue("expired") != "":
		out = expired(all)
		err = sameAsSeen(r.PostForm, listing.LeaseDigest(out), countLeases(len(out)))
	case r.PostFormValue("all") != "":
		if out, err = leasesOf(readTable(r, "/leases", "", listing.Leases().Columns()), all); err == nil {
			err = sameAsSeen(r.PostForm, listing.LeaseDigest(out), countLeases(len(out)))
		}
	default:
		for _, text := range r.PostForm["id"] {
			i := slices.IndexFunc(all, func(l listing.Lease) bool { return l.Address.String() == text })
			if i < 0 {
				return nil, store.NotFound("lease of", text)
			}
			out = append(out, all[i])
		}
	}
	if err == nil && len(out) == 0 {
		err = store.Invalid("id", "tick the leases that are meant, or choose all that match")
	}
	return out, err
}

// sureOfLeases is what somebody has to agree to before leases are dropped; nil
// when nobody has any of the addresses still. Those of machines that run from
// their volumes stay in any case.
func (s *site) sureOfLeases(r *http.Request, chosen []listing.Lease) (*question, error) {
	runs := s.running()
	who := func(l listing.Lease) string {
		if l.Name != "" {
			return l.Address.String() + ", " + l.Name
		}
		return l.Address.String() + ", " + l.MAC.String()
	}
	sure := &question{Act: "drop", Typed: strings.TrimSpace(r.PostFormValue("sure")), Seen: listing.LeaseDigest(chosen), List: readTable(r, "/leases", "", listing.Leases().Columns())}
	if r.PostFormValue("all") != "" {
		sure.Match = r.PostFormValue("match")
	}
	goes, used := 0, 0
	for _, l := range chosen {
		if sure.Match == "" {
			sure.IDs = append(sure.IDs, l.Address.String())
		}
		switch {
		case runs[l.Address]:
			if len(sure.Kept) < maxLost {
				sure.Kept = append(sure.Kept, who(l)+", stays: its volume is open from there")
			}
			continue
		case l.InUse():
			if used++; used <= maxLost {
				sure.Lines = append(sure.Lines, who(l)+" goes on using it until it asks again")
			}
		}
		goes++
	}
	switch {
	case goes == 0:
		return nil, store.InUse("nothing was dropped: %s; end its session first", sure.Kept[0])
	case used == 0:
		return nil, nil
	case used > maxLost:
		sure.Lines = append(sure.Lines, fmt.Sprintf("and %d more", used-maxLost))
	}
	sure.Want = fmt.Sprintf("drop %d", goes)
	sure.Title = fmt.Sprintf("This drops %s, %d of which machines use still: another may be given such an address while the one goes on using it", countLeases(goes), used)
	sure.Button = "Drop " + countLeases(goes)
	return sure, nil
}
