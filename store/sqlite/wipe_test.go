package sqlite

import (
	"slices"
	"testing"
	"time"

	"lunboot/store"
)

// One that cannot be read keeps no other from going on, and is told of by whoever
// logs in to its volume.
func TestAWipeThatMakesNoSenseStandsInNobodysWay(t *testing.T) {
	db := openAt(t, time.Now)
	ctx := t.Context()
	var ids []store.VolumeID
	for _, name := range []string{"damaged", "whole"} {
		v, err := db.CreateVolume(ctx, "ann", store.Volume{Name: name, Kind: store.VolumeRaw, Size: 1 << 20, BlockSize: 512, State: store.VolumeReady, Path: name + ".raw", Sanitize: true, UUID: store.NewUUID()})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.BeginWipe(ctx, v.ID, store.Wipe{Bytes: name}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, v.ID)
	}
	err := db.write(ctx, "damage", func(x *tx) error {
		_, err := x.Run("UPDATE wipe SET state = 'nonsense' WHERE volume = ?", int64(ids[0]))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := db.UnfinishedWipes(ctx); err != nil || !slices.Equal(got, ids[1:]) {
		t.Errorf("unfinished are %v, %v; want %v", got, err, ids[1:])
	}
	if _, err := db.Wipe(ctx, ids[0]); store.KindOf(err) != store.KindCorrupt {
		t.Errorf("the damaged one: %v", err)
	}
}
