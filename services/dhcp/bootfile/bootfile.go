// Package bootfile decides what a client that asks to boot is told to fetch: a
// loader for its firmware, the script for an iPXE, a URL for UEFI HTTP boot, with
// the options that each of them wants beside it. It is pure, and the same for an
// appliance that gives addresses and for one that answers beside another server.
package bootfile

import (
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"lunboot/services/boot"
	"lunboot/services/dhcp/message"
	"lunboot/store"
)

// Sub-options of option 175 (iPXE src/include/ipxe/dhcp.h). ipxeNoProxy says: do
// not wait for a ProxyDHCP answer. ipxePriority orders offers and the settings
// that come with them; what names none has 0.
const (
	ipxeNoProxy  = 0xb0
	ipxePriority = 1
)

// bootAtOnce is PXE's discovery control with bit 3 set, which tells a client to
// fetch the file that it was given instead of looking for a boot server (PXE 2.1
// table 2-1, tag 6).
var bootAtOnce = []byte{6, 1, 8}

// Asker is a client that may be told to boot.
type Asker struct {
	Request    message.Request
	Ignored    bool   // the operator wants nothing from it
	NeedsISCSI bool   // its script boots a volume
	Loader     string // the loader or chain that it names for itself; empty for none
	Quirks     []store.Quirk
}

// Source is what there is to boot from.
type Source struct {
	Address netip.AddrPort // the boot listener as machines reach it
	// Next chooses the loader for hardware, or none; own is the machine's own
	// choice.
	Next    func(h boot.Hardware, own string) boot.Pick
	Chained bool // this iPXE was sent to our loader a moment ago
	Proxy   bool // another server gives the address, in an offer of its own
}

// Answer is what to fetch. It is zero for a client that is told nothing.
type Answer struct {
	File    string      // path over TFTP, or a URL
	Server  netip.Addr  // siaddr: where the file is
	Loader  boot.Loader // empty when File is a script
	Chained bool        // an iPXE was sent to our own loader
	Missing string      // why there is nothing to fetch; empty when there is, or nothing was asked
	NoISCSI string      // why it cannot boot its volume; empty when it can, or needs none
	Options dhcpv4.Options
}

// Decide answers what a client is told to fetch.
func Decide(a Asker, src Source) Answer {
	r := a.Request
	ans := Answer{Options: dhcpv4.Options{}}
	if !r.PXE() || a.Ignored {
		return ans
	}
	p, known := r.Platform()
	var pick boot.Pick
	if known {
		pick = src.Next(boot.HardwareOf(r.MAC, p.Firmware.String(), p.Arch.String(), r.Class), a.Loader)
	}
	loader := pick.Loader
	known = loader != ""
	ans.NoISCSI = a.noISCSI(src, pick)
	switch {
	case r.IPXE && !a.chains(src, pick):
		ans.ipxe(a, src, p)
		ans.fetch(r, src, boot.ScriptURL(src.Address))
	case !known:
		ans.Missing = "there is no loader for " + platformName(r, p)
	case r.IPXE:
		ans.Chained, ans.Loader = true, loader
		ans.ipxe(a, src, p)
		ans.fetch(r, src, boot.LoaderPath(r.MAC, loader))
	case p.HTTP:
		ans.Loader = loader
		// UEFI 2.10 §24.7.3.2: without the class in the offer, the firmware
		// does not take it for an answer to HTTP boot.
		ans.Options.Update(dhcpv4.OptClassIdentifier("HTTPClient"))
		ans.fetch(r, src, boot.LoaderURL(src.Address, loader))
	default:
		ans.Loader = loader
		if r.IsClass("PXEClient") {
			// PXE 2.1 §2.2.3: a server that says PXEClient may be asked for
			// more on port 4011.
			ans.Options.Update(dhcpv4.OptClassIdentifier("PXEClient"))
			ans.option43(a, src, p)
		}
		ans.fetch(r, src, boot.LoaderPath(r.MAC, loader))
	}
	return ans
}

// ipxe adds what makes an iPXE take the answer (iPXE src/net/udp/dhcp.c). It
// waits two seconds for a ProxyDHCP server unless it is told that there is none.
// Beside another server we are that one: without the class it does not see it,
// and of two answers that name a file it takes the one of higher priority.
func (ans *Answer) ipxe(a Asker, src Source, p boot.Platform) {
	if !src.Proxy {
		ans.Options.Update(dhcpv4.OptGeneric(message.OptionIPXE, []byte{ipxeNoProxy, 1, 1}))
		return
	}
	ans.Options.Update(dhcpv4.OptClassIdentifier("PXEClient"))
	ans.Options.Update(dhcpv4.OptGeneric(message.OptionIPXE, []byte{ipxePriority, 1, 1}))
	ans.option43(a, src, p)
}

// option43 adds PXE's own options. Firmware of a UEFI machine is given none
// beside another server: EDK2 of 2010 to 2017, which many machines still run,
// drops such an offer, and since it heard it takes no other either (edk2 commit
// 8cdd559be6). Without them it asks on port 4011, as every EDK2 does.
func (ans *Answer) option43(a Asker, src Source, p boot.Platform) {
	var b []byte
	if !a.Request.IPXE && (!src.Proxy || p.Firmware == boot.BIOS || slices.Contains(a.Quirks, store.QuirkOption43)) {
		b = append(b, bootAtOnce...)
	}
	if slices.Contains(a.Quirks, store.QuirkNoOption43) {
		b = nil
	}
	if item := a.Request.BootItem; item != "" {
		b = append(append(b, message.PXEBootItem, byte(len(item))), item...)
	}
	if len(b) > 0 {
		ans.Options.Update(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, append(b, 255)))
	}
}

// lacksISCSI reports whether the client is an iPXE that says what it can do, and
// cannot boot the volume that it should.
func (a Asker) lacksISCSI() bool {
	return a.NeedsISCSI && a.Request.IPXE && a.Request.Features && !a.Request.ISCSI
}

// chains reports whether an iPXE is sent to our own loader instead of to the
// script: it cannot speak iSCSI, the machine boots from its volume, ours may be
// able to, and it was not sent there a moment ago. The second time it gets the
// script, whose failure then says what is missing.
func (a Asker) chains(src Source, pick boot.Pick) bool {
	return a.lacksISCSI() && pick.Loader != "" && !pick.NoISCSI && !src.Chained
}

// noISCSI says why a client that needs its volume will not reach it, before it
// has tried: its own iPXE or the loader that it is given has no iSCSI inside.
func (a Asker) noISCSI(src Source, pick boot.Pick) string {
	switch {
	case !a.NeedsISCSI:
		return ""
	case !a.Request.IPXE && pick.NoISCSI:
		return string(pick.Loader) + " has no iSCSI inside"
	case !a.lacksISCSI() || a.chains(src, pick):
		return ""
	case pick.Loader == "":
		return "its iPXE has no iSCSI inside, and there is no other for it"
	}
	return "its iPXE has no iSCSI inside, and neither has " + string(pick.Loader)
}

// fetch names what to fetch, and where. The header's fields are what every
// client reads; the options are for those that ask for them, and iPXE and HTTP
// boot read them first.
func (ans *Answer) fetch(r message.Request, src Source, name string) {
	ans.File = name
	ans.Server = src.Address.Addr()
	if r.Wants(dhcpv4.OptionTFTPServerName) {
		ans.Options.Update(dhcpv4.OptTFTPServerName(ans.Server.String()))
	}
	if r.Wants(dhcpv4.OptionBootfileName) || r.IsClass("HTTPClient") {
		ans.Options.Update(dhcpv4.OptBootFileName(name))
	}
	if r.RawUUID != "" {
		ans.Options.Update(dhcpv4.OptGeneric(message.OptionUUID, []byte(r.RawUUID)))
	}
}

func platformName(r message.Request, p boot.Platform) string {
	if p == (boot.Platform{}) {
		return "client architecture " + r.ArchName()
	}
	return p.String()
}
