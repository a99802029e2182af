package lab_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/store"
)

// Debian's installer is started from a disc that the appliance keeps, with the
// machine's volume hooked and its answers served, gets as far as the first question
// that these leave open, and has the volume as a disk. There is no mirror here: what
// the installer drives iSCSI with comes in a RAM disk instead.
func TestDebiansInstallerComesToItsFirstScreenAndHasTheVolume(t *testing.T) {
	if os.Getenv("LUNBOOT_SOAK") == "" {
		t.Skip("its package has 130 MB; set LUNBOOT_SOAK=1")
	}
	needs(t, "genisoimage")
	for _, firmware := range []lab.Firmware{lab.BIOS, lab.UEFI} {
		t.Run(string(firmware), func(t *testing.T) { startsInstaller(t, firmware) })
	}
}

func startsInstaller(t *testing.T, firmware lab.Firmware) {
	b := start(t, 15*time.Minute) // a machine of one core that unpacks 40 MB
	kernel, initrd, err := lab.Installer(b.ctx)
	b.must(err)
	parts, err := lab.InstallerParts(b.ctx, kernel)
	b.must(err)
	b.cli("media", "add", parts, "--name", "parts.gz")
	dir := t.TempDir()
	for name, from := range map[string]string{"linux": kernel, "initrd.gz": initrd} {
		b.must(os.Symlink(from, filepath.Join(dir, name)))
	}
	iso := filepath.Join(t.TempDir(), "mini.iso")
	if out, err := exec.CommandContext(b.ctx, "genisoimage", "-quiet", "-f", "-R", "-V", "ISOIMAGE", "-o", iso, dir).CombinedOutput(); err != nil {
		t.Fatalf("genisoimage: %v\n%s", err, out)
	}
	if said := b.cli("media", "add", iso); !strings.Contains(said, "initrd.gz") {
		t.Errorf("the disc is told as:\n%s", said)
	}
	answers := filepath.Join(t.TempDir(), "preseed.cfg")
	b.must(os.WriteFile(answers, []byte("d-i debian-installer/locale string en_US.UTF-8\nd-i keyboard-configuration/xkb-keymap select us\n"+
		"d-i mirror/country string manual\nd-i mirror/http/hostname string {{hostname}}.mirror.invalid\nd-i mirror/http/directory string /debian\nd-i mirror/http/proxy string\n"), 0o600))
	// Without a router and a name server the installer asks for them before it fetches
	// its answers. Of terminals it knows few, vt102 among them.
	b.cli("subnet", "set", "10.77.0.0/24", "--router", lab.ServerAddr.String(), "--dns", lab.ServerAddr.String())
	b.cli("profile", "set", "deb", "--kind", "install", "--field", "media=mini.iso", "--field", "initrd=mini.iso/initrd.gz parts.gz", "--field", "cmdline=console=ttyS0 DEBIAN_FRONTEND=newt TERM=vt102", "--file", answers)
	m := b.machine("fresh", firmware, 71)
	m.Memory = 1024
	b.cli("volume", "create", "fresh", "--size", "1G")
	b.cli("machine", "add", "fresh", "--mac", m.MAC.String())
	b.cli("mapping", "add", "fresh", "fresh", "--lun", "2", "--boot")
	b.cli("machine", "boot", "fresh", "--once", "deb")
	r, err := b.PowerOn(b.ctx, m)
	b.must(err)
	for _, says := range []string{`Registered SAN device 0x80`, `Linux version 6\.1`, `Kernel command line: .*url=http://10\.77\.0\.1/files/answer/fresh/deb/`, `(?i)mirror`} {
		found, err := r.Console.WaitFor(b.ctx, says)
		if err != nil {
			t.Fatalf("%v; the console ends with\n%s", err, r.Console.Tail(60))
		}
		t.Logf("%v after power-on: %s", found.At.Round(100*time.Millisecond), found.Groups[0])
	}
	t.Logf("its screen:\n%s", r.Console.Tail(40))
	// The installer's kernel reads the table of partitions of a disk that it finds.
	a, err := b.appliance.WaitAttempt(b.ctx, "fresh", func(a store.Attempt) bool { return stage(a, store.StageUp).State == store.StageDone })
	b.must(err)
	if s := stage(a, store.StageUp); s.Detail != "Its operating system logged in and reads its volume" {
		t.Errorf("the installer is up: %+v", s)
	}
	// Its daemon takes the session over, by a login of its own.
	for logins := 0; logins < 2; {
		logins = 0
		for _, e := range b.events() {
			if e.Kind == store.EventISCSILogin && strings.HasPrefix(e.Detail.ISID, "00023d") {
				logins++
			}
		}
		select {
		case <-time.After(time.Second):
		case <-b.ctx.Done():
			t.Fatalf("%d logins by the installer's kernel: no daemon would bring its session back", logins)
		}
	}
	if len(a.Diagnoses) > 0 && a.Diagnoses[0].Code == "LB-VOL-05" {
		t.Errorf("it is told that it lacks a system, while it gets one: %+v", a.Diagnoses)
	}
	if s := stage(a, store.StageLogin); s.State != store.StageDone {
		t.Errorf("the volume was not hooked: %+v", s)
	}
	// It has installed nothing yet: the next boot is the installer's again.
	var row store.Machine
	b.must(b.appliance.JSON(b.ctx, &row, "machine", "show", "fresh"))
	if row.OnceProfile != "deb" {
		t.Errorf("the profile for one boot is %q", row.OnceProfile)
	}
	fetched := map[string]bool{}
	for _, e := range b.events() {
		if e.Kind == store.EventFileSent {
			fetched[e.Detail.File] = true
		}
	}
	for _, name := range []string{"mini.iso/linux", "mini.iso/initrd.gz", "preseed.cfg"} {
		if !fetched[name] {
			t.Errorf("%s was not fetched; fetched were %v", name, fetched)
		}
	}
}
