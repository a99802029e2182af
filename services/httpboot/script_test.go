package httpboot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

// query is what IdentityURL makes an iPXE say.
func query(host string, u store.UUID, mac store.MAC) string {
	q := url.Values{"platform": {"pcbios"}, "buildarch": {"i386"}, "ip": {"127.0.0.1"}, "serial": {""}, "asset": {""}, "hostname": {host}}
	if !u.IsZero() {
		q.Set("uuid", u.String())
	}
	if !mac.IsZero() {
		q.Set("mac", mac.String())
	}
	return "/boot.ipxe?" + q.Encode()
}

// An iPXE of 2024 and later that came over HTTP looks for its own script beside its
// URL and then at the root, and runs what it is given before it asks DHCP for
// anything: anything but the first script would be where its boot ends.
func TestTheScriptThatAnIPXELooksForBesideItselfIsTheFirstOne(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.cfg.Media = fstest.MapFS{"own/autoexec.ipxe": {Data: []byte("#!ipxe\n# An operator's own.\n")}}
	})
	first := l.get("/boot.ipxe")
	contains(t, first, "isset ${netX/ip} || dhcp ||\n", "chain --replace --autofree "+l.srv.URL+"/boot.ipxe?mac=${netX/mac}")
	l.said()
	for _, path := range []string{
		"/autoexec.ipxe", "/loaders/autoexec.ipxe", "/loaders/" + macA.Hex12() + "/autoexec.ipxe", "/loaders/" + macA.Hex12() + "/secure/autoexec.ipxe",
		"/loaders/secure/autoexec.ipxe", "//loaders//autoexec.ipxe", "/elsewhere/autoexec.ipxe", "/files/autoexec.ipxe", "/files/ubuntu/casper/autoexec.ipxe",
	} {
		if got := l.get(path); got != first {
			t.Errorf("%s is given\n%s", path, got)
		}
		if e := l.said(); len(e) != 1 || e[0].Kind != store.EventScriptAsked {
			t.Errorf("%s: events %+v", path, e)
		}
	}
	if _, own := l.do("GET", "/files/own/autoexec.ipxe"); !strings.Contains(own, "# An operator's own.") {
		t.Errorf("a script that an operator put there is answered with\n%s", own)
	}
	contains(t, l.get("/loaders/nosuch.efi"), "isset ${netX/ip} || dhcp ||\nchain --replace")
}

func TestTheBareURLAnswersAFirstScriptThatAsksAgainWithTheIdentity(t *testing.T) {
	l := newLab(t)
	text := l.get("/boot.ipxe")
	contains(t, text, "chain --replace --autofree "+l.srv.URL+"/boot.ipxe?mac=${netX/mac}&uuid=${uuid}&hostname=${hostname:uristring}")
	if e := l.said(); len(e) != 1 || e[0].Kind != store.EventScriptAsked || !e[0].Addr.IsValid() {
		t.Errorf("events %+v; that it asked is known, who it is is not", e)
	}
	if got := l.get("/"); got != text {
		t.Errorf("an iPXE that asks for / is given\n%s", got)
	}
}

func TestAMachineIsFoundByEachThingThatNamesIt(t *testing.T) {
	for _, c := range []struct{ path, by string }{
		{query("a", store.UUID{}, store.MAC{}), "hostname"},
		{query("A.lab.example", store.UUID{}, store.MAC{}), "hostname"},
		{query("", uuidA, store.MAC{}), "uuid"},
		{query("", store.UUID{}, macA), "mac"},
		{query("a", uuidA, macA), "hostname"},
		{query("", uuidA, macA), "uuid"},
		{query("nobody", store.UUID{9}, macA), "mac"},
		{"/boot.ipxe?serial=SN-a", "serial"},
		{"/boot.ipxe?asset=TAG-a", "asset"},
		{"/boot.ipxe?mac=" + macA.Hex12(), "mac"},
		{"/boot.ipxe?mac=52-54-00-00-00-0A", "mac"},
		{"/hostname-a.ipxe", "hostname"},
		{"/uuid-" + uuidA.String() + ".ipxe", "uuid"},
		{"/mac-" + macA.Hex12() + ".ipxe", "mac"},
	} {
		t.Run(c.path, func(t *testing.T) {
			l := newLab(t, trustAll)
			contains(t, l.get(c.path), "sanboot iscsi:127.0.0.1::3260:2:iqn.2026-11.lunboot:target")
			e := l.saidOne(store.EventScriptSent)
			if e.Detail.MatchedBy != c.by || e.Machine != 1 || e.Attempt != 42 || e.MAC != macA {
				t.Errorf("the event is %+v, want machine 1 by %s", e, c.by)
			}
		})
	}
}

func TestPlaceholdersNameNobody(t *testing.T) {
	placeholder, _ := store.ParseUUID("03000200-0400-0500-0006-000700080009")
	ones, _ := store.ParseUUID("ffffffff-ffff-ffff-ffff-ffffffffffff")
	for _, q := range []string{
		"uuid=" + placeholder.String(), "uuid=" + ones.String(), "uuid=00000000-0000-0000-0000-000000000000",
		"serial=To+be+filled+by+O.E.M.", "serial=Default+string", "serial=0000000", "serial=None", "asset=No+Asset+Tag",
	} {
		l := newLab(t, trustAll, func(l *lab) {
			l.machines[0].UUID = placeholder
			l.machines[1].UUID = ones
			for i, s := range []string{"To be filled by O.E.M.", "Default string", "0000000"} {
				l.machines[i].Serial = s
			}
			l.machines[0].AssetTag = "No Asset Tag"
		})
		contains(t, l.get("/boot.ipxe?"+q), "not enrolled")
	}
}

func TestAUUIDThatTwoMachinesSayNamesNeither(t *testing.T) {
	l := newLab(t, trustAll)
	// Machine a is started with its own UUID; it is found by it.
	l.get(query("", uuidA, macA))
	contains(t, l.get(query("", uuidA, store.MAC{})), "sanboot")
	// Machine b says the same UUID. From now on only its MAC counts.
	contains(t, l.get(query("", uuidA, macB)), ":0:iqn.2026-11.lunboot:target")
	contains(t, l.get(query("", uuidA, store.MAC{})), "not enrolled")
	contains(t, l.get(query("", uuidA, macA)), ":2:iqn.2026-11.lunboot:target")
}

func TestTwoCardsOfOneMachineSayOneUUID(t *testing.T) {
	l := newLab(t, trustAll, func(l *lab) { l.machines[0].MACs = append(l.machines[0].MACs, macX) })
	l.get(query("", uuidA, macA))
	l.get(query("", uuidA, macX))
	contains(t, l.get(query("", uuidA, store.MAC{})), "sanboot")
}

func TestTheMemoryOfUUIDsIsBounded(t *testing.T) {
	m := newUUIDMemory()
	for i := range 3 * maxUUIDs {
		m.see(store.UUID{1, byte(i >> 16), byte(i >> 8), byte(i)}, holder{mac: macA})
		m.see(store.UUID{1, byte(i >> 16), byte(i >> 8), byte(i)}, holder{mac: macB})
	}
	if len(m.first) > maxUUIDs || len(m.shared) > maxUUIDs || len(m.order) > maxUUIDs {
		t.Errorf("it remembers %d, %d, %d UUIDs", len(m.first), len(m.shared), len(m.order))
	}
}

func TestHostnameUUIDAndMACThatNameDifferentMachinesChooseNone(t *testing.T) {
	for name, path := range map[string]string{
		"hostname and UUID": query("a", uuidB, store.MAC{}),
		"hostname and MAC":  query("a", store.UUID{}, macB),
		"UUID and MAC":      query("", uuidA, macB),
		"two against one":   query("a", uuidA, macB),
		"one against two":   query("b", uuidA, macA),
		"all three":         query("a", uuidB, macC),
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, trustAll)
			text := l.get(path)
			contains(t, text, "different machines", "chain --replace")
			lacks(t, text, "sanboot", "sanhook", "set password", "username")
			e := l.saidOne(store.EventScriptConflict)
			if e.Machine != 0 || e.Detail.Reason == "" {
				t.Errorf("the event is %+v", e)
			}
			if l.begun != 0 {
				t.Error("an attempt was begun for a machine that nobody is")
			}
		})
	}
}

func TestAnUnknownMachineIsToldWhereToEnroll(t *testing.T) {
	l := newLab(t)
	text := l.get(query("", store.UUID{7}, macX) + "&manufacturer=Dell&product=R210&serial=X1")
	contains(t, text, macX.String(), "http://127.0.0.1:8080/", "--timeout 5000", "echo .#####.####.", "chain --replace")
	lacks(t, text, "sanboot")
	e := l.saidOne(store.EventScriptWaiting)
	if e.MAC != macX || e.Addr != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("the event is %+v", e)
	}
	u := l.unknown[macX]
	if u.Vendor != "Dell R210" || u.UUID != (store.UUID{7}) || u.Firmware != "BIOS" || u.Arch != "x86" || u.Address.String() != "127.0.0.1" {
		t.Errorf("it is noted as %+v", u)
	}
}

func TestAnIgnoredMachineLeavesIPXE(t *testing.T) {
	l := newLab(t)
	l.unknown[macX] = store.UnknownMachine{MAC: macX, Ignored: true}
	text := l.get(query("", store.UUID{}, macX))
	contains(t, text, "exit 1")
	lacks(t, text, "chain", "sanboot")
	l.saidOne(store.EventIgnoredMachine)
}

func TestANameWalkEndsInAnEmpty404(t *testing.T) {
	l := newLab(t)
	for _, path := range []string{"/hostname-nobody.ipxe", "/uuid-00000000-0000-0000-0000-0000000000ff.ipxe", "/mac-" + macX.Hex12() + ".ipxe"} {
		res, body := l.do("GET", path)
		if res.StatusCode != 404 || body != "" || res.ContentLength != 0 {
			t.Errorf("GET %s answers %s with %q, want an empty 404", path, res.Status, body)
		}
	}
	if _, ok := l.unknown[macX]; !ok {
		t.Error("the machine that walked the names is not among the unknown machines")
	}
	if e := l.said(); len(e) != 0 {
		t.Errorf("events %+v, though no script was written", e)
	}
}

func TestASickInventoryIsNeverAnUnknownMachine(t *testing.T) {
	for _, path := range []string{query("a", uuidA, macA), "/mac-" + macA.Hex12() + ".ipxe", query("", store.UUID{}, macX), "/hostname-a.ipxe"} {
		l := newLab(t, func(l *lab) { l.sick = errSick })
		text := l.get(path)
		contains(t, text, "Case number ", "chain --replace")
		lacks(t, text, "not enrolled", "malformed")
		e := l.saidOne(store.EventScriptFailed)
		if e.Detail.Cause != store.CauseAppliance || !strings.Contains(e.Detail.Reason, "malformed") {
			t.Errorf("the event does not say why: %+v", e)
		}
		if len(l.unknown) != 0 {
			t.Error("it was noted as an unknown machine")
		}
	}
}

func TestSecretsGoOnlyToTheAddressOfTheMachine(t *testing.T) {
	l := newLab(t)
	text := l.get(query("a", uuidA, macA))
	contains(t, text, "carries a password", macA.String(), "127.0.0.1")
	lacks(t, text, "sanboot", "ForwardOf", "ReverseOf")
	e := l.saidOne(store.EventScriptWithheld)
	if e.Machine != 1 || e.Detail.Reason == "" || l.begun != 0 {
		t.Errorf("the event is %+v and %d attempts were begun", e, l.begun)
	}

	l.owners[netip.MustParseAddr("127.0.0.1")] = macA
	contains(t, l.get(query("a", uuidA, macA)), "set password ForwardOfa01234", "set reverse-password ReverseOfa01234")
	l.saidOne(store.EventScriptSent)

	// The address is a's: b's script does not go there.
	lacks(t, l.get(query("b", uuidB, macB)), "ForwardOf")
}

func TestAMachineWithACopiedNameIsNotedAsUnknown(t *testing.T) {
	l := newLab(t)
	l.get(query("a", store.UUID{}, macX))
	l.saidOne(store.EventScriptWithheld)
	if _, ok := l.unknown[macX]; !ok {
		t.Error("the unknown MAC cannot be enrolled, since it was not noted")
	}
}

func TestAScriptWithoutSecretsIsGivenToAnybody(t *testing.T) {
	l := newLab(t, func(l *lab) { l.machines[0].Auth, l.machines[1].Profile = store.AuthNone, "local" })
	text := l.get(query("a", uuidA, macA))
	contains(t, text, "sanboot iscsi", "clear password ||")
	lacks(t, text, "ForwardOf")
	contains(t, l.get(query("b", uuidB, macB)), "sanboot --no-describe --drive 0x80", "exit 1")
}

func TestTheGuardOfASubnetTrustsItsNeighbours(t *testing.T) {
	l := newLab(t, func(l *lab) { l.cfg.Guard = GuardSubnet })
	contains(t, l.get(query("a", uuidA, macA)), "ForwardOfa")
	s := Handler(l.cfg)
	lo := netip.MustParseAddr("127.0.0.1")
	if ok, _ := s.allowed(context.Background(), l.machines[0], netip.MustParseAddr("192.0.2.7"), lo); ok {
		t.Error("an address behind a router is trusted as a neighbour")
	}
	if _, err := ParseGuard("lax"); store.KindOf(err) != store.KindInvalid {
		t.Errorf("the mode lax gives %v", err)
	}
}

func TestHEADAndPreviewMintNothing(t *testing.T) {
	l := newLab(t, trustAll, func(l *lab) { l.machines[0].OnceProfile = "install" })
	for _, path := range []string{query("a", uuidA, macA), query("", store.UUID{}, macX), query("a", uuidB, macC), "/hostname-a.ipxe", "/boot.ipxe"} {
		res, body := l.do("HEAD", path)
		if res.StatusCode != 200 || body != "" || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("HEAD %s answers %s, %v", path, res.Status, res.Header)
		}
	}
	if res, _ := l.do("HEAD", "/hostname-nobody.ipxe"); res.StatusCode != 404 {
		t.Errorf("HEAD of nobody's script answers %s", res.Status)
	}
	text, err := Handler(l.cfg).Preview(context.Background(), l.machines[0], "san", netip.MustParseAddrPort("192.0.2.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, text, "sanboot iscsi:192.0.2.1::3260:2:", "set password (secret)")
	lacks(t, text, "ForwardOf", "/report")
	if e := l.said(); len(e) != 0 || l.begun != 0 || len(l.unknown) != 0 || l.machines[0].OnceProfile != "install" || !l.machines[0].LastSeen.IsZero() || len(l.fetched) != 0 {
		t.Errorf("something changed: events %+v, attempts %d, unknown %v, machine %+v, fetched %v", e, l.begun, l.unknown, l.machines[0], l.fetched)
	}
}

// A script that was fetched is no system that was installed: the profile stays
// until the installer says that it is done.
func TestAOneShotProfileStaysUntilItIsProven(t *testing.T) {
	l := newLab(t, trustAll, func(l *lab) { l.machines[0].OnceProfile = "install" })
	for range 2 {
		contains(t, l.get(query("a", uuidA, macA)), "kernel http")
	}
	if l.machines[0].OnceProfile != "install" {
		t.Fatal("the one-shot profile went with the script")
	}
	if res, _ := l.do("GET", "/report?attempt=43&key=wrong&done=1", "User-Agent", "Wget"); res.StatusCode != 200 || l.machines[0].OnceProfile != "install" {
		t.Error("somebody who does not know the key may say that the installer is done")
	}
	l.said()
	if res, _ := l.do("GET", "/report?attempt=43&key="+labKey+"&done=1", "User-Agent", "Wget"); res.StatusCode != 200 || l.machines[0].OnceProfile != "" {
		t.Errorf("the installer is done, and the profile is %q", l.machines[0].OnceProfile)
	}
	if e := l.saidOne(store.EventInstalled); e.Attempt != 43 || e.Machine != 1 {
		t.Errorf("the event is %+v", e)
	}
	contains(t, l.get(query("a", uuidA, macA)), "sanboot iscsi")
}

// The key of a report stands in the script, which everybody is given who says the
// machine's name. It uses nothing up, unless the machine itself asked or reports.
func TestAReportInTheNameOfAMachineUsesNothingUp(t *testing.T) {
	us := netip.MustParseAddr("127.0.0.1")
	for what, c := range map[string]struct {
		asked, reports store.MAC
		left           string
	}{
		"somebody else":              {macB, macB, "install"},
		"the machine asked":          {macA, macB, ""},
		"the machine reports":        {macB, macA, ""},
		"the machine, all the while": {macA, macA, ""},
	} {
		l := newLab(t, func(l *lab) { l.machines[0].Auth, l.machines[0].OnceProfile = store.AuthNone, "install" })
		l.owners[us] = c.asked
		contains(t, l.get(query("a", uuidA, macA)), "kernel http")
		l.owners[us] = c.reports
		if res, _ := l.do("GET", "/report?attempt=42&key="+labKey+"&done=1", "User-Agent", "Wget"); res.StatusCode != 200 || l.machines[0].OnceProfile != c.left {
			t.Errorf("%s: %s, and the profile is %q", what, res.Status, l.machines[0].OnceProfile)
		}
	}
}

// A report speaks of its own boot: not of a profile that was chosen since, nor
// of the boot that another script began.
func TestAnInstallersReportUsesUpItsOwnProfileOnly(t *testing.T) {
	for what, c := range map[string]struct {
		now   string // the one-shot profile when the report comes
		after func(*lab)
		left  string
	}{
		"its own":                     {"install", func(*lab) {}, ""},
		"chosen anew since":           {"install", func(l *lab) { l.chosen = l.cfg.Now().Add(1) }, "install"},
		"one of a menu":               {"bench", func(*lab) {}, ""},
		"chosen meanwhile":            {"local", func(*lab) {}, "local"},
		"a menu without it":           {"other", func(*lab) {}, "other"},
		"the machine boots again":     {"install", func(l *lab) { l.get(query("a", uuidA, macA)) }, "install"},
		"another machine boots":       {"install", func(l *lab) { l.get(query("b", uuidB, macB)) }, ""},
		"its system asks for a lease": {"install", func(l *lab) { l.attempts[77] = 1 }, ""},
	} {
		l := newLab(t, trustAll, func(l *lab) {
			l.machines[0].OnceProfile = "install"
			l.profiles["bench"] = store.Profile{Name: "bench", Kind: store.ProfileMenu, Fields: map[string]string{"items": "local\ninstall"}}
			l.profiles["other"] = store.Profile{Name: "other", Kind: store.ProfileMenu, Fields: map[string]string{"items": "local"}}
		})
		l.get(query("a", uuidA, macA))
		c.after(l)
		l.machines[0].OnceProfile = c.now
		for range 2 { // the second, when the answer to the first was lost
			if res, _ := l.do("GET", "/report?attempt=42&key="+labKey+"&done=1", "User-Agent", "Wget"); res.StatusCode != 200 || l.machines[0].OnceProfile != c.left {
				t.Errorf("%s: %s, and the profile is %q", what, res.Status, l.machines[0].OnceProfile)
			}
		}
	}
}

func TestAnInstallersReportIsKeptBeforeItIsAnswered(t *testing.T) {
	l := newLab(t, trustAll, func(l *lab) { l.machines[0].OnceProfile = "install" })
	l.get(query("a", uuidA, macA))
	l.said()
	l.mu.Lock()
	l.broken, l.sick = "ConsumeOnce", errSick
	l.mu.Unlock()
	if res, _ := l.do("GET", "/report?attempt=42&key="+labKey+"&done=1", "User-Agent", "Wget"); res.StatusCode != 503 || len(l.said()) != 0 {
		t.Errorf("a report that could not be kept is answered %s", res.Status)
	}
}

// A boot from the machine's own disk is proven by how it ends, as every other.
func TestAOneShotBootOfTheOwnDiskIsNotUsedUpByItsScript(t *testing.T) {
	l := newLab(t, trustAll, func(l *lab) {
		l.machines[0].OnceProfile = "local"
		l.machines[1].OnceProfile = "bench"
		l.profiles["bench"] = store.Profile{Name: "bench", Kind: store.ProfileMenu, Fields: map[string]string{"items": "local"}}
	})
	for range 2 {
		contains(t, l.get(query("a", uuidA, macA)), "own disk")
		contains(t, l.get(query("b", uuidB, macB)), "item local")
		contains(t, l.get(query("b", uuidB, macB)+"&choice=local"), "own disk")
	}
	if l.machines[0].OnceProfile != "local" || l.machines[1].OnceProfile != "bench" {
		t.Errorf("the one-shot profiles are %q and %q", l.machines[0].OnceProfile, l.machines[1].OnceProfile)
	}
}

func TestAChoiceIsTakenFromTheMachinesOwnMenuOnly(t *testing.T) {
	l := newLab(t, trustAll, func(l *lab) {
		l.machines[0].Profile = "bench"
		l.profiles["bench"] = store.Profile{Name: "bench", Kind: store.ProfileMenu, Fields: map[string]string{"items": "san = The lab's Debian\nlocal", "default": "san", "timeout": "5"}}
	})
	ask := query("a", uuidA, macA)
	contains(t, l.get(ask), "item san The lab's Debian", "choose --default san --timeout 5000", "&choice=${lunboot_choice}")
	contains(t, l.get(ask+"&choice=san"), "sanboot iscsi")
	contains(t, l.get(ask+"&choice=local"), "own disk")
	for _, other := range []string{"install", "none", "bench", "${lunboot_choice}"} {
		contains(t, l.get(ask+"&choice="+url.QueryEscape(other)), "item san")
	}
	contains(t, l.get(query("b", uuidB, macB)+"&choice=local"), "sanboot iscsi")
	e := l.said()
	if last := e[len(e)-1]; last.Detail.Profile != "san" {
		t.Errorf("the event is %+v", last)
	}
	armed := len(l.armed)
	l.get(ask)
	if len(l.armed) != armed {
		t.Error("a menu arms a boot of the volume")
	}
}

func TestAWithheldScriptDoesNotUseUpTheOneShotProfile(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.machines[0].OnceProfile = "custom"
		l.profiles["custom"] = store.Profile{Name: "custom", Kind: store.ProfileCustom, Text: "#!ipxe\necho {{password}}\n"}
	})
	lacks(t, l.get(query("a", uuidA, macA)), "ForwardOf")
	if l.machines[0].OnceProfile != "custom" {
		t.Error("the one-shot profile is gone, and the machine never saw it")
	}
}

func TestEveryLUNIsWrittenInHexadecimal(t *testing.T) {
	for lun, want := range map[store.LUN]string{0: "0", 2: "2", 9: "9", 10: "A", 16: "10", 255: "FF", 256: "4100", 16383: "7FFF"} {
		l := newLab(t, trustAll, func(l *lab) { l.mappings[0].LUN = lun })
		contains(t, l.get(query("a", uuidA, macA)), "sanboot iscsi:127.0.0.1::3260:"+want+":iqn.2026-11.lunboot:target ||", fmt.Sprintf("LUN %d", lun))
	}
}

func TestTheScriptNamesTheAddressThatTheMachineReached(t *testing.T) {
	l := newLab(t, trustAll, func(l *lab) { l.cfg.ISCSIPort = func() uint16 { return 4000 } })
	contains(t, l.get(query("a", uuidA, macA)), "iscsi:127.0.0.1::4000:2:", l.srv.URL+"/report?attempt=42&key="+labKey+"&step=sanboot&code=${errno:hexraw}")

	l = newLab(t, trustAll, func(l *lab) { l.cfg.Advertise = netip.MustParseAddr("192.0.2.9") })
	text := l.get(query("a", uuidA, macA))
	contains(t, text, "iscsi:192.0.2.9::3260:2:", "http://192.0.2.9:")
	lacks(t, text, "127.0.0.1")
}

func TestAMachineThatCannotBootIsToldWhy(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*lab)
		want   string
	}{
		"no mapping":   {func(l *lab) { l.mappings = nil }, "no volume is mapped to it"},
		"none to boot": {func(l *lab) { l.mappings[0].Boot = false }, "none of its volumes is marked as the one to boot"},
		"importing":    {func(l *lab) { l.volumes[1] = store.Volume{Name: "debian", State: store.VolumeImporting, Progress: 40} }, "debian is being imported, 40 % so far"},
		"failed": {func(l *lab) {
			l.volumes[1] = store.Volume{Name: "debian", State: store.VolumeFailed, Reason: "disk full"}
		}, "debian failed: disk full"},
		"creating":        {func(l *lab) { l.volumes[1] = store.Volume{Name: "debian", State: store.VolumeCreating} }, "not ready yet (creating)"},
		"profile missing": {func(l *lab) { l.machines[0].Profile = "gone" }, "gone"},
		"profile broken":  {func(l *lab) { l.profiles["san"] = store.Profile{Name: "san", Kind: store.ProfileMenu} }, "is wrong"},
		"custom, no disk": {func(l *lab) {
			l.mappings = nil
			l.profiles["san"] = store.Profile{Name: "san", Kind: store.ProfileCustom, Text: "sanboot {{san_uri}}"}
		}, "no volume is mapped"},
		"unknown variable": {func(l *lab) {
			l.profiles["san"] = store.Profile{Name: "san", Kind: store.ProfileCustom, Text: "echo {{colour}}"}
		}, "colour"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, trustAll, c.change)
			text := l.get(query("a", uuidA, macA))
			contains(t, strings.Join(strings.Fields(strings.ReplaceAll(text, "\necho ", " ")), " "), c.want)
			contains(t, text, "chain --replace")
			lacks(t, text, "sanboot", "set password")
			cause := map[string]store.Cause{"profile missing": store.CauseNoProfile, "profile broken": store.CauseProfile, "unknown variable": store.CauseProfile}[name]
			if e := l.saidOne(store.EventScriptFailed); e.Machine != 1 || e.Detail.Reason == "" || e.Detail.Cause != cause {
				t.Errorf("the event is %+v", e)
			}
		})
	}
}

func TestTheEventCarriesTheScriptWithoutItsSecrets(t *testing.T) {
	l := newLab(t, trustAll)
	text := l.get(query("a", uuidA, macA))
	e := l.saidOne(store.EventScriptSent)
	contains(t, e.Detail.Script, "set username a", "set password (secret)", "sanboot iscsi:127.0.0.1::3260:2:")
	lacks(t, e.Detail.Script, "ForwardOf", "ReverseOf")
	contains(t, text, "ForwardOf", "ReverseOf")
	if e.Detail.Key != labKey || e.Detail.Profile != "san" {
		t.Errorf("the event is %+v", e)
	}
	m := l.machines[0]
	if m.Firmware != "BIOS" || m.Arch != "x86" || m.LastSeen != time.Unix(1_800_000_000, 0) {
		t.Errorf("the machine was last seen as %+v", m)
	}
	if len(l.fetched) != 1 || l.fetched[0].String() != "127.0.0.1" {
		t.Errorf("the fetch was told as %v", l.fetched)
	}
}

func TestAMachineBootsWithoutTheJournal(t *testing.T) {
	l := newLab(t, trustAll, func(l *lab) { l.beginErr = errSick })
	text := l.get(query("a", uuidA, macA))
	contains(t, text, "sanboot iscsi")
	lacks(t, text, "/report")
}

func TestHostileIdentitiesDoNotBreakOutOfTheScript(t *testing.T) {
	hostile := "x\nsanboot iscsi:evil::::e\n${errno}|| shell && reboot ; #"
	l := newLab(t, trustAll)
	q := url.Values{"hostname": {hostile}, "serial": {hostile}, "manufacturer": {hostile}, "product": {hostile}, "mac": {macX.String()}}
	text := l.get("/boot.ipxe?" + q.Encode())
	lacks(t, text, "\nsanboot", "evil")
	for _, bad := range []string{"uuid", "mac"} {
		text := l.get("/boot.ipxe?" + bad + "=" + url.QueryEscape(hostile))
		for _, line := range strings.Split(text, "\n") {
			if strings.Contains(line, "evil") && !strings.HasPrefix(line, "echo ") {
				t.Errorf("the line %q is a command", line)
			}
		}
		lacks(t, text, "${errno}", " || shell", " && reboot")
	}
	text = l.get("/" + url.PathEscape(hostile))
	lacks(t, text, "\nsanboot", "${errno}")
}

func TestAnIPXEIsNeverAnsweredWithAnErrorPage(t *testing.T) {
	l := newLab(t)
	for _, path := range []string{"/nothing", "/boot.ipxe/x", "//boot.ipxe", "/index.html", "/mac-zz.ipxe", "/boot.ipxe?uuid=zz", "/boot.ipxe?mac=zz", "/report", "/hostname-.ipxe", "/%00"} {
		text := l.get(path)
		contains(t, text, "echo ", "chain --replace")
	}
	res, body := l.do("GET", "/nothing", "User-Agent", "curl/8")
	if res.StatusCode != 404 || !strings.Contains(body, "http://127.0.0.1:8080/") {
		t.Errorf("curl is answered %s %q", res.Status, body)
	}
	res, _ = l.do("GET", "/", "User-Agent", "Mozilla/5.0")
	if res.StatusCode != http.StatusFound || res.Header.Get("Location") != "http://127.0.0.1:8080/" {
		t.Errorf("a browser is sent to %s %q", res.Status, res.Header.Get("Location"))
	}
}

func TestABrowserDoesNotUseUpTheOneShotProfile(t *testing.T) {
	l := newLab(t, trustAll, func(l *lab) { l.machines[0].OnceProfile = "install" })
	if _, body := l.do("GET", query("a", uuidA, macA), "User-Agent", "Mozilla/5.0"); !strings.Contains(body, "kernel http") {
		t.Errorf("somebody who looks sees another script:\n%s", body)
	}
	if l.machines[0].OnceProfile != "install" {
		t.Error("the one-shot profile is gone, and the machine never saw it")
	}
}

func TestOnlyARealScriptThatBootsTheVolumeArmsABoot(t *testing.T) {
	l := newLab(t, trustAll)
	l.do("HEAD", query("a", uuidA, macA))
	l.do("GET", query("a", uuidA, macA), "User-Agent", "Mozilla/5.0")
	l.machines[0].Profile = "local"
	l.get(query("a", uuidA, macA))
	if len(l.armed) != 0 {
		t.Errorf("armed by somebody who looks, or by a script that boots no volume: %v", l.armed)
	}
	l.machines[0].Profile = "san"
	contains(t, l.get(query("a", uuidA, macA)), "sanboot")
	if len(l.armed) != 1 || l.armed[0] != l.machines[0].ID {
		t.Errorf("armed: %v", l.armed)
	}
}

func TestADryRunIsTheAnswerWithoutItsSecretsAndChangesNothing(t *testing.T) {
	l := newLab(t, func(l *lab) { l.machines[0].OnceProfile = "install" })
	s := Handler(l.cfg) // strict: nobody's address is known
	at := netip.MustParseAddrPort("192.0.2.1:80")
	ask := func(id boot.Identity) store.ScriptExplanation {
		t.Helper()
		is := s.Explain(t.Context(), id, at, netip.MustParseAddr("192.0.2.50"))
		if !strings.HasPrefix(is.Text, "#!ipxe\n") {
			t.Errorf("the text is %q", is.Text)
		}
		lacks(t, is.Text, "ForwardOf", "ReverseOf", "Case number")
		return is
	}
	is := ask(boot.Identity{MAC: macB, UUID: uuidB})
	if is.Answer != "script" || is.MatchedBy != "uuid" || is.Profile != "san" || !is.Guarded || is.SAN != "iscsi:192.0.2.1::3260:0:iqn.2026-11.lunboot:target" || is.Portal.String() != "192.0.2.1:3260" {
		t.Errorf("%+v", is)
	}
	contains(t, is.Text, "sanboot "+is.SAN, "set password (secret)")
	if is := ask(boot.Identity{MAC: macA}); is.Answer != "script" || is.Profile != "install" || is.Guarded || is.SAN != "" {
		t.Errorf("%+v", is)
	}
	for want, id := range map[string]boot.Identity{"unknown": {MAC: macX}, "conflict": {Hostname: "a", MAC: macC}} {
		if is := ask(id); is.Answer != want || is.Why == "" {
			t.Errorf("%+v, want %s", is, want)
		}
	}
	l.unknown[macX] = store.UnknownMachine{MAC: macX, Ignored: true}
	if is := ask(boot.Identity{MAC: macX}); is.Answer != "ignored" {
		t.Errorf("%+v", is)
	}
	l.mappings = nil
	if is := ask(boot.Identity{MAC: macB}); is.Answer != "blocked" || !strings.Contains(is.Why, "no volume is mapped") || is.Profile != "san" {
		t.Errorf("%+v", is)
	}
	l.sick = errSick
	if is := ask(boot.Identity{MAC: macB}); is.Answer != "failed" || !strings.Contains(is.Why, "malformed") {
		t.Errorf("%+v", is)
	}
	for _, e := range l.said() {
		t.Errorf("a dry run says %+v", e)
	}
	if l.begun != 0 || len(l.armed) != 0 || l.machines[0].OnceProfile != "install" || !l.machines[1].LastSeen.IsZero() {
		t.Errorf("a dry run left something behind: %+v", l)
	}
}

// trusting knows every address to be in its own 256, trusted or not.
type trusting struct {
	trusted bool
	err     error
}

func (n trusting) Network(_ context.Context, a netip.Addr) (netip.Prefix, bool, error) {
	p, _ := a.Prefix(24)
	return p, n.trusted, n.err
}

func TestATrustedNetworkIsGivenScriptsWithSecrets(t *testing.T) {
	l := newLab(t, func(l *lab) { l.cfg.Networks = trusting{trusted: true} })
	contains(t, l.get(query("a", uuidA, macA)), "set password ForwardOfa01234")
	for _, n := range []trusting{{}, {trusted: true, err: errors.New("the disk is gone")}} {
		l = newLab(t, func(l *lab) { l.cfg.Networks = n })
		lacks(t, l.get(query("a", uuidA, macA)), "ForwardOf")
		// On the appliance's own network there is nothing to trust: MACs can be seen.
		if e := l.saidOne(store.EventScriptWithheld); e.Detail.Network != "" {
			t.Errorf("the event is %+v", e)
		}
	}
	s := Handler(Config{Networks: trusting{}, Log: slog.New(slog.DiscardHandler)})
	if got := s.routed(t.Context(), netip.MustParseAddr("10.9.0.7"), netip.MustParseAddr("127.0.0.1")); got != "10.9.0.0/24" {
		t.Errorf("a routed address is in %q", got)
	}
}
