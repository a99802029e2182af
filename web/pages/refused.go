package pages

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"lunboot/store"
	"lunboot/web/pages/typed"
)

// fail shows what did not happen, why, and what to do.
func (s *site) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, text := explain(err)
	if status == http.StatusInternalServerError {
		s.Log.Error("a page failed", "path", r.URL.Path, "error", err)
	}
	s.render(w, r, status, "error", page{Title: failure(status), Data: text})
}

// failure is what a page that shows nothing else is called.
func failure(status int) string {
	switch status {
	case http.StatusNotFound:
		return "That is not here"
	case http.StatusForbidden:
		return "That is not allowed"
	case http.StatusServiceUnavailable:
		return "That is not possible now"
	case http.StatusInternalServerError:
		return "The appliance failed at that"
	}
	return "That did not work"
}

// foreign refuses a form that a page of somebody else's sent.
func (s *site) foreign(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, &store.Error{Kind: store.KindDenied, Msg: "nothing was done: a page from elsewhere sent this. If it was yours, open these pages at one address, then do it again"})
}

type (
	faultsKey    struct{}
	overtakenKey struct{}
)

// told is explain for an answer to a form: the page that answers marks the fields
// that err speaks of, in the form as it was filled in. Was something changed
// meanwhile, it shows that instead: the form as it was filled in, sent again, would
// undo what nobody looked at.
func told(r *http.Request, err error) (int, string) {
	faults := typed.Faults(err)
	ctx := context.WithValue(r.Context(), faultsKey{}, faults)
	if store.KindOf(err) == store.KindStale || slices.ContainsFunc(faults, func(f typed.Fault) bool { return f.Field == "revision" }) {
		ctx = context.WithValue(ctx, overtakenKey{}, true)
	}
	*r = *r.WithContext(ctx)
	return explain(err)
}

// overtaken reports that somebody else was first.
func overtaken(r *http.Request) bool { return r.Context().Value(overtakenKey{}) != nil }

func faultsOf(r *http.Request) []typed.Fault {
	all, _ := r.Context().Value(faultsKey{}).([]typed.Fault) // none where nothing was refused
	return all
}

// explain is the one table from a store's error to a status and a sentence.
func explain(err error) (int, string) {
	var e *store.Error
	if !errors.As(err, &e) {
		return http.StatusInternalServerError, "The appliance could not do this: " + err.Error() + ". Its log says more."
	}
	var lines []string
	for _, line := range strings.Split(err.Error(), "\n") {
		if line != "" {
			lines = append(lines, upper(line))
		}
	}
	text := strings.Join(lines, " ")
	switch e.Kind {
	case store.KindNotFound:
		return http.StatusNotFound, text
	case store.KindConflict, store.KindInUse:
		return http.StatusConflict, text
	case store.KindStale:
		return http.StatusPreconditionFailed, text
	case store.KindInvalid:
		return http.StatusUnprocessableEntity, text
	case store.KindDenied:
		return http.StatusForbidden, text
	case store.KindUnavailable:
		return http.StatusServiceUnavailable, text
	}
	return http.StatusInternalServerError, text
}

func upper(s string) string {
	if s == "" {
		return s
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}
