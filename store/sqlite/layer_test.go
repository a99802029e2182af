package sqlite

import (
	"io/fs"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// An inventory that was made before there were layers keeps its volumes, each in
// its one layer.
func TestOlderVolumesGetTheirLayer(t *testing.T) {
	dir := t.TempDir()
	older := fstest.MapFS{}
	steps, err := fs.Sub(migrations, "migrations/inventory")
	if err != nil {
		t.Fatal(err)
	}
	names, err := fs.Glob(steps, "000[1-8]_*.sql")
	if err != nil || len(names) != 8 {
		t.Fatal(names, err)
	}
	for _, n := range names {
		b, err := fs.ReadFile(steps, n)
		if err != nil {
			t.Fatal(err)
		}
		older[n] = &fstest.MapFile{Data: b}
	}
	f, err := dbfile.Open(t.Context(), filepath.Join(dir, inventoryFile+".db"), dbfile.Config{Synchronous: "FULL", Migrations: older, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	uuids := map[string]store.UUID{}
	err = f.Write(t.Context(), func(tx *dbfile.Tx) error {
		for name, v := range map[string]struct{ kind, path string }{"debian": {"raw", "debian-1.raw"}, "lv": {"device", "/dev/vg/lv"}, "bare": {"raw", ""}} {
			uuids[name] = store.NewUUID()
			if _, err := tx.Insert(`INSERT INTO volume (name, uuid, kind, size, block_size, read_only, shared, reset, state, progress, reason, path, created_from, created, updated, revision)
				VALUES (?, ?, ?, 8192, 512, 0, 0, 0, 'ready', 0, '', ?, '', 1, 1, 1)`, name, uuids[name].String(), v.kind, v.path); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := Open(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for name, want := range map[string]store.Layer{
		"debian": {Kind: store.LayerRaw, Path: "debian-1.raw"},
		"lv":     {Kind: store.LayerDevice, Path: "/dev/vg/lv"},
		"bare":   {Kind: store.LayerRaw, Path: "bare-" + uuids["bare"].String()[:8] + ".raw"},
	} {
		v, err := db.VolumeByName(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		l := v.TopLayer()
		if len(v.Layers) != 1 || l.ID != v.Top || l.Volume != v.ID || l.Kind != want.Kind || l.Path != want.Path || v.Path != want.Path || l.Size != 8192 || l.Frozen || l.UUID.IsZero() {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if loose, err := db.LooseLayers(t.Context()); err != nil || len(loose) != 0 {
		t.Errorf("loose: %+v, %v", loose, err)
	}
}
