package attempt

import (
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

func power(act store.PowerAct) store.Detail { return store.Detail{Step: string(act)} }

func TestAMachineThatIsSwitchedOnAndNotHeardHasFailed(t *testing.T) {
	for _, act := range []store.PowerAct{store.PowerOn, store.PowerWake} {
		p := newTape(t).see(0, store.EventMachinePower, power(act))
		if len(p.all) != 1 || p.s.Outcome != store.OutcomeRunning || p.s.MAC != theMAC {
			t.Fatalf("%s: %+v", act, p.s)
		}
		p.quiet(limitWoken-time.Second).expect(store.OutcomeRunning, store.StageAsk, "running waiting waiting waiting waiting waiting waiting")
		p.quiet(time.Second).expect(store.OutcomeFailed, store.StageAsk, "failed waiting waiting waiting waiting waiting waiting")
		// A server that tests its memory for long goes on after all.
		p.see(180000, store.EventDHCPDiscover, firmwareUEFI).expect(store.OutcomeRunning, store.StageAsk, "done waiting waiting waiting waiting waiting waiting")
		if len(p.all) != 1 || !p.s.Started.Equal(p.at) || p.s.Trouble() {
			t.Errorf("%s: %d boots, which began at %s, %v", act, len(p.all), p.s.Started, p.s.Trouble())
		}
		if line := p.s.stage(store.StageAsk).Detail; !strings.Contains(line, "8 minutes after it was switched on") && !strings.Contains(line, "8 min after it was switched on") {
			t.Errorf("%s: it is told %q", act, line)
		}
		// From there on it is a boot as every other.
		p.see(1, store.EventDHCPOffer, with(firmwareUEFI, "snponly.efi")).see(2000, store.EventDHCPRequest, firmwareUEFI).see(2, store.EventDHCPAck, with(firmwareUEFI, "snponly.efi"))
		p.tftp("snponly.efi", 173792).dora(ipxeUEFI, "").script().login(ipxeID, "s1")
		if len(p.all) != 1 || p.s.Stage != store.StageRead {
			t.Errorf("%s: %d boots, at %s", act, len(p.all), p.s.Stage)
		}
	}
}

func TestAnOrderBeginsABootOnlyWhereItCan(t *testing.T) {
	begins := func(what string, p *tape, act store.PowerAct, want bool) {
		t.Helper()
		n := len(p.all)
		p.see(600000, store.EventMachinePower, power(act))
		if got := len(p.all) > n; got != want {
			t.Errorf("%s, %q: another boot %v, want %v", what, act, got, want)
		}
	}
	failed := func() *tape { return newTape(t).dora(ipxeBIOS, "").script().quiet(time.Hour) }
	for act, want := range map[store.PowerAct]bool{store.PowerOn: true, store.PowerWake: true, store.PowerCycle: false, store.PowerReset: false, store.PowerOff: false, store.PowerShutdown: false, "": false} {
		begins("never seen", newTape(t), act, want)
		begins("failed", failed(), act, want)
		begins("booting", newTape(t).dora(ipxeBIOS, "").script(), act, false)
	}
	// Who runs does not heed a magic packet; a BMC that switched a machine on says
	// that it was off.
	begins("runs", runs(t), store.PowerWake, false)
	begins("away", runs(t).closed("os1"), store.PowerWake, false)
	begins("off or lost", runs(t).closed("os1").quiet(limitAway), store.PowerWake, true)
	begins("runs", runs(t), store.PowerOn, true)
	// What was not done begins nothing.
	p := newTape(t).see(0, store.EventMachinePower, store.Detail{Step: string(store.PowerOn), Cause: store.CauseNotDone})
	if len(p.all) != 0 {
		t.Error("an order that failed began a boot")
	}
}

func TestAMachineIsWokenTwiceForOneBoot(t *testing.T) {
	p := newTape(t).see(0, store.EventMachinePower, power(store.PowerWake)).see(240000, store.EventMachinePower, power(store.PowerWake))
	p.quiet(4*time.Minute).expect(store.OutcomeRunning, store.StageAsk, "running waiting waiting waiting waiting waiting waiting")
	// What is heard hours later is a boot of its own.
	p.quiet(time.Hour).see(0, store.EventDHCPDiscover, firmwareUEFI)
	if len(p.all) != 2 || p.all[0].Outcome != store.OutcomeFailed || p.s.Outcome != store.OutcomeRunning {
		t.Errorf("%d boots, the first %s", len(p.all), p.all[0].Outcome)
	}
}
