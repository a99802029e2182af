package diagnose

import (
	"fmt"
	"strings"
	"testing"

	"lunboot/store"
)

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

// A machine that is woken and stays silent is told of, with what to look at.
func TestAMachineThatWasSwitchedOnAndNeverHeardIsExplained(t *testing.T) {
	f := lab12(win11)
	f.MACs = []store.MAC{theMAC}
	order := func(act store.PowerAct) *tape {
		return newTape().see(0, store.EventMachinePower, store.Detail{Step: string(act), Reason: "magic packets were sent on eth0"}).quiet().quiet()
	}
	d := order(store.PowerWake).first(t, f)
	is(t, d, "LB-NET-05", "lab-12 was sent a magic packet, and nothing was heard of it", "", store.CannotSee)
	said := fmt.Sprint(d.Fixes, d.Evidence, d.Cause)
	for _, word := range []string{"Wake-on-LAN", "MAC", "VLAN", "boot order", "52:54:00:77:00:0a", "magic packets were sent on eth0", "5 minutes"} {
		if !strings.Contains(said, word) {
			t.Errorf("it says nothing of %s: %s", word, said)
		}
	}
	// That its MAC is right was seen before.
	f.Earlier = []store.Attempt{{MAC: theMAC, Outcome: store.OutcomeUp, Stage: store.StageUp}}
	if d := order(store.PowerWake).first(t, f); strings.Contains(fmt.Sprint(d.Fixes), "Compare its MAC") {
		t.Errorf("%+v", d.Fixes)
	}
	d = order(store.PowerOn).first(t, f)
	is(t, d, "LB-NET-05", "lab-12 was switched on, and did not ask to boot from the network", "", store.BestGuess)
	if !strings.Contains(d.Fixes[0].Label, "lunboot machine power lab-12 cycle --once pxe") {
		t.Errorf("%+v", d.Fixes)
	}
	// One that was heard is no such machine.
	p := newTape().see(0, store.EventMachinePower, store.Detail{Step: string(store.PowerOn)}).see(90000, store.EventDHCPDiscover, firmwareUEFI).see(1, store.EventDHCPOffer, firmwareUEFI).quiet()
	if d := p.first(t, f); d.Code == "LB-NET-05" {
		t.Errorf("%+v", d)
	}
}
