package pages

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"lunboot/store"
	"lunboot/store/listing"
)

// bulkUnknown does one act on the unknown machines that are ticked, or on all
// that wait and match.
func (s *site) bulkUnknown(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, store.Invalid("form", "the form cannot be read"))
		return
	}
	macs, err := s.chosenUnknown(r)
	if err != nil {
		s.unknownProblem(w, r, err)
		return
	}
	t := tally{count: count, back: undo{Back: readTable(r, "/unknown", "", listing.UnknownMachines().Columns()).URL()}}
	switch act := r.PostFormValue("act"); act {
	case "enroll":
		name, err := store.ParseNamePattern(r.PostFormValue("pattern"))
		var done []store.Enrolled
		if err == nil {
			done, err = s.Enrolling.EnrollAll(r.Context(), by(r), store.EnrollSpec{Name: name, Profile: r.PostFormValue("profile"), Clone: choice(r), MACs: macs})
		}
		if err != nil {
			s.unknownProblem(w, r, err)
			return
		}
		for _, e := range done {
			var err error
			if e.Problem != "" {
				err = errors.New(e.Problem)
			}
			t.add(e.MAC.String(), "", err)
		}
	case "ignore", "stop":
		for _, mac := range macs {
			was := ""
			if act == "ignore" {
				was = "0:0:ignore:" + mac.String()
			}
			t.add(mac.String(), was, s.Machines.Ignore(r.Context(), by(r), mac, act == "ignore"))
		}
	default:
		s.unknownProblem(w, r, store.Invalid("act", "choose what to do with the machines"))
		return
	}
	status, p := t.page()
	s.unknownPage(w, r, status, p)
}

// chosenUnknown returns the MACs that a form names: the ticked ones, or all that
// wait and match, when they are still those of which the form speaks.
func (s *site) chosenUnknown(r *http.Request) (macs []store.MAC, err error) {
	if r.PostFormValue("all") == "" {
		for _, text := range r.PostForm["id"] {
			mac, err := store.ParseMAC(text)
			if err != nil {
				return nil, err
			}
			macs = append(macs, mac)
		}
	} else {
		us, err := s.Inventory.UnknownMachines(r.Context(), true)
		if err != nil {
			return nil, err
		}
		us = slices.DeleteFunc(slices.Clone(us), func(u store.UnknownMachine) bool { return u.Ignored })
		found, _, err := unknownFound(strings.TrimSpace(r.PostFormValue("search")), us)
		if err != nil {
			return nil, err
		}
		if err := sameAsSeen(r.PostForm, digestUnknown(found), count(len(found))); err != nil {
			return nil, err
		}
		for _, u := range found {
			macs = append(macs, u.MAC)
		}
	}
	if len(macs) == 0 {
		return nil, store.Invalid("id", "tick the machines that are meant, or choose all that match")
	}
	return macs, nil
}

// digestUnknown stands for the unknown machines that match, in whatever order.
func digestUnknown(us []listing.UnknownMachine) string {
	macs := make([]string, len(us))
	for i, u := range us {
		macs[i] = u.MAC.String()
	}
	return listing.Digest(macs)
}
