package scripts

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lunboot/store"
)

var update = flag.Bool("update", false, "write the golden scripts anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".ipxe")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; it is\n%s", path, got)
	}
}

var (
	at    = netip.MustParseAddrPort("192.0.2.1:80")
	mac   = store.MAC{0x0a, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f}
	admin = "http://192.0.2.1:8080/"
)

// facts are the sample's, with an attempt and a second disk.
func facts(change ...func(*Facts)) Facts {
	f := sample()
	f.Attempt, f.Key = 42, "0123456789abcdef"
	f.Others = []Disk{{LUN: 3, Volume: "data"}}
	for _, c := range change {
		c(&f)
	}
	return f
}

func render(t *testing.T, p store.Profile, f Facts) string {
	t.Helper()
	text, err := Render(p, f)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

var help = Help{Case: "012345", Admin: admin}

// all is every script that there is, by name.
func all(t *testing.T) map[string]string {
	kernel := store.Profile{Name: "rescue", Kind: store.ProfileKernel, Fields: map[string]string{
		"kernel": "debian/vmlinuz", "initrd": "debian/initrd.gz\nhttp://192.0.2.7/firmware.cpio", "cmdline": "quiet hostname={{hostname}}"}}
	fragment := store.Profile{Name: "founding", Kind: store.ProfileCustom, Text: "sanboot iscsi:{{portal_ip}}::::{{target}}"}
	whole := store.Profile{Name: "whole", Kind: store.ProfileCustom, Text: "#!ipxe\r\nset initiator-iqn {{ initiator }}\r\nset username {{username}}\r\nset password {{password}}\r\nsanboot {{san_uri}} || chain {{report_url}}\r\n"}
	return map[string]string{
		"san-mutual": render(t, store.Profile{Kind: store.ProfileSAN}, facts()),
		"san-chap":   render(t, store.Profile{Kind: store.ProfileSAN}, facts(func(f *Facts) { f.Auth = store.AuthCHAP })),
		"san-none":   render(t, store.Profile{Kind: store.ProfileSAN}, facts(func(f *Facts) { f.Auth, f.Others, f.Attempt = store.AuthNone, nil, 0 })),
		"local":      render(t, store.Profile{Kind: store.ProfileLocal}, facts()),
		"kernel":     render(t, kernel, facts()),
		"fragment":   render(t, fragment, facts()),
		"whole":      render(t, whole, facts()),
		"install-debian": render(t, store.Profile{Name: "deb", Kind: store.ProfileInstall, Fields: map[string]string{"media": "mini.iso", "cmdline": "console=ttyS0 --- quiet"},
			Text: "d-i passwd/root-password password {{password}}\n"}, kept()),
		"install-ubuntu": render(t, store.Profile{Name: "ubu", Kind: store.ProfileInstall, Fields: map[string]string{"media": "ubuntu.iso"}, Text: "#cloud-config\n"}, kept()),
		"install-fedora": render(t, store.Profile{Name: "fed", Kind: store.ProfileInstall, Fields: map[string]string{"media": "fedora.iso"}, Text: "reboot\n"}, kept()),
		"install-own":    render(t, store.Profile{Name: "rock", Kind: store.ProfileInstall, Fields: map[string]string{"media": "rocky.iso", "disk": "own"}}, kept(func(f *Facts) { f.Disk = nil })),
		"install-alpine": render(t, store.Profile{Name: "alp", Kind: store.ProfileInstall, Fields: map[string]string{"media": "alpine.iso", "cmdline": "console=tty0"}}, kept()),
		"kernel-media":   render(t, store.Profile{Name: "k", Kind: store.ProfileKernel, Fields: map[string]string{"media": "mini.iso"}}, kept()),
		"wimboot":        render(t, store.Profile{Name: "win", Kind: store.ProfileWimboot, Fields: map[string]string{"media": "win11.iso", "wimboot": "wimboot"}, Text: "wpeinit\n"}, kept()),
		"menu":           render(t, store.Profile{Name: "bench", Kind: store.ProfileMenu, Fields: map[string]string{"items": "san = The lab's Debian\nlocal\ninstall = Install #2 || anew", "default": "san", "timeout": "30"}}, facts()),
		"local-second":   render(t, store.Profile{Kind: store.ProfileLocal, Fields: map[string]string{"drive": "0x81"}}, facts()),
		"local-exit":     render(t, store.Profile{Kind: store.ProfileLocal, Fields: map[string]string{"bios": "exit"}}, facts()),
		"first":          FirstStage(at),
		"unknown":        Unknown(at, mac, admin),
		"nameless":       Unknown(at, store.MAC{}, admin),
		"conflict":       Conflict(at, []Claim{{"hostname", "a", "a"}, {"UUID", store.UUID{1}.String(), "b"}}, help),
		"withheld":       Withheld(at, "lab-03", "Nothing shows that its MAC address holds the address 192.0.2.9.", help),
		"nodisk":         NoDisk(at, "lab-03", "no volume is mapped to it.", help),
		"failed":         Failed(at, "the disk is full", help),
		"wrong":          Wrong(at, help, "There is nothing at /x."),
		"explained":      Explained(at, "LUN 0 does not exist", "The machine asked for LUN 0; it has LUN 2.", "Map the volume as LUN 0", help),
		"ignored":        Ignored(),
		"recorded":       Recorded,
	}
}

func TestScriptsAreAsTheyWereReviewed(t *testing.T) {
	for name, text := range all(t) {
		t.Run(name, func(t *testing.T) { golden(t, name, text) })
	}
}

// known are the commands that an iPXE of 2019 has (its help), of which a script
// may use some.
var known = []string{"isset", "iseq", "set", "clear", "echo", "goto", "chain", "prompt", "exit", "sanboot", "kernel", "initrd", "imgfree", "boot", "dhcp", "shell", "imgfetch", "sanhook", "sanunhook", "menu", "item", "choose"}

func TestEveryScriptRunsOnAnIPXEOf2019(t *testing.T) {
	for name, text := range all(t) {
		if !strings.HasPrefix(text, "#!ipxe\n") || !strings.HasSuffix(text, "\n") || strings.Contains(text, "\n\n\n") || strings.Contains(text, "<no value>") {
			t.Errorf("%s is not well formed:\n%s", name, text)
		}
		labels := map[string]bool{}
		for line := range strings.Lines(text) {
			if l, ok := strings.CutPrefix(strings.TrimSpace(line), ":"); ok {
				labels[l] = true
			}
		}
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if strings.TrimRight(line, " ") != line {
				t.Errorf("%s: %q ends in white space", name, line)
			}
			if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ":") || line == "" {
				continue
			}
			for _, r := range line {
				if r < 0x20 || r >= 0x7f {
					t.Errorf("%s: %q has the character %q", name, line, r)
				}
			}
			if strings.HasPrefix(line, "echo ") && len(line) > len("echo ")+79 {
				t.Errorf("%s: %q is wider than the screen", name, line)
			}
			for _, part := range regexp.MustCompile(` (?:\|\||&&)(?: |$)`).Split(line, -1) {
				words := strings.Fields(part)
				if len(words) == 0 {
					continue
				}
				if !slices.Contains(known, words[0]) {
					t.Errorf("%s: %q uses the command %s", name, line, words[0])
				}
				if words[0] == "goto" && !labels[words[1]] {
					t.Errorf("%s: there is no label %s", name, words[1])
				}
			}
		}
	}
}

func TestAScriptThatDoesNotBootAsksAgain(t *testing.T) {
	for name, text := range all(t) {
		if slices.Contains([]string{"local", "local-second", "local-exit", "ignored", "recorded"}, name) {
			continue
		}
		if !regexp.MustCompile(`:(lunboot_)?ask\n`).MatchString(text) || !strings.Contains(text, "\nchain --replace --autofree http://192.0.2.1/boot.ipxe?mac=${netX/mac}&uuid=") {
			t.Errorf("%s does not ask for its script again", name)
		}
		notice := strings.Contains(text, "# Nothing is hooked")
		if regexp.MustCompile(`(?m)^dhcp|(\|\||&&) dhcp`).MatchString(text) && name != "first" && !notice {
			t.Errorf("%s asks DHCP a second time", name)
		}
		if notice && !strings.Contains(text, "\nisset ${netX/ip} || dhcp ||\nchain ") {
			t.Errorf("%s may be run by an iPXE that has no address yet, and does not ask for one", name)
		}
	}
}

func TestTheSANScriptSetsEverythingBeforeItBoots(t *testing.T) {
	text := all(t)["san-mutual"]
	boot := strings.Index(text, "\nsanboot ")
	for _, want := range []string{
		"set initiator-iqn iqn.2026-11.lunboot:lab-03", "set username lab-03", "set password SampleSecretOne1", "set reverse-username lunboot", "set reverse-password SampleSecretTwo2",
	} {
		if i := strings.Index(text, "\n"+want+"\n"); i < 0 || i > boot {
			t.Errorf("%q is not set before the boot", want)
		}
	}
	if !strings.Contains(text, "sanboot iscsi:192.0.2.1::3260:2:iqn.2026-11.lunboot:target || goto failed\n") {
		t.Error("the boot line is wrong")
	}
	if !strings.Contains(text, "chain --replace --autofree --timeout 10000 http://192.0.2.1/report?attempt=42&key=0123456789abcdef&step=sanboot&code=${errno:hexraw} ||") {
		t.Error("the failure is not reported")
	}
}

func TestTheLUNIsWrittenInHexadecimal(t *testing.T) {
	for lun, want := range map[store.LUN]string{0: "0", 2: "2", 9: "9", 10: "A", 255: "FF", 256: "4100", 16383: "7FFF"} {
		text := render(t, store.Profile{Kind: store.ProfileSAN}, facts(func(f *Facts) { f.Disk = &Disk{LUN: lun, Volume: "v"} }))
		if !strings.Contains(text, "sanboot iscsi:192.0.2.1::3260:"+want+":iqn.") {
			t.Errorf("LUN %d: %s", lun, text)
		}
	}
}

func TestTheFoundingLineIsExpressedWithCHAPBeforeIt(t *testing.T) {
	text := all(t)["fragment"]
	at := strings.Index(text, "sanboot iscsi:192.0.2.1::::iqn.2026-11.lunboot:target || goto lunboot_1\n")
	for _, want := range []string{"set initiator-iqn ", "set username lab-03", "set password SampleSecretOne1"} {
		if i := strings.Index(text, want); i < 0 || i > at {
			t.Errorf("%q does not stand before the boot:\n%s", want, text)
		}
	}
}

// A line of the operator's that fails reports itself by its number. What cannot
// fail, what the operator took care of and what iPXE joins or leaves out stays as
// it is; our labels are never the operator's.
func TestEachLineOfACustomProfileThatFailsReports(t *testing.T) {
	text := "#!ipxe\n:again\n  # a comment\n\nset name a ||\niseq ${platform} efi && goto again ||\n:b echo a # and more\nkernel http://192.0.2.7/vmlinuz \\\n  quiet # why\n" +
		"sanboot {{san_uri}} || chain http://192.0.2.7/other.ipxe\nset lunboot_x 1 ; boot\n:c isset ${net0/ip}\nexit 1\nexit 0 && reboot\n:d\n"
	golden(t, "lines", render(t, store.Profile{Name: "lines", Kind: store.ProfileCustom, Text: text}, facts()))
	none := render(t, store.Profile{Name: "lines", Kind: store.ProfileCustom, Text: text}, facts(func(f *Facts) { f.Attempt = 0 }))
	if strings.Contains(none, "/report") || !strings.Contains(none, "echo See http://192.0.2.1:8080/\ngoto lunboot__again") {
		t.Errorf("a boot that nobody follows reports:\n%s", none)
	}
}

func FuzzCustomText(f *testing.F) {
	for _, s := range []string{"boot", "#!ipxe\nboot \\\n||\n", ":a\\\nb # c", "a ; b || c && d #", "\\", "lunboot_ \\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Render(store.Profile{Name: "p", Kind: store.ProfileCustom, Text: text}, sample())
		if err != nil {
			if store.KindOf(err) != store.KindInvalid && !errors.Is(err, ErrNoDisk) {
				t.Fatal(err)
			}
			return
		}
		if !strings.HasPrefix(got, "#!ipxe\n") || strings.Count(got, "/report?attempt=1&key=sample&step=line-${lunboot_") != 1 {
			t.Errorf("%q becomes\n%s", text, got)
		}
	})
}

func TestAMachineWithoutABootVolumeIsAnErrorOfItsOwn(t *testing.T) {
	none := facts(func(f *Facts) { f.Disk = nil })
	for _, p := range []store.Profile{{Kind: store.ProfileSAN}, {Kind: store.ProfileCustom, Text: "echo {{lun}}"}, {Kind: store.ProfileCustom, Text: "echo {{san_uri}}"}} {
		if _, err := Render(p, none); !errors.Is(err, ErrNoDisk) {
			t.Errorf("%s: %v", p.Kind, err)
		}
	}
	render(t, store.Profile{Kind: store.ProfileLocal}, none)
	render(t, store.Profile{Kind: store.ProfileCustom, Text: "echo {{hostname}}"}, none)
}

func TestFactsThatAreMissingMakeNoScript(t *testing.T) {
	for _, lose := range []func(*Facts){
		func(f *Facts) { f.Initiator = "" }, func(f *Facts) { f.Target = "" }, func(f *Facts) { f.Portal = netip.AddrPort{} }, func(f *Facts) { f.Boot = netip.AddrPort{} },
	} {
		if text, err := SAN(facts(lose)); err == nil {
			t.Errorf("a script was made:\n%s", text)
		}
	}
}

func TestAProfileIsCheckedWhenItIsSaved(t *testing.T) {
	custom := func(text string) store.Profile {
		return store.Profile{Name: "p", Kind: store.ProfileCustom, Text: text}
	}
	kernel := func(fields ...string) store.Profile {
		p := store.Profile{Name: "p", Kind: store.ProfileKernel, Fields: map[string]string{}}
		for i := 0; i < len(fields); i += 2 {
			p.Fields[fields[i]] = fields[i+1]
		}
		return p
	}
	for _, c := range []struct {
		p    store.Profile
		says string
	}{
		{custom("#!ipxe\necho {{hostname}}\n"), ""},
		{custom("echo {{ password }}"), ""},
		{custom("echo ${net0/mac} }} { {"), ""},
		{kernel("kernel", "vmlinuz"), ""},
		{kernel("kernel", "http://x/vmlinuz", "initrd", "a b c", "cmdline", "root={{san_uri}}"), ""},
		{store.Profile{Kind: store.ProfileSAN}, ""},
		{store.Profile{Kind: store.ProfileLocal}, ""},

		{custom("#!ipxe\necho a\necho {{colour}}\n"), "line 3: there is no variable {{colour}}"},
		{custom("{{hostname}}\n{{}}"), "line 2: there is no variable {{}}"},
		{custom("echo\n\necho {{host\nname}}"), "line 3 has {{ without }}"},
		{custom("echo {{hostname}"), "line 1 has {{ without }}"},
		{custom(" \n\t"), "needs its script's text"},
		{custom("echo a\n#!ipxe\n"), "line 2 is #!ipxe"},
		{kernel(), "needs the kernel's URL"},
		{kernel("kernel", "a b"), "not a URL"},
		{kernel("kernel", "a", "cmdline", "a\nshell"), "one line"},
		{kernel("kernel", "a", "cmdline", "a || shell"), `the word "||"`},
		{kernel("kernel", "a", "cmdline", "a #b"), `the word "#b"`},
		{kernel("kernel", "a", "initrd", "--name"), "not a URL"},
		{kernel("kernel", "a{{x}}"), "there is no variable {{x}}"},
		{store.Profile{Kind: store.ProfileMenu}, "between 1 and 20 profiles"},
		{store.Profile{}, "cannot be made into a script"},
	} {
		err := Check(c.p, nil)
		if c.says == "" && err != nil || c.says != "" && (store.KindOf(err) != store.KindInvalid || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%+v: %v, want %q", c.p, err, c.says)
		}
	}
}

func TestEveryVariableIsFilledIn(t *testing.T) {
	text := "#!ipxe\n"
	for _, v := range Variables() {
		text += "set x-" + v.Name + " {{" + v.Name + "}}\n"
		if v.Help == "" || v.Example == "" {
			t.Errorf("of %s nobody is told what it is: %+v", v.Name, v)
		}
	}
	got := render(t, store.Profile{Kind: store.ProfileCustom, Text: text}, facts())
	// What watches over each line is not what this is about.
	got = regexp.MustCompile(` \|\| goto lunboot_\d+\n`).ReplaceAllString(got, "\n")
	set := 0
	for line := range strings.Lines(got) {
		if !strings.HasPrefix(line, "set x-") {
			continue
		}
		set++
		if words := strings.Fields(line); len(words) != 3 || strings.Contains(line, "{{") {
			t.Errorf("the line %q", line)
		}
	}
	if set != len(Variables()) {
		t.Errorf("%d of %d variables are filled in", set, len(Variables()))
	}
	for _, want := range []string{"portal_ip 192.0.2.1\n", "portal_port 3260\n", "lun 2\n", "lun_hex 2\n", "hostname lab-03\n", "san_uri iscsi:192.0.2.1::3260:2:iqn.2026-11.lunboot:target\n", "boot_url http://192.0.2.1\n", "mac 52:54:00:77:00:0a\n"} {
		if !strings.Contains(got, "set x-"+want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	six := facts(func(f *Facts) { f.Portal = netip.MustParseAddrPort("[2001:db8::1]:3260") })
	if got := render(t, store.Profile{Kind: store.ProfileCustom, Text: "sanboot iscsi:{{portal_ip}}::::{{target}}"}, six); !strings.Contains(got, "iscsi:[2001:db8::1]::::iqn") {
		t.Errorf("over IPv6:\n%s", got)
	}
}

func TestSecretsAreReplacedForEverybodyElse(t *testing.T) {
	f := facts()
	for _, text := range []string{
		all(t)["san-mutual"], all(t)["san-chap"], all(t)["whole"], all(t)["fragment"],
		render(t, store.Profile{Kind: store.ProfileCustom, Text: "#!ipxe\nkernel x netroot=iscsi:{{username}}:{{password}}:{{reverse_username}}:{{reverse_password}}@{{portal_ip}}\n"}, f),
	} {
		got := Redact(text, f)
		if strings.Contains(got, "SampleSecret") || !strings.Contains(got, "(secret)") {
			t.Errorf("a secret stands in\n%s", got)
		}
		if Redact(got, f) != got {
			t.Error("a second look changes it")
		}
	}
	if got := Redact("  set password:string of my own\nset passwords x\nset reverse-password y\n", Facts{}); got != "set password:string (secret)\nset passwords x\nset reverse-password (secret)\n" {
		t.Errorf("%q", got)
	}
}

func TestOnlyScriptsWithASecretNeedGuarding(t *testing.T) {
	for _, c := range []struct {
		p    store.Profile
		auth store.AuthMode
		want bool
	}{
		{store.Profile{Kind: store.ProfileSAN}, store.AuthMutual, true},
		{store.Profile{Kind: store.ProfileSAN}, store.AuthCHAP, true},
		{store.Profile{Kind: store.ProfileSAN}, store.AuthNone, false},
		{store.Profile{Kind: store.ProfileLocal}, store.AuthMutual, false},
		{store.Profile{Kind: store.ProfileCustom, Text: "#!ipxe\necho {{hostname}}"}, store.AuthMutual, false},
		{store.Profile{Kind: store.ProfileCustom, Text: "#!ipxe\necho {{reverse_password}}"}, store.AuthMutual, true},
		{store.Profile{Kind: store.ProfileCustom, Text: "#!ipxe\nset password MyOwnSecret99\n"}, store.AuthNone, true},
	} {
		if got := NeedsSecret(c.p, facts(func(f *Facts) { f.Auth = c.auth })); got != c.want {
			t.Errorf("%+v with %s: %v", c.p, c.auth, got)
		}
	}
}

var hostile = []string{
	"a\nsanboot iscsi:evil", "a\r\nshell", "${username}", "$" + "{net0/mac}", "a || shell", "a && shell", "a ; shell", "# comment", "-n", "--", "\x00\x1b[2J", "ünïcödé", "", " ", "a b", "#", "||",
	"a\u2028shell", strings.Repeat("w", 300), strings.Repeat("many words ", 60), "x #y", "\t\t",
}

// onlyTheTemplates fails when text has a line whose command is not one that the
// same script has with harmless names.
func onlyTheTemplates(t *testing.T, text, harmless string) {
	t.Helper()
	commands := func(s string) (out []string) {
		for line := range strings.Lines(s) {
			line = strings.TrimSpace(line)
			word, _, _ := strings.Cut(line, " ")
			if word == "echo" || strings.HasPrefix(word, "#") || word == "" {
				rest := strings.NewReplacer("${errno:hexraw}", "", "${lunboot_line}", "").Replace(strings.TrimPrefix(line, word))
				for i, w := range strings.Fields(rest) {
					if word == "echo" && (w == "||" || w == "&&" || w == ";" || w[0] == '#' || i == 0 && w[0] == '-' || strings.Contains(w, "${")) {
						t.Errorf("the line %q does more than echo", line)
					}
				}
				continue
			}
			if i := strings.Index(line, " || "); i >= 0 {
				word += line[i:]
			}
			out = append(out, word)
		}
		return out
	}
	if got, want := commands(text), commands(harmless); !slices.Equal(got, want) {
		t.Errorf("the commands are %q, want %q, in\n%s", got, want, text)
	}
}

func TestHostileNamesDoNotBreakOut(t *testing.T) {
	san := store.Profile{Kind: store.ProfileSAN}
	for _, h := range hostile {
		evil := facts(func(f *Facts) {
			f.Machine, f.Serial, f.Asset, f.Initiator, f.Target, f.Platform = h, h, h, store.IQN(h+"x"), store.IQN(h+"x"), h
			f.Disk, f.Others = &Disk{Volume: h}, []Disk{{LUN: 1, Volume: h}}
			f.CHAP, f.Reverse = store.Credential{User: h, Secret: h}, store.Credential{User: h, Secret: h}
		})
		onlyTheTemplates(t, render(t, san, evil), render(t, san, facts()))
		for _, kind := range []store.Profile{
			{Kind: store.ProfileLocal},
			{Name: h, Kind: store.ProfileCustom, Text: "set a {{hostname}}\nset b {{serial}}\nset c {{password}}\nset d {{volume}}\nset e {{platform}}\n"},
			{Kind: store.ProfileKernel, Fields: map[string]string{"kernel": "k", "cmdline": "x={{hostname}}"}},
		} {
			text, err := Render(kind, evil)
			if err != nil {
				if kind.Kind != store.ProfileKernel {
					t.Errorf("%q: %v", h, err)
				}
				continue
			}
			onlyTheTemplates(t, text, render(t, kind, facts()))
		}
		onlyTheTemplates(t, Unknown(at, mac, h), Unknown(at, mac, admin))
		for _, bad := range []Help{{h, h}, {"", h}} {
			onlyTheTemplates(t, Conflict(at, []Claim{{h, h, h}}, bad), Conflict(at, nil, help))
			onlyTheTemplates(t, Withheld(at, h, h, bad), Withheld(at, "a", "b", help))
			onlyTheTemplates(t, NoDisk(at, h, h, bad), NoDisk(at, "a", "b", help))
			onlyTheTemplates(t, Failed(at, h, bad), Failed(at, "a", help))
			onlyTheTemplates(t, Wrong(at, bad, h, h), Wrong(at, help, "a"))
			onlyTheTemplates(t, Explained(at, h, h, h, bad), Explained(at, "a", "b", "c", help))
		}
	}
}

func TestEachMACCanBeReadFromTheScreen(t *testing.T) {
	rows := large(store.MAC{0x01, 0x23, 0x45, 0x67, 0x89, 0xab})
	if len(rows) != 11 || rows[5] != "" {
		t.Fatalf("%d rows", len(rows))
	}
	for i, row := range rows {
		if i != 5 && (len(row) != 49 || row[0] != '.' || strings.Trim(row, ".#") != "") {
			t.Errorf("row %d is %q", i, row)
		}
	}
	seen := map[[5]string]byte{}
	for c, g := range glyphs {
		for _, line := range g {
			if len(line) != 5 {
				t.Errorf("the glyph of %c has a row %q", c, line)
			}
		}
		if other, twice := seen[g]; twice {
			t.Errorf("%c looks like %c", c, other)
		}
		seen[g] = c
	}
	if len(glyphs) != 17 {
		t.Errorf("there are %d glyphs", len(glyphs))
	}
}

func FuzzText(f *testing.F) {
	for _, h := range hostile {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := Text(s); Text(got) != got {
			t.Errorf("%q becomes %q and then %q", s, got, Text(got))
		}
		if w := Word(s); w == "" || strings.ContainsAny(w, " \n\t${") && strings.Contains(w, "$") || strings.ContainsAny(w, " \n\t") {
			t.Errorf("%q is the word %q", s, w)
		}
		onlyTheTemplates(t, Wrong(at, Help{s, s}, s), Wrong(at, help, "a"))
	})
}

func FuzzCustom(f *testing.F) {
	f.Add("#!ipxe\nset a {{hostname}}\n")
	f.Add("{{password}}{{")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Render(store.Profile{Kind: store.ProfileCustom, Name: "p", Text: text}, facts())
		if err == nil && (!strings.HasPrefix(strings.TrimSpace(got), "#!ipxe") || strings.Contains(Redact(got, facts()), "SampleSecret")) {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}
