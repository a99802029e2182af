package explain

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

var (
	noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	card = store.MAC{0x52, 0x54, 0, 0x77, 0, 0x0a}
	next = netip.MustParseAddr("10.77.0.103")
	at   = netip.MustParseAddrPort("10.77.0.1:80")
)

// lab is every part of an appliance, as far as a dry run asks it.
type lab struct {
	unknown  map[store.MAC]store.UnknownMachine
	last     *store.Attempt
	events   []store.Event
	login    store.LoginExplanation
	script   store.ScriptExplanation
	silent   bool // no DHCP
	err      error
	queries  []store.OfferQuery
	identity boot.Identity
	asked    netip.AddrPort
	from     netip.Addr
}

func (l *lab) ExplainOffer(_ context.Context, q store.OfferQuery) (store.OfferExplanation, error) {
	l.queries = append(l.queries, q)
	if l.silent {
		return store.OfferExplanation{Verdict: "nothing", Why: "DHCP is off"}, l.err
	}
	o := store.OfferExplanation{Verdict: "DHCPOFFER", Address: next, Boot: at, File: "5254/snponly.efi", Loader: "snponly.efi"}
	if q.IPXE {
		o.File, o.Loader = "http://10.77.0.1/boot.ipxe", ""
		o.Fields = []store.OfferField{{Option: 12, Value: "lab-03"}}
	}
	return o, l.err
}

func (l *lab) Explain(_ context.Context, id boot.Identity, at netip.AddrPort, addr netip.Addr) store.ScriptExplanation {
	l.identity, l.asked, l.from = id, at, addr
	return l.script
}

func (l *lab) ExplainLogin(context.Context, store.Machine) (store.LoginExplanation, error) {
	return l.login, l.err
}

func (l *lab) ExplainFile(name boot.Loader) store.FileExplanation {
	return store.FileExplanation{Loader: string(name), Size: 7}
}

func (l *lab) UnknownMachine(_ context.Context, mac store.MAC) (store.UnknownMachine, error) {
	if u, ok := l.unknown[mac]; ok {
		return u, nil
	}
	return store.UnknownMachine{}, store.NotFound("unknown machine", mac.String())
}

func (l *lab) Latest(store.MachineID, store.MAC) (store.Attempt, bool) {
	if l.last == nil {
		return store.Attempt{}, false
	}
	return *l.last, true
}

func (l *lab) EventsOf(context.Context, store.Attempt) ([]store.Event, error) { return l.events, l.err }

const script = "#!ipxe\n# comment\nset initiator-iqn iqn.x:lab-03\nset password (secret)\nsanboot iscsi:10.77.0.1::3260:2:iqn.x:t || goto failed\necho See http://10.77.0.1:8080\nimgargs vmlinuz url=http://10.77.0.1/files/answer/lab-03/deb/0/preseed.cfg\n"

func newLab() *lab {
	return &lab{
		script: store.ScriptExplanation{Answer: "script", MatchedBy: "hostname", Profile: "san", Text: script},
		login:  store.LoginExplanation{Initiator: "iqn.x:lab-03", Target: "iqn.x:t", Auth: store.AuthMutual, Units: []store.UnitExplanation{{LUN: 2, Volume: "debian", Boot: true}}},
	}
}

func (l *lab) explain(t *testing.T, m store.Machine, q store.ExplainQuery) store.DryRun {
	t.Helper()
	x := New(Config{Offers: l, Scripts: l, Logins: l, Files: l, Inventory: l, Attempts: l, Now: func() time.Time { return noon },
		Boot: func(store.Machine) netip.AddrPort { return netip.MustParseAddrPort("192.0.2.9:80") }})
	e, err := x.Explain(t.Context(), m, q)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var lab03 = store.Machine{ID: 3, Name: "lab-03", MACs: []store.MAC{card, {2}}, UUID: store.UUID{7}, Serial: "S", Firmware: "BIOS", Arch: "x86", Profile: "san", Initiator: "iqn.x:lab-03"}

func TestADryRunFollowsTheStepsOfABoot(t *testing.T) {
	l := newLab()
	relay := netip.MustParseAddr("10.9.0.1")
	e := l.explain(t, lab03, store.ExplainQuery{Relay: relay})
	if e.MAC != card || e.Machine != 3 || e.Name != "lab-03" || e.Platform != "BIOS x86" || e.Assumed || e.Relay != relay || !e.At.Equal(noon) {
		t.Errorf("%+v", e)
	}
	want := []store.OfferQuery{{MAC: card, UUID: store.UUID{7}, Arch: 0, Relay: relay}, {MAC: card, UUID: store.UUID{7}, Arch: 0, IPXE: true, Relay: relay}}
	if !slices.Equal(l.queries, want) {
		t.Errorf("asked for %+v", l.queries)
	}
	if len(e.Offers) != 2 || e.Offers[0].Fields == nil || e.File.Loader != "snponly.efi" || e.File.Size != 7 {
		t.Errorf("%+v %+v", e.Offers, e.File)
	}
	if l.identity != (boot.Identity{MAC: card, UUID: store.UUID{7}, Hostname: "lab-03", Serial: "S", Platform: "pcbios", BuildArch: "i386"}) || l.asked != at || l.from != next {
		t.Errorf("its iPXE says %+v to %s from %s", l.identity, l.asked, l.from)
	}
	if e.Script.Text != script || len(e.Login.Units) != 1 || e.Last != nil || e.Differences == nil || len(e.Differences) != 0 {
		t.Errorf("%+v", e)
	}
}

func TestTheFirmwareIsTheOneThatIsSaidElseTheOneThatWasSeen(t *testing.T) {
	l := newLab()
	l.unknown = map[store.MAC]store.UnknownMachine{{8}: {MAC: store.MAC{8}, UUID: store.UUID{9}, Firmware: "UEFI", Arch: "arm64", Ignored: true}}
	for _, c := range []struct {
		m        store.Machine
		q        store.ExplainQuery
		platform string
		assumed  bool
	}{
		{lab03, store.ExplainQuery{Arch: "http-x64"}, "UEFI x86-64 HTTP", false},
		{store.Machine{ID: 1, MACs: []store.MAC{card}}, store.ExplainQuery{}, "UEFI x86-64", true},
		{store.Machine{}, store.ExplainQuery{MAC: store.MAC{8}}, "UEFI arm64", false},
		{store.Machine{}, store.ExplainQuery{MAC: store.MAC{4}}, "UEFI x86-64", true}, // never seen
		{lab03, store.ExplainQuery{MAC: store.MAC{2}, Arch: "0"}, "BIOS x86", false},
	} {
		e := l.explain(t, c.m, c.q)
		if e.Platform != c.platform || e.Assumed != c.assumed || !c.q.MAC.IsZero() && e.MAC != c.q.MAC {
			t.Errorf("%+v: %s, assumed %v, %s", c.q, e.Platform, e.Assumed, e.MAC)
		}
		if c.m.ID == 0 && (len(e.Login.Units) != 0 || e.Login.Initiator != "") {
			t.Errorf("somebody who is not enrolled logs in: %+v", e.Login)
		}
	}
	if e := l.explain(t, store.Machine{}, store.ExplainQuery{MAC: store.MAC{8}}); !e.Ignored || l.identity.UUID != (store.UUID{9}) {
		t.Errorf("%+v", e)
	}
}

func TestWithoutDHCPTheScriptIsAskedForWhereTheMachineWouldReachUs(t *testing.T) {
	l := newLab()
	l.silent = true
	e := l.explain(t, lab03, store.ExplainQuery{})
	if l.asked.String() != "192.0.2.9:80" || e.Offers[0].Why != "DHCP is off" || l.identity.Hostname != "" || e.File != (store.FileExplanation{}) {
		t.Errorf("%s %+v", l.asked, e)
	}
}

func TestBadQuestionsAndFaultsAreErrors(t *testing.T) {
	l := newLab()
	x := New(Config{Offers: l, Scripts: l, Logins: l, Files: l, Inventory: l, Attempts: l, Now: time.Now})
	if _, err := x.Explain(t.Context(), store.Machine{}, store.ExplainQuery{}); store.KindOf(err) != store.KindInvalid {
		t.Error(err)
	}
	if _, err := x.Explain(t.Context(), lab03, store.ExplainQuery{MAC: store.MAC{4}}); store.KindOf(err) != store.KindInvalid {
		t.Error(err)
	}
	if _, err := x.Explain(t.Context(), lab03, store.ExplainQuery{Arch: "z80"}); store.KindOf(err) != store.KindInvalid || !strings.Contains(err.Error(), "uefi-x64") {
		t.Error(err)
	}
	l.err = errors.New("the disk broke")
	if _, err := x.Explain(t.Context(), lab03, store.ExplainQuery{}); !errors.Is(err, l.err) {
		t.Error(err)
	}
}

// before is an attempt that went as the lab would answer now.
func before() (*store.Attempt, []store.Event) {
	given := strings.NewReplacer("echo See", "echo Case number 17. See", "/deb/0/", "/deb/17-k/").Replace(script) // what belongs to an attempt
	a := &store.Attempt{ID: 17, Machine: 3, Firmware: "BIOS", Arch: "x86", Script: strings.Replace(given, "|| goto failed\n", "|| goto failed\n\nchain --replace http://10.77.0.1/report?attempt=17&key=k&step=sanboot&code=${errno:hexraw} || goto again\n", 1)}
	return a, []store.Event{
		{Kind: store.EventDHCPOffer, Addr: next, Detail: store.Detail{Loader: "snponly.efi"}},
		{Kind: store.EventDHCPAck, Addr: next, Detail: store.Detail{Loader: "."}},
		{Kind: store.EventDHCPAck, Addr: next, Detail: store.Detail{URL: "http://10.77.0.1/boot.ipxe"}},
		{Kind: store.EventScriptSent, Detail: store.Detail{Profile: "san", MatchedBy: "hostname"}},
		{Kind: store.EventISCSILogin, Detail: store.Detail{Initiator: "iqn.x:lab-03", Target: "iqn.x:t", Auth: "mutual CHAP with MD5", Mapped: []int{2}}},
	}
}

func TestNothingDiffersWhenNothingChanged(t *testing.T) {
	l := newLab()
	l.last, l.events = before()
	e := l.explain(t, lab03, store.ExplainQuery{})
	if e.Last == nil || e.Last.ID != 17 || len(e.Differences) != 0 {
		t.Errorf("%+v", e.Differences)
	}
}

// What boots taught of loaders is kept by the firmware's own words.
func TestTheFirmwareIsAskedForByTheClassThatItSent(t *testing.T) {
	l := newLab()
	l.last, l.events = before()
	l.events = append([]store.Event{
		{Kind: store.EventDHCPDiscover, Detail: store.Detail{Firmware: "BIOS", Arch: "x86", IPXE: true, Class: "PXEClient:Arch:00000:UNDI:003010"}},
		{Kind: store.EventDHCPDiscover, Detail: store.Detail{Firmware: "BIOS", Arch: "x86", Class: "PXEClient:Arch:00000:UNDI:002099"}},
	}, l.events...)
	l.explain(t, lab03, store.ExplainQuery{})
	if l.queries[0].Class != "PXEClient:Arch:00000:UNDI:002099" || l.queries[1].Class != "PXEClient:Arch:00000:UNDI:003010" {
		t.Errorf("%+v", l.queries)
	}
	l.queries = nil
	l.explain(t, lab03, store.ExplainQuery{Arch: "uefi-x64"})
	if l.queries[0].Class != "" {
		t.Errorf("other firmware has the words of this one: %+v", l.queries)
	}
}

func TestWhatChangedSinceTheLastAttemptIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*lab, *store.Machine)
		want   store.Difference
	}{
		"firmware":      {func(_ *lab, m *store.Machine) { m.Firmware, m.Arch = "UEFI", "x86-64" }, store.Difference{What: "firmware", Then: "BIOS x86", Now: "UEFI x86-64"}},
		"address":       {func(l *lab, _ *store.Machine) { l.events[1].Addr = netip.MustParseAddr("10.77.0.50") }, store.Difference{}},
		"other address": {func(l *lab, _ *store.Machine) { l.events[2].Addr = netip.MustParseAddr("10.77.0.50") }, store.Difference{What: "address", Then: "10.77.0.50", Now: "10.77.0.103"}},
		"loader":        {func(l *lab, _ *store.Machine) { l.events[0].Detail.Loader = "ipxe.efi" }, store.Difference{What: "loader", Then: "ipxe.efi", Now: "snponly.efi"}},
		"profile":       {func(l *lab, _ *store.Machine) { l.script.Profile = "rescue" }, store.Difference{What: "profile", Then: "san", Now: "rescue"}},
		"blocked":       {func(l *lab, _ *store.Machine) { l.script.Answer = "blocked" }, store.Difference{What: "script", Then: "its script", Now: "a notice that it cannot boot"}},
		"matched":       {func(l *lab, _ *store.Machine) { l.script.MatchedBy = "mac" }, store.Difference{What: "matched by", Then: "hostname", Now: "mac"}},
		"LUN in script": {func(l *lab, _ *store.Machine) { l.script.Text = strings.Replace(script, ":2:", ":0:", 1) },
			store.Difference{What: "a line of the script", Then: "sanboot iscsi:10.77.0.1::3260:2:iqn.x:t || goto failed", Now: "sanboot iscsi:10.77.0.1::3260:0:iqn.x:t || goto failed"}},
		"LUNs":      {func(l *lab, _ *store.Machine) { l.login.Units[0].LUN = 0 }, store.Difference{What: "LUNs", Then: "2", Now: "0"}},
		"refused":   {func(l *lab, _ *store.Machine) { l.login.Refused = "no volume is mapped" }, store.Difference{What: "login", Then: "admitted by mutual CHAP", Now: "refused"}},
		"open":      {func(l *lab, _ *store.Machine) { l.login.Auth = store.AuthNone }, store.Difference{What: "login", Then: "admitted by mutual CHAP", Now: "admitted without a password"}},
		"initiator": {func(l *lab, _ *store.Machine) { l.login.Initiator = "iqn.x:new" }, store.Difference{What: "initiator name", Then: "iqn.x:lab-03", Now: "iqn.x:new"}},
		"no offer":  {func(l *lab, _ *store.Machine) { l.silent = true }, store.Difference{What: "DHCP answer", Then: "an offer", Now: "nothing"}},
		"waited": {func(l *lab, _ *store.Machine) {
			l.events[3] = store.Event{Kind: store.EventScriptWaiting}
		}, store.Difference{What: "script", Then: "the waiting screen", Now: "its script"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, m := newLab(), lab03
			l.last, l.events = before()
			c.change(l, &m)
			e := l.explain(t, m, store.ExplainQuery{})
			want := []store.Difference{c.want}
			if c.want == (store.Difference{}) {
				want = nil
			}
			if !slices.Equal(e.Differences, want) {
				t.Errorf("%+v, want %+v", e.Differences, want)
			}
		})
	}
}

func TestAnOfferBesideAnotherServersIsComparedToo(t *testing.T) {
	l := newLab()
	l.last, l.events = before()
	l.events = []store.Event{{Kind: store.EventDHCPProxyOffer, Detail: store.Detail{Loader: "ipxe.efi"}}, {Kind: store.EventDHCPBootServer, Detail: store.Detail{URL: "http://10.77.0.1/boot.ipxe"}}}
	e := l.explain(t, lab03, store.ExplainQuery{})
	if want := []store.Difference{{What: "loader", Then: "ipxe.efi", Now: "snponly.efi"}}; !slices.Equal(e.Differences, want) {
		t.Errorf("%+v", e.Differences)
	}
}

func TestAnAttemptOfWhichLittleWasSeenSaysLittle(t *testing.T) {
	l := newLab()
	l.last = &store.Attempt{ID: 1}
	if e := l.explain(t, lab03, store.ExplainQuery{}); len(e.Differences) != 0 {
		t.Errorf("%+v", e.Differences)
	}
}

func TestALongScriptIsNotShownWhole(t *testing.T) {
	l := newLab()
	l.last, l.events = before()
	l.script.Text = "#!ipxe\n" + strings.Repeat("echo x\n", 100)
	if e := l.explain(t, lab03, store.ExplainQuery{}); len(e.Differences) != maxLines+1 {
		t.Errorf("%d differences", len(e.Differences))
	}
}
