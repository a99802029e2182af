package diagnose

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"lunboot/store"
)

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

func TestAMistypedMACIsFound(t *testing.T) {
	f := Facts{Alike: []string{"lab-12 (52:54:00:77:00:0b)"}}
	d := bios().see(9, store.EventScriptWaiting, store.Detail{}).first(t, f)
	is(t, d, "LB-SCR-04", "is waiting to be enrolled", "enroll", store.Certain)
	if !strings.Contains(d.Cause, "nearly this MAC") || !strings.Contains(d.Fixes[1].Label, "lunboot machine set lab-12 --mac 52:54:00:77:00:0a") {
		t.Errorf("%+v", d)
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

func TestANetworkBehindARouterCanBeTrusted(t *testing.T) {
	f := lab12(win11)
	routed := bios().see(9, store.EventScriptWithheld, store.Detail{Network: "10.9.0.0/24"}).first(t, f)
	is(t, routed, "LB-SCR-03", "was given no script", "trust-subnet-10.9.0.0/24", store.Certain)
	for _, fix := range bios().see(9, store.EventScriptWithheld, store.Detail{}).first(t, f).Fixes {
		if fix.Action != "" {
			t.Errorf("on a network of ours there is a button %q", fix.Action)
		}
	}
}
