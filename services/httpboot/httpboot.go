// Package httpboot answers what machines fetch over HTTP while they boot: their
// script, loaders, files, and the place where they report a failure.
//
// It decides which machine asks and whether the asker may have the script; what
// the script says is scripts' matter, and who holds an address is told by an
// Evidence. An iPXE is never answered with an error page: a BIOS iPXE takes any
// short file for a boot program and jumps into it, so a script says what is
// wrong. HTTP semantics are RFC 9110.
package httpboot

import (
	"context"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"lunboot/scripts"
	"lunboot/services/boot"
	"lunboot/store"
)

// Inventory is what a boot asks of the inventory. Only an error of
// store.KindNotFound means that there is no such noun.
type Inventory interface {
	Machines
	MappingsOf(context.Context, store.MachineID) ([]store.Mapping, error)
	Volume(context.Context, store.VolumeID) (store.Volume, error)
	Profile(ctx context.Context, name string) (store.Profile, error)
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
	SeeUnknown(context.Context, store.UnknownMachine) error
	SeenMachine(ctx context.Context, id store.MachineID, firmware, arch string, at time.Time) error
	ConsumeOnce(context.Context, store.MachineID) error
	// ArmBoot is durable when it returns: the next login of the machine's
	// firmware is then a new boot.
	ArmBoot(context.Context, store.MachineID) error
}

// Attempts names the attempt that a script belongs to.
type Attempts interface {
	Begin(ctx context.Context, mac store.MAC, machine store.MachineID) (id store.AttemptID, key string, err error)
	Check(id store.AttemptID, key string) bool
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

// Config is what a Server needs.
type Config struct {
	Inventory Inventory
	Attempts  Attempts
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
	// Fetched, when set, is told of each address that fetched a script.
	Fetched func(addr netip.Addr)
}

// Server answers the boot listener.
type Server struct {
	cfg    Config
	mux    chi.Router
	uuids  *uuidMemory
	onceMu sync.Mutex // one boot at a time takes a one-shot profile
}

// Handler makes the handler of the boot listener.
func Handler(cfg Config) *Server {
	if cfg.Guard == "" {
		cfg.Guard = GuardStrict
	}
	s := &Server{cfg: cfg, uuids: newUUIDMemory()}
	r := chi.NewRouter()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		r.MethodFunc(method, "/", s.root)
		r.MethodFunc(method, boot.ScriptPath, s.script)
		r.MethodFunc(method, boot.LoaderRoot+"*", s.loader)
		r.MethodFunc(method, boot.FilesRoot+"*", s.file)
		r.MethodFunc(method, "/*", s.other)
	}
	r.Get(boot.ReportPath, s.report)
	r.Post(boot.ReportPath, s.report)
	s.mux = r
	return s
}

// slashes are those that stand together.
var slashes = regexp.MustCompile(`//+`)

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	// Firmware and shims put a slash too many into a path. They follow no
	// redirect to the clean one.
	if strings.Contains(r.URL.Path, "//") {
		u := *r.URL
		u.Path, u.RawPath = slashes.ReplaceAllString(u.Path, "/"), ""
		again := *r
		again.URL = &u
		r = &again
	}
	s.mux.ServeHTTP(w, r)
}

// root sends a browser to where people work, and gives an iPXE its script.
func (s *Server) root(w http.ResponseWriter, r *http.Request) {
	if isIPXE(r) {
		s.script(w, r)
		return
	}
	http.Redirect(w, r, s.admin(r), http.StatusFound)
}

// other answers the file-name forms of a machine's script, and every path that
// is nothing.
func (s *Server) other(w http.ResponseWriter, r *http.Request) {
	if id, ok := boot.ParseScriptFile(r.URL.Path); ok {
		s.scriptFile(w, r, id)
		return
	}
	if isIPXE(r) {
		writeScript(w, r, http.StatusOK, scripts.Wrong(s.bootAddr(r),
			"There is nothing at "+r.URL.Path+" on this appliance.", "A machine's script is at "+boot.ScriptURL(s.bootAddr(r))))
		return
	}
	http.Error(w, "There is nothing at this address. People open "+s.admin(r), http.StatusNotFound)
}

// writeScript sends a script with its exact length. A connection that breaks
// then leaves iPXE with an error instead of half a script.
func writeScript(w http.ResponseWriter, r *http.Request, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		// A machine that went away asks again; there is nobody to tell.
		_, _ = w.Write([]byte(text))
	}
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
