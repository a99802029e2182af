// Package pages is what people see: server-rendered pages that read and work
// without JavaScript, and follow a boot live with it.
//
// It declares what it needs of the appliance as small interfaces and imports no
// service. Wording follows the machine: its name is the subject, codes stay in
// the evidence.
package pages

import (
	"bytes"
	"context"
	"embed"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/httprate"

	"lunboot/store"
	"lunboot/web/auth"
	"lunboot/web/pages/manual"
	"lunboot/web/pages/typed"
)

// Inventory is what the pages read.
type Inventory interface {
	Machine(context.Context, store.MachineID) (store.Machine, error)
	Machines(context.Context, store.MachineFilter) ([]store.Machine, int, error)
	MachineIDs(context.Context) ([]store.MachineID, error)
	UnknownMachines(ctx context.Context, includeIgnored bool) ([]store.UnknownMachine, error)
	Boots
}

// Boots is what machines boot from and by.
type Boots interface {
	Mappings(context.Context) ([]store.Mapping, error)
	// MappingViews are a machine's mappings; everybody's for none.
	MappingViews(context.Context, store.MachineID) ([]store.MappingView, error)
	Volumes(context.Context) ([]store.Volume, error)
	Profiles(context.Context) ([]store.Profile, error)
	Leases(context.Context) ([]store.Lease, error)
	Jobs(context.Context) ([]store.Job, error)
	Job(ctx context.Context, id int64) (store.Job, error)
	Subnets(context.Context) ([]store.Subnet, error)
}

// MachineActs are the operator's acts on machines and mappings.
type MachineActs interface {
	Enroll(ctx context.Context, by store.Actor, mac store.MAC, name string, replace store.MachineID) (store.Machine, error)
	Ignore(ctx context.Context, by store.Actor, mac store.MAC, ignored bool) error
	AddMachine(context.Context, store.Actor, store.MachineSpec) (store.Machine, error)
	SetMachine(context.Context, store.Actor, store.MachineID, store.MachinePatch) (store.Machine, error)
	ImportMachines(context.Context, store.Actor, store.MachineImportSpec) (store.MachineImport, error)
	RemoveMachine(ctx context.Context, by store.Actor, id store.MachineID, force bool) error
	Fix(ctx context.Context, by store.Actor, a store.Attempt, action string) (store.FixResult, error)
}

// VolumeActs are the operator's acts on volumes and mappings.
type VolumeActs interface {
	LookAtVolume(context.Context, store.Volume) (store.Preflight, error)
	CreateVolume(context.Context, store.Actor, store.VolumeSpec) (store.Volume, error)
	ImportFile(ctx context.Context, by store.Actor, spec store.ImportSpec, path string) (store.Volume, store.Job, error)
	RemoveVolume(context.Context, store.Actor, store.VolumeID) error
	VolumeLife
	Map(context.Context, store.Actor, store.MappingSpec) (store.Mapping, error)
	SetMapping(context.Context, store.Actor, store.MachineID, store.LUN, store.MappingPatch) (store.Mapping, error)
	Unmap(context.Context, store.Actor, store.MachineID, store.LUN) error
}

// Attempts answers how boots went.
type Attempts interface {
	Latest(store.MachineID, store.MAC) (store.Attempt, bool)
	Attempt(context.Context, store.AttemptID) (store.Attempt, error)
	Attempts(context.Context, store.AttemptFilter) ([]store.Attempt, int, error)
	EveryAttempt(context.Context, store.AttemptFilter) (store.Parts[store.Attempt], error)
}

// Captures knows whose packets can be downloaded.
type Captures interface {
	// Captured reports whether packets of an attempt are kept.
	Captured(context.Context, store.Attempt) bool
}

// Change wakes the live pages: one source for the inventory, one for attempts.
type Change interface {
	Version() int64
	Changed(after int64) <-chan struct{}
}

// Config is what the pages stand on.
type Config struct {
	Inventory Inventory
	Machines  MachineActs
	Enrolling Enrolling
	Explainer Explainer
	Volumes   VolumeActs
	Storage   Storage
	Space     func(context.Context) (store.Space, error)
	Attempts  Attempts
	Events    Events
	// Ends lists how boots ended since a time, newest first.
	Ends func(ctx context.Context, since time.Time) ([]store.AttemptEnd, error)
	// Moved is what all machines read and wrote lately, SpaceSeen the room that
	// volumes had; oldest first.
	Moved     func() []store.Throughput
	SpaceSeen func() []store.RoomSample
	Loaders   Loaders
	Media     Media
	Profiles  ProfileActs
	Scripts   Scripts
	Power     Power
	Changes   []Change
	Setup     Setup
	Network   Network
	Subnets   SubnetActs
	Settings  SettingRows
	// Certificate is what the admin port shows of itself now.
	Certificate func() Certificate
	Health      func(context.Context) []Check
	Auth        *auth.Auth
	SignIn      SignIn
	Status      func(context.Context) Status
	Captures    Captures
	Leases      LeaseActs
	Sessions    Sessions
	Audit       AuditLog
	Backups     Backups
	Version     string
	Manual      manual.Book // what the help says of things that are defined elsewhere
	Log         *slog.Logger
	Now         func() time.Time
}

// Status is the foot of the rail: what runs, and the first thing that does not.
type Status struct {
	OK      bool
	Text    string // "All services running", or the first fault in a sentence
	Address string // "10.77.0.1 · eth1"
	Banners []string
}

type site struct {
	Config
	views   map[string]*template.Template
	assets  *assets
	process string // see version
	failed  failedCount
	streams streams
}

// failedCount is the badge's number as of a version of what is shown.
type failedCount struct {
	mu sync.Mutex
	at string
	n  int
}

//go:embed view/*.html
var viewFS embed.FS

// Handler makes the admin side's pages. r must already be behind nothing: the
// handler adds sessions and cross-origin protection itself.
func Handler(cfg Config) (http.Handler, error) {
	a, err := loadAssets()
	if err != nil {
		return nil, err
	}
	s := &site{Config: cfg, assets: a, process: processName()}
	if s.views, err = parseViews(s.functions()); err != nil {
		return nil, err
	}
	r := chi.NewRouter()
	r.Get("/static/{hash}/{name}", a.serve)
	r.Method(http.MethodPost, store.OIDCBackChannel, s.backChannel())
	r.Group(func(r chi.Router) {
		r.Use(secure, s.ours().Handler, cfg.Auth.Pages)
		r.Get("/setup", s.setup)
		r.With(httprate.LimitBy(20, time.Minute, remoteKey)).Post("/setup", s.setupPost)
		r.With(httprate.LimitBy(20, time.Minute, remoteKey)).Post("/setup/ask", s.setupAsk)
		r.Get("/login", s.login)
		r.With(s.loginLimit(10, time.Minute), s.loginLimit(60, time.Hour)).Post("/login", s.loginPost)
		// A provider sends people back many times until they have typed it right there.
		r.With(s.loginLimit(30, time.Minute)).Get("/login/oidc", s.beginSignIn)
		r.With(s.loginLimit(30, time.Minute)).Get(store.OIDCCallback, s.finishSignIn)
		r.With(s.loginLimit(30, time.Minute)).Get(store.OIDCLoggedOut, s.loggedOut)
		r.Get(store.OIDCHere, s.here)
		r.Post("/logout", s.logout)
		r.Group(func(r chi.Router) {
			r.Use(s.needLogin, s.guard, s.dated)
			r.Get("/", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/machines", http.StatusSeeOther) })
			r.Get("/help", s.help)
			r.Get("/help/profiles", s.helpProfiles)
			r.Get("/help/commands", s.helpCommands)
			r.Get("/help/appliance", s.helpAppliance)
			r.Get("/help/{code}", s.helpCode)
			r.Get("/machines", s.machines)
			r.Post("/machines", s.addMachine)
			r.Get("/machines/export", s.export)
			r.Get("/machines/import", s.importTable)
			r.Post("/machines/import", s.importTablePost)
			r.Get("/machines/labels", s.labels)
			r.Post("/machines/bulk", s.bulk)
			r.Post("/machines/undo", s.takeBack)
			r.Get("/unknown", s.unknown)
			r.Post("/unknown/enroll", s.enrollAll)
			r.Post("/unknown/bulk", s.bulkUnknown)
			r.Post("/unknown/rules", s.addRule)
			r.Post("/unknown/rules/remove", s.removeRule)
			r.Get("/unknown/{mac}", s.unknownMachine)
			r.Get("/unknown/{mac}/explain", s.explainUnknown)
			r.Post("/unknown/{mac}/enroll", s.enroll)
			r.Post("/unknown/{mac}/ignore", s.ignore)
			r.Get("/machines/{id}/explain", s.explainMachine)
			r.Get("/machines/{id}", s.machine)
			r.Post("/machines/{id}/profile", s.setProfile)
			r.With(s.need(store.ScopeOperate)).Get("/machines/{id}/edit", s.editMachine)
			r.Post("/machines/{id}/edit", s.editMachinePost)
			r.Post("/machines/{id}/once", s.setOnce)
			r.Post("/machines/{id}/mapping", s.setMapping)
			r.Post("/machines/{id}/quirks", s.setQuirks)
			r.Post("/machines/{id}/fix", s.fix)
			r.Post("/machines/{id}/map", s.mapVolume)
			r.Post("/machines/{id}/unmap", s.unmap)
			r.Post("/machines/{id}/remove", s.removeMachine)
			r.Get("/export/{list}", s.exportList)
			r.Get("/activity", s.activity)
			r.Get("/events", s.events)
			r.Get("/attempts/{id}", s.attempt)
			r.Get("/boots/{id}", moved("/boots/", "/attempts/")) // before lists and their things had one name
			r.Post("/attempts/{id}/fix", s.fixAttempt)
			r.Get("/sessions", s.sessions)
			r.Post("/sessions/drop", s.dropSession)
			r.Get("/jobs", s.jobs)
			r.Post("/jobs/cancel", s.cancelListedJob)
			r.Get("/jobs/{job}", s.job)
			r.Post("/jobs/{job}/cancel", s.cancelShownJob)
			r.Get("/leases", s.leases)
			r.Post("/leases/drop", s.dropLease)
			r.Post("/leases/bulk", s.bulkLeases)
			r.Get("/subnets", s.subnets)
			r.Get("/subnets/new", s.subnet)
			r.Get("/subnets/{subnet}", s.subnet)
			r.Group(func(r chi.Router) {
				r.Use(s.need(store.ScopeAdmin))
				r.Post("/subnets", s.putSubnet)
				r.Post("/subnets/{subnet}", s.putSubnet)
				r.Post("/subnets/{subnet}/remove", s.removeSubnet)
				r.Post("/settings/appliance/{card}", s.chooseSettings)
			})
			r.Get("/settings/appliance", s.appliance)
			r.Get("/mappings", s.mappings)
			r.Get("/volumes", s.volumes)
			r.Post("/volumes", s.createVolume)
			r.Get("/volumes/new", s.newVolume)
			r.With(s.need(store.ScopeAdmin)).Post("/volumes/import", s.importVolume)
			r.Post("/volumes/bulk", s.bulkVolumes)
			r.Post("/volumes/upload", s.uploadVolume)
			r.With(s.need(store.ScopeAdmin)).Post("/volumes/attach", s.attachDevice)
			r.Post("/volumes/uploads/{upload}/finish", s.finishUpload)
			r.Post("/volumes/uploads/{upload}/remove", s.removeUpload)
			r.Post("/volumes/jobs/{job}/cancel", s.cancelJob)
			r.Post("/volumes/{id}/remove", s.removeVolume)
			r.With(s.need(store.ScopeOperate)).Get("/volumes/{id}/export", s.exportVolume)
			r.Get("/volumes/{id}", s.volume)
			for act, do := range map[string]http.HandlerFunc{
				"clone": s.cloneVolume, "freeze": s.freezeVolume, "snapshots": s.takeSnapshot, "snapshots/remove": s.removeSnapshot, "rollback": s.rollBack,
				"promote": s.promote, "version": s.setVersion, "note": s.noteVersion, "versions/remove": s.removeVersion, "flatten": s.flattenVolume,
				"check": s.checkVolume, "reset": s.setReset, "volatile": s.setVolatile, "grow": s.growVolume, "default": s.makeDefault, "cancel": s.cancelWork,
			} {
				r.Post("/volumes/{id}/"+act, do)
			}
			r.Post("/machines/{id}/wake", s.wake)
			r.Get("/machines/{id}/power", s.askPower)
			r.Post("/machines/{id}/power", s.setPower)
			r.Post("/machines/{id}/bmc", s.setBMC)
			r.Post("/machines/{id}/bmc/trust", s.trustBMC)
			r.Post("/machines/{id}/loader", s.setLoader)
			r.Get("/loaders", s.loaders)
			r.Post("/loaders", s.addLoader)
			r.Post("/loaders/remove", s.removeLoader)
			r.Get("/profiles", s.profiles)
			r.Post("/profiles", s.putProfile)
			r.Post("/profiles/preview", s.previewProfile)
			r.Get("/new-profile", s.profile)
			r.Get("/profiles/{profile}", s.profile)
			r.Post("/profiles/remove", s.removeProfile)
			r.Get("/media", s.media)
			r.Post("/media", s.addMedia)
			r.With(s.need(store.ScopeAdmin)).Post("/media/path", s.addMediaPath)
			r.Post("/media/remove", s.removeMedia)
			r.Post("/media/cancel", s.cancelMedia)
			r.Get("/settings", s.settings)
			r.With(s.need(store.ScopeAdmin)).Post("/settings/backup", s.backup)
			r.Get("/audit", s.audit)
			r.Get("/changes", moved("/changes", "/audit"))
			r.Get("/people", s.people)
			r.Group(func(r chi.Router) {
				r.Use(s.need(store.ScopeAdmin))
				r.Post("/people", s.addUser)
				r.Post("/people/{user}/role", s.setRole)
				r.Post("/people/{user}/disabled", s.setDisabled)
				r.Post("/people/{user}/password", s.resetPassword)
				r.Post("/people/{user}/remove", s.removeUser)
				r.Get("/tokens", s.tokens)
				r.Post("/people/tokens", s.createToken)
				r.Post("/people/tokens/{token}/remove", s.removeToken)
				r.Get("/settings/oidc", s.provider)
				r.Post("/settings/oidc", s.setProvider)
				r.Post("/settings/oidc/try", s.tryProvider)
				r.Post("/settings/oidc/remove", s.removeProvider)
			})
			r.With(s.need(store.ScopeAdmin)).Post("/settings/network/{interface}", s.chooseMode)
			r.Post("/settings/network/{interface}/ask", s.askNetwork)
			r.Get(livePath, s.live)
		})
		// One's own password and logins are everybody's.
		r.Group(func(r chi.Router) {
			r.Use(s.needLogin)
			r.Post("/me/password", s.changePassword)
			r.Post("/me/logins/{login}/end", s.endLogin)
		})
	})
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		secure(cfg.Auth.Pages(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.fail(w, r, store.NotFound("page", r.URL.Path))
		}))).ServeHTTP(w, r)
	})
	return r, nil
}

// ours keeps forms of other sites out.
func (s *site) ours() *http.CrossOriginProtection {
	p := http.NewCrossOriginProtection()
	p.SetDenyHandler(http.HandlerFunc(s.foreign))
	return p
}

// remoteKey counts tries by the address that the connection came from: people
// reach the appliance directly, and a forwarded-for header could be made up.
func remoteKey(r *http.Request) (string, error) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return "local", nil // the unix socket
	}
	return httprate.CanonicalizeIP(host), nil
}

// policy lets nothing in from elsewhere and runs no inline script.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// loginLimit bounds the tries to log in from one address.
func (s *site) loginLimit(n int, per time.Duration) func(http.Handler) http.Handler {
	return httprate.LimitBy(n, per, remoteKey, httprate.WithLimitHandler(func(w http.ResponseWriter, r *http.Request) {
		s.showLogin(w, r, http.StatusTooManyRequests, "Too many tries from this address. Wait "+w.Header().Get("Retry-After")+" seconds, then try again.", r.FormValue("next"))
	}))
}

// needLogin sends people without a session to the first-run page or the login.
func (s *site) needLogin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if auth.From(r.Context()).May(store.ScopeRead) {
			next.ServeHTTP(w, r)
			return
		}
		if r.URL.Path == livePath { // a stream that is sent to the login would begin again and again
			http.Error(w, "nobody is logged in", http.StatusUnauthorized)
			return
		}
		to := "/login"
		switch at := wanted(r.URL.RequestURI()); {
		case s.Auth.Code() != "":
			to = "/setup"
		case r.Method == http.MethodGet && at != "" && at != "/" && at != "/machines" && r.Header.Get("HX-Request") == "":
			to += "?" + url.Values{"next": {at}}.Encode()
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
	})
}

// page is what every view gets.
type page struct {
	Title   string
	Nav     string // the active item
	User    store.Actor
	Role    string
	Status  Status
	Failed  int  // machines whose last boot failed: the badge
	counted bool // Failed is known already
	Live    bool
	Version string // of what a live page shows
	Error   string // what did not happen, above the content
	Said    string // what an act found out, above the content
	Undo    *undo  // takes the act back
	Onward  string // where the browser goes on to at once
	List    string // the URL of the list that is shown, empty for other pages
	Back    back   // the list that was looked at last
	Theme   string // that this browser's person chose; empty: as its system says
	Data    any
}

func (s *site) render(w http.ResponseWriter, r *http.Request, status int, view string, p page) {
	p.Back, p.Theme = cameFrom(r), themeOf(r)
	keepList(w, r, p.List)
	p.User, p.Role = auth.From(r.Context()).Actor, roleOf(auth.From(r.Context()).Scope)
	p.Version = versionOf(r.Context())
	if p.User != "" {
		p.Status = s.Status(r.Context())
		if !p.counted {
			p.Failed = s.failedBoots(r.Context())
		}
	}
	var b bytes.Buffer
	if err := s.views[view].ExecuteTemplate(&b, "layout", p); err != nil {
		s.Log.Error("render a page", "view", view, "error", err)
		http.Error(w, "This page could not be made; the appliance's log says why.", http.StatusInternalServerError)
		return
	}
	text := b.Bytes()
	var err error
	if r.Method == http.MethodPost && status >= http.StatusBadRequest && len(r.PostForm) > 0 && !overtaken(r) {
		if text, err = typed.Refill(text, r.URL.Path, r.PostForm, faultsOf(r)); err != nil {
			s.Log.Error("render a page", "view", view, "error", err)
			http.Error(w, "This page could not be made; the appliance's log says why.", http.StatusInternalServerError)
			return
		}
	}
	if p.User != "" {
		if text, err = offered(text, auth.From(r.Context())); err != nil {
			s.Log.Error("render a page", "view", view, "error", err)
			http.Error(w, "This page could not be made; the appliance's log says why.", http.StatusInternalServerError)
			return
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	writeSmall(w, r, status, text)
}

// failedBoots counts the machines whose last boot failed, for the badge.
func (s *site) failedBoots(ctx context.Context) int {
	s.failed.mu.Lock()
	defer s.failed.mu.Unlock()
	now := s.version()
	if s.failed.at == now && now != "" {
		return s.failed.n
	}
	ids, err := s.Inventory.MachineIDs(ctx)
	if err != nil {
		s.Log.Error("count the failed attempts", "error", err)
		return 0
	}
	n := 0
	for _, id := range ids {
		if conditionOf(s.Attempts.Latest(id, store.MAC{})) == condFailed {
			n++
		}
	}
	s.failed.at, s.failed.n = now, n
	return n
}

func parseViews(funcs template.FuncMap) (map[string]*template.Template, error) {
	base, err := template.New("").Funcs(funcs).ParseFS(viewFS, "view/layout.html", "view/parts.html", "view/network.html")
	if err != nil {
		return nil, err
	}
	views := map[string]*template.Template{}
	for _, name := range []string{
		"machines",
		"machine",
		"edit",
		"import",
		"labels",
		"unknown",
		"newcomer",
		"explain",
		"activity",
		"events",
		"attempt",
		"sessions",
		"leases",
		"subnets",
		"subnet",
		"appliance",
		"mappings",
		"jobs", "job",
		"volumes",
		"volume",
		"newvolume",
		"profiles",
		"profile",
		"media",
		"loaders",
		"help",
		"help-code", "help-profiles", "help-commands", "help-appliance",
		"setup",
		"settings",
		"people",
		"tokens",
		"provider",
		"audit",
		"login",
		"leaving",
		"error",
	} {
		t, err := base.Clone()
		if err == nil {
			t, err = t.ParseFS(viewFS, "view/"+name+".html")
		}
		if err != nil {
			return nil, err
		}
		views[name] = t
	}
	return views, nil
}
