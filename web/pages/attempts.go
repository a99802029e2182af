package pages

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
)

// attemptView is one boot: of a machine, or of a MAC that is not enrolled.
type attemptView struct {
	Attempt  store.Attempt
	Who      string
	Cond     condition
	Bars     []bar
	Total    string
	Self     string
	Owner    string // the page of whose boot it is; empty: there is none any more
	Newcomer bool   // that page is the one of a MAC that waits to be enrolled
	Newest   bool   // nothing newer was heard of them: what helps can be done still
	Captured bool
	Others   []store.Attempt // their other boots, newest first
	All      string          // where all of them are listed
}

func attemptPath(id store.AttemptID) string { return fmt.Sprintf("/attempts/%d", id) }

func (s *site) attemptOf(r *http.Request) (store.Attempt, error) {
	id, err := strconv.ParseInt(chi.URLParam(r, "id"), 10, 64)
	if err != nil {
		return store.Attempt{}, store.NotFound("attempt", chi.URLParam(r, "id"))
	}
	return s.Attempts.Attempt(r.Context(), store.AttemptID(id))
}

func (s *site) attempt(w http.ResponseWriter, r *http.Request) {
	s.showAttempt(w, r, http.StatusOK, page{})
}

func (s *site) showAttempt(w http.ResponseWriter, r *http.Request, status int, p page) {
	a, err := s.attemptOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v, err := s.attemptView(r.Context(), a)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	p.Title, p.Nav, p.Live, p.Data = "Attempt of "+a.Subject(), "activity", true, v
	s.render(w, r, status, "attempt", p)
}

func (s *site) attemptView(ctx context.Context, a store.Attempt) (attemptView, error) {
	v := attemptView{Attempt: a, Who: a.Subject(), Cond: bootCondition(a), Self: attemptPath(a.ID), Captured: s.Captures.Captured(ctx, a)}
	v.Bars, v.Total = s.bars(a)
	f := store.AttemptFilter{Machine: a.Machine, Page: store.Page{Limit: earlierBoots + 1}}
	if a.Machine != 0 {
		m, err := s.Inventory.Machine(ctx, a.Machine)
		if err != nil && !store.IsNotFound(err) {
			return v, err
		}
		if err == nil {
			v.Owner, v.All = machinePath(m.ID), tableQuery{Path: "/activity", Search: "machine:" + m.Name}.URL()
		}
	} else {
		f.MAC = a.MAC
		unknown, err := s.Inventory.UnknownMachines(ctx, true)
		if err != nil {
			return v, err
		}
		for _, u := range unknown {
			if u.MAC == a.MAC {
				v.Owner, v.Newcomer = unknownPath(a.MAC), true
			}
		}
		if !a.MAC.IsZero() {
			v.All = tableQuery{Path: "/activity", Search: "mac:" + a.MAC.String()}.URL()
		}
	}
	if latest, ok := s.Attempts.Latest(a.Machine, f.MAC); ok {
		v.Newest = latest.ID == a.ID
	}
	if f.Machine == 0 && f.MAC.IsZero() { // known by its address alone: nothing says which others are its own
		return v, nil
	}
	past, _, err := s.Attempts.Attempts(ctx, f)
	for _, other := range past {
		if other.ID != a.ID && len(v.Others) < earlierBoots {
			v.Others = append(v.Others, other)
		}
	}
	return v, err
}

// fixAttempt does what the button of a diagnosis says, on the page of the attempt.
func (s *site) fixAttempt(w http.ResponseWriter, r *http.Request) {
	a, err := s.attemptOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if err := mayFix(r); err != nil {
		s.fail(w, r, err)
		return
	}
	did, err := s.Machines.Fix(r.Context(), by(r), a, r.PostFormValue("action"))
	switch {
	case err != nil:
		status, text := told(r, err)
		s.showAttempt(w, r, status, page{Error: text})
	case !did.OK:
		s.showAttempt(w, r, http.StatusOK, page{Error: did.Says})
	default:
		s.showAttempt(w, r, http.StatusOK, page{Said: upper(did.Says)})
	}
}
