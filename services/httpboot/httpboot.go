// Package httpboot answers what machines fetch over HTTP while they boot: their
// script, loaders, files, and the place where they report a failure.
//
// It decides which machine asks and whether the asker may have the script; what
// the script says is scripts' matter, and who holds an address is told by an
// Evidence. An iPXE is never answered with an error page: a BIOS iPXE takes any
// short file for a boot program and jumps into it, so a script says what is
// wrong, with a case number, and tries again. iPXE throws the body of an answer
// away whose status is 400 or more (http_parse_status and
// http_transfer_complete in net/tcp/httpcore.c; imgdownload registers nothing
// then), so such a script has the status 200. HTTP semantics are RFC 9110.
package httpboot

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"lunboot/scripts"
	"lunboot/services"
	"lunboot/services/boot"
	"lunboot/services/boot/circle"
	"lunboot/store"
)

// Inventory is what a boot asks of the inventory. Only an error of
// store.KindNotFound means that there is no such noun.
type Inventory interface {
	Machines
	MappingsOf(context.Context, store.MachineID) ([]store.Mapping, error)
	Volume(context.Context, store.VolumeID) (store.Volume, error)
	Profile(ctx context.Context, name string) (store.Profile, error)
	AllMedia(context.Context) ([]store.Media, error)
	Seen
}

// Machines finds a machine by each thing that names it.
type Machines interface {
	Machine(context.Context, store.MachineID) (store.Machine, error)
	MachineByName(context.Context, string) (store.Machine, error)
	MachineByUUID(context.Context, store.UUID) (store.Machine, error)
	MachineByMAC(context.Context, store.MAC) (store.Machine, error)
	MachineBySerial(context.Context, string) (store.Machine, error)
	MachineByAssetTag(context.Context, string) (store.Machine, error)
}

// Seen takes what a boot teaches.
type Seen interface {
	UnknownMachine(context.Context, store.MAC) (store.UnknownMachine, error)
	SeeUnknown(context.Context, ...store.UnknownMachine) error
	SeenMachine(ctx context.Context, id store.MachineID, firmware, arch string, at time.Time) error
	// ConsumeOnce takes a machine's profile for one boot back if it still is this
	// one, and was not chosen after this time; it reports whether it was.
	ConsumeOnce(ctx context.Context, id store.MachineID, profile string, chosen time.Time) (used bool, err error)
	// Baseline is what the machine's boot volume held before the installer that was
	// chosen for its next boot.
	Baseline(context.Context, store.MachineID) (store.Baseline, error)
	// PutBaseline keeps the first one of a volume and a journal, durably, if the profile for the
	// machine's next boot still is this one.
	PutBaseline(ctx context.Context, id store.MachineID, profile string, b store.Baseline) error
	// ArmBoot is durable when it returns: the next login of the machine's
	// firmware is then a new boot.
	ArmBoot(context.Context, store.MachineID) error
}

// Volumes looks into volumes.
type Volumes interface {
	// Look says what a machine's firmware would find on a ready volume now.
	Look(context.Context, store.Volume) (store.Preflight, error)
}

// Attempts names the attempt that a script belongs to.
type Attempts interface {
	Begin(ctx context.Context, mac store.MAC, machine store.MachineID) (id store.AttemptID, key string, err error)
	Check(id store.AttemptID, key string) bool
	Attempt(context.Context, store.AttemptID) (store.Attempt, error)
	Attempts(context.Context, store.AttemptFilter) ([]store.Attempt, int, error)
}

// Evidence says whether an address is held by a MAC, and by what that is known.
type Evidence interface {
	Owns(ctx context.Context, addr netip.Addr, mac store.MAC) (ok bool, by string)
}

// Explainer says in words why an attempt failed.
type Explainer interface {
	Explain(ctx context.Context, attempt store.AttemptID) (title, cause, fix string, ok bool)
}

// Files are the loaders.
type Files interface {
	Open(boot.Loader) (data []byte, ok bool)
}

// Emitter takes events and never blocks.
type Emitter interface{ Emit(store.Event) }

// Guard says who may have a script that carries a password.
type Guard string

// The modes of the guard.
const (
	GuardStrict Guard = "strict" // the address that the machine's MAC holds
	GuardSubnet Guard = "subnet" // any address of the appliance's own subnets
	GuardOff    Guard = "off"    // anybody
)

// ParseGuard reads a mode's name.
func ParseGuard(s string) (Guard, error) {
	switch g := Guard(s); g {
	case GuardStrict, GuardSubnet, GuardOff:
		return g, nil
	}
	return "", store.Invalid("script_guard", "%q is not a way to guard scripts; choose strict, subnet or off", s)
}

// Networks knows the network that an address is in, and whether the operator
// trusts whoever is there with passwords.
type Networks interface {
	Network(ctx context.Context, addr netip.Addr) (network netip.Prefix, trusted bool, err error)
}

// Config is what a Server needs.
type Config struct {
	Inventory Inventory
	Attempts  Attempts
	Volumes   Volumes // nil: nobody looks, and only an installer itself can say that it is done
	Evidence  Evidence
	Explainer Explainer // nil: reports are answered without an explanation
	Files     Files
	Media     fs.FS // what /files/ serves; nil: nothing
	Emit      Emitter
	Log       *slog.Logger
	Now       func() time.Time

	Target    store.IQN
	ISCSIPort func() uint16
	Advertise netip.Addr                    // told to machines in place of the address that they reached
	AdminURL  func(local netip.Addr) string // where people open the appliance
	Guard     Guard                         // empty: strict
	Networks  Networks                      // nil: none is known, and none trusted
	// Fetched, when set, is told of each address that fetched a script.
	Fetched func(addr netip.Addr)
}

// Server answers the boot listener.
type Server struct {
	cfg    Config
	mux    chi.Router
	uuids  *uuidMemory
	circle *circle.Watch // iPXEs that fetch a loader again and again
	looks  *looks        // at volumes
}

// Handler makes the handler of the boot listener.
func Handler(cfg Config) *Server {
	if cfg.Guard == "" {
		cfg.Guard = GuardStrict
	}
	s := &Server{cfg: cfg, uuids: newUUIDMemory(), circle: circle.New(cfg.Now), looks: newLooks()}
	r := chi.NewRouter()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		r.MethodFunc(method, "/", handler(s.root))
		r.MethodFunc(method, boot.ScriptPath, handler(s.script))
		r.MethodFunc(method, boot.LoaderRoot+"*", handler(s.loader))
		r.MethodFunc(method, boot.FilesRoot+"*", handler(s.file))
		r.MethodFunc(method, boot.ReportPath, handler(s.report))
		r.MethodFunc(method, "/*", handler(s.other))
	}
	r.Post(boot.ReportPath, handler(s.report))
	r.MethodNotAllowed(handler(s.method))
	r.NotFound(handler(s.other))
	s.mux = r
	return s
}

// slashes are those that stand together.
var slashes = regexp.MustCompile(`//+`)

// handler gives the handlers the writer that ServeHTTP made.
func handler(f func(*responseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { f(w.(*responseWriter), r) }
}

// ServeHTTP answers one request. A panic is answered as a fault of ours, unless
// the answer has begun: then the connection ends, so that half an answer is
// never taken for a whole one.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	rw := &responseWriter{ResponseWriter: w, req: r}
	if isIPXE(r) {
		rw.stand = func(status int) string {
			return s.wrong(r, fmt.Sprintf("The appliance cannot answer %s %s: %s.", r.Method, shown(r.URL.Path), strings.ToLower(http.StatusText(status))))
		}
	}
	// Firmware and shims put a slash too many into a path. They follow no
	// redirect to the clean one.
	if strings.Contains(r.URL.Path, "//") {
		u := *r.URL
		u.Path, u.RawPath = slashes.ReplaceAllString(u.Path, "/"), ""
		again := *r
		again.URL = &u
		r, rw.req = &again, &again
	}
	err := services.Guard(s.cfg.Log, "boot request "+r.Method+" "+shown(r.URL.Path), func() error {
		s.mux.ServeHTTP(rw, r)
		return nil
	})
	switch {
	case err == nil:
	case rw.status != 0:
		panic(http.ErrAbortHandler)
	case isIPXE(r):
		a := s.ask(r)
		a.id, _ = boot.ParseIdentity(r.URL.Query())
		rw.script(http.StatusOK, s.failed(a, store.Machine{}, "answer "+shown(r.URL.Path), err).text)
	default:
		http.Error(rw, "The appliance had an internal fault; its log says more.", http.StatusInternalServerError)
	}
}

// root sends a browser to where people work, and gives an iPXE its script.
func (s *Server) root(w *responseWriter, r *http.Request) {
	if isIPXE(r) {
		s.script(w, r)
		return
	}
	http.Redirect(w, r, s.admin(r), http.StatusFound)
}

// other answers the file-name forms of a machine's script, and every path that
// is nothing.
func (s *Server) other(w *responseWriter, r *http.Request) {
	if id, ok := boot.ParseScriptFile(r.URL.Path); ok {
		s.scriptFile(w, r, id)
		return
	}
	if isAutoexec(r.URL.Path) {
		s.firstStage(w, r)
		return
	}
	if isIPXE(r) {
		s.missing(r, "", "")
		w.script(http.StatusOK, s.wrong(r,
			"There is nothing at "+shown(r.URL.Path)+" on this appliance.", "A machine's script is at "+boot.ScriptURL(s.bootAddr(r))))
		return
	}
	http.Error(w, "There is nothing at this address. People open "+s.admin(r), http.StatusNotFound)
}

// method answers a method that the path does not know.
func (s *Server) method(w *responseWriter, r *http.Request) {
	if isIPXE(r) {
		w.script(http.StatusOK, s.wrong(r, "The appliance does not answer the method "+r.Method+" at "+shown(r.URL.Path)+"."))
		return
	}
	allow := "GET, HEAD"
	if r.URL.Path == boot.ReportPath {
		allow += ", POST"
	}
	w.Header().Set("Allow", allow)
	http.Error(w, "This address answers "+allow+".", http.StatusMethodNotAllowed)
}

// wrong makes the script for a request that an iPXE should not have made. The
// log has its case number.
func (s *Server) wrong(r *http.Request, lines ...string) string {
	help := s.help(s.bootAddr(r))
	s.cfg.Log.Info("a machine was told that it asked for something wrong", "case", help.Case, "method", r.Method, "url", boundedURL(r.URL),
		"addr", remote(r), "told", strings.Join(lines, " "))
	return scripts.Wrong(s.bootAddr(r), help, lines...)
}

// missing tells that an iPXE asked for something that is not here: somebody's
// script names it. file is its name when the answer is a failure that the script
// may take care of; without one the machine runs a script of ours in its place.
// why says more than that it is not here.
func (s *Server) missing(r *http.Request, file, why string) {
	if r.Method != http.MethodHead {
		s.emit(store.Event{Kind: store.EventFileMissing, Addr: remote(r), Detail: store.Detail{URL: boundedURL(r.URL), File: printable(file), IPXE: true, Reason: why}})
	}
}

// help mints a case number.
func (s *Server) help(at netip.AddrPort) scripts.Help {
	return scripts.Help{Case: caseNumber(), Admin: s.cfg.AdminURL(at.Addr())}
}

// helpFor is the help of an answer. A dry run opens no case.
func (s *Server) helpFor(a ask) scripts.Help {
	if a.trusted {
		return scripts.Help{Admin: s.cfg.AdminURL(a.boot.Addr())}
	}
	return s.help(a.boot)
}

// inCase makes a reason findable by the number on the machine's screen.
func inCase(reason string, h scripts.Help) string {
	return strings.TrimSuffix(reason, ".") + " " + store.CaseMark(h.Case)
}

func isIPXE(r *http.Request) bool { return strings.HasPrefix(r.UserAgent(), "iPXE/") }

// remote is the asker's address.
func remote(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// local is the address and port of ours that the asker reached.
func local(r *http.Request) netip.AddrPort {
	a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// bootAddr is the boot listener's address as machines are told it.
func (s *Server) bootAddr(r *http.Request) netip.AddrPort { return s.advertised(local(r)) }

func (s *Server) advertised(l netip.AddrPort) netip.AddrPort {
	if s.cfg.Advertise.IsValid() {
		return netip.AddrPortFrom(s.cfg.Advertise, l.Port())
	}
	return l
}

func (s *Server) admin(r *http.Request) string { return s.cfg.AdminURL(s.bootAddr(r).Addr()) }

func (s *Server) emit(e store.Event) {
	e.At = s.cfg.Now()
	s.cfg.Emit.Emit(e)
}
