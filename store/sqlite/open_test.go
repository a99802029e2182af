package sqlite

import (
	"context"
	"testing"
	"time"

	"lunboot/store"
)

func TestSmoke(t *testing.T) {
	db, err := Open(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	mac, _ := store.ParseMAC("00:07:e9:0f:ea:f5")
	m, err := db.CreateMachine(context.Background(), "me", store.Machine{Name: "lab-01", MACs: []store.MAC{mac}, Initiator: "iqn.2026-11.lab:lab-01", Auth: store.AuthNone, Profile: "san"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := db.MachineByMAC(t.Context(), mac)
	t.Logf("%+v %+v %v", m, got, err)
	a, n, err := db.Audit(t.Context(), store.Page{})
	t.Log(a, n, err)
	j, err := OpenJournal(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	t.Log(j.LastSeq(t.Context()))
}
