package diagnose

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

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

// A running system asks for its volume where it found it, whatever the appliance is
// called by then.
func TestASystemWhoseAppliancesAddressChangedIsLost(t *testing.T) {
	ran := func() *tape {
		d := session(osID, "os1")
		d.Mapped = []int{2}
		p := bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 18e6)
		p.see(9000, store.EventISCSILogin, d).see(5, store.EventISCSIFirstRead, session(osID, "os1"))
		return p.see(3600000, store.EventISCSIClosed, session(osID, "os1")).quiet().quiet()
	}
	moved, stays := lab12(win11), lab12(win11)
	moved.Own = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.77.0.9")}
	stays.Own = append(stays.Own, netip.MustParseAddr("10.77.0.1"), moved.Own[1])
	p := ran()
	if p.s.Outcome != store.OutcomeUp || store.BootStateOf(p.s.Attempt, true) != store.BootLost {
		t.Fatalf("it is %s: %+v", p.s.Outcome, p.s.Stages)
	}
	d := p.first(t, moved)
	is(t, d, "LB-OS-06", "lab-12 ran from its volume at 10.77.0.1, which is not the appliance’s address any more", "", store.VeryLikely)
	if !d.Aside || !slices.Contains(d.Evidence, "addresses of the appliance: 10.77.0.9") {
		t.Errorf("%+v", d)
	}
	for what, f := range map[string]Facts{"the address is still ours": stays, "our addresses are not known": lab12(win11)} {
		if all := Explain(p.s.Snapshot(), p.events, f, p.at); len(all) != 0 {
			t.Errorf("%s: %+v", what, all)
		}
	}
	// Who is refused has found the appliance.
	p = ran().refused(osID, "0202", "no machine has the initiator name iqn.x")
	if d := p.first(t, moved); d.Code != "LB-OS-05" {
		t.Errorf("it is explained as %s: %s", d.Code, d.Title)
	}
	// It came back.
	back := session(osID, "os2")
	back.Mapped = []int{2}
	p = ran().see(1000, store.EventISCSILogin, back)
	if all := Explain(p.s.Snapshot(), p.events, moved, p.at); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// A profile for one boot is not used up by a boot that came to nothing: each rule
// that such a boot meets says so, and how to end that.
func TestABootThatCameToNothingKeepsItsProfileForOneBoot(t *testing.T) {
	f := lab12(win11)
	f.Once = "local"
	local := func() *tape {
		return bios().see(9, store.EventScriptSent, store.Detail{Profile: "local", Script: "sanboot --drive 0x80"})
	}
	failed := local().report("local", "1d852039").first(t, f)
	is(t, failed, "LB-OS-04", "could not start from its own disk", "clear-once", store.Certain)
	p := local()
	p.s.Ended(p.at.Add(time.Minute))
	back := p.first(t, f)
	if back.Code != "LB-BOOT-02" || !back.Offers(store.FixAction{Kind: store.FixClearOnce}) {
		t.Errorf("one that came back: %+v", back)
	}
	for _, d := range []store.Diagnosis{failed, back} {
		if !strings.Contains(d.Cause, "is not used up by that") {
			t.Errorf("%s says %q", d.Code, d.Cause)
		}
	}
	f.Once = ""
	if d := local().report("local", "1d852039").first(t, f); d.Offers(store.FixAction{Kind: store.FixClearOnce}) || strings.Contains(d.Cause, "one boot only") {
		t.Errorf("without one: %+v", d)
	}
}
