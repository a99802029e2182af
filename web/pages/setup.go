package pages

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"lunboot/store"
	"lunboot/web/auth"
)

// Setup is the first run: what was detected, and what the operator chose.
type Setup interface {
	Facts(context.Context) SetupFacts
	// Confirm acts on the choices. Where addresses are to be given it looks for
	// another DHCP server first. Nothing is sent before, but by asking.
	Confirm(context.Context, store.Actor, []SetupChoice) error
}

// SetupFacts is what was detected without sending anything.
type SetupFacts struct {
	Interfaces []store.Link // those that are up and have an address
	DataDir    string
	Free       int64
	Ports      []SetupPort
	Loaders    string // what is missing, empty when nothing is
	Locked     string // the flag that already decided about DHCP, empty for none
}

// SetupPort is one of our ports, and who holds it when it is not us.
type SetupPort struct {
	Name, Port, Holder string
}

// SetupChoice is what the operator chose for one interface.
type SetupChoice struct {
	Interface string
	Mode      store.DHCPMode
	Range     store.Range // in full mode
}

// adminUser is the name of the first person.
const adminUser = "admin"

type setupView struct {
	Facts SetupFacts
	Code  string
	Links []linkView
	Asked bool // some network was asked
}

func (s *site) setup(w http.ResponseWriter, r *http.Request) {
	if s.Auth.Code() == "" {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	s.showSetup(w, r, http.StatusOK, "", r.URL.Query().Get("code"), nil)
}

// showSetup shows the page. form holds what was typed, nil for the proposals.
func (s *site) showSetup(w http.ResponseWriter, r *http.Request, status int, problem, code string, form url.Values) {
	v := setupView{Facts: s.Setup.Facts(r.Context()), Code: code}
	for _, l := range v.Facts.Interfaces {
		lv := viewOf(l)
		lv.Choice, lv.Why = proposal(l, v.Facts.Interfaces)
		if form.Has("mode-" + l.Name) {
			chosen := store.DHCPMode(form.Get("mode-" + l.Name))
			if chosen != lv.Choice {
				lv.Why = "" // that is why the proposal was
			}
			lv.Choice, lv.Text = chosen, form.Get("range-"+l.Name)
		}
		v.Asked = v.Asked || l.Survey != nil
		v.Links = append(v.Links, lv)
	}
	s.render(w, r, status, "setup", page{Title: "Set up", Error: problem, Data: v})
}

// proposal is the mode that an interface starts with, and why it is off where what was
// heard does not say so by itself. An appliance that gives addresses in somebody
// else's network is the worst accident that it can have: full is proposed only where
// the network was asked, somebody could have answered, and nobody did. The only card
// of a machine in an office leads to the Internet, and a DHCP server there that
// answers just the machines which it knows is silent to the question, too.
func proposal(l store.Link, all []store.Link) (mode store.DHCPMode, why string) {
	switch {
	case l.Survey == nil && l.Default:
		return store.DHCPOff, "Not asked yet, so off is chosen. It leads to the Internet: most likely not the boot network."
	case l.Survey == nil:
		return store.DHCPOff, "Not asked yet, so off is chosen."
	case l.Default && len(all) > 1:
		return store.DHCPOff, "It leads to the Internet: most likely not the boot network."
	case l.Survey.Fits() != store.DHCPFull:
		return l.Survey.Fits(), ""
	case !l.Carrier:
		return store.DHCPOff, "No cable is plugged in: nobody could have answered, so off is chosen."
	case l.Default:
		return store.DHCPOff, "It leads to the Internet, and a DHCP server there may answer only the machines that it knows: silence proves little, so off is chosen. Choose full if nobody else decides about this network."
	case !l.Proposed.From.IsValid():
		return store.DHCPOff, "No range is proposed for a network of this size: write down the addresses to give, and choose full."
	}
	return store.DHCPFull, ""
}

// setupAsk asks every network that is listed who answers DHCP there, all at
// the same time.
func (s *site) setupAsk(w http.ResponseWriter, r *http.Request) {
	code := r.PostFormValue("code")
	if !s.Auth.CheckCode(code) {
		s.showSetup(w, r, http.StatusForbidden, wrongCode, code, nil)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, l := range s.Setup.Facts(ctx).Interfaces {
		wg.Go(func() {
			if _, err := s.Network.Ask(ctx, l.Name); err != nil {
				s.Log.Warn("a network was not asked who answers DHCP", "interface", l.Name, "error", err) // the page shows it too
			}
		})
	}
	wg.Wait()
	s.showSetup(w, r, http.StatusOK, "", code, nil)
}

const wrongCode = "The code does not fit. It was printed when the appliance started; its log shows it."

func (s *site) setupPost(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	code := r.PostFormValue("code")
	if !s.Auth.CheckCode(code) {
		s.showSetup(w, r, http.StatusForbidden, wrongCode, code, r.PostForm)
		return
	}
	refuse := func(err error) {
		status, text := told(r, err)
		s.showSetup(w, r, status, text, code, r.PostForm)
	}
	var choices []SetupChoice
	for _, l := range s.Setup.Facts(ctx).Interfaces {
		c := SetupChoice{Interface: l.Name, Mode: store.DHCPMode(r.PostFormValue("mode-" + l.Name))}
		if c.Mode == "" || c.Mode == store.DHCPOff {
			continue
		}
		var err error
		if c.Range, err = s.rangeFor(ctx, c.Mode, l.Name, strings.TrimSpace(r.PostFormValue("range-"+l.Name))); err != nil {
			refuse(err)
			return
		}
		choices = append(choices, c)
	}
	password := r.PostFormValue("password")
	if _, err := auth.HashPassword(password); err != nil { // before anything is sent
		refuse(err)
		return
	}
	if err := s.Setup.Confirm(ctx, adminUser, choices); err != nil {
		refuse(err)
		return
	}
	if _, err := s.Auth.AddUser(ctx, adminUser, adminUser, store.RoleAdmin, password); err != nil {
		s.fail(w, r, err)
		return
	}
	if err := s.Auth.Begin(ctx, adminUser, "the first-run code"); err != nil {
		s.fail(w, r, err)
		return
	}
	http.Redirect(w, r, "/machines", http.StatusSeeOther)
}

type loginView struct {
	Name     string
	Next     string // the page that was wanted
	Provider string // what the one is called through which people may sign in too; empty for none
}

func (s *site) login(w http.ResponseWriter, r *http.Request) {
	if s.Auth.Code() != "" {
		http.Redirect(w, r, "/setup", http.StatusSeeOther)
		return
	}
	s.showLogin(w, r, http.StatusOK, "", r.FormValue("next"))
}

// showLogin shows the page, with the name that is the only one on most
// appliances.
func (s *site) showLogin(w http.ResponseWriter, r *http.Request, status int, problem, next string) {
	s.renderLogin(w, r, status, page{Error: problem}, next)
}

func (s *site) renderLogin(w http.ResponseWriter, r *http.Request, status int, p page, next string) {
	v := loginView{Name: strings.ToLower(strings.TrimSpace(r.PostFormValue("user"))), Next: wanted(next)}
	if users, err := s.Auth.Users(r.Context()); err == nil && v.Name == "" && len(users) == 1 && users[0].Name == adminUser {
		v.Name = adminUser
	}
	if o, err := s.SignIn.OIDC(r.Context()); err != nil { // a password is enough to see what is wrong
		s.Log.Error("read through whom people sign in", "error", err)
	} else {
		v.Provider = o.Name
	}
	p.Title, p.Data = "Log in", v
	s.render(w, r, status, "login", p)
}

func (s *site) loginPost(w http.ResponseWriter, r *http.Request) {
	name := strings.ToLower(strings.TrimSpace(r.PostFormValue("user")))
	if name == "" {
		name = adminUser
	}
	next := r.PostFormValue("next")
	err := s.Auth.Login(r.Context(), name, r.PostFormValue("password"))
	var refused *store.Error
	switch {
	case err == nil:
		http.Redirect(w, r, cmp.Or(wanted(next), "/machines"), http.StatusSeeOther)
	case errors.As(err, &refused) && refused.Kind == store.KindDenied && refused.Field == "password":
		s.showLogin(w, r, http.StatusForbidden, "The name and the password do not fit. 'lunboot user password NAME' on the appliance sets a new one.", next)
	case store.KindOf(err) == store.KindDenied:
		status, text := told(r, err)
		s.showLogin(w, r, status, text, next)
	default:
		s.fail(w, r, err)
	}
}
