package lab_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// The failure that this project began with: iPXE logs in with mutual CHAP, the
// script's line leaves the LUN out, and the volume is LUN 2. Other targets
// invent a LUN 0, and the screen says an Input/output error that means nothing.
func TestALineWithoutALUNFindsNoDiskAndSaysWhy(t *testing.T) {
	for _, firmware := range []struct {
		lab.Firmware
		code string // ILLEGAL REQUEST, in the spelling of the platform
	}{{lab.BIOS, "1d704539"}, {lab.UEFI, "1d704598"}} {
		t.Run(string(firmware.Firmware), func(t *testing.T) {
			b := start(t, linuxLimit)
			profile := filepath.Join(b.Dir, "founding.ipxe")
			b.must(os.WriteFile(profile, []byte("sanboot iscsi:{{portal_ip}}::::{{target}}\n"), 0o600))
			b.cli("profile", "set", "founding", "--file", profile)
			d, err := b.SectorDisk("founding", area.PowerOff)
			b.must(err)
			c, err := b.Enroll(b.ctx, b.appliance, b.machine("lab-12", firmware.Firmware, 55), 2, d, "--profile", "founding")
			b.must(err)
			r := b.powerOn(c)
			found, err := r.Console.WaitFor(b.ctx, `ipxe\.org/([0-9a-f]{8})`)
			b.must(err)
			if found.Groups[1] != firmware.code {
				t.Errorf("the screen shows the code %s, want %s", found.Groups[1], firmware.code)
			}
			a := b.attempt("lab-12")
			r.Kill()
			if len(a.Diagnoses) != 1 || a.Diagnoses[0].Code != "LB-LUN-01" {
				t.Fatalf("explained as %+v", a.Diagnoses)
			}
			if want := "lab-12 asked for LUN 0, but its volume “" + c.Volume + "” is LUN 2"; a.Diagnoses[0].Title != want {
				t.Errorf("the title is %q, want %q", a.Diagnoses[0].Title, want)
			}
			if s := stage(a, store.StageLogin); s.State != store.StageDone || !strings.Contains(s.Detail, "mutual CHAP") {
				t.Errorf("the login is %s: %s", s.State, s.Detail)
			}
			if s := stage(a, store.StageRead); s.State != store.StageFailed {
				t.Errorf("the read is %s: %s", s.State, s.Detail)
			}
			b.onlyRefusals()
			if said := b.cli("attempt", "show", "1"); !strings.Contains(said, a.Diagnoses[0].Title) || !strings.Contains(said, "profile san") {
				t.Errorf("the command line says:\n%s", said)
			}
		})
	}
}

// onlyRefusals checks the journal: LUN 0 was asked for, LUN 2 is what exists,
// and nothing was ever read.
func (b *bench) onlyRefusals() {
	b.t.Helper()
	asked := 0
	for line := range strings.Lines(b.cli("--json", "event", "list")) {
		var e store.Event
		b.must(json.Unmarshal([]byte(line), &e))
		switch e.Kind {
		case store.EventISCSINoLUN:
			asked++
			if e.Detail.LUN == nil || *e.Detail.LUN != 0 || len(e.Detail.Mapped) != 1 || e.Detail.Mapped[0] != 2 || e.Detail.Initiator == "" || e.Detail.Sense != "05/25/00" {
				b.t.Errorf("the event says %+v", e.Detail)
			}
		case store.EventISCSIFirstRead, store.EventISCSIFirstWrite:
			b.t.Errorf("something was read or written: %+v", e.Detail)
		}
	}
	if asked == 0 {
		b.t.Error("no event says which LUN was asked for")
	}
}

// No iscsid runs yet: the firmware's initiator, inside GRUB, waits and logs in
// again by itself.
func TestABootGoesOnWhenTheApplianceIsKilledWhileGRUBLoadsTheKernel(t *testing.T) {
	b := start(t, linuxLimit)
	c := b.linux("grub", lab.BIOS, 56, area.PowerOff)
	r := b.powerOn(c)
	_, err := r.Console.WaitFor(b.ctx, `GRUB loading|Welcome to GRUB`)
	b.must(err)
	b.must(b.waitRead(2 << 20)) // the kernel is on its way
	b.appliance.Kill()
	time.Sleep(2 * time.Second)
	b.must(b.appliance.Start(b.ctx))
	back := time.Now()
	_, err = c.WaitUp(b.ctx, r)
	b.must(err)
	t.Logf("up %.1f s after the appliance was back", time.Since(back).Seconds())
	_, err = r.WaitWrote(b.ctx)
	b.must(err)
	b.must(r.Wait(b.ctx))
	b.must(c.CheckLinux(b.ctx))
}

// waitRead waits until an iPXE session has read as many bytes.
func (b *bench) waitRead(bytes int64) error {
	for {
		var list struct{ Items []store.Session }
		if err := b.appliance.JSON(b.ctx, &list, "session", "list"); err != nil {
			return err
		}
		for _, s := range list.Items {
			if s.IPXE && s.Read >= bytes {
				return nil
			}
		}
		select {
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A machine that loses power says no goodbye. What its last boot left at the
// target is gone when its firmware comes back, not minutes later.
func TestAPowerCycleEndsWhatTheBootBeforeLeft(t *testing.T) {
	b := start(t, linuxLimit)
	c := b.linux("cycle", lab.BIOS, 57, area.Hold)
	r := b.powerOn(c)
	_, err := c.WaitUp(b.ctx, r)
	b.must(err)
	system := func() (id string, firmware bool) {
		var list struct{ Items []store.Session }
		b.must(b.appliance.JSON(b.ctx, &list, "session", "list"))
		for _, s := range list.Items {
			if s.IPXE {
				firmware = true
			} else {
				id = s.ID
			}
		}
		return id, firmware
	}
	before, _ := system()
	if before == "" {
		t.Fatal("the operating system has no session")
	}
	r.Kill()
	r = b.powerOn(c)
	for {
		now, firmware := system()
		if firmware {
			if now == before {
				t.Error("the session of the boot before outlived the firmware's login")
			}
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	_, err = c.WaitUp(b.ctx, r)
	b.must(err)
	if after, _ := system(); after == "" || after == before {
		t.Errorf("the second boot's session is %q, the first one's was %q", after, before)
	}
	r.Kill()
}
