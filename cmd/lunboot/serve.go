package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/go-chi/chi/v5"

	"lunboot/cmd/lunboot/cli"
	"lunboot/scripts"
	"lunboot/services"
	"lunboot/services/attempts"
	"lunboot/services/backup"
	"lunboot/services/capture"
	"lunboot/services/certificate"
	"lunboot/services/dhcp/ledger"
	"lunboot/services/dhcp/survey"
	"lunboot/services/doctor"
	"lunboot/services/events"
	"lunboot/services/httpboot"
	"lunboot/services/httpd"
	"lunboot/services/inventory"
	"lunboot/services/iscsi"
	"lunboot/services/loaders"
	"lunboot/services/media"
	"lunboot/services/notify"
	"lunboot/services/power"
	"lunboot/services/tftp"
	"lunboot/store"
	filed "lunboot/store/media"
	"lunboot/store/sqlite"
	"lunboot/store/volume"
	"lunboot/store/volume/stage"
	"lunboot/web/api"
	"lunboot/web/auth"
	"lunboot/web/auth/oidc"
	"lunboot/web/metrics"
	"lunboot/web/pages"
	"lunboot/web/probe"
)

// ballast is memory that is never touched, and so never becomes real. The
// collector lets garbage grow to the size of what lives, which is a few MiB
// here: in a storm of logins it would run ten times a second. With this it
// waits for as much garbage more, however small the heap is, and a heap that is
// large keeps its measure, which a larger GOGC would not
// (https://go.dev/doc/gc-guide#GOGC).
const ballast = 16 << 20

// imagesFolder, in the data folder, is where images are put that the pages may
// import.
const imagesFolder = "images"

// Run is 'lunboot serve': it opens what is durable, composes the services in
// reading order and runs them until a signal.
func (c *serveCmd) Run(w *world) error {
	set, err := c.read()
	if err != nil {
		return err
	}
	log := c.logger(w.err)
	if w.process {
		if err := c.confine(log); err != nil {
			return err
		}
		defer runtime.KeepAlive(make([]byte, ballast))
	}
	a, err := c.build(w, set, log)
	if err != nil {
		return err
	}
	defer a.close()
	return a.run(w)
}

// appliance is everything that runs, held together.
type appliance struct {
	cmd      *serveCmd
	set      settings
	log      *slog.Logger
	dir      string
	db       *sqlite.DB
	table    *sqlite.Journal
	pool     *volume.Pool
	journal  *events.Journal
	inv      *inventory.Inventory
	space    *inventory.SpaceWatch
	through  *throughput
	runner   *attempts.Runner
	loaders  *loaders.Ladder
	media    *media.Library
	once     *onceKeeper
	target   *iscsi.Server
	boot     *httpd.Server
	admin    *httpd.Server
	cert     *certificate.Source // of the admin port; nil: plain HTTP
	tftp     *tftp.Server
	network  *network
	surveys  *survey.Book
	capture  *capture.Server
	notify   *notify.Server
	users    *ledger.Use
	seen     *seen
	metrics  *metrics.Exporter
	bmcs     *power.Controller
	scripts  *httpboot.Server
	iqn      store.IQN
	auth     *auth.Auth
	super    *services.Supervisor
	provider *oidc.Client // through whom people may sign in
	closers  []func() error

	mu      sync.Mutex
	banners map[string]string // what is wrong now, by subject
	foot    foot
}

// build opens and composes; nothing listens yet.
func (c *serveCmd) build(w *world, set settings, log *slog.Logger) (_ *appliance, err error) {
	ctx := w.ctx
	a := &appliance{cmd: c, set: set, log: log, dir: w.grammar.Data, banners: map[string]string{}}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	// sun_path holds 108 bytes with its end (unix(7)).
	if socket := filepath.Join(a.dir, cli.SocketName); len(socket) > 107 {
		return nil, fmt.Errorf("the path of the socket, %s, is longer than the 107 bytes that a unix socket may have; choose a shorter folder with --data", socket)
	}
	// What is made here holds secrets: nobody else may read it.
	syscall.Umask(0o027)
	err = os.MkdirAll(filepath.Join(a.dir, "volumes"), 0o750)
	if err == nil {
		err = os.MkdirAll(filepath.Join(a.dir, imagesFolder), 0o750)
	}
	if err != nil {
		if errors.Is(err, fs.ErrPermission) { // also for root, who keeps no right to pass by a folder's mode
			return nil, fmt.Errorf("data folder: %w; make it and give it to the user that lunboot runs as: chown -R %d %s", err, os.Geteuid(), a.dir)
		}
		return nil, fmt.Errorf("data folder %s: %w; make it, or choose another with --data", a.dir, err)
	}

	// Durable things first; the pool's lock also keeps a second appliance out.
	if a.pool, err = volume.OpenPool(filepath.Join(a.dir, "volumes"), log.With("part", "volumes")); err != nil {
		return nil, err
	}
	a.closers = append(a.closers, a.pool.Close)
	shelf, err := stage.Open(filepath.Join(a.dir, "uploads"), log.With("part", "uploads"), time.Now)
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, shelf.Close)
	if a.db, err = sqlite.Open(ctx, a.dir, time.Now, sqlite.WithLog(log.With("part", "database"))); err != nil {
		return nil, err
	}
	a.closers = append(a.closers, a.db.Close)
	if a.table, err = sqlite.OpenJournal(ctx, a.dir, time.Now, sqlite.WithLog(log.With("part", "database"))); err != nil {
		return nil, err
	}
	a.closers = append(a.closers, a.table.Close)
	if a.iqn, err = a.targetName(ctx); err != nil {
		return nil, err
	}
	files, err := loaders.Load(c.Loaders, log.With("part", "loaders"))
	if err != nil {
		return nil, err
	}
	if err := files.Keep(ctx, filepath.Join(a.dir, "loaders"), a.db, log.With("part", "loaders")); err != nil {
		return nil, err
	}
	if a.loaders, err = loaders.NewLadder(ctx, files, a.db); err != nil {
		return nil, err
	}
	if missing := a.loaders.Missing(); missing != "" {
		log.Warn("loaders are missing", "detail", missing)
	}

	if a.journal, err = events.New(a.table, log.With("part", "events"), time.Now); err != nil {
		return nil, err
	}
	a.users = ledger.NewUse(a.journal, time.Now)
	heard := &overheard{next: a.users}
	if err := a.users.Remember(ctx, a.table, heard.learn); err != nil {
		return nil, err
	}
	a.seen = newSeen(heard)
	emit := a.seen // sees every event on its way to the journal
	a.pool.OnFault(func(name, sentence string) {
		emit.Emit(store.Event{Kind: store.EventVolumeFailed, Detail: store.Detail{Volume: name, Reason: sentence}})
	})

	a.inv, err = inventory.New(inventory.Config{
		DB: a.db, Volumes: a.pool, Layers: a.pool, Shelf: shelf, Renderer: renderer{a.db}, Sessions: liveSessions{a}, Loaders: a.loaders, Emit: emit, Log: log.With("part", "inventory"), Now: time.Now,
		Images: a.imageFolders(), Scratch: filepath.Join(a.dir, "uploads"),
		Check: a.checkAgain,
		Serve: func(ctx context.Context, by store.Actor, n store.Subnet) (store.Subnet, error) {
			return acts{a.inv, a}.PutSubnet(ctx, by, n)
		},
	})
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, a.inv.Close)
	a.space = inventory.NewSpaceWatch(a.inv, func(s store.Space) { a.banner("space", s.Warning()) })
	if err := a.inv.Recover(ctx); err != nil {
		return nil, fmt.Errorf("finish what the last run left half-done: %w", err)
	}
	if err := a.openMedia(ctx); err != nil {
		return nil, err
	}

	a.runner = attempts.New(a.journal, a.table, contents{a.db, a.pool}, log.With("part", "attempts"), time.Now)
	a.runner.Ladder, a.runner.Own = a.loaders, inventory.HostAddresses
	a.notify = newNotify(a)
	a.once = newOnceKeeper(a.db, log.With("part", "one-shot profiles"))
	if a.metrics, err = metrics.New(metrics.Config{Read: a.measure, Log: log.With("part", "metrics")}); err != nil {
		return nil, err
	}
	a.runner.OnEnd = a.ended
	volumes := newCatalog(a.db, a.pool)
	volumes.folder = filepath.Join(a.dir, "volumes")
	volumes.reset = a.inv.ResetVolume
	a.target = iscsi.New(iscsi.Config{
		Listen: c.ISCSI, Target: a.iqn, Catalog: volumes, Reservations: a.db, Wipes: wiping{a.db, a.pool}, Holders: evidence{db: a.db, now: time.Now, heard: heard}, Emit: emit, Log: log.With("part", "iscsi"), Now: time.Now,
		MaxSessions: maxSessions(log),
	})
	a.scripts = httpboot.Handler(httpboot.Config{
		Inventory: a.db, Attempts: a.runner, Volumes: looker{a.pool}, Evidence: evidence{db: a.db, now: time.Now, heard: heard}, Explainer: explainer{a.runner}, Files: a.loaders, Media: a.media,
		Emit: emit, Log: log.With("part", "boot"), Now: time.Now, Target: a.iqn, ISCSIPort: func() uint16 { return a.target.Addr().Port() },
		Advertise: set.advertise, AdminURL: a.adminURL, Guard: set.guard, Networks: evidence{db: a.db, now: time.Now, heard: heard},
		Fetched: func(addr netip.Addr) { a.tftp.ScriptFetched(addr) },
	})
	a.boot = httpd.New("boot HTTP", c.Boot, a.scripts, httpd.Options{Hurry: w.hurry, Flag: "--boot", BodyTime: 10 * time.Second, Log: log.With("part", "boot")})
	a.tftp = tftp.New(tftp.Config{
		Addr: c.TFTP, Files: a.loaders, Emit: emit, Log: log.With("part", "tftp"), Now: time.Now,
		Script: func(local netip.Addr) []byte { return []byte(scripts.FirstStage(a.bootAddr(local))) },
	})
	a.network = newNetwork(a, emit)
	a.through = &throughput{moved: a.moved, now: time.Now}
	a.surveys = survey.NewBook(time.Now)
	a.bmcs = power.NewController(log.With("part", "power"))
	a.capture = newCapture(a)

	if a.cert, err = c.certificate(a.dir, set.advertise, log.With("part", "admin")); err != nil {
		return nil, err
	}
	adminHandler, err := a.adminSide(ctx)
	if err != nil {
		return nil, err
	}
	a.admin = httpd.New("admin HTTP", c.Admin, adminHandler, httpd.Options{Hurry: w.hurry, Flag: "--admin", TLS: a.tlsConfig(), Log: log.With("part", "admin")})
	socket := httpd.NewUnix("command line", filepath.Join(a.dir, cli.SocketName), adminHandler, httpd.Options{Hurry: w.hurry, Log: log.With("part", "admin"), SocketGroup: socketGroup})

	// Inside out: nobody is invited (DHCP) before the house is lit.
	a.super = services.NewSupervisor(log, time.Now, services.Options{OnState: a.onState, Hurry: w.hurry},
		a.journal, events.NewKeeper(a.table, log.With("part", "events")), a.notify, a.once, a.runner, a.target, a.boot, a.admin, a.tftp, a.capture, a.network, a.space, a.through, inventory.NewMerger(a.inv), inventory.NewAutoEnroller(a.inv, a.db), socket)
	return a, nil
}

// imageFolders are the folders with files that may be named from afar.
func (a *appliance) imageFolders() []string {
	return append([]string{filepath.Join(a.dir, imagesFolder)}, a.cmd.Images...)
}

// openMedia opens the folder of media, and the one of those that are being sent.
func (a *appliance) openMedia(ctx context.Context) error {
	log := a.log.With("part", "media")
	folder, err := filed.OpenFolder(filepath.Join(a.dir, "media"))
	if err != nil {
		return err
	}
	shelf, err := stage.Open(filepath.Join(a.dir, "media-uploads"), log, time.Now)
	if err != nil {
		return err
	}
	a.closers = append(a.closers, shelf.Close)
	a.media, err = media.New(ctx, media.Config{Rows: a.db, Jobs: a.inv, Folder: folder, Shelf: shelf, Log: log, Images: a.imageFolders(), Data: a.dir})
	return err
}

// run serves until a signal, then drains in reverse order.
func (a *appliance) run(w *world) error {
	a.network.ready = func() {
		if code := a.auth.Code(); code != "" { // now that the port is known
			fmt.Fprintf(w.err, "\n  Set up at %s/setup?code=%s\n\n", a.adminURL(firstAddress()), code)
			if a.cert != nil && a.cert.SelfMade() {
				fmt.Fprintf(w.err, "  The browser warns of a certificate that nobody issued; its SHA-256 should be\n  %s\n\n", a.cert.Fingerprint())
			}
		}
		a.log.Info("the appliance is up", "version", version, "data", a.dir, "target", a.iqn, "portal", a.target.Addr(), "boot", a.boot.Addr(), "admin", a.admin.Addr(), "tftp", a.tftp.Addr())
		if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
			a.log.Warn("tell systemd", "error", err)
		}
	}
	return a.super.Run(w.ctx)
}

// close releases what build opened, in reverse; every volume is flushed.
func (a *appliance) close() {
	for i := len(a.closers) - 1; i >= 0; i-- {
		if err := a.closers[i](); err != nil {
			a.log.Error("close", "error", err)
		}
	}
	a.closers = nil
}

// settingTarget keeps the target's name: it is chosen once, since every
// installed machine knows it.
const settingTarget = "target"

func (a *appliance) targetName(ctx context.Context) (store.IQN, error) {
	v, ok, err := a.db.Setting(ctx, settingTarget)
	if err != nil {
		return "", err
	}
	q := a.set.target
	switch {
	case ok && q == "":
		return store.ParseIQN(v)
	case ok: // the flag beats the database, for this run
		return q, nil
	case q == "":
		var b [4]byte
		rand.Read(b[:])
		q = store.IQN("iqn.2026-11.lunboot:" + hex.EncodeToString(b[:]))
	}
	return q, a.db.PutSetting(ctx, store.ActorSystem, settingTarget, string(q))
}

// adminSide is what people and the CLI reach: pages and API behind one mux.
func (a *appliance) adminSide(ctx context.Context) (http.Handler, error) {
	log := a.log.With("part", "admin")
	var err error
	a.auth, err = auth.New(ctx, auth.Config{
		Users: a.db, Tokens: a.db, Secure: a.cert != nil, Sessions: a.db, Provider: a.db, Log: log, Now: time.Now,
		Peer: func(ctx context.Context) (int, bool) {
			c, ok := httpd.Peer(ctx)
			return int(c.UID), ok
		},
	})
	if err != nil {
		return nil, err
	}
	a.provider = a.newProvider()
	dry := a.dryRuns()
	saved := backup.New(backup.Config{Dir: a.dir, Version: version, Target: string(a.iqn), Rows: a.db, Volumes: a.pool, Journal: a.table.Backup, Sessions: a.target.Sessions, Now: time.Now})
	book, err := manualBook()
	if err != nil {
		return nil, err
	}
	site, err := pages.Handler(pages.Config{
		Version:   version,
		Manual:    book,
		Inventory: a.db,
		Machines:  a.inv,
		Enrolling: a.inv,
		Explainer: dry,
		Volumes:   a.inv,
		Storage:   a.inv,
		Space:     a.space.Space,
		Attempts:  a.runner,
		Events:    a.table,
		Ends:      a.table.AttemptEnds,
		Moved:     a.through.Throughput,
		SpaceSeen: a.space.Seen,
		Loaders:   a.loaders,
		Media:     a.media,
		Power:     waker{a},
		Profiles:  a.inv,
		Scripts:   previews{a},
		Changes:   []pages.Change{revisions{a.db}, a.runner},
		Setup:     setup{a},
		Network:   networks{a},
		Subnets:   acts{a.inv, a},
		Settings:  a.db,
		Health:    a.healthChecks,
		Auth:      a.auth,
		SignIn:    a.provider,
		Status:    a.status,
		Captures:  a.captures(),
		Leases:    a.inv,
		Sessions:  liveSessions{a},
		Audit:     a.db,
		Backups:   saved,

		Certificate: a.shown,
		Log:         log,
		Now:         time.Now,
	})
	if err != nil {
		return nil, err
	}
	r := chi.NewRouter()
	r.Use(heads)
	r.Group(func(r chi.Router) {
		r.Use(api.SameOrigin, a.auth.API)
		api.Mount(r, api.Config{
			Store:     a.db,
			Acts:      acts{a.inv, a},
			Volumes:   a.inv,
			Space:     a.space.Space,
			Sessions:  liveSessions{a},
			Attempts:  a.runner,
			Events:    eventLog{a.journal, a.table},
			Scripts:   previews{a},
			Explainer: dry,
			Loaders:   a.loaders,
			Media:     a.media,
			Power:     waker{a},
			SignIn:    a.provider,
			Access:    a.auth, Network: networks{a}, Health: a.health, Captures: a.captures(), Backups: saved, Version: version, Log: log,
		})
	})
	r.With(a.auth.API).Method(http.MethodGet, metrics.Path, a.metrics)
	r.Get(probe.HealthPath, probe.Health)
	r.Method(http.MethodGet, probe.ReadyPath, probe.NewReady(a.parts(ctx), time.Now))
	r.Mount("/", site)
	return guarded(log, r), nil
}

// guarded keeps a panic inside its request.
func guarded(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := services.Guard(log, r.Method+" "+r.URL.Path, func() (err error) {
			defer func() {
				v := recover()
				if e, ok := v.(error); ok && errors.Is(e, http.ErrAbortHandler) {
					err = e // the handler's own wish, not a fault
				} else if v != nil {
					panic(v)
				}
			}()
			next.ServeHTTP(w, r)
			return nil
		})
		if errors.Is(err, http.ErrAbortHandler) {
			panic(http.ErrAbortHandler)
		}
		if err != nil {
			http.Error(w, "The appliance had an internal fault; its log says more.", http.StatusInternalServerError)
		}
	})
}

// bootAddr is the boot listener as a machine that came in at local reaches it.
func (a *appliance) bootAddr(local netip.Addr) netip.AddrPort {
	if a.set.advertise.IsValid() {
		local = a.set.advertise
	}
	return netip.AddrPortFrom(local, a.boot.Addr().Port())
}

// adminURL is where people open the appliance.
func (a *appliance) adminURL(local netip.Addr) string {
	at := a.admin.Addr()
	if !at.IsValid() { // not bound yet: the flag says where it will be
		at, _ = netip.ParseAddrPort(a.cmd.Admin)
	}
	port := at.Port()
	if port == 0 {
		port = portOf(a.cmd.Admin, 8080)
	}
	if at.Addr().IsValid() && !at.Addr().IsUnspecified() {
		local = at.Addr()
	} else if a.set.advertise.IsValid() {
		local = a.set.advertise
	}
	scheme := "http://"
	if a.cert != nil {
		scheme = "https://"
	}
	return scheme + netip.AddrPortFrom(local, port).String()
}

// addresses names each listener's address for the health listing.
func (a *appliance) addresses() map[string]string {
	out := map[string]string{}
	for svc, at := range map[services.Service]netip.AddrPort{a.target: a.target.Addr(), a.boot: a.boot.Addr(), a.admin: a.admin.Addr(), a.tftp: a.tftp.Addr()} {
		if at.IsValid() {
			out[svc.String()] = at.String()
		}
	}
	return out
}

func (a *appliance) health(ctx context.Context) api.Health {
	h := api.Health{OK: true, Version: version, Target: string(a.iqn)}
	at := a.addresses()
	for _, s := range a.running(ctx) {
		one := api.Service{Name: s.Name, Address: at[s.Name], Healthy: s.Healthy, Detail: s.Reason}
		if s.Healthy && s.Name == a.network.String() {
			one.Detail = a.network.part()
		}
		h.Services = append(h.Services, one)
		h.OK = h.OK && s.Healthy
	}
	for _, c := range a.checks(ctx) {
		h.Checks = append(h.Checks, api.Check{Name: c.Name, OK: c.OK, State: string(c.State), Detail: c.Detail, Mend: c.Mend, Depth: c.Depth})
		h.OK = h.OK && c.State != doctor.Fault
	}
	return h
}

// healthChecks is what health says, for people.
func (a *appliance) healthChecks(ctx context.Context) []pages.Check {
	a.lookAgain(ctx)
	h := a.health(ctx)
	var out []pages.Check
	for _, s := range h.Services {
		c := pages.Check{Name: s.Name, State: string(doctor.Well), Detail: cmp.Or(s.Address, s.Detail)}
		if !s.Healthy {
			c.State, c.Detail = string(doctor.Fault), s.Detail
		}
		out = append(out, c)
	}
	for _, c := range h.Checks {
		out = append(out, pages.Check{Name: c.Name, State: c.State, Detail: c.Detail, Mend: c.Mend, Depth: c.Depth})
	}
	return out
}

func (a *appliance) status(ctx context.Context) pages.Status {
	s := pages.Status{OK: true, Text: "All services running", Address: strings.Join(a.network.serving(), ", ")}
	if text := a.foot.says(ctx, a.wrong); text != "" {
		s.OK, s.Text = false, text
	}
	s.Banners = a.warnings()
	return s
}
