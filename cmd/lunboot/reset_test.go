package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lunboot/services/inventory"
	"lunboot/services/iscsi"
	"lunboot/store"
	"lunboot/store/sqlite"
	"lunboot/store/volume"
)

// A boot fires at the first login of the firmware after its script, and the
// machine's clone is empty then: once, whatever logs in again, and also after a
// login that could not do it.
func TestAMachineBootsFromAFreshClone(t *testing.T) {
	ctx, dir, quiet := t.Context(), t.TempDir(), slog.New(slog.DiscardHandler)
	db, err := sqlite.Open(ctx, dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	pool, err := volume.OpenPool(filepath.Join(dir, "volumes"), quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	inv, err := inventory.New(inventory.Config{DB: db, Volumes: pool, Layers: pool, Log: quiet, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	v, err := inv.CreateVolume(ctx, "ada", store.VolumeSpec{Name: "debian", Size: 1 << 20})
	must(err)
	put := func(m iscsi.Map, text string) error { return m.LUNs[0].Volume.WriteAt(ctx, []byte(text), 0) }
	get := func(m iscsi.Map, n int) string {
		t.Helper()
		b := make([]byte, n)
		must(m.LUNs[0].Volume.ReadAt(ctx, b, 0))
		return strings.TrimRight(string(b), "\x00")
	}
	h, err := pool.Open(ctx, v)
	must(err)
	must(h.WriteAt(ctx, []byte("golden"), 0))
	must(h.Sync(ctx))
	must(h.Close())
	g, err := inv.FreezeVolume(ctx, "ada", v.ID, "")
	must(err)
	m, err := inv.AddMachine(ctx, "ada", store.MachineSpec{Name: "lab-01", MACs: []store.MAC{{2}}, Auth: store.AuthNone})
	must(err)
	clone, _, err := inv.CloneFor(ctx, "ada", m.ID, store.CloneSpec{Parent: g.ID, Reset: true})
	must(err)

	full := errors.New("the file system is full")
	var refuse error
	c := newCatalog(db, pool)
	resets := 0
	c.reset = func(ctx context.Context, id store.VolumeID, machine string) (store.Volume, error) {
		if refuse != nil {
			return store.Volume{}, refuse
		}
		was, err := db.Volume(ctx, id)
		must(err)
		v, err := inv.ResetVolume(ctx, id, machine)
		if v.Top != was.Top {
			resets++
		}
		return v, err
	}
	ipxe, linux := [6]byte{0x40, 0, 0x27, 0x23, 1, 1}, [6]byte{0, 2, 0x3d, 1, 1, 1}
	login := func(isid [6]byte) iscsi.Map {
		t.Helper()
		m, err := c.Open(ctx, m.Initiator, isid)
		must(err)
		t.Cleanup(m.Release)
		return m
	}
	script := func() { t.Helper(); must(db.ArmBoot(ctx, m.ID)) }

	script()
	firmware := login(ipxe)
	if !firmware.Fired || resets != 1 || get(firmware, 16) != "golden" {
		t.Fatalf("the first boot: fired %v, %d resets, %q", firmware.Fired, resets, get(firmware, 16))
	}
	os := login(linux)
	must(put(os, "system"))
	// BIOS logs in twice, and a login whose answer was lost is made again: the
	// bytes of the system that runs stay.
	for range 2 {
		again := login(ipxe)
		if again.Fired || resets != 1 || get(again, 16) != "system" {
			t.Fatalf("a second login of one boot: fired %v, %d resets, %q", again.Fired, resets, get(again, 16))
		}
	}
	script() // a script alone, and a login of a system, cause nothing
	if again := login(linux); again.Fired || get(again, 16) != "system" {
		t.Fatal("the login of a system fires")
	}
	if again, err := c.Refresh(ctx, m.Initiator); err != nil || again.Fired || get(again, 16) != "system" {
		t.Fatal("a look at the inventory fires", err)
	} else {
		again.Release()
	}

	// What cannot begin anew is not booted from, and is tried again.
	refuse = full
	if _, err := c.Open(ctx, m.Initiator, ipxe); store.KindOf(err) != store.KindUnavailable || !errors.Is(err, full) || !strings.Contains(err.Error(), clone.Name) || store.CauseOf(err) != store.CauseNotAnew {
		t.Fatalf("a volume that cannot begin anew: %v", err)
	}
	// A system that comes up all the same does not get the used volume.
	if _, err := c.Open(ctx, m.Initiator, linux); store.KindOf(err) != store.KindUnavailable || !strings.Contains(err.Error(), "begin anew") || store.CauseOf(err) != store.CauseWaits {
		t.Fatalf("a volume that is still due: %v", err)
	}
	if again, err := c.Refresh(ctx, m.Initiator); err != nil || len(again.LUNs) != 0 {
		t.Fatalf("a session that lives gets a volume that is still due: %+v, %v", again, err)
	}
	now, err := db.Volume(ctx, clone.ID)
	must(err)
	// Nor does one whose volume is not ready to begin anew, then or later.
	refuse = nil
	now.State = store.VolumePromoting
	now, err = db.UpdateVolume(ctx, "ada", now)
	must(err)
	if _, err := c.Open(ctx, m.Initiator, ipxe); store.KindOf(err) != store.KindUnavailable || !strings.Contains(err.Error(), "promoting") || store.CauseOf(err) != store.CauseWaits {
		t.Fatalf("a volume that is not ready to begin anew: %v", err)
	}
	now.State = store.VolumeReady
	_, err = db.UpdateVolume(ctx, "ada", now)
	must(err)
	if again, err := c.Refresh(ctx, m.Initiator); err != nil || len(again.LUNs) != 0 {
		t.Fatalf("it was passed over and is given out used: %+v, %v", again, err)
	}
	second := login(ipxe)
	if !second.Fired || resets != 2 || get(second, 16) != "golden" {
		t.Fatalf("the second boot: fired %v, %d resets, %q", second.Fired, resets, get(second, 16))
	}
	if second.LUNs[0].Generation == firmware.LUNs[0].Generation || second.Generation == os.Generation {
		t.Error("the boots have one generation")
	}
	if err := put(os, "late"); err == nil {
		t.Error("the system of the boot before still writes")
	}
	if get(second, 16) != "golden" {
		t.Errorf("its write arrived: %q", get(second, 16))
	}

	// A new version is where the next boot begins; going back is where the one
	// after does.
	work, err := inv.CloneVolume(ctx, "ada", store.CloneSpec{Parent: g.ID, Name: "work"})
	must(err)
	h, err = pool.Open(ctx, work)
	must(err)
	must(h.WriteAt(ctx, []byte("better"), 0))
	must(h.Sync(ctx))
	must(h.Close())
	job, err := inv.Promote(ctx, "ada", work.ID, "")
	must(err)
	if job, err = inv.Wait(ctx, job.ID); err != nil || job.State != store.JobDone {
		t.Fatal(job, err)
	}
	if get(login(ipxe), 16) != "golden" {
		t.Error("a promotion changed a volume under its machine")
	}
	script()
	if got := get(login(ipxe), 16); got != "better" {
		t.Errorf("the boot after the promotion reads %q", got)
	}
	_, err = inv.SetVersion(ctx, "ada", g.ID, 1)
	must(err)
	script()
	if got := get(login(ipxe), 16); got != "golden" {
		t.Errorf("the boot after the way back reads %q", got)
	}
	kept := login(linux)
	must(put(kept, "kept"))
	_, err = inv.SetVolume(ctx, "ada", clone.ID, store.VolumePatch{Reset: new(false)})
	must(err)
	script()
	if got := get(login(ipxe), 16); got != "kepten" {
		t.Errorf("a clone that is kept reads %q", got)
	}
}
