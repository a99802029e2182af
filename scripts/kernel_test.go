package scripts

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"lunboot/store"
)

// kept are facts with the media of a lab.
func kept(change ...func(*Facts)) Facts {
	f := facts(change...)
	iso := func(name string, c store.MediaContents) store.Media {
		return store.Media{Name: name, Kind: store.MediaISO, Contents: c}
	}
	f.Media = []store.Media{
		iso("mini.iso", store.MediaContents{OS: store.MediaDebian, Kernel: "linux", Initrds: []string{"initrd.gz"}}),
		iso("ubuntu.iso", store.MediaContents{OS: store.MediaUbuntu, Kernel: "casper/vmlinuz", Initrds: []string{"casper/initrd"}}),
		iso("fedora.iso", store.MediaContents{OS: store.MediaFedora, Kernel: "images/pxeboot/vmlinuz", Initrds: []string{"images/pxeboot/initrd.img"}}),
		iso("rocky.iso", store.MediaContents{OS: store.MediaRHEL, Kernel: "images/pxeboot/vmlinuz", Initrds: []string{"images/pxeboot/initrd.img"}}),
		iso("alpine.iso", store.MediaContents{OS: store.MediaAlpine, Kernel: "boot/vmlinuz-lts", Initrds: []string{"boot/initramfs-lts"}, Modloop: "boot/modloop-lts"}),
		iso("win11.iso", store.MediaContents{OS: store.MediaWindows, BCD: "boot/bcd", SDI: "boot/boot.sdi", WIM: "sources/boot.wim"}),
		iso("data.iso", store.MediaContents{}),
		{Name: "wimboot", Kind: store.MediaWimboot},
		{Name: "vmlinuz", Kind: store.MediaKernel},
	}
	return f
}

func TestProfilesThatCannotStartAreRefusedWithTheirField(t *testing.T) {
	of := func(kind store.ProfileKind, text string, fields ...string) store.Profile {
		p := store.Profile{Name: "p", Kind: kind, Text: text, Fields: map[string]string{}}
		for i := 0; i < len(fields); i += 2 {
			p.Fields[fields[i]] = fields[i+1]
		}
		return p
	}
	for _, c := range []struct {
		p    store.Profile
		says string
	}{
		{of(store.ProfileInstall, "", "media", "mini.iso"), ""},
		{of(store.ProfileInstall, "", "media", "mini.iso", "kernel", "http://10.0.0.1/linux"), ""},
		{of(store.ProfileInstall, "x {{done_url}} {{report_url}} {{files_url}}", "kernel", "vmlinuz", "system", "debian"), ""},
		{of(store.ProfileInstall, ""), "needs the disc's media"},
		{of(store.ProfileInstall, "", "media", "none.iso"), `there is no media "none.iso"`},
		{of(store.ProfileInstall, "", "media", "data.iso"), "no kernel was found in media data.iso"},
		{of(store.ProfileInstall, "", "media", "win11.iso", "kernel", "win11.iso/x"), "a profile of kind wimboot starts it"},
		{of(store.ProfileInstall, "", "media", "mini.iso", "disk", "tape"), "choose volume or own"},
		{of(store.ProfileInstall, "", "media", "mini.iso", "system", "beos"), "choose debian, ubuntu"},
		{of(store.ProfileInstall, "", "media", "mini.iso", "kernal", "x"), `no field "kernal"; it has media, kernel`},
		{of(store.ProfileInstall, "line\n{{nobody}}", "media", "mini.iso"), "line 2: there is no variable {{nobody}}"},
		{of(store.ProfileInstall, "setup-alpine", "media", "alpine.iso"), "only the installers of debian"},
		{of(store.ProfileInstall, "", "media", "mini.iso", "cmdline", "a || b"), `the word "||"`},
		{of(store.ProfileKernel, "", "media", "vmlinuz"), ""},
		{of(store.ProfileKernel, "", "media", "data.iso"), "no kernel was found"},
		{of(store.ProfileKernel, "", "disk", "own"), "no field"},
		{of(store.ProfileWimboot, "", "media", "win11.iso", "wimboot", "wimboot"), ""},
		{of(store.ProfileWimboot, "", "media", "win11.iso"), "needs two media"},
		{of(store.ProfileWimboot, "", "media", "win11.iso", "wimboot", "vmlinuz"), "is not wimboot"},
		{of(store.ProfileWimboot, "", "media", "mini.iso", "wimboot", "wimboot"), "is no disc of Windows"},
		{of(store.ProfileMenu, "", "items", "san"), ""},
		{of(store.ProfileMenu, "", "items", "san\nsan"), "line 2 offers san again"},
		{of(store.ProfileMenu, "", "items", "San"), "line 1 is no profile's name"},
		{of(store.ProfileMenu, "", "items", "san", "default", "local"), "does not offer local"},
		{of(store.ProfileMenu, "", "items", "san", "timeout", "10"), "needs the profile that is started then"},
		{of(store.ProfileMenu, "", "items", "san", "default", "san", "timeout", "soon"), "write seconds"},
		{of(store.ProfileLocal, "", "drive", "0x7f"), "the first is 0x80"},
		{of(store.ProfileLocal, "", "bios", "int18"), "choose disk or exit"},
		{of(store.ProfileSAN, "", "drive", "0x81"), "it has none"},
	} {
		err := Check(c.p, kept().Media)
		if c.says == "" && err != nil || c.says != "" && (store.KindOf(err) != store.KindInvalid || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%+v: %v, want %q", c.p, err, c.says)
		}
	}
	if _, err := Render(of(store.ProfileInstall, "", "media", "mini.iso"), kept(func(f *Facts) { f.Disk = nil })); err != ErrNoDisk {
		t.Errorf("a machine without a volume: %v", err)
	}
}

func TestAnswersAreTheProfilesTextWithTheMachinesFacts(t *testing.T) {
	f := kept(func(f *Facts) { f.CHAP.Secret = "a $secret; || #1" })
	p := store.Profile{Name: "deb", Kind: store.ProfileInstall, Fields: map[string]string{"media": "mini.iso"},
		Text: "d-i netcfg/get_hostname string {{hostname}}\r\nd-i pass {{ password }}\nlate wget {{done_url}}\n"}
	got, err := Answer(p, f, "preseed.cfg")
	want := "d-i netcfg/get_hostname string lab-03\nd-i pass a $secret; || #1\nlate wget http://192.0.2.1/report?attempt=42&done=1&key=0123456789abcdef\n"
	if err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	u := store.Profile{Name: "ubu", Kind: store.ProfileInstall, Fields: map[string]string{"media": "ubuntu.iso"}, Text: "#cloud-config\n"}
	own := store.Profile{Name: "own", Kind: store.ProfileInstall, Fields: map[string]string{"media": "ubuntu.iso", "disk": "own"}, Text: "#cloud-config\n"}
	w := store.Profile{Name: "win", Kind: store.ProfileWimboot, Fields: map[string]string{"media": "win11.iso", "wimboot": "wimboot"}, Text: "wpeinit\nnet use\n"}
	for _, c := range []struct {
		p          store.Profile
		file, want string
	}{
		{u, "user-data", "#cloud-config\n"}, {u, "meta-data", "instance-id: lab-03-42\nlocal-hostname: lab-03\n"}, {own, "vendor-data", ""},
		{u, "vendor-data", "#cloud-config\nbootcmd:\n- modprobe -a iscsi_ibft iscsi_tcp && iscsistart -b || logger -t lunboot the volume of the iBFT could not be reached\n"},
		{w, "install.bat", "wpeinit\r\nnet use\r\n"}, {w, "winpeshl.ini", "[LaunchApps]\r\n\"install.bat\"\r\n"},
	} {
		if got, err := Answer(c.p, f, c.file); err != nil || got != c.want {
			t.Errorf("%s: %q, %v", c.file, got, err)
		}
	}
	for file, p := range map[string]store.Profile{"ks.cfg": p, "preseed.cfg": u, "user-data": w, "../x": u, "network-config": u,
		"answers": {Kind: store.ProfileCustom, Text: "x"}, "install.bat": {Kind: store.ProfileWimboot}} {
		if got, err := Answer(p, f, file); err != ErrNoAnswer {
			t.Errorf("%s of %s: %q, %v", file, p.Name, got, err)
		}
	}
}

// Debian's installer is handed a program that makes the volume one of its disks,
// whether it has answers or asks; with a disk of its own it needs none.
func TestDebiansInstallerIsHandedWhatFindsTheVolume(t *testing.T) {
	p := store.Profile{Name: "deb", Kind: store.ProfileInstall, Fields: map[string]string{"media": "mini.iso"}}
	script, err := Render(p, kept())
	if err != nil || !strings.Contains(script, "\ninitrd --name initrd1.img http://192.0.2.1/files/answer/lab-03/deb/42-0123456789abcdef/volume.gz || goto no_initrd\n") || !strings.Contains(script, " initrd=initrd0.img initrd=initrd1.img ") {
		t.Errorf("%v\n%s", err, script)
	}
	text, err := Answer(p, kept(), "volume.gz")
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	archive, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for b := string(archive); ; {
		var mode, size, nameSize int
		if _, err := fmt.Sscanf(b[14:22]+" "+b[54:62]+" "+b[94:102], "%x %x %x", &mode, &size, &nameSize); err != nil || b[:6] != "070701" {
			t.Fatalf("no header at %q: %v", b[:min(20, len(b))], err)
		}
		name := b[110 : 110+nameSize-1]
		if name == "TRAILER!!!" {
			break
		}
		at := (110 + nameSize + 3) &^ 3
		if names[name] = b[at : at+size]; mode != 0o100755 {
			t.Errorf("%s has the mode %o: it is not run", name, mode)
		}
		b = b[(at+size+3)&^3:]
	}
	program := names["lib/debian-installer-startup.d/S99volume"]
	if len(names) != 1 || !strings.HasPrefix(program, "#!/bin/sh\n") {
		t.Errorf("the archive holds %v", names)
	}
	_, last, _ := strings.Cut(program, "<<'END'\n")
	last, _, found := strings.Cut(last, "\nEND\n")
	if !found || !strings.Contains(last, "echo ISCSI_AUTO=true > /target/etc/iscsi/iscsi.initramfs") {
		t.Errorf("the system that is installed is not told of the iBFT:\n%s", program)
	}
	for _, text := range []string{program, last} {
		shell := exec.Command("/bin/sh", "-n")
		shell.Stdin = strings.NewReader(text)
		if out, err := shell.CombinedOutput(); err != nil {
			t.Errorf("%v: %s\n%s", err, out, text)
		}
	}
	own := store.Profile{Name: "own", Kind: store.ProfileInstall, Fields: map[string]string{"media": "mini.iso", "disk": "own"}}
	if script, err = Render(own, kept()); err != nil || strings.Contains(script, "volume.gz") {
		t.Errorf("%v\n%s", err, script)
	}
	for name, p := range map[string]store.Profile{
		"Fedora's":   {Kind: store.ProfileInstall, Text: "x", Fields: map[string]string{"media": "fedora.iso"}},
		"Windows'":   {Kind: store.ProfileWimboot, Text: "x"},
		"a kernel's": {Kind: store.ProfileKernel},
	} {
		if got, err := Answer(p, kept(), "volume.gz"); err != ErrNoAnswer {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestEveryKindHasItsFields(t *testing.T) {
	for _, k := range []store.ProfileKind{store.ProfileKernel, store.ProfileInstall, store.ProfileWimboot, store.ProfileMenu, store.ProfileLocal} {
		if len(Fields(k)) == 0 {
			t.Errorf("%s has no fields", k)
		}
	}
	if len(Fields(store.ProfileSAN)) != 0 || slices.Contains(Fields(store.ProfileKernel), FieldDisk) {
		t.Error("a kind has fields that it cannot use")
	}
}

// A serial number may hold anything. In a URL it asks for what it names, and for
// nothing else.
func TestWhatAMachineSaysOfItselfIsEscapedInAURL(t *testing.T) {
	f := facts()
	f.Serial, f.Asset = "A&B=50% off/#1 +ß${net0/ip}?", "rack 7"
	p := store.Profile{Name: "own", Kind: store.ProfileKernel, Fields: map[string]string{
		"kernel":  "http://192.0.2.7/get?serial={{serial}}&mac={{mac}}&host={{hostname}}",
		"initrd":  "{{files_url}}{{asset}}/initrd.gz\nlab/{{asset}}/more.gz {{boot_url}}/files/x",
		"cmdline": "asset={{asset}}",
	}}
	text := render(t, p, f)
	for _, want := range []string{
		" http://192.0.2.7/get?serial=A%26B%3D50%25%20off%2F%231%20%2B%C3%9F%24%7Bnet0%2Fip%7D%3F&mac=" + f.MAC.String() + "&host=lab-03",
		" http://192.0.2.1/files/rack%207/initrd.gz ", " http://192.0.2.1/files/lab/rack%207/more.gz", " http://192.0.2.1/files/x", "asset=rack_7",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	raw, err := url.QueryUnescape(escapeURL(f.Serial))
	if err != nil || raw != f.Serial {
		t.Errorf("the server reads %q, %v", raw, err)
	}
}
