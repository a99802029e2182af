package lab_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/store"
)

// handed is a file as the stand-in for wimboot lists it: its name, its size and the
// sum of its bytes.
func handed(name string, b []byte) string {
	var sum uint32
	for _, c := range b {
		sum += uint32(c)
	}
	return fmt.Sprintf("%s %08x %08x", name, len(b), sum)
}

// There is no Windows here. What is shown is everything up to its own boot loader:
// from a disc with the files of Windows setup, whose image wimlib made, the
// appliance serves each file in its turn, and iPXE hands them on, byte for byte and
// by the names that wimboot knows them by. In wimboot's place is a program that
// lists what it was handed; what wimboot and Windows do with that is not shown.
func TestTheFilesOfWindowsSetupAreHandedToItsLoader(t *testing.T) {
	soaking(t)
	needs(t, "genisoimage", "wimtools", "nasm")
	for _, firmware := range []lab.Firmware{lab.BIOS, lab.UEFI} {
		t.Run(string(firmware), func(t *testing.T) { handsWindowsOver(t, firmware) })
	}
}

func handsWindowsOver(t *testing.T, firmware lab.Firmware) {
	b := start(t, 2*sectorLimit)
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(b.ctx, name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	dir := t.TempDir()
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	for _, folder := range []string{"disc/boot", "disc/sources", "windows/Windows/System32"} {
		b.must(os.MkdirAll(at(folder), 0o755))
	}
	b.must(os.WriteFile(at("windows/Windows/System32/winpeshl.exe"), bytes.Repeat([]byte("not a program. "), 20000), 0o644))
	run("wimlib-imagex", "capture", at("windows"), at("disc/sources/boot.wim"), "Windows PE", "--compress=LZX")
	b.must(os.WriteFile(at("disc/boot/bcd"), append([]byte("regf"), bytes.Repeat([]byte{0, 1, 2, 3, 5, 7, 11}, 3511)...), 0o644))
	b.must(os.WriteFile(at("disc/boot/boot.sdi"), append([]byte("$SDI0001"), bytes.Repeat([]byte{0xff, 0x40}, 99999)...), 0o644))
	run("genisoimage", "-quiet", "-udf", "-V", "WINDOWS", "-o", at("win.iso"), at("disc"))
	// On UEFI wimboot sees itself among the files, and has no room for a long name.
	loader := "wimboot.x86-64-as-it-was-downloaded-for-this-test"
	run("nasm", "-f", "bin", "-o", at(loader), "testdata/wimboot.asm")
	if said := b.cli("media", "add", at("win.iso")); !strings.Contains(said, "Windows setup") || !strings.Contains(said, "boot.wim") {
		t.Errorf("the disc is told as:\n%s", said)
	}
	if said := b.cli("media", "add", at(loader)); !strings.Contains(said, "Title         wimboot v0\n") {
		t.Errorf("the stand-in is told as:\n%s", said)
	}
	b.must(os.WriteFile(at("install.bat"), []byte("wpeinit\r\necho {{hostname}}\r\n"), 0o644))
	b.cli("profile", "set", "win", "--kind", "wimboot", "--field", "media=win.iso", "--field", "wimboot="+loader, "--file", at("install.bat"))
	m := b.machine("fresh", firmware, 72)
	b.cli("volume", "create", "fresh", "--size", "1G")
	b.cli("machine", "add", "fresh", "--mac", m.MAC.String())
	b.cli("mapping", "add", "fresh", "fresh", "--lun", "2", "--boot")
	b.cli("machine", "boot", "fresh", "--once", "win")
	r, err := b.PowerOn(b.ctx, m)
	b.must(err)
	defer r.Kill()
	found, err := r.Console.WaitFor(b.ctx, `STAND-IN\r?\n((?s:.*?))STAND-IN DONE|STAND-IN: .*`)
	if err != nil {
		t.Fatalf("%v; the console ends with\n%s", err, r.Console.Tail(60))
	}
	if found.Groups[1] == "" {
		t.Fatal(found.Groups[0])
	}
	t.Logf("%v after power-on the loader was handed\n%s", found.At.Round(100*time.Millisecond), found.Groups[1])
	var got []string
	for line := range strings.Lines(found.Groups[1]) {
		// The loader lies among the files on UEFI, and knows itself by this name.
		if line = strings.TrimSpace(line); line != "" && (firmware == lab.BIOS || !strings.HasPrefix(line, "wimboot ")) {
			got = append(got, line)
		}
	}
	var want []string
	for _, f := range [][2]string{{"BCD", "disc/boot/bcd"}, {"boot.sdi", "disc/boot/boot.sdi"}, {"boot.wim", "disc/sources/boot.wim"}} {
		text, err := os.ReadFile(at(f[1]))
		b.must(err)
		want = append(want, handed(f[0], text))
	}
	want = append([]string{handed("install.bat", []byte("wpeinit\r\necho fresh\r\n"))}, want...)
	if len(got) != 5 || !strings.HasPrefix(got[0], "winpeshl.ini ") || !slices.Equal(got[1:], want) {
		t.Errorf("it was handed\n%s\nwant winpeshl.ini and\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	a, _, err := b.appliance.Attempt(b.ctx, "fresh")
	b.must(err)
	if s := stage(a, store.StageLogin); s.State != store.StageDone {
		t.Errorf("the volume was not hooked: %+v", s)
	}
	var sent []string
	for _, e := range b.events() {
		if e.Kind == store.EventFileSent {
			sent = append(sent, e.Detail.File)
		}
	}
	if order := []string{loader, "winpeshl.ini", "install.bat", "win.iso/boot/bcd", "win.iso/boot/boot.sdi", "win.iso/sources/boot.wim"}; !slices.Equal(sent, order) {
		t.Errorf("sent were %v, want %v", sent, order)
	}
}
