package pages

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"lunboot/services/boot"
	"lunboot/services/boot/diagnose"
	"lunboot/services/boot/ipxeerr"
	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/web/auth"
)

// helpView is the help's index: every code of a diagnosis by area, or those that
// a search leaves.
type helpView struct {
	Query string
	Login bool      // how to log in is shown
	IPXE  *ipxeView // when the search is an iPXE code
	Areas []helpArea
	Lists []helpList
	Found []helpFound

	Backups bool // what is secret in a backup is shown

	Cases bool   // what a case number is, is shown
	Case  string // when the search is one
}

// helpList is what one list can be searched by.
type helpList struct {
	Name, Path string
	Keys       []string
	Admin      bool // for admins alone
}

// helpLists is how the lists are searched, as they say themselves.
func helpLists() []helpList {
	return []helpList{
		{"Machines", "/machines", store.MachineKeys(), false},
		{"New machines", "/unknown", listing.UnknownMachines().Keys(), false},
		{"Volumes", "/volumes", listing.Volumes().Keys(), false},
		{"Attempts", "/activity", store.AttemptKeys(), false},
		{"Events", "/events", store.EventKeys(), false},
		{"Sessions", "/sessions", listing.Sessions().Keys(), false},
		{"Leases", "/leases", listing.Leases().Keys(), false},
		{"Subnets", "/subnets", listing.Subnets().Keys(), false},
		{"LUN mappings", "/mappings", listing.Mappings().Keys(), false},
		{"Jobs", "/jobs", listing.Jobs().Keys(), false},
		{"Audit", "/audit", store.AuditKeys(), false},
		{"Profiles", "/profiles", listing.Profiles().Keys(), false},
		{"Media", "/media", listing.Media().Keys(), false},
		{"Loaders", "/loaders", boot.LoaderList().Keys(), false},
		{"People", "/people", listing.Users().Keys(), true},
		{"Tokens", "/tokens", listing.Tokens().Keys(), true},
	}
}

// helpFound is what a search finds on the help's other pages, of one sort.
type helpFound struct {
	Name string
	Hits []helpHit
}

// helpHit is one place there. It is found by more than is shown.
type helpHit struct{ Name, Help, URL, more string }

type helpArea struct {
	Name    string
	Entries []diagnose.Entry
}

// ipxeView is what an iPXE code means.
type ipxeView struct {
	Code, Screen, Where, Platform, Meaning string
}

func (s *site) help(w http.ResponseWriter, r *http.Request) {
	q := strings.TrimSpace(r.URL.Query().Get("q"))
	if e, ok := diagnose.Find(q); ok {
		http.Redirect(w, r, "/help/"+e.Code, http.StatusSeeOther)
		return
	}
	v := helpView{Query: q}
	if x, ok := ipxeerr.DecodeString(q[strings.LastIndexByte(q, '/')+1:]); ok {
		v.IPXE = &ipxeView{Code: fmt.Sprintf("%08x", x.Code), Screen: x.Screen, Where: x.Where, Platform: x.Platform.String(), Meaning: x.Meaning}
	}
	if n := strings.TrimSpace(strings.TrimPrefix(strings.ToLower(q), "case ")); n != "" {
		if _, err := store.ParseCase(n); err == nil {
			v.Case = n
		}
	}
	v.Cases = q == "" || v.Case != "" || v.IPXE == nil && allWords("case number screen machine notice withheld", q)
	v.Login = v.IPXE == nil && allWords("logging in out logout back-channel backchannel password token single sign-on oidc provider", q)
	v.Backups = v.IPXE == nil && allWords("backups restore secrets chap bmc password client secret webhook key 0600", q)
	for _, area := range diagnose.Areas() {
		a := helpArea{Name: area[1]}
		for _, e := range diagnose.Catalogue() {
			if e.Area() == area[0] && (v.IPXE != nil || speaks(e, q)) {
				a.Entries = append(a.Entries, e)
			}
		}
		if len(a.Entries) > 0 {
			v.Areas = append(v.Areas, a)
		}
	}
	for _, l := range helpLists() {
		if l.Admin && !auth.From(r.Context()).May(store.ScopeAdmin) {
			continue
		}
		if v.IPXE == nil && allWords("search lists qualifiers "+l.Name+" "+strings.Join(l.Keys, " "), q) {
			v.Lists = append(v.Lists, l)
		}
	}
	if q != "" && v.IPXE == nil {
		found, err := s.lookUp(r.Context(), q)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		v.Found = found
	}
	s.render(w, r, http.StatusOK, "help", page{Title: "Help", Nav: "help", Data: v})
}

// speaks reports whether an entry has every word of a search in it.
func speaks(e diagnose.Entry, q string) bool {
	return allWords(e.Code+" "+e.Name+" "+e.Sign+" "+e.Help, q)
}

// allWords reports whether a text has every word of a search in it.
func allWords(text, q string) bool {
	text = strings.ToLower(text)
	return !slices.ContainsFunc(strings.Fields(strings.ToLower(q)), func(word string) bool { return !strings.Contains(text, word) })
}

// helpCode shows one code's page, which a diagnosis links to.
func (s *site) helpCode(w http.ResponseWriter, r *http.Request) {
	e, ok := diagnose.Find(chi.URLParam(r, "code"))
	if !ok {
		s.fail(w, r, store.NotFound("page of the help for", chi.URLParam(r, "code")))
		return
	}
	s.render(w, r, http.StatusOK, "help-code", page{Title: e.Code, Nav: "help", Data: e})
}
