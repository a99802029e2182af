package diagnose

import (
	"strings"
	"testing"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/store"
)

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

// An installer that waits at its first question is no system that steadily reads.
func TestAnInstallerThatWaitsIsNotCalledUp(t *testing.T) {
	p := bios().see(300, store.EventScriptSent, store.Detail{Profile: "deb", MatchedBy: "mac", Key: "key",
		Script: "#!ipxe\nsanhook --drive 0x80 iscsi:10.77.0.1::3260:2:iqn.2026-11.lunboot:yard || goto no_volume\nkernel http://10.77.0.1/files/linux || goto no_kernel\nboot || goto no_start\n\n:no_volume\n"}).
		logged(ipxeID, "s1").read(ipxeID, "s1", 3000).quiet()
	is(t, p.first(t, lab12()), "LB-OS-03", "installer", "", store.CannotSee)
}
