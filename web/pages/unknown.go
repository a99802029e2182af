package pages

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"lunboot/services/boot/oui"
	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/web/download"
)

// Enrolling is how machines get into the inventory by more than one click each.
type Enrolling interface {
	EnrollAll(context.Context, store.Actor, store.EnrollSpec) ([]store.Enrolled, error)
	AutoEnroll(context.Context) (store.AutoEnroll, error)
	SetAutoEnroll(context.Context, store.Actor, store.AutoEnroll) (store.AutoEnroll, error)
	EnrollWithClone(ctx context.Context, by store.Actor, mac store.MAC, name string, choice store.CloneChoice) (store.Machine, error)
	FreshClones(context.Context) (bool, error)
	CloneForEach(ctx context.Context, by store.Actor, machines []store.MachineID, choice store.CloneChoice) (store.Job, error)
}

// hardware is the one line that says what an unknown machine is: what it says
// of itself, else who made its card.
func hardware(u store.UnknownMachine) string {
	what := u.Vendor
	if what == "" {
		what = upperFirst(oui.Of(u.MAC).String())
	}
	platform := strings.TrimSpace(u.Firmware + " " + u.Arch)
	if what != "" && platform != "" {
		what += ", "
	}
	return what + platform
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// newcomers is the page of all unknown machines.
type newcomers struct {
	Waiting  []store.UnknownMachine
	List     tableQuery
	All      int // that wait, found or not
	Ignored  []store.UnknownMachine
	Rules    []ruleRow
	Profiles []store.Profile
	Pattern  string         // what the last machines' names suggest
	Goldens  []store.Volume // that each can get a clone of
	Default  bool           // the first of them is the lab's default
	Fresh    bool           // clones begin anew unless something else is chosen
	Self     string
	Match    string // stands for all that wait and match
	MatchAll string // stands for all that wait
}

type ruleRow struct {
	store.AutoEnrollRule
	Maker string // of a whole block's prefix
	Have  int    // machines that it covers now
}

func (s *site) unknown(w http.ResponseWriter, r *http.Request) {
	s.showUnknown(w, r, http.StatusOK, "")
}

func (s *site) showUnknown(w http.ResponseWriter, r *http.Request, status int, problem string) {
	s.unknownPage(w, r, status, page{Error: problem})
}

func (s *site) unknownPage(w http.ResponseWriter, r *http.Request, status int, p page) {
	v, err := s.newcomers(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	var bad error
	v.All = len(v.Waiting)
	all, ignored := v.Waiting, v.Ignored
	v.List, v.Waiting, bad = findUnknown(r, v.Waiting)
	_, v.Ignored, _ = findUnknown(r, ignored)
	v.Self, v.MatchAll = v.List.URL(), digestUnknown(download.MadeBy(all))
	v.List.Table = "unknown-machines"
	status, p.Error = refused(status, p.Error, bad)
	if waiting, _, err := unknownFound(v.List.Search, all); err == nil {
		v.Match = digestUnknown(waiting)
	}
	p.Title, p.Nav, p.Live, p.List, p.Data = "New machines", "machines", true, v.Self, v
	s.render(w, r, status, "unknown", p)
}

// unknownFound finds all unknown machines of a search.
func unknownFound(search string, us []store.UnknownMachine) ([]listing.UnknownMachine, int, error) {
	return listing.UnknownMachines().Find(download.MadeBy(us), listing.Query{Search: search})
}

// findUnknown finds one page of unknown machines for a request.
func findUnknown(r *http.Request, us []store.UnknownMachine) (tableQuery, []store.UnknownMachine, error) {
	list, shown, err := listed(listing.UnknownMachines(), "/unknown", "MAC, maker:intel, port:Gi0/4, firmware:uefi", r, download.MadeBy(us))
	out := make([]store.UnknownMachine, len(shown))
	for i, u := range shown {
		out[i] = u.UnknownMachine
	}
	return list, out, err
}

func (s *site) newcomers(ctx context.Context) (newcomers, error) {
	var v newcomers
	all, err := s.Inventory.UnknownMachines(ctx, true)
	if err != nil {
		return v, err
	}
	for _, u := range all {
		if u.Ignored {
			v.Ignored = append(v.Ignored, u)
		} else {
			v.Waiting = append(v.Waiting, u)
		}
	}
	rules, err := s.Enrolling.AutoEnroll(ctx)
	if err != nil {
		return v, err
	}
	machines, _, err := s.Inventory.Machines(ctx, store.MachineFilter{})
	if err != nil {
		return v, err
	}
	count := rules.Count(machines)
	for _, rule := range rules {
		v.Rules = append(v.Rules, ruleRow{rule, makerOf(rule.Prefix), count[rule.Prefix]})
	}
	v.Pattern = pattern(machines)
	if v.Profiles, err = s.Inventory.Profiles(ctx); err != nil {
		return v, err
	}
	v.Goldens, v.Default, err = s.goldens(ctx)
	v.Fresh = s.fresh(ctx)
	return v, err
}

// makerOf names the maker of a prefix that is a whole block of theirs.
func makerOf(p store.MACPrefix) string {
	mac, err := store.ParseMAC(string(p) + ":00:00:01")
	if err != nil {
		return ""
	}
	return oui.Of(mac).String()
}

// pattern reads how machines are called here: "lab-{n}" where there are lab-1
// and lab-2.
func pattern(machines []store.Machine) string {
	count := map[string]int{}
	best := "lab-{n}"
	for _, m := range machines {
		stem := strings.TrimRight(m.Name, "0123456789")
		digits := len(m.Name) - len(stem)
		if stem == "" || digits == 0 || digits > 4 {
			continue
		}
		p := stem + "{" + strings.Repeat("n", digits) + "}"
		if m.Name[len(stem)] != '0' {
			p = stem + "{n}"
		}
		if count[p]++; count[p] > count[best] {
			best = p
		}
	}
	return best
}

// MAC0 is the card that the machine is known by.
func (c candidate) MAC0() string {
	if len(c.MACs) == 0 {
		return ""
	}
	return c.MACs[0].String()
}

// newcomer is the page of one unknown machine.
type newcomer struct {
	store.UnknownMachine
	Maker    string
	Machines []candidate // whose board this may be
	Name     string      // that was tried
	Goldens  []store.Volume
	Default  bool
	Fresh    bool
	Boots    []store.Attempt // how it asked, newest first
	AllBoots string
}

// candidate is a machine that a new board may be for.
type candidate struct {
	store.Machine
	Why string
}

func (s *site) unknownMachine(w http.ResponseWriter, r *http.Request) {
	s.showUnknownMachine(w, r, http.StatusOK, "", "")
}

func (s *site) showUnknownMachine(w http.ResponseWriter, r *http.Request, status int, problem, name string) {
	ctx := r.Context()
	u, err := s.unknownOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v := newcomer{UnknownMachine: u, Maker: upperFirst(oui.Of(u.MAC).String()), Name: name}
	machines, _, err := s.Inventory.Machines(ctx, store.MachineFilter{})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v.Machines = s.candidates(u, machines)
	if v.Goldens, v.Default, err = s.goldens(ctx); err != nil {
		s.fail(w, r, err)
		return
	}
	v.Fresh = s.fresh(ctx)
	if v.Boots, _, err = s.Attempts.Attempts(ctx, store.AttemptFilter{MAC: u.MAC, Page: store.Page{Limit: earlierBoots}}); err != nil {
		s.fail(w, r, err)
		return
	}
	v.AllBoots = tableQuery{Path: "/activity", Search: "mac:" + u.MAC.String()}.URL()
	s.render(w, r, status, "newcomer", page{Title: u.MAC.String(), Nav: "machines", Error: problem, Data: v})
}

// candidates lists the machines in the order in which a new board is likely to
// be theirs: one that it says it is, one that was plugged in where it is, then
// those that have not been seen since it showed up, the one seen last first.
func (s *site) candidates(u store.UnknownMachine, machines []store.Machine) []candidate {
	host, _, _ := strings.Cut(u.Hostname, ".")
	says := func(m store.Machine) bool {
		return !u.UUID.IsPlaceholder() && m.UUID == u.UUID || host != "" && strings.EqualFold(host, m.Name)
	}
	rank := func(m store.Machine) int {
		switch {
		case says(m):
			return 0
		case u.Port != "" && m.Port == u.Port:
			return 1
		case m.LastSeen.Before(u.FirstSeen):
			return 2
		}
		return 3
	}
	machines = slices.Clone(machines)
	slices.SortStableFunc(machines, func(a, b store.Machine) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return b.LastSeen.Compare(a.LastSeen)
	})
	var out []candidate
	for _, m := range machines {
		why := "last seen " + s.ago(m.LastSeen)
		switch rank(m) {
		case 0:
			why = "it says that it is this one"
		case 1:
			why = "plugged in where this one was"
		}
		out = append(out, candidate{m, why})
	}
	return out
}

func (s *site) unknownOf(r *http.Request) (store.UnknownMachine, error) {
	mac, err := store.ParseMAC(chi.URLParam(r, "mac"))
	if err != nil {
		return store.UnknownMachine{}, err
	}
	all, err := s.Inventory.UnknownMachines(r.Context(), true)
	if err != nil {
		return store.UnknownMachine{}, err
	}
	for _, u := range all {
		if u.MAC == mac {
			return u, nil
		}
	}
	return store.UnknownMachine{}, store.NotFound("unknown machine", mac.String())
}

// enroll makes a machine of an unknown one, or gives a machine its new board.
func (s *site) enroll(w http.ResponseWriter, r *http.Request) {
	mac, err := store.ParseMAC(chi.URLParam(r, "mac"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	name := strings.TrimSpace(r.PostFormValue("name"))
	var replace int64
	if t := r.PostFormValue("replace"); t != "" {
		if replace, err = strconv.ParseInt(t, 10, 64); err != nil || replace <= 0 {
			s.fail(w, r, store.Invalid("replace", "choose the machine whose board was swapped"))
			return
		}
	}
	var m store.Machine
	if replace == 0 {
		m, err = s.Enrolling.EnrollWithClone(r.Context(), by(r), mac, name, choice(r))
	} else {
		m, err = s.Machines.Enroll(r.Context(), by(r), mac, name, store.MachineID(replace))
	}
	switch {
	case err == nil:
		http.Redirect(w, r, machinePath(m.ID), http.StatusSeeOther)
	case name != "" || replace != 0: // it was tried on the machine's own page
		status, text := told(r, err)
		s.showUnknownMachine(w, r, status, text, name)
	default:
		s.fail(w, r, err)
	}
}

func (s *site) ignore(w http.ResponseWriter, r *http.Request) {
	stop := r.PostFormValue("undo") != ""
	mac, err := store.ParseMAC(chi.URLParam(r, "mac"))
	if err == nil {
		err = s.Machines.Ignore(r.Context(), by(r), mac, !stop)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if stop {
		toList(w, r, "/unknown")
		return
	}
	p := page{Said: mac.String() + " is ignored: it is given nothing to boot.", Undo: &undo{Was: []string{"0:0:ignore:" + mac.String()}, Back: "/unknown"}}
	if r.PostFormValue("list") == "unknown" { // from the list of the new ones, which stays as it was
		p.Undo.Back = readTable(r, "/unknown", "", listing.UnknownMachines().Columns()).URL()
		s.unknownPage(w, r, http.StatusOK, p)
		return
	}
	s.showMachines(w, r, readListQuery(nil), http.StatusOK, p, addForm{}, nil)
}

// waiting are the machines that wait, when they are still those of which a form
// speaks.
func (s *site) waiting(r *http.Request) (macs []store.MAC, err error) {
	all, err := s.Inventory.UnknownMachines(r.Context(), true)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(slices.Clone(all), func(u store.UnknownMachine) bool { return u.Ignored })
	if err := sameAsSeen(r.PostForm, digestUnknown(download.MadeBy(all)), count(len(all))); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, store.Invalid("id", "no machine waits to be enrolled")
	}
	for _, u := range all {
		macs = append(macs, u.MAC)
	}
	return macs, nil
}

// enrollAll enrolls everybody who waits. Who could not be enrolled is named.
func (s *site) enrollAll(w http.ResponseWriter, r *http.Request) {
	name, err := store.ParseNamePattern(r.PostFormValue("pattern"))
	if err != nil {
		s.unknownProblem(w, r, err)
		return
	}
	macs, err := s.waiting(r)
	var done []store.Enrolled
	if err == nil {
		done, err = s.Enrolling.EnrollAll(r.Context(), by(r), store.EnrollSpec{Name: name, Profile: r.PostFormValue("profile"), Clone: choice(r), MACs: macs})
	}
	if err != nil {
		s.unknownProblem(w, r, err)
		return
	}
	var problems []string
	for _, e := range done {
		if e.Problem != "" {
			problems = append(problems, fmt.Sprintf("%s was not enrolled: %s", e.MAC, upper(e.Problem)))
		}
	}
	if len(problems) > 0 {
		s.showUnknown(w, r, http.StatusConflict, strings.Join(problems, " "))
		return
	}
	http.Redirect(w, r, "/machines", http.StatusSeeOther)
}

func (s *site) unknownProblem(w http.ResponseWriter, r *http.Request, err error) {
	status, text := told(r, err)
	s.showUnknown(w, r, status, text)
}

func (s *site) addRule(w http.ResponseWriter, r *http.Request) {
	clone := choice(r)
	rule := store.AutoEnrollRule{
		Prefix: store.MACPrefix(r.PostFormValue("prefix")), Name: store.NamePattern(strings.TrimSpace(r.PostFormValue("pattern"))), Profile: r.PostFormValue("profile"),
		CloneOf: clone.Of, Reset: clone.Reset, Volatile: clone.Volatile,
	}
	var err error
	if t := strings.TrimSpace(r.PostFormValue("limit")); t != "" {
		if rule.Limit, err = strconv.Atoi(t); err != nil {
			err = store.Invalid("limit", "%q is not a number of machines", t)
		}
	}
	if err == nil {
		err = s.changeRules(r, func(rules store.AutoEnroll) store.AutoEnroll { return append(rules, rule) })
	}
	s.ruled(w, r, err)
}

func (s *site) removeRule(w http.ResponseWriter, r *http.Request) {
	s.ruled(w, r, s.changeRules(r, func(rules store.AutoEnroll) store.AutoEnroll {
		return slices.DeleteFunc(rules, func(x store.AutoEnrollRule) bool { return string(x.Prefix) == r.PostFormValue("prefix") })
	}))
}

func (s *site) changeRules(r *http.Request, change func(store.AutoEnroll) store.AutoEnroll) error {
	rules, err := s.Enrolling.AutoEnroll(r.Context())
	if err != nil {
		return err
	}
	_, err = s.Enrolling.SetAutoEnroll(r.Context(), by(r), change(rules))
	return err
}

func (s *site) ruled(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		s.unknownProblem(w, r, err)
		return
	}
	toList(w, r, "/unknown")
}

// unknownPath is the page of an unknown machine.
func unknownPath(mac store.MAC) string { return "/unknown/" + url.PathEscape(mac.String()) }
