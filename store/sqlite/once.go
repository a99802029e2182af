package sqlite

import (
	"context"
	"fmt"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// ConsumeOnce clears the profile that a machine was given for one boot, if it still
// is this one, and was not chosen, or chosen again, after this time. It reports
// whether it was.
func (db *DB) ConsumeOnce(ctx context.Context, id store.MachineID, profile string, chosen time.Time) (used bool, err error) {
	err = db.write(ctx, "use up one-shot profile", func(t *tx) error {
		m, err := machineBy(t.Ctx, t, "number", fmt.Sprint(id), "id = ?", int64(id))
		if used = err == nil && m.OnceProfile != "" && m.OnceProfile == profile; !used {
			return err
		}
		n, err := t.Run("UPDATE machine SET once_profile = NULL, revision = revision + 1, updated = ? WHERE id = ? AND once_chosen <= ?", dbfile.Nanos(t.now), int64(id), dbfile.Nanos(chosen))
		if used = err == nil && n > 0; !used {
			return err
		}
		t.move(enrolled)
		return t.audit(store.ActorSystem, "machine.once", m.Name, "the profile "+m.OnceProfile+" was used for one boot")
	})
	return used && err == nil, err
}

// Baseline returns what a machine's boot volume held when it was first given the
// installer that was chosen for its next boot.
func (db *DB) Baseline(ctx context.Context, id store.MachineID) (store.Baseline, error) {
	return dbfile.One(ctx, db.file.Reader(), func(r dbfile.Row) (b store.Baseline, err error) {
		return b, r.Scan(&b.Volume, &b.Attempt, &b.BIOS, &b.UEFI)
	}, store.NotFound("baseline of machine", fmt.Sprint(id)), "SELECT volume, attempt, bios, uefi FROM baseline WHERE machine = ?", int64(id))
}

// PutBaseline keeps what a machine's boot volume holds before the installer that was
// chosen for its next boot, if that still is this profile. What was kept first stays,
// unless it is of another volume, or of a later attempt: the journal was lost since, and
// attempts are counted anew. It is on disk when PutBaseline returns.
func (db *DB) PutBaseline(ctx context.Context, id store.MachineID, profile string, b store.Baseline) error {
	return db.batch.do(ctx, "note what a volume holds", func(t *tx) error {
		_, err := t.Run(`INSERT INTO baseline (machine, volume, attempt, bios, uefi) SELECT id, ?, ?, ?, ? FROM machine WHERE id = ? AND once_profile = ?
			ON CONFLICT (machine) DO UPDATE SET volume = excluded.volume, attempt = excluded.attempt, bios = excluded.bios, uefi = excluded.uefi
			WHERE volume <> excluded.volume OR attempt > excluded.attempt`, int64(b.Volume), int64(b.Attempt), b.BIOS, b.UEFI, int64(id), profile)
		return err
	})
}
