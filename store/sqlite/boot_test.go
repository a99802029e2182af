package sqlite

import (
	"testing"
	"time"

	"lunboot/store"
)

func TestABootFiresOnceForEachScript(t *testing.T) {
	dir := t.TempDir()
	open := func() *DB {
		db, err := Open(t.Context(), dir, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open()
	m, err := db.CreateMachine(t.Context(), "test", store.Machine{Name: "lab-01", MACs: []store.MAC{{0, 7, 0xe9, 15, 0xea, 0xf5}}, Initiator: "iqn.2026-11.test:lab-01", Auth: store.AuthNone, Profile: "san"})
	if err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	want := func(fire bool, generation int64) {
		t.Helper()
		g, fired, err := db.BootGeneration(t.Context(), m.ID, fire)
		if err != nil || g != generation || fired != (g > last) {
			t.Errorf("generation %d, fired %v, %v; want %d after %d", g, fired, err, generation, last)
		}
		last = g
	}
	arm := func() {
		t.Helper()
		if err := db.ArmBoot(t.Context(), m.ID); err != nil {
			t.Fatal(err)
		}
	}
	revision := db.MapRevision()
	want(true, 0)
	arm()
	arm() // a script that is asked for twice is one boot
	want(false, 0)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open() // armed before the script left: a restart forgets nothing
	defer db.Close()
	want(true, 1)
	want(true, 1)
	want(false, 1)
	arm()
	want(true, 2)
	if db.MapRevision() > revision {
		t.Error("a boot is no change of what an initiator may see")
	}
	if _, _, err := db.BootGeneration(t.Context(), 99, true); !store.IsNotFound(err) {
		t.Errorf("a machine that is not there: %v", err)
	}
}
