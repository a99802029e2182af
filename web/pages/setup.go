package pages

import (
	"context"
	"net/http"
	"net/netip"
	"strings"

	"lunboot/store"
	"lunboot/web/auth"
)

// Setup is the first run: what was detected, and what the operator chose.
type Setup interface {
	Facts(context.Context) SetupFacts
	// Confirm looks for another DHCP server and, when there is none, begins to
	// give addresses. Nothing is sent before.
	Confirm(context.Context, store.Actor, SetupChoice) error
}

// SetupFacts is what was detected without sending anything.
type SetupFacts struct {
	Interfaces []SetupInterface
	DataDir    string
	Free       int64
	Ports      []SetupPort
	Loaders    string // what is missing, empty when nothing is
	Locked     string // the flag that already decided about DHCP, empty for none
}

// SetupInterface is one network that the appliance stands on.
type SetupInterface struct {
	Name     string
	Prefix   netip.Prefix // our address in it
	Default  bool         // it has the default route: most likely not the boot network
	Proposed store.Range  // a range to give addresses from
}

// SetupPort is one of our ports, and who holds it when it is not us.
type SetupPort struct {
	Name, Port, Holder string
}

// SetupChoice is what the operator chose. An empty Interface gives no addresses.
type SetupChoice struct {
	Interface string
	Range     store.Range
}

// adminUser is the name of the first and, so far, only person.
const adminUser = "admin"

type setupView struct {
	Facts  SetupFacts
	Code   string
	Choice string
	Range  string
}

func (s *site) setup(w http.ResponseWriter, r *http.Request) {
	if s.Auth.Code() == "" {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	s.showSetup(w, r, http.StatusOK, "", setupView{Code: r.URL.Query().Get("code")})
}

func (s *site) showSetup(w http.ResponseWriter, r *http.Request, status int, problem string, v setupView) {
	v.Facts = s.Setup.Facts(r.Context())
	if v.Choice == "" {
		for _, i := range v.Facts.Interfaces {
			// The boot network is rarely the one that leads to the Internet.
			if !i.Default && v.Choice == "" {
				v.Choice = i.Name
			}
		}
		if v.Choice == "" {
			v.Choice = "none"
		}
	}
	s.render(w, r, status, "setup", page{Title: "Set up", Error: problem, Data: v})
}

func (s *site) setupPost(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	v := setupView{Code: r.PostFormValue("code"), Choice: r.PostFormValue("interface"), Range: strings.TrimSpace(r.PostFormValue("range"))}
	if !s.Auth.CheckCode(v.Code) {
		s.showSetup(w, r, http.StatusForbidden, "The code does not fit. It was printed when the appliance started; its log shows it.", v)
		return
	}
	choice := SetupChoice{}
	if v.Choice != "none" && v.Choice != "" {
		choice.Interface = v.Choice
		text := v.Range
		if text == "" {
			for _, i := range s.Setup.Facts(ctx).Interfaces {
				if i.Name == v.Choice && i.Proposed.From.IsValid() {
					text = i.Proposed.String()
				}
			}
		}
		rng, err := store.ParseRange(text)
		if err != nil {
			_, text := explain(err)
			s.showSetup(w, r, http.StatusUnprocessableEntity, text, v)
			return
		}
		choice.Range = rng
	}
	password := r.PostFormValue("password")
	if _, err := auth.HashPassword(password); err != nil { // before anything is sent
		_, text := explain(err)
		s.showSetup(w, r, http.StatusUnprocessableEntity, text, v)
		return
	}
	if err := s.Setup.Confirm(ctx, adminUser, choice); err != nil {
		status, text := explain(err)
		s.showSetup(w, r, status, text, v)
		return
	}
	if err := s.Auth.SetPassword(ctx, adminUser, adminUser, password); err != nil {
		s.fail(w, r, err)
		return
	}
	if err := s.Auth.Begin(ctx, adminUser); err != nil {
		s.fail(w, r, err)
		return
	}
	http.Redirect(w, r, "/machines", http.StatusSeeOther)
}

func (s *site) login(w http.ResponseWriter, r *http.Request) {
	if s.Auth.Code() != "" {
		http.Redirect(w, r, "/setup", http.StatusSeeOther)
		return
	}
	s.render(w, r, http.StatusOK, "login", page{Title: "Log in"})
}

func (s *site) loginPost(w http.ResponseWriter, r *http.Request) {
	err := s.Auth.Login(r.Context(), adminUser, r.PostFormValue("password"))
	switch {
	case err == nil:
		http.Redirect(w, r, "/machines", http.StatusSeeOther)
	case store.KindOf(err) == store.KindDenied:
		s.render(w, r, http.StatusForbidden, "login", page{Title: "Log in", Error: "That is not the password. 'lunboot password' on the appliance sets a new one."})
	default:
		s.fail(w, r, err)
	}
}

func (s *site) logout(w http.ResponseWriter, r *http.Request) {
	if err := s.Auth.Logout(r.Context()); err != nil {
		s.fail(w, r, err)
		return
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
