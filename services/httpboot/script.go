package httpboot

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"

	"lunboot/scripts"
	"lunboot/services/boot"
	"lunboot/store"
)

// ask is one request for a script.
type ask struct {
	id      boot.Identity
	addr    netip.Addr     // the asker's
	boot    netip.AddrPort // ours, as machines are told it
	reached netip.Addr     // ours, as the asker reached it
	url     string         // for events
	dry     bool           // HEAD: nothing may be minted, learnt or said
	trusted bool           // a dry run for the machine itself: the address is taken to be its own
	ipxe    bool           // its User-Agent is iPXE's
	choice  string         // the profile that somebody chose from its menu
}

// answer is a script and how it is to be sent.
type answer struct {
	status int
	text   string
	minted bool // holds an attempt, so HEAD cannot know its length
	// is says what it is, for dry runs; the text there has no secrets.
	is store.ScriptExplanation
}

// notice is an answer that boots nothing.
func notice(text string, is store.ScriptExplanation) answer {
	is.Text = text
	return answer{status: http.StatusOK, text: text, is: is}
}

// script answers /boot.ipxe: the first script to an iPXE that does not say who
// it is, else the script of the machine that it names.
func (s *Server) script(w *responseWriter, r *http.Request) {
	a := s.ask(r)
	id, err := boot.ParseIdentity(r.URL.Query())
	switch {
	case err != nil:
		w.script(http.StatusOK, s.wrong(r, "The appliance cannot read what this machine says of itself: "+err.Error()))
		return
	case id.IsZero() && len(r.URL.Query()) == 0:
		s.firstStage(w, r)
		return
	}
	a.id, a.choice = id, r.URL.Query().Get("choice")
	s.serve(w, r, a, false)
}

// firstStage answers with the script that lets an iPXE say who it is.
func (s *Server) firstStage(w *responseWriter, r *http.Request) {
	a := s.ask(r)
	if a.ipxe && !a.dry {
		s.emit(store.Event{Kind: store.EventScriptAsked, Addr: a.addr, Detail: store.Detail{URL: a.url, IPXE: true}})
	}
	w.script(http.StatusOK, scripts.FirstStage(a.boot))
}

// isAutoexec reports whether a path is that of the script which an iPXE looks for
// beside the URL that it came from and then at the root. It runs what it gets
// before it has asked DHCP for anything.
func isAutoexec(p string) bool { return path.Base(p) == boot.Autoexec }

// scriptFile answers the file-name forms. Nobody of that name is 404 with an
// empty body, so that the next name of a walk is tried.
func (s *Server) scriptFile(w *responseWriter, r *http.Request, id boot.Identity) {
	a := s.ask(r)
	a.id = id
	s.serve(w, r, a, true)
}

func (s *Server) ask(r *http.Request) ask {
	return ask{
		addr: remote(r), boot: s.bootAddr(r), reached: local(r).Addr(),
		url: boundedURL(r.URL), dry: r.Method == http.MethodHead, ipxe: isIPXE(r),
	}
}

// boundedURL cuts a request's URL for events and the log.
func boundedURL(u *url.URL) string {
	const most = 512
	s := u.RequestURI()
	if strings.HasPrefix(u.Path, answersRoot) {
		s = (&url.URL{Path: shown(u.Path), RawQuery: u.RawQuery}).RequestURI()
	}
	return s[:min(len(s), most)]
}

func (s *Server) serve(w *responseWriter, r *http.Request, a ask, walk bool) {
	ans := s.answer(r.Context(), a, walk)
	if !a.dry && ans.status == http.StatusOK {
		s.circle.Forget(a.addr)
		if s.cfg.Fetched != nil {
			s.cfg.Fetched(a.addr)
		}
	}
	if ans.status == http.StatusNotFound {
		w.nothing()
		return
	}
	if a.dry && ans.minted {
		// A field whose value is known only when the content is made may be
		// left out of an answer to HEAD (RFC 9110 §9.3.2).
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(ans.status)
		return
	}
	w.script(ans.status, ans.text)
}

// answer finds the machine and makes its script.
func (s *Server) answer(ctx context.Context, a ask, walk bool) answer {
	if !a.dry {
		if err := s.learn(ctx, a.id); err != nil {
			return s.failed(a, store.Machine{}, "look up the machine", err)
		}
	}
	m, err := s.match(ctx, a.id)
	switch {
	case err != nil:
		return s.failed(a, store.Machine{}, "look up the machine", err)
	case m.Claims != nil:
		return s.conflict(a, m.Claims)
	case m.By == "":
		return s.unknown(ctx, a, walk)
	}
	return s.machine(ctx, a, m)
}

func (s *Server) conflict(a ask, claims []scripts.Claim) answer {
	help := s.helpFor(a)
	reason := "this machine says things that belong to different machines:"
	for _, c := range claims {
		reason += fmt.Sprintf(" %s %s is %s's;", c.Field, c.Value, c.Machine)
	}
	reason = strings.TrimSuffix(reason, ";")
	if !a.dry && a.ipxe {
		s.emit(store.Event{Kind: store.EventScriptConflict, MAC: a.id.MAC, Addr: a.addr,
			Detail: store.Detail{URL: a.url, Hostname: printable(a.id.Hostname), Reason: inCase(reason, help)}})
	}
	return notice(scripts.Conflict(a.boot, claims, help), store.ScriptExplanation{Answer: "conflict", Why: reason})
}

// unknown answers a machine that nobody enrolled.
func (s *Server) unknown(ctx context.Context, a ask, walk bool) answer {
	ignored := false
	if !a.id.MAC.IsZero() {
		u, err := s.cfg.Inventory.UnknownMachine(ctx, a.id.MAC)
		if err != nil && !store.IsNotFound(err) {
			return s.failed(a, store.Machine{}, "look up the unknown machine", err)
		}
		ignored = err == nil && u.Ignored
		if !a.dry {
			if err := s.seeUnknown(ctx, a); err != nil {
				return s.failed(a, store.Machine{}, "note the unknown machine", err)
			}
		}
	}
	e := store.Event{MAC: a.id.MAC, Addr: a.addr, Detail: store.Detail{URL: a.url, Hostname: printable(a.id.Hostname),
		Firmware: firmware(a.id.Platform), Arch: arch(a.id.BuildArch), IPXE: true}}
	switch {
	case walk:
		return answer{status: http.StatusNotFound}
	case ignored:
		if e.Kind = store.EventIgnoredMachine; !a.dry {
			s.emit(e)
		}
		return notice(scripts.Ignored(), store.ScriptExplanation{Answer: "ignored", Why: "the operator chose to ignore this machine"})
	}
	if e.Kind = store.EventScriptWaiting; !a.dry {
		s.emit(e)
	}
	return notice(scripts.Unknown(a.boot, a.id.MAC, s.cfg.AdminURL(a.boot.Addr())), store.ScriptExplanation{Answer: "unknown", Why: "no machine is enrolled by what it says of itself"})
}

func (s *Server) seeUnknown(ctx context.Context, a ask) error {
	now := s.cfg.Now()
	vendor := printable(a.id.Manufacturer)
	if p := printable(a.id.Product); p != "" && vendor != "" {
		vendor += " " + p
	} else if vendor == "" {
		vendor = p
	}
	return s.cfg.Inventory.SeeUnknown(ctx, store.UnknownMachine{
		MAC: a.id.MAC, UUID: a.id.UUID, Hostname: printable(a.id.Hostname), Vendor: vendor,
		Firmware: firmware(a.id.Platform), Arch: arch(a.id.BuildArch),
		NIC: a.id.NIC.String(), Chip: printable(a.id.Chip), Address: a.addr, FirstSeen: now, LastSeen: now, Count: 1,
	})
}

// machine answers an enrolled machine.
func (s *Server) machine(ctx context.Context, a ask, found match) answer {
	m, seen, err := s.afterInstall(ctx, a, found.Machine)
	if err != nil {
		return s.failed(a, m, "make the script of "+found.Machine.Name, err)
	}
	profile, once := m.OnceProfile, m.OnceProfile != ""
	if a.choice != "" {
		ok, err := s.offers(ctx, cmp.Or(m.OnceProfile, m.Profile), a.choice)
		if err != nil {
			return s.failed(a, m, "look up the menu of "+m.Name, err)
		}
		if ok { // else the menu was changed meanwhile, and is shown again
			profile = a.choice
		}
	}
	plan, err := s.plan(ctx, m, profile, a)
	var blocked *blockedError
	switch {
	case errors.As(err, &blocked):
		help := s.helpFor(a)
		if !a.dry {
			s.seenMachine(ctx, a, m)
			s.emit(s.machineEvent(store.EventScriptFailed, a, m, store.Detail{Profile: plan.profile.Name, MatchedBy: found.By, Cause: blocked.cause, Reason: inCase(blocked.why, help)}))
		}
		is := plan.explained(found.By)
		is.Answer, is.Why = "blocked", blocked.why
		return notice(scripts.NoDisk(a.boot, m.Name, blocked.why, help), is)
	case err != nil:
		return s.failed(a, m, "make the script of "+m.Name, err)
	}
	if !a.trusted && scripts.NeedsSecret(plan.profile, plan.facts) {
		if ok, why := s.allowed(ctx, m, a.addr, a.reached); !ok {
			return s.withhold(ctx, a, m, plan, found.By, why)
		}
	}
	if a.dry {
		text, err := scripts.Render(plan.profile, plan.facts)
		if err != nil {
			return s.failed(a, m, "make the script of "+m.Name, err)
		}
		is := plan.explained(found.By)
		is.Answer, is.Why, is.Text = "script", seen, scripts.Redact(text, plan.facts)
		return answer{http.StatusOK, text, true, is}
	}
	return s.give(ctx, a, m, plan, found.By, once)
}

// give makes the script that a machine really gets; once when it is for one boot.
func (s *Server) give(ctx context.Context, a ask, m store.Machine, p plan, by string, once bool) answer {
	if !a.ipxe {
		// Somebody looks at the script: that is no boot.
		text, err := scripts.Render(p.profile, p.facts)
		if err != nil {
			return s.failed(a, m, "make the script of "+m.Name, err)
		}
		return answer{status: http.StatusOK, text: text}
	}
	s.seenMachine(ctx, a, m)
	mac := s.macOf(a, m)
	id, key, err := s.cfg.Attempts.Begin(ctx, mac, m.ID)
	if err != nil {
		// The journal is for looking back; a machine boots without it, and
		// cannot report.
		s.cfg.Log.Error("a boot goes unrecorded", "machine", m.Name, "error", err)
		id, key = 0, ""
	}
	p.facts.Attempt, p.facts.Key = id, key
	text, err := scripts.Render(p.profile, p.facts)
	if err != nil {
		return s.failed(a, m, "make the script of "+m.Name, err)
	}
	if bootsVolume(p.profile.Kind) {
		if err := s.cfg.Inventory.ArmBoot(ctx, m.ID); err != nil {
			return s.failed(a, m, "arm the boot of "+m.Name, err)
		}
	}
	// A one-shot profile is used up by what proves that its boot was of use, and a
	// script that was fetched proves nothing. Nor does what a boot comes to that
	// somebody else began: a name is soon said.
	owned := false
	if once {
		owned, _ = s.allowed(ctx, m, a.addr, a.reached)
	}
	if owned && p.profile.Kind.Installs() {
		s.keepBaseline(ctx, m, id)
	}
	e := s.machineEvent(store.EventScriptSent, a, m, store.Detail{
		URL: a.url, Profile: p.profile.Name, MatchedBy: by, Owned: owned, Key: key, Script: scripts.Redact(text, p.facts),
		Firmware: firmware(a.id.Platform), Arch: arch(a.id.BuildArch), IPXE: true, Bytes: int64(len(text)),
	})
	e.Attempt = id
	s.emit(e)
	return answer{status: http.StatusOK, text: text, minted: true}
}

// bootsVolume reports whether scripts of the kind hook the machine's volume.
func bootsVolume(k store.ProfileKind) bool {
	return k == store.ProfileSAN || k.Installs() || k == store.ProfileCustom
}

// withhold answers an address that is not the machine's. A MAC that nobody
// enrolled is noted as an unknown machine, so that one with a copied hostname
// or UUID can be enrolled under its own.
func (s *Server) withhold(ctx context.Context, a ask, m store.Machine, p plan, by, why string) answer {
	help := s.helpFor(a)
	if !a.dry && a.ipxe {
		d := store.Detail{URL: a.url, Profile: p.profile.Name, MatchedBy: by, Reason: inCase(why, help), Network: s.routed(ctx, a.addr, a.reached)}
		s.emit(s.machineEvent(store.EventScriptWithheld, a, m, d))
		if !a.id.MAC.IsZero() {
			if _, err := s.cfg.Inventory.MachineByMAC(ctx, a.id.MAC); store.IsNotFound(err) {
				if err := s.seeUnknown(ctx, a); err != nil {
					s.cfg.Log.Error("an unknown machine was not noted", "mac", a.id.MAC, "error", err)
				}
			}
		}
	}
	return notice(scripts.Withheld(a.boot, m.Name, why, help), store.ScriptExplanation{Answer: "withheld", Why: why})
}

// failed answers when the appliance is at fault: a script that says so, with a
// number that stands in the log beside the cause.
func (s *Server) failed(a ask, m store.Machine, what string, err error) answer {
	help := s.helpFor(a)
	s.cfg.Log.Error("a boot script could not be made", "case", help.Case, "what", what, "mac", a.id.MAC, "addr", a.addr, "error", err)
	why := ""
	var e *store.Error
	if errors.As(err, &e) && e.Kind != store.KindInternal {
		why = e.Msg // written for people, without secrets
	}
	if !a.dry {
		s.emit(s.machineEvent(store.EventScriptFailed, a, m, store.Detail{URL: a.url, Cause: store.CauseAppliance, Reason: inCase("the appliance could not "+what+": "+err.Error(), help)}))
	}
	return notice(scripts.Failed(a.boot, why, help), store.ScriptExplanation{Answer: "failed", Why: "the appliance could not " + what + ": " + err.Error()})
}

func (s *Server) machineEvent(kind store.EventKind, a ask, m store.Machine, d store.Detail) store.Event {
	return store.Event{Kind: kind, MAC: s.macOf(a, m), Addr: a.addr, Machine: m.ID, Detail: d}
}

// macOf is the MAC that the asker said, else the first of the machine's.
func (s *Server) macOf(a ask, m store.Machine) store.MAC {
	if a.id.MAC.IsZero() && len(m.MACs) > 0 {
		return m.MACs[0]
	}
	return a.id.MAC
}

func (s *Server) seenMachine(ctx context.Context, a ask, m store.Machine) {
	fw, ar := firmware(a.id.Platform), arch(a.id.BuildArch)
	if fw == "" {
		fw = m.Firmware
	}
	if ar == "" {
		ar = m.Arch
	}
	if err := s.cfg.Inventory.SeenMachine(ctx, m.ID, fw, ar, s.cfg.Now()); err != nil {
		s.cfg.Log.Error("what a machine said of itself was not noted", "machine", m.Name, "error", err)
	}
}

// firmware reads iPXE's ${platform}.
func firmware(platform string) string {
	switch platform {
	case "pcbios":
		return boot.BIOS.String()
	case "efi":
		return boot.UEFI.String()
	}
	return ""
}

// platform is firmware's inverse.
func platform(firmware string) string {
	switch firmware {
	case boot.BIOS.String():
		return "pcbios"
	case boot.UEFI.String():
		return "efi"
	}
	return ""
}

// arch reads iPXE's ${buildarch}, which names the iPXE's own build.
func arch(buildarch string) string {
	switch buildarch {
	case "i386":
		return boot.X86.String()
	case "x86_64":
		return boot.X8664.String()
	case "arm32":
		return boot.ARM32.String()
	case "arm64":
		return boot.ARM64.String()
	case "riscv64":
		return boot.RISCV64.String()
	case "loong64":
		return boot.LoongArch64.String()
	}
	return ""
}

// printable makes what a machine says of itself fit for tables and pages.
func printable(s string) string { return scripts.Text(s) }

// caseNumber is short enough to be read aloud.
func caseNumber() string {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		return "000000"
	}
	return fmt.Sprintf("%06d", n)
}
