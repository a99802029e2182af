// Package explain says what a machine would get if it booted now, field by
// field, and what of that is not as it was at its last attempt.
//
// It decides nothing. Each part of the answer comes from the very code that
// answers machines, asked without its side effects; this package asks the parts
// in the order of a boot and compares.
package explain

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

// Offers is the DHCP side.
type Offers interface {
	ExplainOffer(context.Context, store.OfferQuery) (store.OfferExplanation, error)
}

// Scripts is the boot listener.
type Scripts interface {
	Explain(ctx context.Context, id boot.Identity, at netip.AddrPort, addr netip.Addr) store.ScriptExplanation
}

// Logins is the target.
type Logins interface {
	ExplainLogin(context.Context, store.Machine) (store.LoginExplanation, error)
}

// Files are the loaders.
type Files interface {
	ExplainFile(boot.Loader) store.FileExplanation
}

// Inventory is what is known of who asks.
type Inventory interface {
	UnknownMachine(context.Context, store.MAC) (store.UnknownMachine, error)
}

// Attempts answers how boots went.
type Attempts interface {
	Latest(store.MachineID, store.MAC) (store.Attempt, bool)
	// EventsOf returns what was seen in an attempt, in order.
	EventsOf(context.Context, store.Attempt) ([]store.Event, error)
}

// Config is what an Explainer asks.
type Config struct {
	Offers    Offers
	Scripts   Scripts
	Logins    Logins
	Files     Files
	Inventory Inventory
	Attempts  Attempts
	// Boot is the boot listener as a machine reaches it that no DHCP answer
	// names it to.
	Boot func(store.Machine) netip.AddrPort
	Now  func() time.Time
}

// Explainer makes dry runs.
type Explainer struct{ Config }

// New makes an Explainer.
func New(c Config) *Explainer { return &Explainer{c} }

// subject is who would boot.
type subject struct {
	machine store.Machine // zero when it is not enrolled
	unknown store.UnknownMachine
	mac     store.MAC
	arch    uint16
	assumed bool
}

// Explain makes a dry run for an enrolled machine, or, when m is zero, for the
// MAC of the query. Nothing is minted, learnt or sent.
func (x *Explainer) Explain(ctx context.Context, m store.Machine, q store.ExplainQuery) (store.DryRun, error) {
	who, err := x.subject(ctx, m, q)
	if err != nil {
		return store.DryRun{}, err
	}
	platform, _ := boot.PlatformOf(who.arch)
	out := store.DryRun{
		MAC: who.mac, Machine: m.ID, Name: m.Name, Ignored: who.unknown.Ignored,
		Platform: platform.String(), Assumed: who.assumed, Relay: q.Relay, At: x.Now(),
		Offers: []store.OfferExplanation{}, Differences: []store.Difference{}, Login: store.LoginExplanation{Units: []store.UnitExplanation{}},
	}
	uuid := m.UUID
	if m.ID == 0 {
		uuid = who.unknown.UUID
	}
	last, tried := x.Attempts.Latest(m.ID, who.mac)
	var events []store.Event
	if tried {
		if events, err = x.Attempts.EventsOf(ctx, last); err != nil {
			return store.DryRun{}, err
		}
	}
	for _, ipxe := range []bool{false, true} {
		o, err := x.Offers.ExplainOffer(ctx, store.OfferQuery{MAC: who.mac, UUID: uuid, Arch: who.arch, Class: classOf(events, platform, ipxe), IPXE: ipxe, Relay: q.Relay})
		if err != nil {
			return store.DryRun{}, err
		}
		if o.Fields == nil {
			o.Fields = []store.OfferField{}
		}
		out.Offers = append(out.Offers, o)
	}
	firmware, ipxe := out.Offers[0], out.Offers[1]
	if firmware.Loader != "" {
		out.File = x.Files.ExplainFile(boot.Loader(firmware.Loader))
	}
	at := ipxe.Boot
	if !at.IsValid() {
		at = x.Boot(m)
	}
	out.Script = x.Scripts.Explain(ctx, who.identity(platform, ipxe), at, ipxe.Address)
	if m.ID != 0 {
		if out.Login, err = x.Logins.ExplainLogin(ctx, m); err != nil {
			return store.DryRun{}, err
		}
		if out.Login.Units == nil {
			out.Login.Units = []store.UnitExplanation{}
		}
	}
	if !tried {
		return out, nil
	}
	out.Last = &last
	out.Differences = compare(out, last, events)
	return out, nil
}

// classOf returns the class that the same client sent in the last attempt: what
// boots taught of loaders is kept by it.
func classOf(events []store.Event, p boot.Platform, ipxe bool) string {
	for _, e := range events {
		d := e.Detail
		if e.Kind == store.EventDHCPDiscover && d.IPXE == ipxe && d.Firmware == p.Firmware.String() && d.Arch == p.Arch.String() && strings.HasPrefix(d.Class, "HTTPClient") == p.HTTP {
			return d.Class
		}
	}
	return ""
}

// hostName is the option by which DHCP names a machine (RFC 2132 §3.14).
const hostName = 12

// assumedArch is what a machine is taken for that nobody has seen: most are.
const assumedArch = 7 // UEFI x86-64

func (x *Explainer) subject(ctx context.Context, m store.Machine, q store.ExplainQuery) (subject, error) {
	who := subject{machine: m, mac: q.MAC}
	firmware, arch := m.Firmware, m.Arch
	switch {
	case m.ID != 0 && q.MAC.IsZero() && len(m.MACs) > 0:
		who.mac = m.MACs[0]
	case m.ID != 0 && !slices.Contains(m.MACs, q.MAC):
		return who, store.Invalid("mac", "%s is no card of %s", q.MAC, m.Name)
	case m.ID == 0 && q.MAC.IsZero():
		return who, store.Invalid("mac", "a machine or a MAC is needed")
	case m.ID == 0:
		u, err := x.Inventory.UnknownMachine(ctx, q.MAC)
		if err != nil && !store.IsNotFound(err) {
			return who, err
		}
		who.unknown, firmware, arch = u, u.Firmware, u.Arch
	}
	if q.Arch != "" {
		var err error
		who.arch, _, err = boot.ParseArch(q.Arch)
		return who, err
	}
	code, ok := boot.ArchOf(firmware, arch)
	if !ok {
		code, who.assumed = assumedArch, true
	}
	who.arch = code
	return who, nil
}

// identity is what the machine's iPXE would say of it: what SMBIOS has, and the
// host name that DHCP gives it.
func (s subject) identity(p boot.Platform, o store.OfferExplanation) boot.Identity {
	host := ""
	for _, f := range o.Fields {
		if f.Option == hostName {
			host = f.Value
		}
	}
	id := boot.Identity{MAC: s.mac, UUID: s.machine.UUID, Hostname: host, Serial: s.machine.Serial, Asset: s.machine.AssetTag}
	if s.machine.ID == 0 {
		id.UUID = s.unknown.UUID
	}
	switch p.Firmware {
	case boot.BIOS:
		id.Platform, id.BuildArch = "pcbios", "i386"
	case boot.UEFI:
		id.Platform = "efi"
		switch p.Arch {
		case boot.X86:
			id.BuildArch = "i386"
		case boot.X8664:
			id.BuildArch = "x86_64"
		case boot.ARM32:
			id.BuildArch = "arm32"
		case boot.ARM64:
			id.BuildArch = "arm64"
		}
	}
	return id
}
