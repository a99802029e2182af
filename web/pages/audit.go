package pages

import (
	"context"
	"net/http"

	"lunboot/store"
)

// AuditLog is who changed what.
type AuditLog interface {
	AuditLog(context.Context, store.AuditFilter) ([]store.Audit, int, error)
	EveryChange(context.Context, store.AuditFilter) (store.Parts[store.Audit], error)
	Auditors(context.Context) ([]store.Actor, error)
}

// auditPage is how many changes one page lists.
const auditPage = 50

type auditView struct {
	Rows   []store.Audit
	List   tableQuery
	Who    store.Actor
	What   string
	Actors []store.Actor
	Nouns  []deed
}

// audit shows who changed what, from what to what.
func (s *site) audit(w http.ResponseWriter, r *http.Request) {
	u := r.URL.Query()
	v := auditView{Who: store.Actor(u.Get("who")), What: u.Get("what"), Nouns: deedNouns()}
	q := readTable(r, "/audit", "lab-03, who:anna, since:2d", store.AuditColumns())
	q.Show, q.Rows, q.Table, q.Extra = "", auditPage, "audit", [][2]string{{"who", string(v.Who)}, {"what", v.What}}
	var bad, err error
	if v.Actors, err = s.Audit.Auditors(r.Context()); err == nil {
		v.List, v.Rows, bad, err = fetch(q, func(search string, p store.Page) ([]store.Audit, int, error) {
			f, err := store.ParseAuditSearch(search, s.Now())
			if err != nil {
				return nil, 0, err
			}
			f.Actor, f.Noun, f.Sort, f.Page = v.Who, v.What, q.Sort, p
			return s.Audit.AuditLog(r.Context(), f)
		})
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	status, problem := refused(http.StatusOK, "", bad)
	s.render(w, r, status, "audit", page{Title: "Audit", Nav: "settings", Error: problem, Data: v})
}
