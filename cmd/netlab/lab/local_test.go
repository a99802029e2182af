package lab_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// A machine whose firmware asks the network first is sent to its own disk: on BIOS
// by its number or by the firmware's list, on UEFI by the list.
func TestAMachineIsSentToItsOwnDisk(t *testing.T) {
	soaking(t)
	for name, fields := range map[string][]string{"by its number": nil, "by the list": {"--field", "bios=exit"}} {
		t.Run("BIOS, "+name, func(t *testing.T) {
			b := start(t, sectorLimit)
			d, err := b.SectorDisk("own", area.Hold)
			b.must(err)
			r := b.sendsHome(b.machine("own", lab.BIOS, 81), d.Path, fields)
			found, err := r.Console.WaitFor(b.ctx, area.MarkWrote+` nonce=([0-9a-f]+)`)
			b.must(err)
			if found.Groups[1] != d.Nonce.String() {
				t.Errorf("it started from a disk with %s, %s was hidden on its own", found.Groups[1], d.Nonce)
			}
			f, err := os.Open(d.Path)
			b.must(err)
			defer f.Close()
			b.must(lab.CheckBootSector(f, d.Nonce))
		})
	}
	// Nothing more is heard of it, which is all the proof that there is.
	t.Run("BIOS, for one boot", func(t *testing.T) {
		b := start(t, sectorLimit+5*time.Minute)
		d, err := b.SectorDisk("own", area.Hold)
		b.must(err)
		m := b.machine("own", lab.BIOS, 83)
		m.Local = d.Path
		b.cli("profile", "set", "home", "--kind", "local")
		b.cli("machine", "add", m.Name, "--mac", m.MAC.String())
		b.cli("machine", "boot", m.Name, "--once", "home")
		once := func() string {
			var row store.Machine
			b.must(b.appliance.JSON(b.ctx, &row, "machine", "show", m.Name))
			return row.OnceProfile
		}
		r, err := b.PowerOn(b.ctx, m)
		b.must(err)
		t.Cleanup(r.Kill)
		_, err = r.Console.WaitFor(b.ctx, area.MarkWrote+` nonce=`+d.Nonce.String())
		b.must(err)
		if p := once(); p != "home" {
			t.Errorf("when its script was fetched the profile for one boot is %q", p)
		}
		begun := time.Now()
		for once() != "" {
			select {
			case <-time.After(time.Second):
			case <-b.ctx.Done():
				t.Fatal("the profile for one boot is not used up")
			}
		}
		t.Logf("used up %v after it started from its own disk", time.Since(begun).Round(time.Second))
	})
	t.Run("UEFI", func(t *testing.T) {
		needs(t, "nasm")
		b := start(t, linuxLimit)
		d, err := b.LinuxDisk(b.ctx, "own", area.PowerOff, 1)
		b.must(err)
		// The program that stands in for wimboot elsewhere lists the partition's files.
		dir := t.TempDir()
		program, nonce := filepath.Join(dir, "BOOTX64.EFI"), filepath.Join(dir, "nonce")
		b.must(os.WriteFile(nonce, []byte(d.Nonce.String()), 0o600))
		esp := fmt.Sprintf("%s@@%d", d.Path, area.ESPStart)
		for _, c := range [][]string{{"nasm", "-f", "bin", "-o", program, "testdata/wimboot.asm"}, {"mcopy", "-o", "-i", esp, program, "::/EFI/BOOT/BOOTX64.EFI"}, {"mcopy", "-i", esp, nonce, "::/nonce"}} {
			if out, err := exec.CommandContext(b.ctx, c[0], c[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", c, err, out)
			}
		}
		m := b.machine("own", lab.UEFI, 82)
		m.OnlyIPv4 = true
		r := b.sendsHome(m, d.Path, nil)
		if _, err := r.Console.WaitFor(b.ctx, `STAND-IN\r?\n(?s:.*?)`+handed("nonce", []byte(d.Nonce.String()))); err != nil {
			t.Fatalf("%v; the console ends with\n%s", err, r.Console.Tail(60))
		}
	})
}

// sendsHome boots a machine that has a disk of its own with a profile of kind local,
// and waits until it was told where to go.
func (b *bench) sendsHome(m lab.Machine, disk string, fields []string) *lab.Running {
	b.t.Helper()
	m.Local = disk
	b.cli(append([]string{"profile", "set", "home", "--kind", "local"}, fields...)...)
	b.cli("machine", "add", m.Name, "--mac", m.MAC.String(), "--profile", "home")
	r, err := b.PowerOn(b.ctx, m)
	b.must(err)
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("%s's console:\n%s", m.Name, r.Console.Tail(60))
		}
		r.Kill()
	})
	a, err := b.appliance.WaitAttempt(b.ctx, m.Name, func(a store.Attempt) bool { return stage(a, store.StageScript).State == store.StageDone })
	b.must(err)
	b.t.Logf("after %v: %s, %+v", time.Since(a.Started).Round(time.Second), a.Outcome, a.Diagnoses)
	if a.Outcome == store.OutcomeFailed {
		b.t.Errorf("the boot counts as failed: %+v", a.Diagnoses)
	}
	return r
}
