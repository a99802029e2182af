package diagnose

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/store"
)

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

func (p *tape) changed(what string) *tape {
	return p.see(500, store.EventMachineChanged, store.Detail{Hostname: "lab-12", Reason: what})
}

const noName = "no machine has the initiator name iqn.2026-11.lunboot:lab-12"

// What somebody did here in the middle of a boot is named, and not what it looks
// like on the wire.
func TestWhatWasDoneHereMeanwhileExplainsTheBoot(t *testing.T) {
	p := bios().script().changed("removed").refused(ipxeID, "0202", noName)
	p.s.Name = "lab-12" // as the runner knew it
	is(t, p.first(t, Facts{}), "LB-TGT-08", "lab-12 was removed from the appliance while it logged in", "enroll", store.Certain)

	// Its running system's name is not one that an image carried along.
	p = bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6).changed("removed").refused(osID, "0202", noName)
	is(t, p.first(t, Facts{}), "LB-TGT-08", "was removed from the appliance while it started its operating system", "enroll", store.Certain)

	renamed := lab12(win11)
	renamed.Initiator = "iqn.2026-11.lunboot:other"
	named := func() *tape {
		return bios().see(300, store.EventScriptSent, store.Detail{Profile: "san", Script: "set initiator-iqn iqn.2026-11.lunboot:lab-12\nsanboot iscsi:10.77.0.1::3260:2:iqn"})
	}
	p = named().changed("changed").refused(ipxeID, "0202", noName)
	is(t, p.first(t, renamed), "LB-TGT-09", "lab-12 gave the iSCSI name that lab-12 had before it was changed here", "", store.Certain)
	p = bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6).changed("changed").refused(osID, "0202", noName)
	is(t, p.first(t, renamed), "LB-TGT-09", "lab-12’s operating system gave the iSCSI name that", "", store.Certain)
	// A name that was never the machine's is another matter.
	p = named().changed("changed").refused(ipxeID, "0202", "no machine has the initiator name iqn.x:y")
	p.events[len(p.events)-1].Detail.Initiator = "iqn.2020-01.org.example:y"
	if d := p.first(t, renamed); d.Code != "LB-TGT-03" {
		t.Errorf("a foreign name is explained as %+v", d)
	}
}

func TestAMachineThatWasSwitchedOffFromHereHasNoFault(t *testing.T) {
	told := func(act store.PowerAct, says string) store.Detail {
		return store.Detail{Step: string(act), Reason: says}
	}
	p := bios().script().see(2000, store.EventMachinePower, told(store.PowerOff, "lab-12 was switched off; its BMC says that it is off")).quiet()
	is(t, p.first(t, lab12(win11)), "LB-BOOT-07", "lab-12 was switched off from here while it logged in", "", store.Certain)
	// Its session ends later, on this side.
	p = bios().script().logged(ipxeID, "s1").see(9, store.EventISCSIFirstRead, session(ipxeID, "s1")).
		see(50, store.EventMachinePower, told(store.PowerCycle, "lab-12 was switched off and on")).see(30000, store.EventISCSIClosed, session(ipxeID, "s1")).quiet()
	is(t, p.first(t, lab12(win11)), "LB-BOOT-07", "lab-12 was started anew from here", "", store.Certain)

	for name, p := range map[string]*tape{
		"the order failed":             bios().script().see(9, store.EventMachinePower, told(store.PowerOff, "not done: no route")).quiet(),
		"it was on already":            bios().script().see(9, store.EventMachinePower, told("", "lab-12 is on already")).quiet(),
		"it was asked to shut down":    bios().script().see(9, store.EventMachinePower, told(store.PowerShutdown, "asked")).quiet(),
		"it came further after that":   bios().see(9, store.EventMachinePower, told(store.PowerReset, "reset")).script().quiet(),
		"it was only then switched on": bios().script().see(9, store.EventMachinePower, told(store.PowerOn, "on")).quiet(),
	} {
		if d := p.first(t, lab12(win11)); d.Code == "LB-BOOT-07" {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// An order that comes when the boot has failed, or hangs, does not explain it away.
func TestAnOrderAfterTheFailureIsNotItsCause(t *testing.T) {
	cycle := store.Detail{Step: string(store.PowerCycle), Reason: "lab-12 was switched off and on"}
	p := bios().script().quiet().see(1000, store.EventMachinePower, cycle)
	if all := Explain(p.s.Snapshot(), p.events, lab12(win11), p.at); all[0].Code != "LB-TGT-02" || len(all) != 1 {
		t.Errorf("cycled after it had failed: %+v", all)
	}
	refused := bios().script().refused(ipxeID, "0201", "the initiator has another CHAP secret than the one set for it").see(1000, store.EventMachinePower, cycle)
	is(t, refused.first(t, lab12(win11)), "LB-CHAP-01", "", "use-profile-san", store.Certain)

	// It hangs, and is not given up yet.
	for name, p := range map[string]*tape{
		"then silence":     bios().script().see(20000, store.EventMachinePower, cycle).quiet(),
		"then another one": overAt(bios().script().see(20000, store.EventMachinePower, cycle), 5000),
	} {
		all := Explain(p.s.Snapshot(), p.events, lab12(win11), p.at)
		i := slices.IndexFunc(all, func(d store.Diagnosis) bool { return d.Code == "LB-BOOT-07" })
		if i < 0 || all[i].Confidence != store.BestGuess || !strings.Contains(all[i].Cause, "for 20 s") {
			t.Errorf("%s: %+v", name, all)
		}
		if !slices.ContainsFunc(all, func(d store.Diagnosis) bool { return d.Code == "LB-TGT-02" }) || slices.ContainsFunc(all, func(d store.Diagnosis) bool { return d.Code == "LB-BOOT-02" || d.Code == "LB-BOOT-03" }) {
			t.Errorf("%s: beside it stand %+v", name, all)
		}
		for _, d := range all {
			checkWording(t, d)
		}
	}
	// The same before its script.
	p = bios().see(18000, store.EventMachinePower, cycle).quiet()
	if all := Explain(p.s.Snapshot(), p.events, lab12(win11), p.at); len(all) > maxHypotheses || !slices.ContainsFunc(all, func(d store.Diagnosis) bool { return d.Code == "LB-BOOT-07" }) {
		t.Errorf("%+v", all)
	}

	// Removed when all was over; and removed before it was refused.
	p = bios().script().quiet()
	p.at = p.at.Add(time.Hour)
	p.changed("removed").s.Name = "lab-12"
	if d := p.first(t, Facts{}); d.Code != "LB-TGT-02" {
		t.Errorf("removed an hour later: %+v", d)
	}
	p.refused(ipxeID, "0202", noName)
	is(t, p.first(t, Facts{}), "LB-TGT-08", "", "enroll", store.Certain)
}

func TestAMachineThatARestartLostIsNotBlamed(t *testing.T) {
	p := bios().script()
	p.s.Resume(p.at.Add(20 * time.Second))
	is(t, p.quiet().first(t, lab12(win11)), "LB-BOOT-06", "was not heard of again after the appliance was restarted", "", store.VeryLikely)

	// One that came back is judged by what it did then.
	p = bios().script()
	p.s.Resume(p.at.Add(20 * time.Second))
	p.see(25000, store.EventISCSILogin, session(ipxeID, "s1"))
	if d := p.quiet().first(t, lab12(win11)); d.Code == "LB-BOOT-06" {
		t.Errorf("it logged in after the restart: %+v", d)
	}

	// The transfer that the appliance itself ended.
	aborted := store.Detail{File: "snponly.efi", Loader: "snponly.efi", Bytes: 20000, Total: 173792, Reason: "the appliance stopped after 20000 of 173792 bytes"}
	p = newTape().dora(firmwareUEFI).see(50, store.EventTFTPStart, store.Detail{Loader: "snponly.efi"}).see(900, store.EventTFTPAbort, aborted)
	is(t, p.first(t, lab12(win11)), "LB-LOAD-03", "lab-12 lost its boot loader on the way, because the appliance was stopped", "", store.Certain)
}

// A transfer ends for several reasons, and each has another remedy.
func TestATransferThatEndedIsExplainedByHowItEnded(t *testing.T) {
	for _, c := range []struct {
		reason, title, fix string
		bytes              int64
	}{
		{"the machine acknowledged none of our answers, which come from another port than it asked, as TFTP has it", "Our answers over TFTP are not reaching lab-12", "Let UDP answers", 0},
		{"the first block, of 1468 bytes, was never acknowledged; the machine is given blocks of 1024 bytes at its next try", "lab-12 stopped downloading at 0 %", "Boot it again: it is given smaller blocks then", 0},
		{"the machine stopped acknowledging after 60000 of 173792 bytes", "lab-12 stopped downloading at 34 %", "Switch lab-12 off and on", 60000},
		{"the machine gave up after 60000 of 173792 bytes (TFTP error 3)", "lab-12 gave up downloading at 34 %", "Look at the machine’s screen", 60000},
	} {
		d := newTape().dora(firmwareUEFI).see(50, store.EventTFTPAbort, store.Detail{File: "snponly.efi", Loader: "snponly.efi", Bytes: c.bytes, Total: 173792, Reason: c.reason}).first(t, lab12(win11))
		if d.Code != "LB-LOAD-03" || d.Title != c.title || !strings.HasPrefix(d.Fixes[0].Label, c.fix) {
			t.Errorf("%s: %s, %s, %+v", c.reason, d.Code, d.Title, d.Fixes)
		}
		if strings.Contains(d.Cause, "too large") != (c.bytes == 0 && strings.Contains(c.reason, "first block")) {
			t.Errorf("%s: the cause is %s", c.reason, d.Cause)
		}
	}
}

// A script that fails for its profile says nothing of the machine's volumes.
func TestAProfileThatMakesNoScriptIsNamed(t *testing.T) {
	failed := func(profile, why string) *tape {
		return bios().see(9, store.EventScriptFailed, store.Detail{Profile: profile, Reason: why})
	}
	wrong, gone := `its profile "deb" is wrong: there is no media "mini.iso"; add it first, or choose another (case 123456)`, `its profile "deb" does not exist. Choose another (case 123456)`
	f := lab12()
	f.Profile = "deb"
	is(t, failed("deb", wrong).first(t, f), "LB-SCR-06", "because its profile “deb” makes none", "", store.Certain)
	f.Mappings = []Mapping{win11}
	d := failed("deb", gone).first(t, f)
	is(t, d, "LB-SCR-06", "there is no profile “deb”", "", store.Certain)
	if !slices.ContainsFunc(d.Fixes, func(x store.Fix) bool { return x.Action == string(store.FixProfileSAN) }) {
		t.Errorf("%+v", d.Fixes)
	}
	f.Profile, f.Once = "san", "deb"
	is(t, failed("deb", gone).first(t, f), "LB-SCR-06", "there is no profile “deb”", "clear-once", store.Certain)
	unmarked := win11
	unmarked.Boot = false
	f.Mappings = []Mapping{unmarked}
	is(t, failed("deb", wrong).first(t, f), "LB-SCR-06", "because its profile “deb” makes none", "clear-once", store.Certain)
	is(t, failed("deb", "the appliance could not arm the boot of lab-12: database or disk is full (case 1)").first(t, lab12()), "LB-SCR-06", "could not be given a script", "", store.Certain)
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

func TestAScriptThatWaitsForSomebodyHasNotFailedToReachItsVolume(t *testing.T) {
	asks := own("prompt Press a key || goto lunboot_1\nsanboot iscsi:10.77.0.1:::2:iqn || goto lunboot_2")
	if asks.s.Expire(asks.at.Add(2*time.Minute), attempt.Usual{}) {
		t.Error("nobody came for two minutes, and it has failed")
	}
	is(t, asks.quiet().first(t, lab12(win11)), "LB-SCR-11", "lab-12 waits at line 1 of its script for somebody at its screen", "", store.VeryLikely)
	// Somebody came after all.
	asks.see(100, store.EventISCSILogin, session(ipxeID, "s1"))
	if asks.s.Outcome != store.OutcomeRunning {
		t.Errorf("it goes on, and is %s", asks.s.Outcome)
	}

	menu := bios().see(300, store.EventScriptSent, store.Detail{Profile: "choice", Script: "#!ipxe\nmenu lab-12: what to start\nitem san Boot\nchoose lunboot_choice || goto none\nchain http://10.77.0.1/boot.ipxe?choice=x"}).quiet()
	is(t, menu.first(t, lab12(win11)), "LB-SCR-11", "lab-12 shows its menu “choice”, and nobody has chosen", "", store.VeryLikely)
	menu.script()
	if menu.s.Outcome != store.OutcomeRunning {
		t.Errorf("somebody has chosen, and it is %s", menu.s.Outcome)
	}

	// A script that only takes its time has not failed either.
	slow := own("sleep 60\nsanboot iscsi:10.77.0.1:::2:iqn || goto lunboot_2")
	if slow.s.Expire(slow.at.Add(80*time.Second), attempt.Usual{}) {
		t.Error("it sleeps for a minute by its own word, and has failed")
	}
	if d := slow.quiet().first(t, lab12(win11)); d.Code != "LB-TGT-02" {
		t.Errorf("%+v", d)
	}
}

func TestABootLoaderThatWentNoFurtherIsNotALostSystem(t *testing.T) {
	read := func(n int64) *tape { return bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", n).quiet() }
	is(t, read(4608).first(t, lab12(holding(forBIOS))), "LB-VOL-12", "lab-12 started the boot loader of its volume “win11”, which went no further", "", store.BestGuess)
	is(t, read(18e6).first(t, lab12(holding(forBIOS))), "LB-OS-02", "", "", store.BestGuess)
}

func TestFullStorageIsNamedWhereverItIsMet(t *testing.T) {
	p := bios().script().refused(ipxeID, "0301", `the volumes of iqn cannot be opened now: begin anew win11: the file system that holds the volumes is full; nothing was lost, make room and try again`)
	is(t, p.first(t, lab12(win11)), "LB-VOL-01", "lab-12 was refused its volume “win11”: the storage is full", "", store.Certain)
}

// behind is an exchange through a relay.
func behind(router string) *tape {
	d := ipxeBIOS
	d.Relay, d.Router = "10.88.0.1", router
	return newTape().dora(d)
}

func TestAGatewayThatLeadsNowhereIsNamed(t *testing.T) {
	is(t, behind("").quiet().first(t, lab12(win11)), "LB-NET-03", "it was given no gateway", "", store.Certain)
	d := behind("10.88.0.77").quiet().first(t, lab12(win11))
	is(t, d, "LB-NET-03", "its gateway 10.88.0.77 may lead nowhere", "", store.VeryLikely)
	if !strings.Contains(d.Fixes[0].Label, "--router 10.88.0.1") {
		t.Errorf("%+v", d.Fixes)
	}
	// The gateway is the relay, or the machine came: something else is wrong.
	if d := behind("10.88.0.1").quiet().first(t, lab12(win11)); d.Code != "LB-SCR-08" {
		t.Errorf("%+v", d)
	}
	if d := behind("10.88.0.77").script().quiet().first(t, lab12(win11)); d.Code != "LB-TGT-02" {
		t.Errorf("%+v", d)
	}
}

func TestAnAddressThatTheApplianceDoesNotHaveIsNamed(t *testing.T) {
	f := lab12(win11)
	f.Own = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.77.0.2")}
	is(t, bios().quiet().first(t, f), "LB-NET-04", "lab-12 was told to find the appliance at 10.77.0.1, which is not its address", "", store.VeryLikely)
	for name, own := range map[string][]netip.Addr{"it has the address": {netip.MustParseAddr("10.77.0.1")}, "nobody knows": nil} {
		f.Own = own
		if d := bios().quiet().first(t, f); d.Code != "LB-SCR-08" {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestAReservedAddressThatSomebodyElseUsesIsSaid(t *testing.T) {
	taken := store.Detail{Server: "00:80:77:01:02:03", Reason: "00:80:77:01:02:03 answers for 10.77.0.50, which is reserved for lab-12"}
	conflict := func() *tape {
		p := newTape().see(0, store.EventDHCPDiscover, ipxeBIOS).see(1, store.EventDHCPOffer, ipxeBIOS).see(300, store.EventDHCPConflict, taken)
		acked := ipxeBIOS
		acked.URL = "http://10.77.0.1/boot.ipxe"
		return p.see(2000, store.EventDHCPRequest, ipxeBIOS).see(1, store.EventDHCPAck, acked)
	}
	const title, fix = "10.77.0.50, the address of lab-12, is used by another device (00:80:77:01:02:03)", "other-address-10.77.0.50"
	p := conflict().script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6).logged(osID, "s2").read(osID, "s2", 1e6)
	if p.s.Outcome != store.OutcomeUp {
		t.Fatalf("it is %s", p.s.Outcome)
	}
	d := p.first(t, lab12(win11))
	is(t, d, "LB-DHCP-09", title, fix, store.Certain)
	if !d.Aside || !strings.Contains(d.Cause, "00:80:77:01:02:03, Brother") {
		t.Errorf("it is said in place of what became of the boot, or not by whose: %+v", d)
	}
	// Where the boot comes to nothing it is the first explanation.
	for name, p := range map[string]*tape{
		"silent":      conflict().quiet(),
		"unreachable": conflict().script().report("sanboot", "4c0a6035"),
	} {
		d := p.first(t, lab12(win11))
		is(t, d, "LB-DHCP-09", title, fix, store.Certain)
		if all := Explain(p.s.Snapshot(), p.events, lab12(win11), p.at); d.Aside || len(all) != 1 {
			t.Errorf("%s: %+v", name, all)
		}
	}
	d = conflict().script().refused(ipxeID, "0201", "the initiator iqn.x has another CHAP secret than the one set for it").first(t, lab12(win11))
	if d.Code != "LB-CHAP-01" {
		t.Errorf("a wrong secret is explained as %+v", d)
	}
}

func TestAScriptThatEndedIsNoFirewall(t *testing.T) {
	p := own("isset ${nothing} && sanboot iscsi:10.77.0.1:::2:iqn ||").see(100, store.EventReport, store.Detail{Step: attempt.StepEnd})
	is(t, p.first(t, lab12(win11)), "LB-SCR-12", "lab-12 came to the end of its script, which started nothing", "use-profile-san", store.Certain)
	// One that has nothing of a volume in it leaves the machine to its firmware.
	p = own("set x y").see(100, store.EventReport, store.Detail{Step: attempt.StepEnd})
	if p.s.Outcome != store.OutcomeRunning {
		t.Errorf("it is %s", p.s.Outcome)
	}
	// A script that was told again says nothing of the one before.
	p = own("isset ${nothing} && sanboot iscsi:10.77.0.1:::2:iqn ||").see(100, store.EventReport, store.Detail{Step: attempt.StepEnd}).script().quiet()
	if d := p.first(t, lab12(win11)); d.Code != "LB-TGT-02" {
		t.Errorf("%+v", d)
	}
}

func TestFilesThatCannotBeStartedAreNamedForWhatTheyAre(t *testing.T) {
	kernel := func() *tape {
		return bios().see(300, store.EventScriptSent, store.Detail{Profile: "live", Script: "#!ipxe\nkernel http://10.77.0.1/files/notes || goto no_kernel\nboot || goto no_start\n"})
	}
	sent := store.Detail{URL: "/files/notes", File: "notes", Bytes: 40, Total: 40, Reason: attempt.IsText}
	p := kernel().see(50, store.EventFileSent, sent)
	if p.s.Expire(p.at.Add(40*time.Second), attempt.Usual{}) {
		t.Error("it has failed before it could say anything")
	}
	is(t, p.quiet().first(t, lab12()), "LB-SCR-14", "lab-12 was given a text file as its kernel, and hangs on it", "", store.Certain)
	// A text beside a kernel is an answer file.
	sent.URL, sent.File = "/files/preseed.cfg", "preseed.cfg"
	p = kernel().see(50, store.EventFileSent, store.Detail{URL: "/files/notes", Bytes: 5e6, Total: 5e6}).see(50, store.EventFileSent, sent).quiet()
	is(t, p.first(t, lab12()), "LB-OS-03", "", "", store.CannotSee)

	is(t, kernel().report("initrd", "34182006").first(t, lab12()), "LB-SCR-13", "lab-12 has too little memory for its initial RAM disk", "", store.Certain)

	missing := store.Detail{URL: "/files/deb/initrd.gz", File: "deb/initrd.gz"}
	d := kernel().see(50, store.EventFileMissing, missing).report("initrd", "2d0c613b").first(t, lab12())
	if d.Code != "LB-SCR-07" || !strings.Contains(d.Fixes[1].Label, "lunboot media add FILE --name deb/initrd.gz") {
		t.Errorf("%+v", d)
	}
	missing.Reason = "the appliance cannot read it: permission denied"
	d = kernel().see(50, store.EventFileMissing, missing).report("initrd", "1d0c6539").first(t, lab12())
	is(t, d, "LB-SCR-07", "lab-12 could not fetch its initial RAM disk, because the appliance could not read it", "", store.Certain)
	if strings.Contains(d.Cause, "web server") {
		t.Errorf("the cause is %s", d.Cause)
	}

	d = own("chain http://boot.example.org/x || goto lunboot_1").report("line-1", "3e11623b").first(t, lab12(win11))
	if d.Title != "lab-12 could not find the address of what line 1 of its script names" || !strings.Contains(d.Fixes[1].Label, "--dns") {
		t.Errorf("%+v", d)
	}
	d = own("goto nowhere || goto lunboot_1").report("line-1", "2d02803b").first(t, lab12(win11))
	if !strings.Contains(d.Cause, "a label that it does not have") {
		t.Errorf("%+v", d)
	}
}

func TestABootLoaderThatGaveUpIsNobodyAtTheKeyboard(t *testing.T) {
	gave := func() *tape {
		return bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 3072).report("sanboot", "0b8080a0")
	}
	is(t, gave().first(t, lab12(holding(forBIOS))), "LB-VOL-12", "lab-12 started the boot loader of its volume “win11”, which gave up", "", store.Certain)
	is(t, gave().first(t, lab12(holding(forUEFI))), "LB-VOL-06", "", "", store.Certain)
}

func TestACloneWhoseParentIsGoneIsNamed(t *testing.T) {
	p := bios().script().refused(ipxeID, "0301", "the volumes of iqn.x cannot be opened now: begin anew win11: create layer win11: the volume's file is missing; is the file system that holds it mounted?")
	d := p.first(t, lab12(win11))
	is(t, d, "LB-VOL-02", "lab-12 was refused its volume “win11”, because its storage failed", "", store.Certain)
	if !strings.Contains(d.Fixes[0].Label, "a clone of") {
		t.Errorf("%+v", d.Fixes)
	}
	p = bios().script().refused(ipxeID, "0301", "the volumes of iqn.x cannot be opened now: begin anew win11: the volume is promoting; the login succeeds when that is over")
	if d := p.first(t, lab12(win11)); d.Code != "LB-TGT-06" {
		t.Errorf("%+v", d)
	}
}

func TestAVolumeThatWasTakenAwayMeanwhileIsOfferedFirst(t *testing.T) {
	f := lab12()
	f.Profile, f.Goldens, f.Free = "san", []string{"golden"}, []string{"another", "lab-12-disk"}
	d := bios().script().refused(ipxeID, "0202", "no volume is mapped to the machine lab-12 (iqn)").first(t, f)
	is(t, d, "LB-LUN-02", "lab-12 lost its volume while it booted", "map-volume-lab-12-disk", store.Certain)
	if d.Fixes[1].Action != "own-copy-golden" || len(d.Fixes) != 3 {
		t.Errorf("%+v", d.Fixes)
	}
}

func TestABoardWithAnotherUUIDIsSaidBesides(t *testing.T) {
	f := lab12(win11)
	f.UUID = store.UUID{7}
	asked := func(uuid string) *tape {
		return bios().see(300, store.EventScriptSent, store.Detail{Profile: "san", Script: "sanboot iscsi:x", URL: "/boot.ipxe?mac=52:54:00:77:00:0a&uuid=" + uuid}).
			logged(ipxeID, "s1").read(ipxeID, "s1", 18e6).logged(osID, "s2").read(osID, "s2", 1e6)
	}
	d := asked("09000000-0000-0000-0000-000000000000").first(t, f)
	is(t, d, "LB-SCR-15", "A board with another UUID than that of lab-12 booted as lab-12", "", store.VeryLikely)
	if !d.Aside || !strings.Contains(d.Fixes[0].Label, "--uuid 09000000-") {
		t.Errorf("%+v", d)
	}
	none := f
	none.UUID = store.UUID{}
	for name, c := range map[string]struct {
		uuid string
		f    Facts
	}{
		"its own": {f.UUID.String(), f}, "its own in the other byte order": {"00000007-0000-0000-0000-000000000000", f}, "a placeholder": {"00000000-0000-0000-0000-000000000000", f}, "none": {"", f}, "nonsense": {"x", f}, "none is set": {"09000000-0000-0000-0000-000000000000", none},
	} {
		p := asked(c.uuid)
		if got := Explain(p.s.Snapshot(), p.events, c.f, p.at); len(got) > 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAMistypedMACIsFound(t *testing.T) {
	f := Facts{Alike: []string{"lab-12 (52:54:00:77:00:0b)"}}
	d := bios().see(9, store.EventScriptWaiting, store.Detail{}).first(t, f)
	is(t, d, "LB-SCR-04", "is waiting to be enrolled", "enroll", store.Certain)
	if !strings.Contains(d.Cause, "nearly this MAC") || !strings.Contains(d.Fixes[1].Label, "lunboot machine set lab-12 --mac 52:54:00:77:00:0a") {
		t.Errorf("%+v", d)
	}
}

func TestSilenceCountsFromWhatTheMachineDidItself(t *testing.T) {
	p := bios().see(10, store.EventRASent, store.Detail{Interface: "eth0"}).quiet()
	d := p.first(t, lab12(win11))
	if d.Code != "LB-SCR-08" || strings.Contains(strings.Join(d.Evidence, "\n"), "ra.sent") || !strings.Contains(d.Evidence[0], "we gave it an address") {
		t.Errorf("%+v", d.Evidence)
	}
}

func TestARunningSystemThatIsKeptOutIsSaid(t *testing.T) {
	up := func() *tape {
		return bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6).logged(osID, "s2").read(osID, "s2", 1e6)
	}
	p := up().changed("removed").refused(osID, "0202", noName)
	p.s.Name = "lab-12"
	d := p.first(t, Facts{})
	is(t, d, "LB-OS-05", "lab-12 ran, and was refused its volume when it logged in again", "enroll", store.Certain)
	if !d.Aside || p.s.Outcome != store.OutcomeUp {
		t.Errorf("%s, %+v", p.s.Outcome, d)
	}
	f := lab12(win11)
	f.Initiator = "iqn.2026-11.lunboot:other"
	if d := up().changed("changed").refused(osID, "0202", noName).first(t, f); d.Code != "LB-OS-05" || !strings.Contains(d.Fixes[0].Label, "--iqn iqn.2026-11.lunboot:lab-12") {
		t.Errorf("%+v", d)
	}
	f = lab12()
	f.Free = []string{"win11"}
	is(t, up().changed("changed").refused(osID, "0202", "no volume is mapped to the machine lab-12 (iqn)").first(t, f), "LB-OS-05", "", "map-volume-win11", store.Certain)
	p = up().changed("changed").refused(osID, "0202", noName).logged(osID, "s3")
	if got := Explain(p.s.Snapshot(), p.events, lab12(win11), p.at); len(got) > 0 {
		t.Errorf("it was let in again: %+v", got)
	}
}

func TestAPortThatOpenedTooLateIsNotAnswersThatAreLost(t *testing.T) {
	late := firmwareUEFI
	late.Secs = 28
	p := newTape().see(0, store.EventDHCPDiscover, late).see(1, store.EventDHCPOffer, late).quiet()
	got := Explain(p.s.Snapshot(), p.events, lab12(win11), p.at)
	if len(got) != 1 || got[0].Code != "LB-NET-01" || got[0].Aside || !strings.Contains(got[0].Title, "slept for 28 s") {
		t.Errorf("%+v", got)
	}
	// One that goes on asking for long is another matter.
	p = newTape().see(0, store.EventDHCPDiscover, late).see(1, store.EventDHCPOffer, late).see(4000, store.EventDHCPDiscover, late).see(1, store.EventDHCPOffer, late).see(8000, store.EventDHCPDiscover, late).see(1, store.EventDHCPOffer, late).quiet()
	is(t, p.first(t, lab12(win11)), "LB-DHCP-03", "Our answers are not reaching lab-12", "", store.VeryLikely)
}

func TestAMachineThatVanishedWhileItReadMayHaveBeenSwitchedOff(t *testing.T) {
	linux := forBIOS
	linux.OS = "linux"
	p := bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 13e6)
	p.events[len(p.events)-1].Detail.Reason = "the initiator stopped answering"
	d := p.quiet().first(t, lab12(holding(linux)))
	is(t, d, "LB-OS-02", "lab-12 stopped while it started Linux from its volume", "", store.BestGuess)
	if !strings.Contains(d.Cause, "switched off") {
		t.Errorf("%s", d.Cause)
	}
}

func TestAMachineThatAsksFromItsSecondCardIsToldSo(t *testing.T) {
	f := lab12(win11)
	f.MACs = []store.MAC{{0x52, 0x54, 0, 0x77, 0, 0x63}}
	withheld := func() *tape {
		return bios().see(9, store.EventScriptWithheld, store.Detail{MatchedBy: "uuid", Reason: "Nothing shows that its MAC address holds the address"})
	}
	is(t, withheld().first(t, f), "LB-SCR-16", "it asked from a network card that is not among its own", "add-card-52:54:00:77:00:0a", store.Certain)
	f.MACs = append(f.MACs, theMAC)
	if d := withheld().first(t, f); d.Code != "LB-SCR-03" {
		t.Errorf("%+v", d)
	}
}
