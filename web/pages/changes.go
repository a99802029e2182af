package pages

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"lunboot/store"
)

// AuditLog is who changed what.
type AuditLog interface {
	AuditLog(context.Context, store.AuditFilter) ([]store.Audit, int, error)
	Auditors(context.Context) ([]store.Actor, error)
}

// changesPage is how many changes one page lists.
const changesPage = 50

type changesView struct {
	Rows     []store.Audit
	Total    int
	Who      store.Actor
	What     string
	Search   string
	Actors   []store.Actor
	Nouns    []string
	From, To int
	Newer    string // URLs, empty where there is nothing
	Older    string
	Filtered bool
}

// auditNouns are the kinds of things that the filter offers.
func auditNouns() []string {
	return []string{"machine", "volume", "mapping", "profile", "loader", "subnet", "lease", "unknown", "setting", "user", "oidc", "token", "backup", "session"}
}

// changesList shows who changed what, from what to what.
func (s *site) changesList(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	v := changesView{Who: store.Actor(q.Get("who")), What: q.Get("what"), Search: strings.TrimSpace(q.Get("search")), Nouns: auditNouns()}
	v.Filtered = v.Who != "" || v.What != "" || v.Search != ""
	offset, err := strconv.Atoi(q.Get("from"))
	if err != nil || offset < 0 {
		offset = 0
	}
	if v.Actors, err = s.Audit.Auditors(r.Context()); err != nil {
		s.fail(w, r, err)
		return
	}
	v.Rows, v.Total, err = s.Audit.AuditLog(r.Context(), store.AuditFilter{Actor: v.Who, Noun: v.What, Search: v.Search, Page: store.Page{Limit: changesPage, Offset: offset}})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	at := func(from int) string {
		u := url.Values{}
		for key, value := range map[string]string{"who": string(v.Who), "what": v.What, "search": v.Search} {
			if value != "" {
				u.Set(key, value)
			}
		}
		if from > 0 {
			u.Set("from", strconv.Itoa(from))
		}
		return strings.TrimSuffix("/changes?"+u.Encode(), "?")
	}
	v.From, v.To = offset+1, offset+len(v.Rows)
	if offset > 0 {
		v.Newer = at(max(0, offset-changesPage))
	}
	if v.To < v.Total && len(v.Rows) > 0 {
		v.Older = at(offset + changesPage)
	}
	s.render(w, r, http.StatusOK, "changes", page{Title: "Changes", Nav: "settings", Data: v})
}
