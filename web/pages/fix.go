package pages

import (
	"net/http"
	"strconv"

	"lunboot/store"
	"lunboot/web/auth"
)

// doable reports whether a fix of a diagnosis is a button; every other one is an
// instruction, and is shown as text.
func doable(action string) bool {
	_, err := store.ParseFix(action)
	return err == nil
}

// adminOnly reports whether the button is an administrator's alone.
func adminOnly(action string) bool {
	f, err := store.ParseFix(action)
	return err == nil && f.Needs() == store.ScopeAdmin
}

// mayFix refuses who may not do what the button says.
func mayFix(r *http.Request) error {
	f, err := store.ParseFix(r.PostFormValue("action"))
	if err == nil && !auth.From(r.Context()).May(f.Needs()) {
		return denied(r, f.Needs())
	}
	return nil // a button that there is not is refused by who does it
}

// fix does what the button of a diagnosis says.
func (s *site) fix(w http.ResponseWriter, r *http.Request) {
	m, err := s.machineOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if err := mayFix(r); err != nil {
		s.fail(w, r, err)
		return
	}
	id, err := strconv.ParseInt(r.PostFormValue("attempt"), 10, 64)
	if err != nil {
		s.showMachine(w, r, http.StatusUnprocessableEntity, "The form does not say which boot it speaks of.")
		return
	}
	a, err := s.Attempts.Attempt(r.Context(), store.AttemptID(id))
	if err == nil && a.Machine != m.ID {
		err = store.Conflict("attempt", "that boot is not one of %s", m.Name)
	}
	var did store.FixResult
	if err == nil {
		did, err = s.Machines.Fix(r.Context(), by(r), a, r.PostFormValue("action"))
	}
	switch {
	case err != nil:
		status, text := told(r, err)
		s.showMachine(w, r, status, text)
	case !did.OK:
		s.showMachine(w, r, http.StatusOK, did.Says)
	case r.PostFormValue("action") == string(store.FixCheckAgain):
		s.sayOnMachine(w, r, "Checked: "+did.Says+".")
	default:
		http.Redirect(w, r, machinePath(m.ID), http.StatusSeeOther)
	}
}
