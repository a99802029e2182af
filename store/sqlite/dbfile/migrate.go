package dbfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/pressly/goose/v3"

	"lunboot/store"
)

// migrate brings the file to the newest schema that this program knows. A file
// that held something is checked and copied first.
func (f *File) migrate(ctx context.Context, c Config, size int64) error {
	name := filepath.Base(f.path)
	if size > 0 {
		if err := f.check(ctx, size); err != nil {
			return err
		}
	}
	// What is done to somebody's data is told; how a new file is made is not.
	p, err := goose.NewProvider(goose.DialectSQLite3, f.w, c.Migrations, goose.WithSlog(c.Log), goose.WithVerbose(size > 0), goose.WithDisableGlobalRegistry(true), goose.WithAllowOutofOrder(true))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the schema's version: %w", err)
	}
	if err := f.refuseNewer(ctx, c.Migrations); err != nil {
		return err
	}
	// A migration with a smaller number than the file's newest may be due still:
	// numbers are given out when work begins, not when it is done.
	if due, err := p.HasPending(ctx); err != nil || !due {
		return err
	}
	if have > 0 {
		copied, err := f.copyName(ctx, have)
		if err != nil {
			return err
		}
		if err := f.Backup(ctx, copied); err != nil {
			return fmt.Errorf("copy %s before its schema changes: %w", name, err)
		}
		c.Log.Info("the database was copied before its schema changes", "file", f.path, "copy", copied)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bring %s from schema %d to %d: %w", name, have, want, err)
	}
	return nil
}

// refuseNewer fails when the file has had a migration that this program does
// not know, and names the copy of the file that it can open.
func (f *File) refuseNewer(ctx context.Context, migrations fs.FS) error {
	known, err := numbers(migrations)
	if err != nil {
		return err
	}
	have, err := applied(ctx, f.w)
	if err != nil {
		return err
	}
	strange := have.without(known)
	if len(strange) == 0 {
		return nil
	}
	back := "start that version again, or restore a backup into an empty folder"
	if c := f.lastCopy(ctx, known); c != "" {
		back = "start that version again, or put back the copy that it made before it changed the file, which knows nothing of what came after: " + c
	}
	return &store.Error{Kind: store.KindConflict, Op: "open", Subject: f.path,
		Msg: fmt.Sprintf("%s was written by a newer lunboot (%s); %s", filepath.Base(f.path), unlike(have, known, strange), back)}
}

// maxCheck is the largest file that is read through at each start: a second on
// a slow disk. A larger one is a journal, and a start must not wait for it.
const maxCheck = 64 << 20

// check refuses a file that is damaged, or that another program wrote.
func (f *File) check(ctx context.Context, size int64) error {
	word := "ok"
	if size <= maxCheck {
		if err := f.w.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&word); err != nil {
			return err
		}
	}
	if word != "ok" {
		return &store.Error{Kind: store.KindCorrupt, Op: "open", Subject: f.path, Msg: "the file is damaged (" + word + "); put back a backup of it"}
	}
	var tables, ours int
	err := f.w.QueryRowContext(ctx, "SELECT count(*), count(*) FILTER (WHERE name = ?) FROM sqlite_schema WHERE type = 'table'", goose.DefaultTablename).Scan(&tables, &ours)
	if err != nil {
		return err
	}
	if tables > 0 && ours == 0 {
		return &store.Error{Kind: store.KindInvalid, Op: "open", Subject: f.path, Msg: "the file belongs to another program; choose another data folder"}
	}
	return nil
}

// Backup writes a consistent copy of the file to path while others read and
// write. A file that is there already is replaced in one step.
func (f *File) Backup(ctx context.Context, path string) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600; VACUUM INTO takes an empty file
	if err != nil {
		return Explain("back up", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(Explain("back up", err), os.Remove(tmp.Name()))
		}
	}()
	if err := tmp.Close(); err != nil {
		return err
	}
	// A connection of its own: writers do not wait while it reads.
	db, err := openPool(f.path, 1, url.Values{"_busy_timeout": {"5000"}})
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", tmp.Name())
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := syncFile(tmp.Name()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
