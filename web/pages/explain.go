package pages

import (
	"context"
	"net/http"
	"net/netip"
	"strings"

	"lunboot/services/boot"
	"lunboot/store"
)

// Explainer makes dry runs: what a machine would get if it booted now.
type Explainer interface {
	Explain(context.Context, store.Machine, store.ExplainQuery) (store.DryRun, error)
}

type explainView struct {
	store.DryRun
	Title string // the machine's name, or the MAC of one that is not enrolled
	Back  string
	Self  string
	MACs  []store.MAC // to choose from
	Arch  string
	Archs []string
	Via   string // the relay as it was typed
	Asked bool   // there is an explanation
}

// explainMachine shows a dry run of an enrolled machine.
func (s *site) explainMachine(w http.ResponseWriter, r *http.Request) {
	m, err := s.machineOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.dryRun(w, r, m, explainView{Title: m.Name, Back: machinePath(m.ID), MACs: m.MACs})
}

// explainUnknown shows one of a machine that is not enrolled.
func (s *site) explainUnknown(w http.ResponseWriter, r *http.Request) {
	u, err := s.unknownOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.dryRun(w, r, store.Machine{}, explainView{Title: u.MAC.String(), Back: unknownPath(u.MAC), MACs: []store.MAC{u.MAC}})
}

func (s *site) dryRun(w http.ResponseWriter, r *http.Request, m store.Machine, v explainView) {
	q := r.URL.Query()
	v.Arch, v.Via, v.Self, v.Archs = q.Get("arch"), strings.TrimSpace(q.Get("relay")), v.Back+"/explain", boot.ArchNames()
	query := store.ExplainQuery{MAC: v.MACs[0], Arch: v.Arch}
	err := error(nil)
	if t := q.Get("mac"); t != "" {
		query.MAC, err = store.ParseMAC(t)
	}
	if err == nil && v.Via != "" {
		if query.Relay, err = netip.ParseAddr(v.Via); err != nil || !query.Relay.Is4() {
			err = store.Invalid("relay", "%q is not the IPv4 address of a relay", v.Via)
		}
	}
	if err == nil {
		v.DryRun, err = s.Explainer.Explain(r.Context(), m, query)
	}
	status, problem := http.StatusOK, ""
	if err != nil {
		status, problem = told(r, err)
		v.MAC = query.MAC
	}
	v.Asked = err == nil
	s.render(w, r, status, "explain", page{Title: "What " + v.Title + " would get", Nav: "machines", Error: problem, Data: v})
}
