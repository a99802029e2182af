package pages

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/web/auth"
)

// Network is the appliance's interfaces and the part that it takes on each.
type Network interface {
	// Links lists the interfaces. It sends nothing.
	Links(context.Context) ([]store.Link, error)
	// Ask asks the network behind one who answers DHCP there; it takes seconds.
	Ask(ctx context.Context, name string) (store.Survey, error)
	// Choose sets the mode of one. The range counts in full mode.
	Choose(ctx context.Context, by store.Actor, name string, mode store.DHCPMode, rng store.Range) error
}

// Check is one finding of the doctor. State is ok, advice, fault, unknown or
// waits.
type Check struct {
	Name, State, Detail, Mend string
	Depth                     int
}

// Icon shows the state by its shape.
func (c Check) Icon() string {
	switch c.State {
	case "ok":
		return "circle-check"
	case "fault":
		return "circle-x"
	case "advice":
		return "triangle-alert"
	case "unknown":
		return "circle-help"
	}
	return "circle-dashed"
}

// Word says the state to those who do not see the shape.
func (c Check) Word() string {
	switch c.State {
	case "ok":
		return "Well"
	case "fault":
		return "Wrong"
	case "advice":
		return "Could be better"
	case "unknown":
		return "Cannot be told"
	}
	return "Not asked"
}

type settingsView struct {
	Links  []linkView
	Checks []Check
	Faults int
	Advice int

	Version string
}

// linkView is one interface as the operator sees it.
type linkView struct {
	store.Link
	Choice  store.DHCPMode // the radio button that is on
	Text    string         // the range as it stands in its field
	Why     string         // at the first run: why off is proposed
	Problem string         // why the last choice was not taken
	Picture picture
	Subnet  int64 // of the network that is served there, 0 for none
	Bare    bool  // machines there are told neither a router nor name servers
}

// Fits is the mode that the last survey speaks for as it is, empty when there
// was none, something is to be mended first, or silence proves little (see proposal).
func (l linkView) Fits() store.DHCPMode {
	if l.Survey != nil {
		switch v := l.Survey.Verdict(); {
		case v == store.VerdictNobody && l.Carrier && !l.Default, v == store.VerdictAddresses:
			return l.Survey.Fits()
		}
	}
	return ""
}

// Heard is the last survey in a sentence.
func (l linkView) Heard() string {
	if l.Survey == nil {
		return ""
	}
	return capital(l.Survey.Sentence()) + "."
}

// Troubled reports whether what was heard stands against the mode.
func (l linkView) Troubled() bool {
	if l.Survey == nil {
		return false
	}
	switch l.Survey.Verdict() {
	case store.VerdictConflict, store.VerdictBootOnly, store.VerdictUnknown:
		return true
	case store.VerdictAddresses:
		return l.Mode == store.DHCPFull
	case store.VerdictNobody:
		return l.Mode == store.DHCPProxy
	}
	return false
}

// Modes are the choices, in the order of the page.
func (l linkView) Modes() []store.DHCPMode {
	return []store.DHCPMode{store.DHCPFull, store.DHCPProxy, store.DHCPOff}
}

// picture is the little diagram: who gives addresses to the machines of a
// network, and who boots them. Each box has a name and two lines.
type picture struct {
	Others, Us box
	Label      string // the same in a sentence
}

type box struct {
	Name   string
	Said   []string // two lines at most
	Gives  bool     // it gives the addresses
	Wrong  bool     // and should not do what it does
	Absent bool
}

func pictureOf(l store.Link) picture {
	p := picture{Us: box{Name: "lunboot"}}
	switch l.Mode {
	case store.DHCPFull:
		p.Us.Said, p.Us.Gives = []string{"gives addresses", "boots machines"}, true
	case store.DHCPProxy:
		p.Us.Said = []string{"boots machines"}
	default:
		p.Us.Said = []string{"is silent here"}
	}
	if l.Mode != store.DHCPOff && !l.Serving {
		p.Us = box{Name: p.Us.Name, Said: []string{"does not run"}, Wrong: true}
	}
	switch {
	case l.Survey == nil:
		p.Others = box{Name: "anybody else?", Said: []string{"not asked yet"}, Absent: true}
	case l.Survey.Verdict() == store.VerdictUnknown:
		p.Others = box{Name: "anybody else?", Said: []string{"could not ask"}, Absent: true}
	case len(l.Survey.Others()) == 0:
		p.Others = box{Name: "nobody else", Said: []string{"answers DHCP"}, Absent: true}
	default:
		others := l.Survey.Others()
		p.Others = box{Name: others[0].Server.String()}
		if len(others) > 1 {
			p.Others.Name = "other servers"
		}
		gives := slices.ContainsFunc(others, func(o store.SurveyServer) bool { return o.Addresses })
		boots := slices.ContainsFunc(others, func(o store.SurveyServer) bool { return len(o.Boots) > 0 })
		if gives {
			p.Others.Said = append(p.Others.Said, "gives addresses")
		}
		if boots {
			p.Others.Said = append(p.Others.Said, "boots machines")
		}
		p.Others.Gives, p.Others.Wrong = gives, boots || gives && p.Us.Gives
	}
	p.Label = p.Others.sentence() + "; " + p.Us.sentence()
	return p
}

// Two reports whether the box has two lines below its name.
func (b box) Two() bool { return len(b.Said) == 2 }

func (b box) sentence() string { return b.Name + " " + strings.Join(b.Said, " and ") }

func viewOf(l store.Link) linkView {
	v := linkView{Link: l, Choice: l.Mode, Picture: pictureOf(l)}
	if l.Range.From.IsValid() {
		v.Text = l.Range.String()
	}
	return v
}

func (s *site) settings(w http.ResponseWriter, r *http.Request) {
	s.showSettings(w, r, http.StatusOK, nil)
}

// showSettings shows the page; wrong is the interface whose choice was not
// taken, with what was typed and why.
func (s *site) showSettings(w http.ResponseWriter, r *http.Request, status int, wrong *linkView) {
	links, err := s.Network.Links(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	subnets, err := s.Inventory.Subnets(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v := settingsView{Version: s.Version}
	for _, l := range links {
		lv := viewOf(l)
		for _, n := range subnets {
			if n.Interface == l.Name && (lv.Subnet == 0 || n.Mode != store.DHCPOff) {
				lv.Subnet, lv.Bare = n.ID, n.Mode == store.DHCPFull && !n.Router.IsValid() && len(n.DNS) == 0
			}
		}
		if wrong != nil && wrong.Name == l.Name {
			lv.Problem = wrong.Problem
			if wrong.Choice != "" {
				lv.Choice, lv.Text = wrong.Choice, wrong.Text
			}
		}
		v.Links = append(v.Links, lv)
	}
	v.Checks = s.Health(r.Context())
	for i, c := range v.Checks {
		v.Checks[i].Detail = capital(c.Detail)
		switch c.State {
		case "fault":
			v.Faults++
		case "advice":
			v.Advice++
		}
	}
	s.render(w, r, status, "settings", page{Title: "Settings", Nav: "settings", Live: true, Data: v})
}

// askTime bounds one question; a survey takes five seconds.
const askTime = 15 * time.Second

func (s *site) askNetwork(w http.ResponseWriter, r *http.Request) {
	name := chi.URLParam(r, "interface")
	ctx, cancel := context.WithTimeout(r.Context(), askTime)
	defer cancel()
	if _, err := s.Network.Ask(ctx, name); err != nil {
		status, text := told(r, err)
		s.showSettings(w, r, status, &linkView{Link: store.Link{Name: name}, Problem: text})
		return
	}
	http.Redirect(w, r, "/settings#"+anchor(name), http.StatusSeeOther)
}

func (s *site) chooseMode(w http.ResponseWriter, r *http.Request) {
	name := chi.URLParam(r, "interface")
	wrong := linkView{Link: store.Link{Name: name}, Choice: store.DHCPMode(r.PostFormValue("mode")), Text: strings.TrimSpace(r.PostFormValue("range"))}
	rng, err := s.rangeFor(r.Context(), wrong.Choice, name, wrong.Text)
	if err == nil {
		err = s.Network.Choose(r.Context(), auth.From(r.Context()).Actor, name, wrong.Choice, rng)
	}
	if err != nil {
		status, text := told(r, err)
		wrong.Problem = text
		s.showSettings(w, r, status, &wrong)
		return
	}
	http.Redirect(w, r, "/settings#"+anchor(name), http.StatusSeeOther)
}

// rangeFor reads the range of a full mode; an empty field is what was proposed.
func (s *site) rangeFor(ctx context.Context, mode store.DHCPMode, name, text string) (store.Range, error) {
	if mode != store.DHCPFull {
		return store.Range{}, nil
	}
	if text == "" {
		links, err := s.Network.Links(ctx)
		if err != nil {
			return store.Range{}, err
		}
		for _, l := range links {
			if l.Name == name && l.Proposed.From.IsValid() {
				return l.Proposed, nil
			}
		}
	}
	return store.ParseRange(text)
}

// anchor is the id of an interface's card.
func anchor(name string) string { return "if-" + name }

// capital begins a sentence with a capital letter, unless a name that must be
// written as it is begins it.
func capital(s string) string {
	first, _, _ := strings.Cut(s, " ")
	if first == "" || strings.ContainsAny(first, "0123456789./") {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
