package diagnose

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/services/boot"
	"lunboot/services/boot/attempt"
	"lunboot/store"
)

// tape replays a boot: the events go through the fold, as they do in the
// appliance, and Explain is asked at its end.
type tape struct {
	at     time.Time
	seq    int64
	s      *attempt.State
	before *attempt.State
	events []store.Event
	prior  []store.Event
}

var (
	start   = time.Date(2026, 11, 22, 14, 3, 0, 0, time.UTC)
	theMAC  = store.MAC{0x52, 0x54, 0, 0x77, 0, 0x0a}
	theAddr = netip.MustParseAddr("10.77.0.50")
)

const (
	ipxeID = "400027231234"
	osID   = "00023d000001"
)

func newTape() *tape { return &tape{at: start} }

func (p *tape) see(after int, kind store.EventKind, d store.Detail) *tape {
	p.at = p.at.Add(time.Duration(after) * time.Millisecond)
	p.seq++
	e := store.Event{Seq: p.seq, At: p.at, Kind: kind, MAC: theMAC, Addr: theAddr, Detail: d}
	if attempt.Begins(p.s, e) {
		if p.s != nil {
			p.s.Ended(p.at)
			p.before, p.prior, p.events = p.s, p.events, nil
		}
		p.s = attempt.New(1, "key", p.at)
	}
	if p.s != nil {
		p.s.Fold(e)
		p.events = append(p.events, e)
	}
	return p
}

// quiet lets time pass until silence has become a failure.
func (p *tape) quiet() *tape {
	p.at = p.at.Add(4 * time.Minute)
	p.s.Expire(p.at, attempt.Usual{})
	return p
}

var (
	firmwareBIOS = store.Detail{PXE: true, Firmware: "BIOS", Arch: "x86", Interface: "eth0"}
	firmwareUEFI = store.Detail{PXE: true, Firmware: "UEFI", Arch: "x86-64", Interface: "eth0"}
	ipxeBIOS     = store.Detail{PXE: true, IPXE: true, Firmware: "BIOS", Arch: "x86", Interface: "eth0"}
	ipxeUEFI     = store.Detail{PXE: true, IPXE: true, Firmware: "UEFI", Arch: "x86-64", Interface: "eth0"}
	linux        = store.Detail{Class: "udhcp 1.35.0"}
)

func (p *tape) dora(d store.Detail) *tape {
	acked := d
	if acked.Loader = "snponly.efi"; d.IPXE {
		acked.Loader, acked.URL = "", "http://10.77.0.1/boot.ipxe"
	}
	return p.see(0, store.EventDHCPDiscover, d).see(1, store.EventDHCPOffer, acked).see(3000, store.EventDHCPRequest, d).see(2, store.EventDHCPAck, acked)
}

func (p *tape) tftp() *tape { return p.fetched("snponly.efi", 173792) }

func (p *tape) fetched(name string, size int64) *tape {
	d := store.Detail{File: name, Loader: name, Total: size}
	sent := d
	sent.Bytes, sent.Millis = size, 400
	return p.see(50, store.EventTFTPProbe, d).see(20, store.EventTFTPStart, d).see(400, store.EventTFTPSent, sent)
}

func (p *tape) script() *tape {
	return p.see(300, store.EventScriptSent, store.Detail{Profile: "san", MatchedBy: "mac", Script: "sanboot iscsi:10.77.0.1::3260:2:iqn"})
}

// own is a boot by an operator's own script.
func own(script string) *tape {
	return bios().see(300, store.EventScriptSent, store.Detail{Profile: "mine", MatchedBy: "mac", Script: "#!ipxe\n" + script + "\n"})
}

func lun(n int) *int { return &n }

func session(isid, name string) store.Detail {
	return store.Detail{ISID: isid, Session: name, Initiator: "iqn.2026-11.lunboot:lab-12", Auth: "mutual", LUN: lun(2), Volume: "win11"}
}

func (p *tape) logged(isid, name string) *tape {
	return p.see(100, store.EventISCSILogin, session(isid, name))
}

func (p *tape) read(isid, name string, n int64) *tape {
	d := session(isid, name)
	d.Bytes = n
	return p.see(5, store.EventISCSIFirstRead, session(isid, name)).see(900, store.EventISCSIIO, d).see(50, store.EventISCSIClosed, d)
}

func (p *tape) refused(isid, status, reason string) *tape {
	return p.see(50, store.EventISCSIRefused, store.Detail{ISID: isid, Status: status, Reason: reason, Initiator: "iqn.2026-11.lunboot:lab-12"})
}

func (p *tape) report(step, code string) *tape {
	return p.see(200, store.EventReport, store.Detail{Step: step, Code: code})
}

func (p *tape) noLUN(asked int, mapped ...int) *tape {
	return p.see(3, store.EventISCSINoLUN, store.Detail{ISID: ipxeID, Initiator: "iqn.2026-11.lunboot:lab-12", LUN: &asked, Mapped: mapped, Sense: "05/25/00", Opcode: "TEST UNIT READY"})
}

// ladder is lab-12 with what the ladder says of its loader.
func ladder(given boot.Loader, next boot.Pick) Facts {
	f := lab12(win11)
	f.Loader = &Loader{Hardware: boot.HardwareOf(theMAC, "UEFI", "x86-64", "PXEClient:Arch:00007:UNDI:003016"), Loader: given, Next: next}
	return f
}

// unsigned is a machine that was given a loader which nobody signed.
func unsigned() Facts {
	f := ladder("snponly.efi", boot.Pick{Loader: "ipxe.efi", Why: "it comes after snponly.efi, which was sent and never spoke"})
	f.Loader.Unsigned = true
	return f
}

// overAt ends a tape's attempt, since the machine asked anew so many milliseconds
// after the last event.
func overAt(p *tape, ms int) *tape {
	p.at = p.at.Add(time.Duration(ms) * time.Millisecond)
	p.s.Ended(p.at)
	return p
}

func TestTheDiagnosisOfASilentLoaderSaysWhatIsTriedNext(t *testing.T) {
	silent := newTape().dora(firmwareUEFI).tftp().quiet()
	own := ladder("snponly.efi", boot.Pick{Loader: "snponly.efi", Own: true, Why: "it is the machine’s own choice"})
	own.OwnLoader = "snponly.efi"
	for name, c := range map[string]struct {
		facts Facts
		says  []string
	}{
		"next rung":      {ladder("snponly.efi", boot.Pick{Loader: "ipxe.efi", Why: "it comes after snponly.efi"}), []string{"it is given ipxe.efi then", "network interface 003016 and a card of 52:54:00", "at its next boot it is given ipxe.efi"}},
		"all are silent": {ladder("ipxe.efi", boot.Pick{Loader: "snponly.efi", Exhausted: true, Why: "all were silent"}), []string{"Every loader that there is for it was sent and never spoke", "snponly.efi is tried once more"}},
		"it worked once": {ladder("snponly.efi", boot.Pick{Loader: "snponly.efi", Why: "it worked"}), []string{"given snponly.efi once more", "plug"}},
		"its own choice": {own, []string{"is this machine’s own choice"}},
	} {
		d := Explain(silent.s.Snapshot(), silent.events, c.facts, silent.at)[0]
		text := fmt.Sprint(d.Cause, d.Fixes, d.Evidence)
		for _, s := range c.says {
			if !strings.Contains(text, s) {
				t.Errorf("%s: %q is not in %s", name, s, text)
			}
		}
		checkWording(t, d)
	}
}

// stuck is an iPXE whose reads are answered, and whose answers are lost.
func stuck(logins int) *tape {
	p := bios().see(100, store.EventScriptAsked, store.Detail{IPXE: true}).script()
	for i := range logins {
		id, name := fmt.Sprintf("4000272300%02x", i), fmt.Sprintf("s%d", i)
		d := session(id, name)
		d.Bytes = 2048
		p.logged(id, name).see(4, store.EventISCSIFirstRead, session(id, name)).see(900, store.EventISCSIIO, d).see(14600, store.EventISCSIClosed, d)
	}
	return p
}

// readOnly is a machine that reads and may not write.
func readOnly() *tape {
	d := session(ipxeID, "s1")
	d.Opcode, d.LBA, d.Sense, d.Reason = "WRITE(10)", 2, "07/27/00", "the volume may not be written"
	moved := session(ipxeID, "s1")
	moved.Bytes = 3584
	return bios().script().logged(ipxeID, "s1").see(5, store.EventISCSIFirstRead, session(ipxeID, "s1")).see(30, store.EventISCSIIOFailed, d).
		see(700, store.EventISCSIIO, moved).see(30000, store.EventISCSIClosed, moved)
}

// besideAnother is a machine that was told what to boot beside another server.
func besideAnother() *tape {
	p, d := newTape(), firmwareUEFI
	d.Proxy = true
	for _, pause := range []int{0, 4000, 8000} {
		p.see(pause, store.EventDHCPDiscover, d).see(1, store.EventDHCPProxyOffer, d)
	}
	return p
}

func bios() *tape { return newTape().dora(ipxeBIOS) }
func uefi() *tape { return newTape().dora(firmwareUEFI).tftp().dora(ipxeUEFI) }

// holding is win11 with these contents.
func holding(p store.Preflight) Mapping {
	m := win11
	m.Size, m.Contents = 32<<30, &p
	return m
}

var (
	forUEFI = store.Preflight{Summary: "GPT, ESP, NTFS: Windows", UEFI: store.Bootable{OK: true}, BIOS: store.Bootable{Why: "is partitioned for UEFI (GPT) and has no boot code for a BIOS in its first block"}}
	forBIOS = store.Preflight{Summary: "MBR, NTFS: Windows", BIOS: store.Bootable{OK: true}, UEFI: store.Bootable{Why: "has no EFI system partition"}}
)

// lab12 is what the inventory says of the machine in these tests.
func lab12(luns ...Mapping) Facts {
	return Facts{Name: "lab-12", Initiator: "iqn.2026-11.lunboot:lab-12", Auth: store.AuthMutual, Profile: "custom", Mappings: luns}
}

var win11 = Mapping{LUN: 2, Volume: "win11", Boot: true, BlockSize: 512, State: store.VolumeReady}

// Each failure of the field, and the words for it.
func TestEveryFailureExplainsItself(t *testing.T) {
	asks := func(p *tape, pauses ...int) *tape {
		for _, ms := range pauses {
			p.see(ms, store.EventDHCPDiscover, firmwareUEFI).see(1, store.EventDHCPOffer, firmwareUEFI)
		}
		return p
	}
	for _, c := range []struct {
		code  string
		name  string
		boot  *tape
		facts Facts
		title string
		conf  store.Confidence
		fix   string // the first fix's action
	}{
		{"LB-LUN-01", "the founding failure, BIOS", bios().script().logged(ipxeID, "s1").noLUN(0, 2).report("sanboot", "1d704539"), lab12(win11),
			"lab-12 asked for LUN 0, but its volume “win11” is LUN 2", store.Certain, "use-profile-san"},
		{"LB-LUN-01", "the founding failure, UEFI, no report", uefi().script().logged(ipxeID, "s1").noLUN(0, 2), lab12(win11),
			"lab-12 asked for LUN 0, but its volume “win11” is LUN 2", store.Certain, "use-profile-san"},
		{"LB-LUN-01", "the code of an iPXE that lost the reason", bios().script().logged(ipxeID, "s1").noLUN(0, 2).report("sanboot", "1d704039"), lab12(win11),
			"lab-12 asked for LUN 0, but its volume “win11” is LUN 2", store.Certain, "use-profile-san"},
		{"LB-LUN-01", "several volumes, the boot volume is named", bios().script().logged(ipxeID, "s1").noLUN(0, 1, 2), lab12(Mapping{LUN: 1, Volume: "data"}, win11),
			"lab-12 asked for LUN 0, but its volume “win11” is LUN 2", store.Certain, "use-profile-san"},
		{"LB-LUN-01", "profile san already", bios().script().logged(ipxeID, "s1").noLUN(0, 2), func() Facts { f := lab12(win11); f.Profile = "san"; return f }(),
			"lab-12 asked for LUN 0, but its volume “win11” is LUN 2", store.Certain, "map-lun-0"},
		{"LB-LUN-01", "nobody enrolled it", bios().script().logged(ipxeID, "s1").noLUN(7, 2), Facts{},
			"52:54:00:77:00:0a asked for LUN 7, but its volume is LUN 2", store.Certain, "enroll"},
		{"LB-LUN-01", "a LUN without a number", bios().script().logged(ipxeID, "s1").noLUN(-1, 2), lab12(win11),
			"lab-12 asked for a LUN without a number, but its volume “win11” is LUN 2", store.Certain, "use-profile-san"},
		{"LB-LUN-02", "login refused", bios().script().refused(ipxeID, "0202", "nothing is mapped"), lab12(),
			"lab-12 lost its volume while it booted", store.Certain, ""},
		{"LB-LUN-02", "no script", bios().see(9, store.EventScriptFailed, store.Detail{Reason: "no volume"}), lab12(),
			"lab-12 has nothing to boot", store.Certain, ""},
		{"LB-SCR-05", "two volumes", bios().see(9, store.EventScriptFailed, store.Detail{Reason: "no boot volume"}), lab12(Mapping{LUN: 0, Volume: "a"}, Mapping{LUN: 1, Volume: "b"}),
			"lab-12 has volumes, and none of them is its boot volume", store.Certain, "boot-lun-0"},
		{"LB-SCR-06", "volume not ready", bios().see(9, store.EventScriptFailed, store.Detail{Reason: "volume win11 is importing"}),
			lab12(Mapping{LUN: 2, Volume: "win11", Boot: true, State: store.VolumeImporting}),
			"lab-12 could not be given a script, because its volume “win11” is not ready", store.Certain, ""},
		{"LB-SCR-06", "profile", bios().see(9, store.EventScriptFailed, store.Detail{Reason: "line 3: unknown variable"}), lab12(win11),
			"lab-12 could not be given a script", store.Certain, ""},
		{"LB-SCR-04", "waiting", bios().see(9, store.EventScriptWaiting, store.Detail{}).see(5000, store.EventScriptWaiting, store.Detail{}), Facts{},
			"52:54:00:77:00:0a is waiting to be enrolled", store.Certain, "enroll"},
		{"LB-SCR-04", "gave up", bios().see(9, store.EventScriptWaiting, store.Detail{}).quiet(), Facts{},
			"52:54:00:77:00:0a was not enrolled, and stopped waiting", store.Certain, "enroll"},
		{"LB-SCR-04", "enrolled since", bios().see(9, store.EventScriptWaiting, store.Detail{}).see(5000, store.EventScriptWaiting, store.Detail{}).quiet(), lab12(win11),
			"lab-12 stopped waiting before it was enrolled", store.Certain, ""},
		{"LB-SCR-01", "", bios().see(9, store.EventScriptConflict, store.Detail{Reason: "the hostname is lab-12’s and the MAC lab-13’s"}), lab12(win11),
			"lab-12 was given no script, because its names belong to different machines", store.Certain, ""},
		{"LB-SCR-03", "", bios().see(9, store.EventScriptWithheld, store.Detail{}), lab12(win11),
			"lab-12 was given no script, because 10.77.0.50 is not known to be its address", store.Certain, ""},
		{"LB-SCR-02", "", bios().see(9, store.EventIgnoredMachine, store.Detail{}), Facts{},
			"52:54:00:77:00:0a was left alone, because it is on the list of ignored machines", store.Certain, "unignore"},
		{"LB-CHAP-01", "", bios().script().refused(ipxeID, "0201", "the initiator iqn.x has another CHAP secret than the one set for it").report("sanboot", "410d613c"), lab12(win11),
			"lab-12 gave the wrong password for its volume “win11”", store.Certain, "use-profile-san"},
		{"LB-CHAP-01", "its script is ours", bios().script().refused(ipxeID, "0201", "another CHAP secret"), func() Facts { f := lab12(win11); f.Profile = "san"; return f }(),
			"lab-12 gave the wrong password for its volume “win11”", store.Certain, "renew-secret"},
		{"LB-CHAP-01", "operating system", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6).refused(osID, "0201", "another CHAP secret"), lab12(win11),
			"lab-12’s operating system gave the wrong password for its volume “win11”", store.Certain, "use-profile-san"},
		{"LB-CHAP-01", "changed meanwhile", bios().script().see(900, store.EventMachineChanged, store.Detail{Reason: "changed"}).refused(ipxeID, "0201", "another CHAP secret"), func() Facts { f := lab12(win11); f.Profile = "san"; return f }(),
			"lab-12 gave the wrong password for its volume “win11”", store.Certain, ""},
		{"LB-LUN-02", "unmapped while it ran", bios().script().logged(ipxeID, "s1").see(5, store.EventISCSIFirstRead, session(ipxeID, "s1")).noLUN(2), lab12(),
			"lab-12 lost its volume while it used it", store.Certain, ""},
		{"LB-LOAD-08", "a router names one file to all", newTape().dora(firmwareBIOS).see(10, store.EventDHCPOtherPick, store.Detail{PXE: true, Firmware: "BIOS", Server: "192.168.1.1"}).fetched("snponly.efi", 173792).quiet(), lab12(win11),
			"lab-12 fetched snponly.efi, which is a loader for another kind of machine", store.Certain, ""},
		{"LB-LOAD-04", "HTTP boot", newTape().dora(func() store.Detail { d := firmwareUEFI; d.Class = "HTTPClient:Arch:00016:UNDI:003000"; return d }()).quiet(), lab12(win11),
			"lab-12 got its address but never asked for the boot loader over HTTP", store.BestGuess, "check-again"},
		{"LB-CHAP-02", "", bios().script().refused(ipxeID, "0201", "the initiator iqn.x offered the authentication \"None\"; mutual CHAP is required").report("sanboot", "430d6601"), lab12(win11),
			"lab-12 offered no password that its volume “win11” accepts", store.Certain, "use-profile-san"},
		{"LB-CHAP-04", "", bios().script().refused(ipxeID, "0201", "the initiator iqn.x wants mutual CHAP; no reverse secret is set for it"), lab12(win11),
			"lab-12 asked the appliance to prove itself, and no password is set for that", store.Certain, "set-auth-mutual"},
		{"LB-CHAP-05", "", bios().script().report("sanboot", "1c0d6202"), lab12(win11),
			"lab-12 has only parts of the passwords for its volume “win11”", store.Certain, "use-profile-san"},
		{"LB-CHAP-03", "BIOS", bios().script().report("sanboot", "20d623c"), lab12(win11),
			"lab-12 did not accept the appliance’s own password", store.Certain, "use-profile-san"},
		{"LB-CHAP-03", "UEFI", uefi().script().report("sanboot", "020d628f"), lab12(win11),
			"lab-12 did not accept the appliance’s own password", store.Certain, "use-profile-san"},
		{"LB-TGT-03", "", bios().script().refused(ipxeID, "0202", "no machine has that name"), func() Facts { f := lab12(win11); f.Initiator = "iqn.2026-11.lunboot:other"; return f }(),
			"lab-12 used an iSCSI name that no machine has here", store.Certain, "use-profile-san"},
		{"LB-TGT-04", "", bios().script().see(9, store.EventISCSIRefused, store.Detail{ISID: ipxeID, Status: "0203", Target: "iqn.2026-11.lunboot:yard", Reason: `the initiator asked for the target "iqn.2000-01.com.example:old"; this appliance's target is iqn.2026-11.lunboot:yard`}), lab12(win11),
			"lab-12 asked for the target “iqn.2000-01.com.example:old”, which is not here", store.Certain, "use-profile-san"},
		{"LB-TGT-05", "mutual CHAP", bios().script().refused(ipxeID, "", "the initiator began to log in and did not finish"), lab12(win11),
			"lab-12 broke off its login to its volume “win11”", store.VeryLikely, "use-profile-san"},
		{"LB-CHAP-03", "it hung up, and then said why", bios().script().refused(ipxeID, "", "the initiator began to log in and did not finish").report("sanboot", "020d623c"), lab12(win11),
			"lab-12 did not accept the appliance’s own password", store.Certain, "use-profile-san"},
		{"LB-TGT-06", "CHAP algorithms", bios().script().refused(ipxeID, "0201", "the initiator iqn.x offered the CHAP algorithms \"9\"; the target has 5 (MD5)"), lab12(win11),
			"lab-12 was refused its volume", store.Certain, ""},
		{"LB-TGT-07", "a script", bios().script().refused(ipxeID, "0202", "the login gave the initiator name of lab-07 (iqn.2026-11.lunboot:lab-07), and 10.77.0.50 is the address of lab-12, by its lease; nobody is served another machine's volumes"), lab12(win11),
			"lab-12 logged in as lab-07", store.Certain, "use-profile-san"},
		{"LB-TGT-07", "an image", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6).refused(osID, "0202", "the login gave the initiator name of lab-07 (iqn.2026-11.lunboot:lab-07), and 10.77.0.50 is the address of lab-12, by the neighbour table; nobody is served another machine's volumes"), lab12(win11),
			"lab-12’s operating system logged in as lab-07", store.Certain, ""},
		{"LB-TGT-07", "an image of elsewhere", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6).refused(osID, "0202", "no machine has the initiator name iqn.1993-08.org.debian:01:ad0f6dae3b5"), lab12(win11),
			"lab-12’s operating system used an iSCSI name that no machine has here", store.VeryLikely, ""},
		{"LB-LUN-02", "a golden volume is there", bios().script().refused(ipxeID, "0202", "nothing is mapped"), func() Facts { f := lab12(); f.Goldens = []string{"debian"}; return f }(),
			"lab-12 lost its volume while it booted", store.Certain, "own-copy-debian"},
		{"LB-TGT-03", "volume not ready", bios().script().refused(ipxeID, "0202", "no volume is mapped to the machine lab-12"), lab12(Mapping{LUN: 2, Volume: "win11", Boot: true, State: store.VolumeFailed, Reason: "the file is missing"}),
			"lab-12 was refused, because its volume “win11” is not ready", store.Certain, ""},
		{"LB-VOL-11", "", bios().script().refused(ipxeID, "0301", "the volumes of iqn.x cannot be opened now: open volume win11: volume win11 is volatile, and the appliance’s machine went down without stopping lunboot first: what was written to it is discarded"), lab12(win11),
			"lab-12 was refused its volume “win11”, because what was on it is gone", store.Certain, ""},
		{"LB-VOL-02", "its file is gone", bios().script().refused(ipxeID, "0301", "the volumes of iqn.x cannot be opened now: open volume win11: no such file or directory"), lab12(win11),
			"lab-12 was refused its volume “win11”, because its storage failed", store.Certain, ""},
		{"LB-VOL-03", "no report", bios().script().logged(ipxeID, "s1").quiet(), lab12(Mapping{LUN: 2, Volume: "win11", Boot: true, BlockSize: 4096}),
			"lab-12 starts in BIOS mode, and its volume “win11” has blocks that BIOS cannot read", store.Certain, ""},
		{"LB-TGT-06", "", bios().script().refused(ipxeID, "0302", "too many sessions"), lab12(win11),
			"lab-12 was refused its volume", store.Certain, ""},
		{"LB-LOAD-01", "", newTape().see(0, store.EventDHCPDiscover, firmwareUEFI).see(1, store.EventDHCPNoLoader, store.Detail{Firmware: "UEFI", Arch: "arm32"}), lab12(win11),
			"There is no boot loader for this kind of machine (32-bit ARM, UEFI)", store.Certain, ""},
		{"LB-DHCP-01", "", newTape().see(0, store.EventDHCPDiscover, firmwareUEFI).see(1, store.EventDHCPNoAddress, store.Detail{Interface: "eth0", Reason: "200 of 200 are in use"}), lab12(win11),
			"There was no address left for lab-12", store.Certain, "extend-range-eth0"},
		{"LB-DHCP-08", "", newTape().see(0, store.EventDHCPDiscover, firmwareUEFI).see(1, store.EventDHCPNoSubnet, store.Detail{Relay: "10.88.0.1", Reason: "no subnet here holds 10.88.0.1"}), lab12(win11),
			"lab-12 is on a network that is not known here", store.Certain, ""},
		{"LB-DHCP-02", "", newTape().dora(firmwareUEFI).see(1, store.EventDHCPDecline, firmwareUEFI), lab12(win11),
			"10.77.0.50 is already used by another device", store.Certain, "other-address-10.77.0.50"},
		{"LB-DHCP-02", "by whom", newTape().dora(firmwareUEFI).see(1, store.EventDHCPDecline, firmwareUEFI).see(1000, store.EventDHCPConflict, store.Detail{Server: "52:54:00:00:00:07", Reason: "it answers"}), lab12(win11),
			"10.77.0.50 is already used by another device (52:54:00:00:00:07, QEMU virtual machine)", store.Certain, "other-address-10.77.0.50"},
		{"LB-DHCP-02", "by nobody", newTape().dora(firmwareUEFI).see(1, store.EventDHCPDecline, firmwareUEFI).see(1000, store.EventDHCPConflict, store.Detail{Reason: "nobody answers"}), lab12(win11),
			"lab-12 took 10.77.0.50 for an address of somebody else, and nobody else has it", store.VeryLikely, "other-address-10.77.0.50"},
		{"LB-DHCP-03", "four times", asks(newTape(), 0, 4000, 8000, 16000).quiet(), lab12(win11),
			"Our answers are not reaching lab-12", store.VeryLikely, ""},
		{"LB-DHCP-03", "once", asks(newTape(), 0).quiet(), lab12(win11),
			"Our answers are not reaching lab-12", store.BestGuess, ""},
		{"LB-DHCP-05", "", newTape().see(0, store.EventDHCPDiscover, firmwareUEFI).quiet(), lab12(win11),
			"lab-12 asked for an address and got none from here", store.CannotSee, ""},
		{"LB-DHCP-04", "", newTape().see(0, store.EventDHCPDiscover, firmwareUEFI).see(1, store.EventDHCPRequest, firmwareUEFI).see(1, store.EventDHCPNak, store.Detail{Reason: "192.168.7.9 is not of this network"}).quiet(), lab12(win11),
			"lab-12 insisted on an address that it cannot have here", store.VeryLikely, ""},
		{"LB-LOAD-04", "", newTape().dora(firmwareUEFI).quiet(), lab12(win11),
			"lab-12 got its address but never asked for the boot loader", store.BestGuess, "check-again"},
		{"LB-LOAD-03", "silence", newTape().dora(firmwareUEFI).see(9, store.EventTFTPStart, store.Detail{File: "snponly.efi", Total: 100}).see(1000, store.EventTFTPProgress, store.Detail{File: "snponly.efi", Bytes: 12, Total: 100}).quiet(), lab12(win11),
			"lab-12 stopped downloading at 12 %", store.VeryLikely, ""},
		{"LB-LOAD-03", "aborted", newTape().dora(firmwareUEFI).see(9, store.EventTFTPStart, store.Detail{File: "snponly.efi"}).see(9000, store.EventTFTPAbort, store.Detail{File: "snponly.efi", Bytes: 5, Total: 10, Reason: "it stopped acknowledging"}), lab12(win11),
			"lab-12 stopped downloading at 50 %", store.VeryLikely, ""},
		{"LB-LOAD-02", "", newTape().dora(firmwareUEFI).see(9, store.EventTFTPMissing, store.Detail{File: "bootmgfw.efi"}), lab12(win11),
			"lab-12 asked for bootmgfw.efi, which was never offered from here", store.Certain, ""},
		{"LB-LOAD-05", "silence", newTape().dora(firmwareUEFI).tftp().quiet(), lab12(win11),
			"lab-12 downloaded the boot loader but did not start it", store.VeryLikely, ""},
		{"LB-LOAD-05", "BIOS", newTape().dora(firmwareBIOS).fetched("undionly.kpxe", 74213).quiet(), lab12(win11),
			"lab-12 downloaded the boot loader but did not start it", store.VeryLikely, ""},
		{"LB-LOAD-05", "with the ladder's next rung", newTape().dora(firmwareUEFI).tftp().quiet(), ladder("snponly.efi", boot.Pick{Loader: "ipxe.efi", Why: "it comes after snponly.efi, which was sent and never spoke"}),
			"lab-12 downloaded snponly.efi but did not start it", store.VeryLikely, ""},
		{"LB-LOAD-09", "", overAt(newTape().dora(firmwareUEFI).tftp(), 33), unsigned(),
			"Secure Boot on lab-12 refused snponly.efi", store.VeryLikely, ""},
		{"LB-LOAD-05", "unsigned, and switched off and on", overAt(newTape().dora(firmwareUEFI).tftp(), 9000), unsigned(),
			"lab-12 downloaded snponly.efi but did not start it", store.VeryLikely, ""},
		{"LB-LOAD-05", "signed, and asked anew at once", overAt(newTape().dora(firmwareUEFI).tftp(), 33), ladder("snponly.efi", boot.Pick{Loader: "ipxe.efi", Why: "it is next"}),
			"lab-12 downloaded snponly.efi but did not start it", store.VeryLikely, ""},
		{"LB-LOAD-07", "before it is tried", newTape().dora(firmwareUEFI).see(0, store.EventDHCPNoISCSI, store.Detail{Firmware: "UEFI", Arch: "arm64", Loader: "525400770000/ipxe-arm64.efi"}), lab12(win11),
			"lab-12 cannot boot from its volume, because its loader ipxe-arm64.efi has no iSCSI inside", store.Certain, ""},
		{"LB-LOAD-07", "the firmware is an iPXE", bios().see(0, store.EventDHCPNoISCSI, store.Detail{Firmware: "BIOS", Arch: "x86"}).script().report("sanboot", "3c092003"), lab12(win11),
			"lab-12 cannot boot from its volume, because its own iPXE has no iSCSI inside", store.Certain, ""},
		{"LB-LOAD-06", "", newTape().dora(firmwareBIOS).fetched("undionly.kpxe", 74213).dora(ipxeBIOS).tftp().dora(ipxeBIOS).tftp().dora(ipxeBIOS), lab12(win11),
			"lab-12 is going round in circles: iPXE keeps getting iPXE", store.Certain, ""},
		{"LB-SCR-08", "firmware iPXE", bios().quiet(), lab12(win11),
			"iPXE started on lab-12 but could not reach the appliance’s boot port", store.VeryLikely, "check-again"},
		{"LB-SCR-08", "our iPXE", uefi().quiet(), lab12(win11),
			"iPXE started on lab-12 but could not reach the appliance’s boot port", store.VeryLikely, "check-again"},
		{"LB-SCR-07", "kernel", bios().see(9, store.EventScriptSent, store.Detail{Profile: "rescue", Script: "kernel http://x"}).report("kernel", "2d0c613b"), lab12(win11),
			"lab-12 could not fetch its kernel", store.Certain, ""},
		{"LB-SCR-07", "unknown command", bios().see(9, store.EventScriptSent, store.Detail{Profile: "mine", Script: "vcreate"}).report("custom", "2e022001"), lab12(win11),
			"lab-12 stopped at a line of its script that its iPXE does not know", store.Certain, ""},
		{"LB-TGT-02", "", bios().script().quiet(), lab12(win11),
			"lab-12 never tried to reach its volume “win11”", store.VeryLikely, "use-profile-san"},
		{"LB-TGT-01", "port closed", bios().script().report("sanboot", "0f0a6039"), lab12(win11),
			"lab-12 could not reach its volume “win11” over the network", store.VeryLikely, "check-again"},
		{"LB-TGT-01", "another target", bios().script().report("sanboot", "2c0d603b"), lab12(win11),
			"lab-12 could not reach its volume “win11” over the network", store.VeryLikely, "check-again"},
		{"LB-SCR-09", "", bios().script().report("sanboot", "1c0d6102"), lab12(win11),
			"lab-12 could not read the address of its volume in its script", store.Certain, "use-profile-san"},
		{"LB-TGT-01", "another address", own("sanboot iscsi:10.77.0.9:::2:iqn.x || goto lunboot_1").report("line-1", "4c0a6035"), lab12(win11),
			"lab-12 could not reach its volume “win11” at 10.77.0.9: the appliance is not there", store.VeryLikely, "use-profile-san"},
		{"LB-NET-02", "reads", stuck(4), lab12(win11),
			"Our answers to the reads of lab-12 are lost on the way", store.VeryLikely, ""},
		{"LB-NET-02", "first script", bios().see(100, store.EventScriptAsked, store.Detail{IPXE: true}).quiet(), lab12(win11),
			"Our answers are not reaching lab-12, though its requests reach us", store.VeryLikely, ""},
		{"LB-TGT-02", "a long script", bios().see(300, store.EventScriptSent, store.Detail{Profile: "san", Bytes: 1979, Script: "sanboot iscsi:10.77.0.1::3260:2:iqn"}).quiet(), lab12(win11),
			"lab-12 never tried to reach its volume “win11”", store.VeryLikely, "use-profile-san"},
		{"LB-VOL-10", "a mapping", readOnly(), lab12(Mapping{LUN: 2, Volume: "win11", Boot: true, ReadOnly: true}),
			"lab-12 may only read “win11”, and tried to write to it", store.Certain, "allow-writes-2"},
		{"LB-VOL-10", "a golden volume", readOnly(), lab12(Mapping{LUN: 2, Volume: "win11", Boot: true, Frozen: true}),
			"lab-12 may only read “win11”, and tried to write to it", store.Certain, "own-copy-win11"},
		{"LB-LUN-04", "", bios().script().logged(ipxeID, "s1").quiet(), lab12(win11),
			"lab-12 logged in and never read from its volume “win11”", store.BestGuess, ""},
		{"LB-VOL-08", "BIOS", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).report("sanboot", "1d852039"), lab12(win11),
			"lab-12 found nothing to start on its volume “win11”", store.Certain, ""},
		{"LB-VOL-08", "UEFI", uefi().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).report("sanboot", "7f22208e"), lab12(win11),
			"lab-12 found nothing to start on its volume “win11”", store.Certain, ""},
		{"LB-VOL-03", "", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).report("sanboot", "1d852039"), lab12(Mapping{LUN: 2, Volume: "win11", Boot: true, BlockSize: 4096}),
			"lab-12 starts in BIOS mode, and its volume “win11” has blocks that BIOS cannot read", store.Certain, ""},
		{"LB-VOL-08", "no report", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).quiet(), lab12(win11),
			"lab-12 found nothing to start on its volume “win11”", store.VeryLikely, ""},
		{"LB-VOL-05", "the machine says so", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).report("sanboot", "1d852039"), lab12(holding(store.Preflight{Blank: true, Summary: "empty"})),
			"lab-12 has nothing to start: its volume “win11” is empty", store.Certain, ""},
		{"LB-VOL-05", "no report", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).quiet(), lab12(holding(store.Preflight{Blank: true, Summary: "empty"})),
			"lab-12 has nothing to start: its volume “win11” is empty", store.VeryLikely, ""},
		{"LB-VOL-06", "BIOS machine", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).report("sanboot", "1d852039"), lab12(holding(forUEFI)),
			"lab-12 starts in BIOS mode, and its volume “win11” starts only in UEFI mode", store.Certain, ""},
		{"LB-VOL-06", "BIOS machine that jumped into nothing", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).quiet(), lab12(holding(forUEFI)),
			"lab-12 starts in BIOS mode, and its volume “win11” starts only in UEFI mode", store.VeryLikely, ""},
		{"LB-VOL-06", "UEFI machine", uefi().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).report("sanboot", "7f22208e"), lab12(holding(forBIOS)),
			"lab-12 starts in UEFI mode, and its volume “win11” starts only in BIOS mode", store.Certain, ""},
		{"LB-VOL-07", "UEFI", uefi().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).report("sanboot", "7f22208e"), lab12(holding(store.Preflight{Summary: "GPT, ESP, ext4: Linux", UEFI: store.Bootable{Why: "has no loader"}, BIOS: store.Bootable{Why: "has no code"}})),
			"lab-12 found nothing to start on its volume “win11”, which has no loader", store.Certain, ""},
		{"LB-VOL-04", "the founding report's 64 blocks", bios().script().logged(ipxeID, "s1").report("sanboot", "1d704539"), lab12(func() Mapping { m := holding(store.Preflight{Summary: "boot sector"}); m.Size = 64 * 512; return m }()),
			"lab-12 cannot use its volume “win11”: it is smaller than any disk that iPXE takes", store.Certain, "grow-volume"},
		{"LB-VOL-08", "contents that should start", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).report("sanboot", "1d852039"), lab12(holding(forBIOS)),
			"lab-12 found nothing to start on its volume “win11”", store.Certain, ""},
		{"LB-LUN-03", "another target's answer", bios().script().logged(ipxeID, "s1").report("sanboot", "1d704039"), lab12(win11),
			"lab-12 was answered with a failure when it first used its volume “win11”", store.VeryLikely, "use-profile-san"},
		{"LB-VOL-02", "medium error", bios().script().logged(ipxeID, "s1").see(9, store.EventISCSIIOFailed, store.Detail{ISID: ipxeID, Volume: "win11", Opcode: "READ(10)", LBA: 64, Sense: "03/11/00", Reason: "input/output error"}).report("sanboot", "1d704339"), lab12(win11),
			"lab-12 could not read “win11”, because its storage failed", store.Certain, ""},
		{"LB-VOL-01", "", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6).logged(osID, "s2").see(9, store.EventISCSIIOFailed, store.Detail{ISID: osID, Volume: "win11", Opcode: "WRITE(10)", Sense: "07/27/07"}), lab12(win11),
			"Writes to “win11” failed: the storage is full", store.Certain, ""},
		{"LB-DHCP-06", "", newTape().see(0, store.EventDHCPDiscover, firmwareUEFI).see(1, store.EventDHCPOffer, firmwareUEFI).see(4000, store.EventDHCPOtherPick, store.Detail{PXE: true, Interface: "eth0", Server: "10.77.0.254"}).quiet(), lab12(win11),
			"lab-12 followed 10.77.0.254’s boot instructions instead of ours", store.VeryLikely, "proxy-mode-eth0"},
		{"LB-LOAD-04", "proxy mode", besideAnother().see(4000, store.EventDHCPOtherPick, store.Detail{PXE: true, Proxy: true, Server: "10.77.0.254"}).quiet(), lab12(win11),
			"lab-12 got its address from 10.77.0.254 but never asked for the boot loader", store.BestGuess, "quirk-option-43"},
		{"LB-LOAD-04", "proxy mode, our boot server was asked", besideAnother().see(4000, store.EventDHCPOtherPick, store.Detail{PXE: true, Proxy: true, Server: "10.77.0.254"}).see(9, store.EventDHCPBootServer, store.Detail{PXE: true, Proxy: true}).quiet(), lab12(win11),
			"lab-12 got its address from 10.77.0.254 but never asked for the boot loader", store.BestGuess, "check-again"},
		{"LB-DHCP-07", "two offers", besideAnother().quiet(), lab12(win11),
			"lab-12 took no address from any DHCP server", store.BestGuess, "quirk-no-proxy-offer"},
		{"LB-DHCP-07", "offered nothing", newTape().see(0, store.EventDHCPDiscover, store.Detail{PXE: true, Proxy: true}).quiet(), lab12(win11),
			"lab-12 took no address from any DHCP server", store.BestGuess, ""},
		{"LB-SCR-08", "proxy mode", newTape().see(0, store.EventDHCPDiscover, store.Detail{PXE: true, IPXE: true, Proxy: true}).see(1, store.EventDHCPProxyOffer, store.Detail{PXE: true, IPXE: true, Proxy: true, URL: "http://10.77.0.1/boot.ipxe"}).
			see(2000, store.EventDHCPOtherPick, store.Detail{PXE: true, IPXE: true, Proxy: true, Server: "10.77.0.254"}).quiet(), lab12(win11),
			"iPXE started on lab-12 but could not reach the appliance’s boot port", store.VeryLikely, "check-again"},
		{"LB-OS-02", "Windows", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 61e6).quiet(), lab12(Mapping{LUN: 2, Volume: "win11", Boot: true, Contents: &store.Preflight{OS: store.OSWindows}}),
			"Windows started on lab-12 but lost its volume when it took over the network card", store.VeryLikely, ""},
		{"LB-OS-02", "Linux that asked for an address", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 61e6).see(3000, store.EventDHCPDiscover, linux).quiet(), lab12(win11),
			"Linux started on lab-12 but did not reconnect to its volume", store.VeryLikely, ""},
		{"LB-OS-02", "unknown", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 61e6).quiet(), lab12(win11),
			"lab-12 started from its volume, and its operating system did not reconnect to it", store.BestGuess, ""},
		{"LB-OS-01", "", bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 61e6).logged(osID, "s2").quiet(), lab12(win11),
			"lab-12’s operating system logged in and never read from its volume “win11”", store.VeryLikely, "map-lun-0"},
		{"LB-TGT-01", "a name that nobody knows", bios().script().report("sanboot", "3e11613b"), Facts{Name: "lab-12"},
			"lab-12 could not reach its volume over the network", store.VeryLikely, "check-again"},
		{"LB-CHAP-03", "in a script of the operator's own", own("set reverse-password (secret) || goto lunboot_2\nsanboot iscsi:x || goto lunboot_3").refused(ipxeID, "", "the initiator began to log in and did not finish").report("line-3", "020d623c"), lab12(win11),
			"lab-12 did not accept the appliance’s own password", store.Certain, "use-profile-san"},
		{"LB-SCR-09", "in a script of the operator's own", own("sanboot iscsi:nonsense || goto lunboot_1").report("line-1", "1c0d6102"), lab12(win11),
			"lab-12 could not read the address of its volume in its script", store.Certain, "use-profile-san"},
		{"LB-SCR-07", "a line that names a file", own("kernel http://10.77.0.1/files/${nosuch} || goto lunboot_7").
			see(9, store.EventFileMissing, store.Detail{URL: "/files/", File: "?"}).report("line-7", "2d0c613b"), lab12(win11),
			"lab-12 could not fetch what line 7 of its script names", store.Certain, ""},
		{"LB-SCR-07", "a line with a word that iPXE does not know", own("vcreate --tag 7 net0 || goto lunboot_12").report("line-12", "2e022001"), lab12(win11),
			"lab-12 stopped at line 12 of its script, which its iPXE does not know", store.Certain, ""},
		{"LB-SCR-07", "a line that asks something", own("iseq ${platform} efi && goto efi || goto lunboot_4").report("line-4", "461ac001"), lab12(win11),
			"lab-12 stopped at line 4 of its script", store.Certain, ""},
		{"LB-SCR-10", "", own("chain http://10.77.0.1/nosuch.ipxe || goto lunboot_1").see(9, store.EventFileMissing, store.Detail{URL: "/nosuch.ipxe"}), lab12(win11),
			"lab-12 was sent to “/nosuch.ipxe”, and there is nothing here", store.Certain, "use-profile-san"},
		{"LB-VOL-09", "reserved", bios().script().logged(ipxeID, "s1").see(9, store.EventISCSIIOFailed, store.Detail{ISID: ipxeID, Volume: "win11", Opcode: "READ(10)", LBA: 64, Status: "18", Server: "iqn.2026-11.lunboot:lab-07"}).report("sanboot", "1d704039"), lab12(win11),
			"lab-12 was kept from “win11”, because another machine has reserved it", store.Certain, ""},
		{"LB-VOL-09", "a mounted device", bios().script().refused(ipxeID, "0301", "the volumes of iqn.x cannot be opened now: open volume win11: the device is mounted or held by another program"), lab12(win11),
			"lab-12 was refused its volume “win11”, because another program on the appliance uses it", store.Certain, ""},
		{"LB-OS-04", "", bios().see(9, store.EventScriptSent, store.Detail{Profile: "local", Script: "sanboot --drive 0x80"}).report("local", "1d852039"), lab12(holding(store.Preflight{Blank: true})),
			"lab-12 could not start from its own disk", store.Certain, "use-profile-san"},
		{"LB-BOOT-01", "", bios().see(9, store.EventScriptSent, store.Detail{Script: "prompt"}).report("custom", "0b8e20a0"), lab12(win11),
			"lab-12 gave up while it started its operating system", store.VeryLikely, ""},
	} {
		t.Run(c.code+" "+c.name, func(t *testing.T) {
			got := Explain(c.boot.s.Snapshot(), c.boot.events, c.facts, c.boot.at)
			if len(got) == 0 || len(got) > 1 && got[0].Confidence == store.Certain {
				t.Fatalf("%d diagnoses: %+v\n%+v", len(got), got, c.boot.s.Attempt)
			}
			for _, d := range got[1:] { // what else it may be
				if !slices.Contains(alternatives(got[0].Code), d.Code) {
					t.Errorf("%s is no other explanation of %s", d.Code, got[0].Code)
				}
				checkWording(t, d)
			}
			d := got[0]
			if d.Title != c.title {
				t.Errorf("title\n%s\nwant\n%s", d.Title, c.title)
			}
			if d.Confidence != c.conf || d.Code != c.code {
				t.Errorf("rule %s, %s; want %s, %s", d.Code, d.Confidence, c.code, c.conf)
			}
			if len(d.Fixes) == 0 || d.Fixes[0].Action != c.fix {
				t.Errorf("fixes %+v, want first %q", d.Fixes, c.fix)
			}
			checkWording(t, d)
		})
	}
}

// A machine that has profile san is not offered it.
func TestNoButtonGivesAMachineTheProfileThatItHas(t *testing.T) {
	wrong := bios().script().refused(ipxeID, "0201", "CHAP is required")
	facts := lab12(win11)
	if d := Explain(wrong.s.Snapshot(), wrong.events, facts, wrong.at)[0]; d.Fixes[0].Action != "use-profile-san" {
		t.Fatalf("with another profile: %+v", d)
	}
	facts.Profile = store.DefaultProfile
	d := Explain(wrong.s.Snapshot(), wrong.events, facts, wrong.at)[0]
	text := ""
	for _, f := range d.Fixes {
		if f.Action == "use-profile-san" {
			t.Errorf("%+v is offered", f)
		}
		text += f.Label + "\n"
	}
	if !strings.Contains(text, "it has profile san already") || len(d.Fixes) > 3 {
		t.Errorf("%+v", d.Fixes)
	}
	checkWording(t, d)
}

func alternatives(code string) (or []string) {
	for _, r := range rules() {
		if r.code == code {
			or = append(or, r.or...)
		}
	}
	return or
}

// A machine that read a little and went silent found nothing to start, or lost
// its volume at hand-off: the likelier one stands first, and what is certain
// stands alone.
func TestWhatIsNotCertainLeavesRoomForOtherExplanations(t *testing.T) {
	silent := bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).quiet()
	got := Explain(silent.s.Snapshot(), silent.events, lab12(win11), silent.at)
	if len(got) != 2 || got[0].Code != "LB-VOL-08" || got[1].Code != "LB-OS-02" || got[0].Confidence != store.VeryLikely || got[1].Confidence != store.BestGuess {
		t.Errorf("%+v", got)
	}
	said := bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).report("sanboot", "1d852039")
	if got := Explain(said.s.Snapshot(), said.events, lab12(win11), said.at); len(got) != 1 || got[0].Confidence != store.Certain {
		t.Errorf("the machine's own word leaves room: %+v", got)
	}
	for _, r := range rules() {
		for _, c := range r.or {
			if _, ok := Find(c); !ok {
				t.Errorf("%s names %s, which there is not", r.code, c)
			}
		}
	}
}

// A code that the machine reported beats what silence suggests, and what we
// answered ourselves beats a code: iPXE's codes keep little of the reason.
func TestWhatWeSawBeatsACodeAndACodeBeatsSilence(t *testing.T) {
	first := func(p *tape, f Facts) string { return Explain(p.s.Snapshot(), p.events, f, p.at)[0].Code }
	for _, c := range []struct {
		what   string
		silent *tape
		code   *tape
		saw    *tape
		want   [3]string
	}{
		{"at the login",
			bios().script().quiet(),
			bios().script().report("sanboot", "410d613c"),
			bios().script().refused(ipxeID, "0202", "no machine has that name").report("sanboot", "410d613c"),
			[3]string{"LB-TGT-02", "LB-BOOT-01", "LB-TGT-03"}},
		{"at the target",
			bios().script().quiet(),
			bios().script().report("sanboot", "2c0d603b"),
			bios().script().refused(ipxeID, "0203", "another target").report("sanboot", "2c0d603b"),
			[3]string{"LB-TGT-02", "LB-TGT-01", "LB-TGT-04"}},
		{"at the first read",
			bios().script().logged(ipxeID, "s1").quiet(),
			bios().script().logged(ipxeID, "s1").report("sanboot", "1d704039"),
			bios().script().logged(ipxeID, "s1").noLUN(0, 2).report("sanboot", "1d704039"),
			[3]string{"LB-LUN-04", "LB-LUN-03", "LB-LUN-01"}},
		{"at what is on the volume",
			bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).quiet(),
			bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 2560).report("sanboot", "1d852039"),
			bios().script().logged(ipxeID, "s1").see(5, store.EventISCSIFirstRead, session(ipxeID, "s1")).see(5, store.EventISCSIIOFailed, store.Detail{ISID: ipxeID, Opcode: "READ(10)", Sense: "03/11/00", Volume: "win11"}).report("sanboot", "1d852039"),
			[3]string{"LB-VOL-08", "LB-VOL-08", "LB-VOL-02"}},
	} {
		for i, p := range []*tape{c.silent, c.code, c.saw} {
			if got := first(p, lab12(win11)); got != c.want[i] {
				t.Errorf("%s, %s: %s, want %s", c.what, []string{"silence", "a code", "our own answer"}[i], got, c.want[i])
			}
		}
	}
}

var code = regexp.MustCompile(`(?i)\b[0-9a-f]{8}\b|\b\d\d/\d\d/\d\d\b|\berror\b`)

// checkWording holds a diagnosis against the rules for its words: what it offers
// is a button that works, or an instruction.
func checkWording(t *testing.T, d store.Diagnosis) {
	t.Helper()
	for _, f := range d.Fixes {
		if f.Action == "" {
			continue
		}
		if _, err := store.ParseFix(f.Action); err != nil {
			t.Errorf("%s: %v", d.Code, err)
		}
	}
	if code.MatchString(d.Title) {
		t.Errorf("the title has a code in it: %s", d.Title)
	}
	if len(d.Title) > 110 {
		t.Errorf("the title has %d bytes", len(d.Title))
	}
	if n := len(d.Fixes); n < 1 || n > 3 {
		t.Errorf("%d fixes", n)
	}
	if len(d.Evidence) == 0 {
		t.Error("no evidence")
	}
	for _, s := range append([]string{d.Title, d.Cause}, d.Evidence...) {
		if strings.Contains(s, "%!") || strings.Contains(s, "  ") || strings.TrimSpace(s) != s || s == "" {
			t.Errorf("%q", s)
		}
	}
	if !strings.HasSuffix(d.Cause, ".") {
		t.Errorf("the cause does not end: %q", d.Cause)
	}
	for _, word := range []string{"host", "client", "node", "server port", "your fault", "wrongly"} {
		if strings.Contains(strings.ToLower(d.Title), word) {
			t.Errorf("%q in %q", word, d.Title)
		}
	}
}

func TestTheFoundingFailureShowsItsEvidence(t *testing.T) {
	p := bios().script().logged(ipxeID, "s1").noLUN(0, 2).report("sanboot", "1d704539")
	d := Explain(p.s.Snapshot(), p.events, lab12(win11), p.at)[0]
	want := []string{
		"14:03:03 UTC it asked for LUN 0 with TEST UNIT READY",
		"mapped to it: LUN 2 “win11”",
		"our answer: sense 05/25/00, LOGICAL UNIT NOT SUPPORTED",
		"initiator: iqn.2026-11.lunboot:lab-12",
		"14:03:03 UTC the machine reported iPXE's code 1d704539 at step sanboot: the disk refused the request: there is no disk with the LUN that was asked for, or the block lies beyond its end",
	}
	if !slices.Equal(d.Evidence, want) {
		t.Errorf("%s", strings.Join(d.Evidence, "\n"))
	}
	fixes := []store.Fix{
		{Action: "use-profile-san", Label: "Use profile san, which writes the right LUN by itself"},
		{Action: "map-lun-0", Label: "Map “win11” as LUN 0"},
		{Label: "Write LUN 2 in the sanboot line of its script: iscsi:…::::2:…"},
	}
	if !slices.Equal(d.Fixes, fixes) {
		t.Errorf("%+v", d.Fixes)
	}
	if !strings.Contains(d.Cause, "leaves the LUN out asks for LUN 0") {
		t.Error(d.Cause)
	}
}

// "10" in a sanboot line is LUN 16.
func TestADecimalLUNThatWasReadAsHexadecimal(t *testing.T) {
	p := bios().script().logged(ipxeID, "s1").noLUN(16, 10)
	d := Explain(p.s.Snapshot(), p.events, lab12(Mapping{LUN: 10, Volume: "debian", Boot: true}), p.at)[0]
	if d.Title != "lab-12 asked for LUN 16, but its volume “debian” is LUN 10" || !strings.Contains(d.Cause, "10 was written and LUN 16 was asked for") {
		t.Errorf("%s\n%s", d.Title, d.Cause)
	}
	if last := d.Fixes[len(d.Fixes)-1].Label; !strings.Contains(last, "::::A:") {
		t.Error(last)
	}
	// And who reads that line takes its 10 for a decimal number.
	p = bios().script().logged(ipxeID, "s1").noLUN(10, 16)
	d = Explain(p.s.Snapshot(), p.events, lab12(Mapping{LUN: 16, Volume: "debian", Boot: true}), p.at)[0]
	if !strings.Contains(d.Cause, "where LUN 16 is written as 10") {
		t.Error(d.Cause)
	}
	p = bios().script().logged(ipxeID, "s1").noLUN(11, 16)
	d = Explain(p.s.Snapshot(), p.events, lab12(Mapping{LUN: 16, Volume: "debian", Boot: true}), p.at)[0]
	if strings.Contains(d.Cause, "hexadecimal") {
		t.Error(d.Cause)
	}
}

func TestAGoodBootHasNoDiagnosis(t *testing.T) {
	boots := map[string]*tape{
		"BIOS, iPXE in ROM, two logins": bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 1e6).logged("400027239999", "s2").read("400027239999", "s2", 18e6).
			see(3000, store.EventDHCPDiscover, linux).see(1, store.EventDHCPOffer, linux).see(1, store.EventDHCPRequest, linux).see(1, store.EventDHCPAck, linux).
			logged(osID, "s3").see(1, store.EventISCSINoLUN, store.Detail{ISID: osID, LUN: lun(0), Mapped: []int{2}}).read(osID, "s3", 1e6),
		"BIOS, chained": newTape().dora(firmwareBIOS).fetched("undionly.kpxe", 74213).dora(ipxeBIOS).script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6).logged(osID, "s2").read(osID, "s2", 1e6),
		"UEFI":          uefi().script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6).logged(osID, "s2").read(osID, "s2", 1e6),
		"UEFI, slow at each step": newTape().dora(firmwareUEFI).see(14000, store.EventTFTPStart, store.Detail{}).see(14000, store.EventTFTPSent, store.Detail{}).
			see(44000, store.EventDHCPDiscover, ipxeUEFI).see(1, store.EventDHCPAck, ipxeUEFI).see(19000, store.EventScriptSent, store.Detail{Profile: "san"}).
			see(29000, store.EventISCSILogin, session(ipxeID, "s1")).see(19000, store.EventISCSIFirstRead, session(ipxeID, "s1")).see(170000, store.EventReportUp, store.Detail{}),
	}
	for name, p := range boots {
		t.Run(name, func(t *testing.T) {
			if p.s.Outcome != store.OutcomeUp {
				t.Fatalf("%s at %s", p.s.Outcome, p.s.Stage)
			}
			if got := Explain(p.s.Snapshot(), p.events, lab12(win11), p.at); len(got) != 0 {
				t.Errorf("%+v", got)
			}
			if p.s.Trouble() {
				t.Error("it is taken for troubled")
			}
			// Nor is there one at any moment on the way.
			for n := range p.events {
				s := attempt.New(1, "", start)
				for _, e := range p.events[:n] {
					s.Fold(e)
				}
				if got := Explain(s.Snapshot(), p.events[:n], lab12(win11), p.at); len(got) != 0 {
					t.Errorf("after %d events: %+v", n, got)
				}
			}
		})
	}
}

// earlier lists boots before one that begins at start, each so many minutes after
// the other.
func earlier(minutes int, boots ...store.Attempt) []store.Attempt {
	for i := range boots {
		boots[i].ID, boots[i].Started = store.AttemptID(100-i), start.Add(time.Duration(-minutes*(i+1))*time.Minute)
	}
	return boots
}

func TestABootThatComesBackAgainAndAgainIsALoop(t *testing.T) {
	read := bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6)
	read.s.Ended(read.at)
	crashed := read.s.Snapshot()
	up := bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6).logged(osID, "s2").read(osID, "s2", 1e6).s.Snapshot()
	installed := bios().see(9, store.EventScriptSent, store.Detail{Profile: "install", Script: "kernel"}).see(900, store.EventFileSent, store.Detail{File: "vmlinuz", Bytes: 9e6}).see(9e4, store.EventDHCPDiscover, linux).s.Snapshot()
	if installed.Outcome != store.OutcomeUp || up.Outcome != store.OutcomeUp {
		t.Fatalf("%s, %s", installed.Outcome, up.Outcome)
	}
	failed := bios().script().logged(ipxeID, "s1").noLUN(0, 2).s.Snapshot()
	for name, c := range map[string]struct {
		earlier []store.Attempt
		title   string
		fix     string
	}{
		"a crash":               {earlier(2, crashed, crashed, crashed), "lab-12 boots again and again: 4 times in 6 minutes", ""},
		"an installer":          {earlier(4, installed, installed, installed, installed, installed), "lab-12 boots again and again: 4 times in 12 minutes", "use-profile-san"},
		"twice is no loop":      {earlier(2, crashed, crashed), "", ""},
		"a day apart":           {earlier(600, crashed, crashed, crashed), "", ""},
		"it comes up each time": {earlier(1, up, up, up, up, up), "", ""},
		"a script that retries": {earlier(1, failed, failed, failed, failed), "", ""},
		"it came up in between": {earlier(1, crashed, up, crashed, crashed), "", ""},
	} {
		facts := lab12(win11)
		facts.Earlier = c.earlier
		p := bios().script()
		got := Explain(p.s.Snapshot(), p.events, facts, p.at)
		if c.title == "" {
			if len(got) != 0 {
				t.Errorf("%s: %+v", name, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Code != "LB-BOOT-04" || got[0].Title != c.title || got[0].Fixes[0].Action != c.fix || !got[0].Aside {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		checkWording(t, got[0])
	}
}

func TestAMachineThatStartsOver(t *testing.T) {
	p := uefi().script().dora(firmwareUEFI)
	got := Explain(p.before.Snapshot(), p.prior, lab12(win11), p.at)
	if len(got) != 1 || got[0].Title != "lab-12 never tried to reach its volume “win11”" {
		t.Errorf("%+v", got)
	}
	p = newTape().dora(firmwareUEFI).tftp().dora(firmwareUEFI)
	got = Explain(p.before.Snapshot(), p.prior, lab12(win11), p.at)
	if len(got) != 1 || got[0].Title != "lab-12 downloaded the boot loader but did not start it" {
		t.Errorf("%+v", got)
	}
}

func TestAProbableUp(t *testing.T) {
	p := bios().script().logged(ipxeID, "s1").see(5, store.EventISCSIFirstRead, session(ipxeID, "s1"))
	for range 38 {
		d := session(ipxeID, "s1")
		d.Bytes = 18e6
		p.see(5000, store.EventISCSIIO, d)
	}
	got := Explain(p.s.Snapshot(), p.events, lab12(win11), p.at)
	if len(got) != 1 || got[0].Title != "lab-12 is probably up: it is reading its volume but has not said so" || got[0].Confidence != store.BestGuess {
		t.Errorf("%+v", got)
	}
	p = bios().see(9, store.EventScriptSent, store.Detail{Profile: "local", Script: "exit"}).quiet()
	got = Explain(p.s.Snapshot(), p.events, lab12(), p.at)
	if len(got) != 1 || got[0].Title != "lab-12 went on by itself, and how that ended cannot be seen from here" || got[0].Confidence != store.CannotSee {
		t.Errorf("%+v", got)
	}
}

func TestAPortThatSleptIsSaidBesidesTheRest(t *testing.T) {
	slow := firmwareUEFI
	slow.Secs = 32
	p := newTape().dora(slow).quiet()
	got := Explain(p.s.Snapshot(), p.events, lab12(win11), p.at)
	if len(got) != 2 || got[0].Code != "LB-LOAD-04" || got[1].Title != "The switch port slept for 32 s before passing traffic" {
		t.Fatalf("%+v", got)
	}
	checkWording(t, got[1])
}

// "Every failed boot explains itself": cut a boot off after any event, by
// silence or by starting over, and there is a word for it.
func TestNoFailureIsWithoutAWord(t *testing.T) {
	whole := uefi().script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6).logged(osID, "s2")
	for n := 1; n <= len(whole.events); n++ {
		for _, over := range []bool{false, true} {
			s := attempt.New(1, "", start)
			for _, e := range whole.events[:n] {
				s.Fold(e)
			}
			at := whole.events[n-1].At.Add(time.Hour)
			if over {
				s.Ended(at)
			} else {
				s.Expire(at, attempt.Usual{})
			}
			if s.Outcome != store.OutcomeFailed {
				t.Fatalf("after %d events it is %s", n, s.Outcome)
			}
			got := Explain(s.Snapshot(), whole.events[:n], lab12(win11), at)
			if len(got) == 0 {
				t.Fatalf("nothing is said after %d events, at %s", n, s.Stage)
			}
			for _, d := range got {
				checkWording(t, d)
			}
		}
	}
}

// A code that was given keeps its meaning for good: testdata/codes.txt only grows.
func TestACodeIsGivenOnceAndExplained(t *testing.T) {
	released, err := os.ReadFile("testdata/codes.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]string{}
	for line := range strings.Lines(string(released)) {
		code, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		known[code] = name
	}
	areas := map[string]bool{}
	for _, a := range Areas() {
		areas[a[0]] = true
	}
	explained := map[string]bool{}
	for _, e := range Catalogue() {
		if explained[e.Code] {
			t.Errorf("%s is explained twice", e.Code)
		}
		explained[e.Code] = true
		if !regexp.MustCompile(`^LB-[A-Z]{2,4}-\d\d$`).MatchString(e.Code) || !areas[e.Area()] {
			t.Errorf("%s is no code", e.Code)
		}
		if e.Name == "" || !strings.HasSuffix(e.Sign, ".") || e.Help == "" {
			t.Errorf("%s is not explained: %+v", e.Code, e)
		}
		if known[e.Code] != e.Name {
			t.Errorf("testdata/codes.txt has %s as %q, the catalogue as %q; a code never changes its meaning", e.Code, known[e.Code], e.Name)
		}
		delete(known, e.Code)
	}
	for code := range known {
		t.Errorf("%s was given, and is not explained any more", code)
	}
	used := map[string]bool{}
	for _, c := range Codes() {
		if !explained[c] {
			t.Errorf("a rule says %s, which the catalogue does not explain", c)
		}
		used[c] = true
	}
	for c := range explained {
		if !used[c] {
			t.Errorf("no rule says %s", c)
		}
	}
	if e, ok := Find(" lb-lun-01 "); !ok || e.Code != "LB-LUN-01" {
		t.Error("a code is found in either case")
	}
	if _, ok := Find("LB-LUN-99"); ok {
		t.Error("a code that was never given is found")
	}
}

// first explains a boot, and checks how it is worded.
func (p *tape) first(t *testing.T, f Facts) store.Diagnosis {
	t.Helper()
	all := Explain(p.s.Snapshot(), p.events, f, p.at)
	if len(all) == 0 {
		t.Fatalf("it is not explained: %+v", p.s.Attempt)
	}
	for _, d := range all {
		checkWording(t, d)
	}
	return all[0]
}

func is(t *testing.T, d store.Diagnosis, code, title, fix string, c store.Confidence) {
	t.Helper()
	if d.Code != code || !strings.Contains(d.Title, title) || d.Confidence != c {
		t.Errorf("it is explained as %s, %s: %s; want %s, %s: %s", d.Code, d.Confidence, d.Title, code, c, title)
	}
	if d.Fixes[0].Action != fix {
		t.Errorf("the first fix is %+v, want %q", d.Fixes[0], fix)
	}
}

// A button that would change nothing is not offered.
func TestNoButtonIsOfferedThatCannotHelp(t *testing.T) {
	lost := func() *tape {
		return own("chain http://10.77.0.1/rescue.ipxe || goto lunboot_1").see(9, store.EventFileMissing, store.Detail{URL: "/rescue.ipxe"})
	}
	d := lost().first(t, lab12())
	if d.Code != "LB-SCR-10" || d.Fixes[0].Action != "" || !strings.Contains(d.Fixes[0].Label, "Correct the address") {
		t.Errorf("a machine without a volume is told %+v", d.Fixes)
	}
	if d := lost().first(t, lab12(win11)); d.Fixes[0].Action != string(store.FixProfileSAN) {
		t.Errorf("a machine with one is told %+v", d.Fixes)
	}
	d = bios().refused(ipxeID, "0202", "no machine has the initiator name iqn.2010-04.org.ipxe:x").first(t, Facts{})
	if d.Code != "LB-TGT-03" || d.Fixes[0].Action != string(store.FixEnroll) {
		t.Errorf("a machine that nobody enrolled is told %+v", d.Fixes)
	}
}

func TestSilenceCountsFromWhatTheMachineDidItself(t *testing.T) {
	p := bios().see(10, store.EventRASent, store.Detail{Interface: "eth0"}).quiet()
	d := p.first(t, lab12(win11))
	if d.Code != "LB-SCR-08" || strings.Contains(strings.Join(d.Evidence, "\n"), "ra.sent") || !strings.Contains(d.Evidence[0], "we gave it an address") {
		t.Errorf("%+v", d.Evidence)
	}
}
