package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"lunboot/store"
	"lunboot/store/volume"
)

// A volume that cannot be opened must not keep another one with a machine that
// it was taken from.
func TestAMappingThatGoesIsGoneBesideABrokenVolume(t *testing.T) {
	a := quiet(t)
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "volumes")
	pool, err := volume.OpenPool(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	m, err := a.db.CreateMachine(ctx, "admin", store.Machine{Name: "lab1", MACs: []store.MAC{{0x52, 0x54, 0, 0, 0, 1}}, Initiator: "iqn.2026-11.lunboot:lab1", Auth: store.AuthNone, Profile: store.DefaultProfile})
	if err != nil {
		t.Fatal(err)
	}
	for lun, name := range []string{"good", "broken"} {
		v := store.Volume{Name: name, Kind: store.VolumeRaw, Size: 1 << 20, BlockSize: 512, State: store.VolumeReady, Path: name + ".raw", UUID: store.UUID{15: byte(lun + 1)}}
		if err := pool.Create(ctx, v); err != nil {
			t.Fatal(err)
		}
		if v, err = a.db.CreateVolume(ctx, "admin", v); err != nil {
			t.Fatal(err)
		}
		if _, err := a.db.CreateMapping(ctx, "admin", store.Mapping{Machine: m.ID, Volume: v.ID, LUN: store.LUN(lun)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "broken.raw"), 512); err != nil {
		t.Fatal(err)
	}
	c := catalog{db: a.db, pool: pool}
	opened, err := c.Open(ctx, m.Initiator, [6]byte{})
	if err != nil || len(opened.LUNs) != 1 || opened.LUNs[0].Name != "good" {
		t.Fatalf("at login: %v, %+v", err, opened.LUNs)
	}
	defer opened.Release()
	if err := a.db.DeleteMapping(ctx, "admin", m.ID, 0); err != nil {
		t.Fatal(err)
	}
	now, err := c.Refresh(ctx, m.Initiator)
	if err != nil || len(now.LUNs) != 0 {
		t.Fatalf("the live session keeps what was unmapped: %v, %+v", err, now.LUNs)
	}
	now.Release()
	if _, err := c.Open(ctx, m.Initiator, [6]byte{}); store.KindOf(err) != store.KindCorrupt {
		t.Errorf("the next login is told %v, and not that its volume is broken", err)
	}
}
