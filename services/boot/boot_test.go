package boot

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"lunboot/store"
)

func TestPlatformsOfOption93(t *testing.T) {
	for option, want := range map[uint16]string{
		0: "BIOS x86", 6: "UEFI x86", 7: "UEFI x86-64", 9: "UEFI x86-64", 10: "UEFI arm32", 11: "UEFI arm64", 15: "UEFI x86 HTTP",
		16: "UEFI x86-64 HTTP", 18: "UEFI arm32 HTTP", 19: "UEFI arm64 HTTP", 20: "BIOS x86 HTTP", 27: "UEFI riscv64", 28: "UEFI riscv64 HTTP",
		39: "UEFI loongarch64", 40: "UEFI loongarch64 HTTP",
	} {
		p, ok := PlatformOf(option)
		if !ok || p.String() != want {
			t.Errorf("option 93 = %d is %q, %v; want %q", option, p, ok, want)
		}
	}
	for _, option := range []uint16{1, 5, 8, 14, 999, 65535} {
		if p, ok := PlatformOf(option); ok || p != (Platform{}) {
			t.Errorf("option 93 = %d is %q", option, p)
		}
	}
	if s := (Platform{}).String(); s != "unknown unknown" {
		t.Errorf("the zero platform prints %q", s)
	}
}

func TestALoaderRunsOnThePlatformThatItIsGivenTo(t *testing.T) {
	for option := range uint16(64) {
		p, ok := PlatformOf(option)
		if !ok {
			continue
		}
		l, ok := LoaderFor(p)
		if !ok {
			if p.Firmware == BIOS || p.Arch == X86 || p.Arch == X8664 || p.Arch == ARM64 {
				t.Errorf("no loader for %s", p)
			}
			continue
		}
		if got := l.Platform(); got.Firmware != p.Firmware || got.Arch != p.Arch {
			t.Errorf("%s is given %s, which runs on %s", p, l, got)
		}
	}
	if l, ok := LoaderFor(Platform{}); ok {
		t.Errorf("an unknown platform is given %s", l)
	}
	if p := Loader("x").Platform(); p != (Platform{}) {
		t.Errorf("a file that is no loader runs on %s", p)
	}
}

func TestALoaderPathIsReadAsItWasWritten(t *testing.T) {
	mac := store.MAC{0x52, 0x54, 0, 0x77, 0, 0x0a}
	for _, l := range Loaders() {
		for _, path := range []string{LoaderPath(mac, l), "/" + LoaderPath(mac, l)} {
			m, got, err := ParseLoaderPath(path)
			if err != nil || m != mac || got != l {
				t.Errorf("%q is %s, %s, %v", path, m, got, err)
			}
		}
		if m, got, err := ParseLoaderPath(string(l)); err != nil || !m.IsZero() || got != l {
			t.Errorf("%q is %s, %s, %v", l, m, got, err)
		}
	}
	for path, want := range map[string]Loader{
		"52540077000a//undionly.kpxe": Undionly, `52540077000a\\snponly.efi`: SNPOnly, "//52540077000a/secure//grubx64.efi": "secure/grubx64.efi",
	} {
		if m, l, err := ParseLoaderPath(path); err != nil || m != mac || l != want {
			t.Errorf("%q is %s, %s, %v", path, m, l, err)
		}
	}
	if _, l, err := ParseLoaderPath("//secure/shimx64.efi"); err != nil || l.Chain() != "secure" || l.File() != "shimx64.efi" {
		t.Errorf("a file of a chain is %s, %v", l, err)
	}
	for _, path := range []string{
		"", "/", "UNDIONLY.KPXE", "undionly.kpxe ", "../undionly.kpxe", "52:54:00:77:00:0a/undionly.kpxe", "52540077000a/", "passwd", "autoexec.ipxe", ".efi",
		"52540077000a/x/y/undionly.kpxe", "undionly.kpxe/", "52540077000g/undionly.kpxe", "ffffffffffff/undionly.kpxe", "000000000000/undionly.kpxe", "52540077000a/passwd",
		"52540077000a/52540077000a/snponly.efi", "secure/../snponly.efi", "secure/", "a.efi/b.efi", "52540077000a/" + strings.Repeat("x", 300) + ".efi",
	} {
		if m, l, err := ParseLoaderPath(path); err == nil {
			t.Errorf("%q is taken for %s, %s", path, m, l)
		}
	}
}

func TestURLsLeaveOutTheDefaultPort(t *testing.T) {
	for at, want := range map[string]string{
		"192.0.2.1:80": "http://192.0.2.1/boot.ipxe", "192.0.2.1:8081": "http://192.0.2.1:8081/boot.ipxe",
		"[2001:db8::1]:80": "http://[2001:db8::1]/boot.ipxe", "[2001:db8::1]:8081": "http://[2001:db8::1]:8081/boot.ipxe",
	} {
		got := ScriptURL(netip.MustParseAddrPort(at))
		if got != want {
			t.Errorf("%s is %s, want %s", at, got, want)
		}
		if len(got) > 127 {
			t.Errorf("%s does not fit the boot file name field (RFC 2131 §2)", got)
		}
	}
	if got := LoaderURL(netip.MustParseAddrPort("192.0.2.1:80"), SNPOnly); got != "http://192.0.2.1/loaders/snponly.efi" {
		t.Errorf("the loader's URL is %s", got)
	}
}

// expand does what iPXE does with ${...} in a URL.
func expand(s string, settings map[string]string) string {
	for k, v := range settings {
		s = strings.ReplaceAll(s, "${"+k+"}", v)
		s = strings.ReplaceAll(s, "${"+k+":uristring}", url.QueryEscape(v))
		s = strings.ReplaceAll(s, "${"+k+":hexraw}", v)
	}
	return s
}

func queryOf(t *testing.T, s string) url.Values {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

func TestAnIdentityIsReadAsIPXEWritesIt(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:80")
	settings := map[string]string{
		"netX/mac": "52:54:00:77:00:0a", "uuid": "79617264-0000-4000-8000-00000000000a", "hostname": "Lab-03", "serial": "S N/1&2", "asset": "",
		"manufacturer": "Dell Inc.", "product": "PowerEdge R210", "platform": "pcbios", "buildarch": "i386", "netX/ip": "192.0.2.100", "version": "1.0.0+git",
		"netX/busid": "01:80:86:10:0e", "netX/chip": "82540em",
	}
	id, err := ParseIdentity(queryOf(t, expand(IdentityURL(at), settings)))
	if err != nil {
		t.Fatal(err)
	}
	uuid, _ := store.ParseUUID(settings["uuid"])
	want := Identity{
		Hostname: "lab-03", UUID: uuid, MAC: store.MAC{0x52, 0x54, 0, 0x77, 0, 0x0a}, Serial: "S N/1&2", Manufacturer: "Dell Inc.",
		Product: "PowerEdge R210", Platform: "pcbios", BuildArch: "i386", Version: "1.0.0+git",
		NIC: NIC{Bus: 1, Vendor: 0x8086, Device: 0x100e}, Chip: "82540em",
	}
	if id != want {
		t.Errorf("the identity is %+v, want %+v", id, want)
	}
	if id.IsZero() {
		t.Error("it identifies nobody")
	}
}

// iPXE keeps a whole script in memory, and an old one cuts a line at 4 KiB; the
// longest SMBIOS strings in use have 64 bytes.
func TestTheIdentityFitsALineOfIPXE(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.100:65535")
	if n := len(IdentityURL(at)); n > 512 {
		t.Errorf("not expanded it has %d bytes", n)
	}
	long := map[string]string{
		"netX/mac": "52:54:00:77:00:0a", "uuid": "79617264-0000-4000-8000-00000000000a", "platform": "pcbios", "buildarch": "x86_64", "netX/ip": "192.0.2.100",
		"netX/busid": "01:80:86:10:0e", "version": strings.Repeat("v", 40), "netX/chip": strings.Repeat("c", 16),
	}
	for _, k := range []string{"hostname", "serial", "asset", "manufacturer", "product"} {
		long[k] = strings.Repeat("n", 64)
	}
	if n := len(expand(IdentityURL(at), long)); n > 1023 {
		t.Errorf("expanded it has %d bytes", n)
	}
}

func TestACardIsReadFromDHCPAndFromAURL(t *testing.T) {
	for text, want := range map[string]string{
		"01:80:86:10:0e": "PCI 8086:100e", "01:1a:f4:10:00": "PCI 1af4:1000", "0a:0b:da:81:53": "USB 0bda:8153", "07:00:00:00:00": "EFI 0000:0000", "2a:12:34:56:78": "bus 42 1234:5678",
	} {
		n, ok := ParseNIC(text)
		if !ok || n.String() != want {
			t.Errorf("%s is %q, %v; want %s", text, n, ok, want)
		}
		if m, ok := NICOf([]byte{n.Bus, byte(n.Vendor >> 8), byte(n.Vendor), byte(n.Device >> 8), byte(n.Device)}); !ok || m != n {
			t.Errorf("option 175.177 of %s is read as %v", text, m)
		}
	}
	for _, bad := range []string{"", "00:80:86:10:0e", "01:80:86:10", "01:80:86:10:0e:00", "zz", "${netX/busid}"} {
		if n, ok := ParseNIC(bad); ok || !n.IsZero() || n.String() != "" {
			t.Errorf("%q is read as %v", bad, n)
		}
	}
}

func TestSettingsThatAreNotSetAreNotSaid(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:80")
	empty := map[string]string{}
	for _, k := range []string{"netX/mac", "uuid", "hostname", "serial", "asset", "manufacturer", "product", "platform", "buildarch", "netX/ip", "version", "netX/busid", "netX/chip"} {
		empty[k] = ""
	}
	for name, u := range map[string]string{"expanded": expand(IdentityURL(at), empty), "not expanded": IdentityURL(at), "bare": ScriptURL(at)} {
		id, err := ParseIdentity(queryOf(t, u))
		if err != nil || !id.IsZero() {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
}

func TestAFieldThatCannotBeReadIsNamed(t *testing.T) {
	for query, field := range map[string]string{"uuid=zz": "uuid", "mac=zz": "mac", "mac=ff:ff:ff:ff:ff:ff": "mac", "mac=00:00:00:00:00:00": "mac", "uuid=79617264": "uuid"} {
		q, _ := url.ParseQuery(query)
		_, err := ParseIdentity(q)
		if store.KindOf(err) != store.KindInvalid || !strings.Contains(strings.ToLower(err.Error()), field) {
			t.Errorf("%s gives %v", query, err)
		}
	}
}

func TestAnIdentityIsBounded(t *testing.T) {
	id, err := ParseIdentity(url.Values{"hostname": {strings.Repeat("x", 9999)}, "serial": {strings.Repeat("é", 9999)}})
	if err != nil || len(id.Hostname) > maxIdentityField || len(id.Serial) > maxIdentityField {
		t.Errorf("%d and %d bytes, %v", len(id.Hostname), len(id.Serial), err)
	}
}

func TestScriptFilesAreReadInEachForm(t *testing.T) {
	mac := store.MAC{0x52, 0x54, 0, 0x77, 0, 0x0a}
	uuid, _ := store.ParseUUID("79617264-0000-4000-8000-00000000000a")
	for path, want := range map[string]Identity{
		"/hostname-lab-03.ipxe": {Hostname: "lab-03"}, "hostname-LAB.ipxe": {Hostname: "lab"}, "/mac-52540077000a.ipxe": {MAC: mac},
		"/mac-52:54:00:77:00:0a.ipxe": {MAC: mac}, "/mac-52-54-00-77-00-0a.ipxe": {MAC: mac}, "/uuid-" + uuid.String() + ".ipxe": {UUID: uuid},
	} {
		if id, ok := ParseScriptFile(path); !ok || id != want {
			t.Errorf("%s is %+v, %v", path, id, ok)
		}
	}
	for _, path := range []string{"", "/", "/boot.ipxe", "/mac-.ipxe", "/mac-zz.ipxe", "/uuid-1.ipxe", "/hostname-.ipxe", "/hostname-a/b.ipxe", "/hostname-a", "/ip-1.2.3.4.ipxe",
		"/hostname-" + strings.Repeat("x", 200) + ".ipxe"} {
		if id, ok := ParseScriptFile(path); ok {
			t.Errorf("%s is taken for %+v", path, id)
		}
	}
}

func TestAReportCarriesItsAttemptAndTheCode(t *testing.T) {
	u := ReportURL(netip.MustParseAddrPort("192.0.2.1:8081"), 42, "k/e y&", "sanboot")
	if !strings.HasPrefix(u, "http://192.0.2.1:8081/report?") || strings.Contains(u, " ") {
		t.Errorf("the URL is %s", u)
	}
	q := queryOf(t, expand(u, map[string]string{"errno": "2c0d603b"}))
	if q.Get("attempt") != "42" || q.Get("key") != "k/e y&" || q.Get("step") != "sanboot" || q.Get("code") != "2c0d603b" {
		t.Errorf("the query is %v", q)
	}
}

func TestASANURIAlwaysHasItsLUNInHexadecimal(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:3260")
	for lun, want := range map[store.LUN]string{0: "0", 2: "2", 9: "9", 10: "A", 255: "FF", 256: "4100", 16383: "7FFF"} {
		if got := SANURI(at, lun, "iqn.2026-11.lunboot:t"); got != "iscsi:192.0.2.1::3260:"+want+":iqn.2026-11.lunboot:t" {
			t.Errorf("LUN %d is %s", lun, got)
		}
	}
	if got := SANURI(netip.MustParseAddrPort("[2001:db8::1]:4000"), 1, "iqn.2026-11.lunboot:t"); got != "iscsi:[2001:db8::1]::4000:1:iqn.2026-11.lunboot:t" {
		t.Errorf("over IPv6 it is %s", got)
	}
}

func FuzzIdentity(f *testing.F) {
	f.Add("mac=52540077000a&uuid={79617264-0000-4000-8000-00000000000a}&hostname=%ff")
	f.Fuzz(func(t *testing.T, query string) {
		q, _ := url.ParseQuery(query)
		id, err := ParseIdentity(q)
		if err != nil && id != (Identity{}) {
			t.Error("an identity beside an error")
		}
	})
}

func FuzzScriptFileName(f *testing.F) {
	f.Add("/mac-52540077000a.ipxe")
	f.Fuzz(func(t *testing.T, path string) {
		if id, ok := ParseScriptFile(path); ok && id.IsZero() && !strings.Contains(path, "uuid-") {
			t.Errorf("%q names nobody: %+v", path, id)
		}
	})
}

func TestAnArchitectureIsReadInWordsAndNumbers(t *testing.T) {
	for s, want := range map[string]string{"bios": "BIOS x86", "UEFI-x64": "UEFI x86-64", "7": "UEFI x86-64", "9": "UEFI x86-64", "http-arm64": "UEFI arm64 HTTP", " uefi-ia32 ": "UEFI x86", "16": "UEFI x86-64 HTTP"} {
		if _, p, err := ParseArch(s); err != nil || p.String() != want {
			t.Errorf("%q is %s, %v", s, p, err)
		}
	}
	for _, s := range []string{"", "x64", "8", "70000", "-1"} {
		if _, _, err := ParseArch(s); store.KindOf(err) != store.KindInvalid || !strings.Contains(err.Error(), "uefi-x64") {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, name := range ArchNames() {
		code, p, err := ParseArch(name)
		if got, ok := PlatformOf(code); err != nil || !ok || got != p {
			t.Errorf("%s is %d, which is %s", name, code, got)
		}
		back, ok := ArchOf(p.Firmware.String(), p.Arch.String())
		if q, _ := PlatformOf(back); !ok || q.HTTP || q.Firmware != p.Firmware || q.Arch != p.Arch {
			t.Errorf("%s comes back as %s", name, q)
		}
	}
	if _, ok := ArchOf("", ""); ok {
		t.Error("nothing is known, and yet it is an architecture")
	}
}
