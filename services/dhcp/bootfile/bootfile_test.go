package bootfile

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"lunboot/services/boot"
	"lunboot/services/dhcp/message"
	"lunboot/store"
)

// Codes by the names that they have here.
const (
	vendor  = uint8(43)
	class   = uint8(60)
	server  = uint8(66)
	file    = uint8(67)
	uuid    = uint8(97)
	ipxeOpt = uint8(175)
)

var card = store.MAC{0x00, 0x07, 0xe9, 0x0f, 0xeb, 0x01}

// gives is a source with one loader for everything.
func gives(pick boot.Pick) Source {
	return Source{
		Address: netip.MustParseAddrPort("10.77.0.1:80"),
		Next:    func(boot.Hardware, string) boot.Pick { return pick },
	}
}

// firmware asks as a PXE client of an architecture does.
func firmware(arch uint16) Asker {
	return Asker{Request: message.Request{MAC: card, Class: "PXEClient:Arch:00000", HasArch: true, Arch: arch, Params: string([]byte{server, file})}}
}

// chainloaded asks as an iPXE does that says what it can do.
func chainloaded(arch uint16, iscsi bool) Asker {
	a := firmware(arch)
	a.Request.IPXE, a.Request.Features, a.Request.ISCSI = true, true, iscsi
	return a
}

// has holds an answer to exactly these options.
func (a Answer) has(t *testing.T, what string, want map[uint8]string) {
	t.Helper()
	codes := slices.Sorted(maps.Keys(a.Options))
	if !slices.Equal(codes, slices.Sorted(maps.Keys(want))) {
		t.Errorf("%s: it has options %v, want %v", what, codes, slices.Sorted(maps.Keys(want)))
	}
	for code, value := range want {
		if got := a.Options[code]; !bytes.Equal(got, []byte(value)) {
			t.Errorf("%s: option %d is %q, want %q", what, code, got, value)
		}
	}
}

func TestFirmwareIsToldItsLoaderAndToFetchItAtOnce(t *testing.T) {
	for name, arch := range map[string]uint16{"BIOS": 0, "UEFI ia32": 6, "UEFI x64": 7, "UEFI x64, as EDK2 once said": 9, "UEFI arm64": 11} {
		ans := Decide(firmware(arch), gives(boot.Pick{Loader: "its.loader"}))
		path := boot.LoaderPath(card, "its.loader")
		if ans.File != path || ans.Server != netip.MustParseAddr("10.77.0.1") || ans.Loader != "its.loader" || ans.Missing != "" || ans.Chained {
			t.Errorf("%s is told %+v", name, ans)
		}
		ans.has(t, name, map[uint8]string{vendor: "\x06\x01\x08\xff", class: "PXEClient", server: "10.77.0.1", file: path})
	}
}

// The header has it all: some firmware takes options that it did not ask for amiss.
func TestOnlyWhatWasAskedForStandsInOptionsToo(t *testing.T) {
	a := firmware(0)
	a.Request.Params = "\x01\x03" // netmask and router
	a.Request.RawUUID = "\x00sixteen bytes are"
	ans := Decide(a, gives(boot.Pick{Loader: "l"}))
	if ans.File == "" {
		t.Error("it is told no file")
	}
	ans.has(t, "who asks for an address", map[uint8]string{vendor: "\x06\x01\x08\xff", class: "PXEClient", uuid: "\x00sixteen bytes are"})
}

func TestUEFIHTTPBootIsToldAURLAndTheClassThatItWaitsFor(t *testing.T) {
	for name, arch := range map[string]uint16{"ia32": 15, "x64": 16, "arm64": 19} {
		a := firmware(arch)
		a.Request.Class, a.Request.Params = "HTTPClient:Arch:00016", "\x01\x03"
		ans := Decide(a, gives(boot.Pick{Loader: "snponly.efi"}))
		url := boot.LoaderURL(netip.MustParseAddrPort("10.77.0.1:80"), "snponly.efi")
		if ans.File != url || !strings.HasPrefix(url, "http://10.77.0.1/") {
			t.Errorf("%s is told %q", name, ans.File)
		}
		ans.has(t, name, map[uint8]string{class: "HTTPClient", file: url})
	}
}

func TestAnIPXEIsToldItsScriptAndNotToWaitForAnotherServer(t *testing.T) {
	src := gives(boot.Pick{Loader: "ours"})
	for name, a := range map[string]Asker{
		"one that can":                      chainloaded(0, true),
		"one that cannot, and need not":     chainloaded(0, false),
		"one of an unknown sort of machine": chainloaded(0x4000, true),
	} {
		ans := Decide(a, src)
		if ans.File != boot.ScriptURL(src.Address) || ans.Loader != "" || ans.Chained || ans.NoISCSI != "" {
			t.Errorf("%s is told %+v", name, ans)
		}
		ans.has(t, name, map[uint8]string{ipxeOpt: "\xb0\x01\x01", server: "10.77.0.1", file: ans.File})
	}
}

// Who boots a volume and cannot is sent to our loader, once; then it is told in
// words why it will not do.
func TestAnIPXEWithoutISCSIIsSentToOneThatHasIt(t *testing.T) {
	a := chainloaded(0, false)
	a.NeedsISCSI = true
	ours := gives(boot.Pick{Loader: "undionly.kpxe"})
	ans := Decide(a, ours)
	if !ans.Chained || ans.Loader != "undionly.kpxe" || ans.File != boot.LoaderPath(card, "undionly.kpxe") || ans.NoISCSI != "" {
		t.Errorf("the first time it is told %+v", ans)
	}
	again := ours
	again.Chained = true
	for name, c := range map[string]struct {
		src  Source
		want string
	}{
		"a moment ago":          {again, "its iPXE has no iSCSI inside, and neither has undionly.kpxe"},
		"ours has none either":  {gives(boot.Pick{Loader: "bare.efi", NoISCSI: true}), "its iPXE has no iSCSI inside, and neither has bare.efi"},
		"there is none for it":  {gives(boot.Pick{}), "its iPXE has no iSCSI inside, and there is no other for it"},
		"beside another server": {Source{Address: again.Address, Next: again.Next, Chained: true, Proxy: true}, "its iPXE has no iSCSI inside, and neither has undionly.kpxe"},
	} {
		ans := Decide(a, c.src)
		if ans.Chained || ans.File != boot.ScriptURL(c.src.Address) || ans.NoISCSI != c.want {
			t.Errorf("%s: %+v", name, ans)
		}
	}
	unsaid := a
	unsaid.Request.Features = false // perhaps it can
	if ans := Decide(unsaid, ours); ans.Chained || ans.NoISCSI != "" {
		t.Errorf("one that does not say what it can: %+v", ans)
	}
}

func TestALoaderWithoutISCSIIsToldOfBeforeItFails(t *testing.T) {
	a := firmware(11)
	a.NeedsISCSI = true
	ans := Decide(a, gives(boot.Pick{Loader: "arm64.efi", NoISCSI: true}))
	if ans.Loader != "arm64.efi" || ans.NoISCSI != "arm64.efi has no iSCSI inside" {
		t.Errorf("it is told %+v", ans)
	}
	a.NeedsISCSI = false
	if ans := Decide(a, gives(boot.Pick{Loader: "arm64.efi", NoISCSI: true})); ans.NoISCSI != "" {
		t.Errorf("one that boots a kernel: %q", ans.NoISCSI)
	}
}

// An architecture that nothing is there for is named, and never met with silence.
func TestWhatHasNoLoaderIsNamed(t *testing.T) {
	for arch, want := range map[uint16]string{0: "BIOS", 11: "arm64", 0x4000: "client architecture "} {
		ans := Decide(firmware(arch), gives(boot.Pick{}))
		if !strings.HasPrefix(ans.Missing, "there is no loader for ") || !strings.Contains(ans.Missing, want) || ans.File != "" {
			t.Errorf("architecture %d: %+v", arch, ans)
		}
		ans.has(t, want, nil)
	}
}

func TestWhoDoesNotBootOrIsIgnoredIsToldNothing(t *testing.T) {
	asked := false
	src := gives(boot.Pick{Loader: "l"})
	next := src.Next
	src.Next = func(h boot.Hardware, own string) boot.Pick { asked = true; return next(h, own) }
	ignored := firmware(0)
	ignored.Ignored = true
	for name, a := range map[string]Asker{"a laptop": {Request: message.Request{MAC: card, Class: "MSFT 5.0"}}, "an ignored machine": ignored} {
		ans := Decide(a, src)
		if ans.File != "" || ans.Server.IsValid() || ans.Missing != "" || asked {
			t.Errorf("%s is told %+v", name, ans)
		}
		ans.has(t, name, nil)
	}
}

func TestAMachinesOwnChoiceIsAskedFor(t *testing.T) {
	var got boot.Hardware
	var own string
	a := firmware(7)
	a.Loader = "secure"
	src := gives(boot.Pick{})
	src.Next = func(h boot.Hardware, o string) boot.Pick {
		got, own = h, o
		return boot.Pick{Loader: "secure", Own: true}
	}
	if ans := Decide(a, src); ans.Loader != "secure" || own != "secure" || got.MAC != card {
		t.Errorf("asked for %+v and %q, it is told %+v", got, own, ans)
	}
}

// Beside another server EDK2 of some years is lost by an option 43, and an iPXE looks
// for the class and the higher priority; quirks of a machine go before both.
func TestBesideAnotherServerOptionsAreWhatEachFirmwareTakes(t *testing.T) {
	at := func(a Asker, quirks ...store.Quirk) Asker { a.Quirks = quirks; return a }
	item := firmware(7)
	item.Request.BootItem = "\x00\x00\x00\x00"
	both := firmware(0)
	both.Quirks, both.Request.BootItem = []store.Quirk{store.QuirkOption43, store.QuirkNoOption43}, "\x00\x01\x00\x00"
	for name, c := range map[string]struct {
		a    Asker
		want string // option 43
	}{
		"BIOS":                                 {firmware(0), "\x06\x01\x08\xff"},
		"UEFI":                                 {firmware(7), ""},
		"UEFI that wants it":                   {at(firmware(7), store.QuirkOption43), "\x06\x01\x08\xff"},
		"BIOS that does not":                   {at(firmware(0), store.QuirkNoOption43), ""},
		"UEFI that asks a boot server":         {item, "\x47\x04\x00\x00\x00\x00\xff"},
		"both quirks, and what it asked comes": {both, "\x47\x04\x00\x01\x00\x00\xff"},
	} {
		src := gives(boot.Pick{Loader: "l"})
		src.Proxy = true
		want := map[uint8]string{class: "PXEClient", server: "10.77.0.1", file: boot.LoaderPath(card, "l"), vendor: c.want}
		if c.want == "" {
			delete(want, vendor)
		}
		Decide(c.a, src).has(t, name, want)
	}
	src := gives(boot.Pick{Loader: "l"})
	src.Proxy = true
	ans := Decide(chainloaded(7, true), src)
	ans.has(t, "an iPXE", map[uint8]string{class: "PXEClient", ipxeOpt: "\x01\x01\x01", server: "10.77.0.1", file: ans.File})
	if dhcpv4.OptionVendorSpecificInformation.Code() != vendor || message.OptionIPXE.Code() != ipxeOpt {
		t.Error("the codes have other names")
	}
}
