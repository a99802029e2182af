package diagnose

import (
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

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
