package dbfile

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"lunboot/store"
)

// schema is a migration that makes the table t, and as many that add a column.
func schema(version int) fs.FS {
	files := fstest.MapFS{"0001_t.sql": {Data: []byte("-- +goose Up\nCREATE TABLE t (n INTEGER NOT NULL UNIQUE, up INTEGER REFERENCES t (n)) STRICT;\n")}}
	for v := 2; v <= version; v++ {
		files[fmt.Sprintf("%04d_c.sql", v)] = &fstest.MapFile{Data: fmt.Appendf(nil, "-- +goose Up\nALTER TABLE t ADD COLUMN c%d TEXT NOT NULL DEFAULT 'x';\n", v)}
	}
	return files
}

func config(version int) Config {
	return Config{Synchronous: "FULL", Migrations: schema(version), Log: slog.New(slog.DiscardHandler)}
}

func open(t *testing.T, path string, c Config) *File {
	t.Helper()
	f, err := Open(t.Context(), path, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func insert(n int) func(*Tx) error {
	return func(t *Tx) error {
		_, err := t.Run("INSERT INTO t (n) VALUES (?)", n)
		return err
	}
}

func count(t *testing.T, q Querier) int {
	t.Helper()
	n, err := One(context.Background(), q, Scalar[int], nil, "SELECT count(*) FROM t")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestBothPoolsRunWithTheirPragmas(t *testing.T) {
	for _, level := range []string{"FULL", "NORMAL"} {
		c := config(1)
		c.Synchronous = level
		f := open(t, filepath.Join(t.TempDir(), "x.db"), c)
		// Every connection of a pool, not only the first.
		for range 2 * readers {
			if err := errors.Join(f.assertPragmas(t.Context(), f.w, level, 0), f.assertPragmas(t.Context(), f.r, level, 1)); err != nil {
				t.Error(err)
			}
		}
		conns := make([]*sql.Conn, readers)
		for i := range conns {
			var err error
			if conns[i], err = f.r.Conn(t.Context()); err != nil {
				t.Fatal(err)
			}
			var on int
			if err := conns[i].QueryRowContext(t.Context(), "PRAGMA query_only").Scan(&on); err != nil || on != 1 {
				t.Errorf("reader %d: query_only %d, %v", i, on, err)
			}
			defer conns[i].Close()
		}
		if _, err := conns[0].ExecContext(t.Context(), "INSERT INTO t (n) VALUES (1)"); err == nil {
			t.Error("a reader wrote")
		}
	}
	f := open(t, filepath.Join(t.TempDir(), "x.db"), config(1))
	if err := f.assertPragmas(t.Context(), f.w, "NORMAL", 0); store.KindOf(err) != store.KindInternal || !strings.Contains(err.Error(), "synchronous") {
		t.Errorf("a pool that runs otherwise than asked: %v", err)
	}
	err := f.Write(t.Context(), func(x *Tx) error {
		_, err := x.Run("INSERT INTO t (n, up) VALUES (1, 99)")
		return err
	})
	if err == nil {
		t.Error("a foreign key that leads nowhere was accepted")
	}
}

func TestFilesAreForTheirOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.db")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	f := open(t, path, config(1))
	if err := f.Write(t.Context(), insert(1)); err != nil {
		t.Fatal(err)
	}
	if err := f.Backup(t.Context(), filepath.Join(dir, "copy.db")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if len(entries) != 4 { // x.db, -wal, -shm, copy.db
		t.Errorf("files: %v", entries)
	}
}

func TestFolderMayHaveAnyName(t *testing.T) {
	for _, name := range []string{"with space", "50%", "a?b=c&_foreign_keys=off", "#1", "ünïcode", "a%20b", "semi;colon"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		f := open(t, filepath.Join(dir, "x.db"), config(1))
		if err := f.Write(t.Context(), insert(1)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "x.db-wal")); err != nil {
			t.Errorf("%s: the file is elsewhere: %v", name, err)
		}
	}
}

func TestMigrationCopiesTheFileFirst(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.db")
	f, err := Open(t.Context(), path, config(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Write(t.Context(), insert(7)), f.Close()); err != nil {
		t.Fatal(err)
	}
	if names := glob(t, dir); names != "x.db" {
		t.Errorf("files of a fresh inventory: %s", names)
	}

	var log bytes.Buffer
	c := config(3)
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	f = open(t, path, c)
	if n := count(t, f.Reader()); n != 1 {
		t.Errorf("%d rows after the migration", n)
	}
	if got, err := One(t.Context(), f.Reader(), Scalar[string], nil, "SELECT c2 || c3 FROM t WHERE n = 7"); err != nil || got != "xx" {
		t.Errorf("the new columns hold %q, %v", got, err)
	}
	if !strings.Contains(log.String(), "0003_c.sql") {
		t.Errorf("the log does not name the migration: %s", log.String())
	}
	before := open(t, path+".schema-1", config(1))
	if n := count(t, before.Reader()); n != 1 {
		t.Errorf("the copy has %d rows", n)
	}
}

func TestAMigrationWithALowerNumberIsTakenLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	c := config(3)
	files := c.Migrations.(fstest.MapFS)
	later := files["0002_c.sql"]
	delete(files, "0002_c.sql")
	f, err := Open(t.Context(), path, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Write(t.Context(), insert(7)), f.Close()); err != nil {
		t.Fatal(err)
	}
	files["0002_c.sql"] = later
	f = open(t, path, c)
	if got, err := One(t.Context(), f.Reader(), Scalar[string], nil, "SELECT c2 || c3 FROM t WHERE n = 7"); err != nil || got != "xx" {
		t.Errorf("the columns hold %q, %v", got, err)
	}
	if names := glob(t, filepath.Dir(path)); !strings.Contains(names, "x.db.schema-3") {
		t.Errorf("nothing was copied first: %s", names)
	}
}

func glob(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestNewerFileIsRefusedAndUntouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	f, err := Open(t.Context(), path, config(3))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Write(t.Context(), insert(7)), f.Close()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), path, config(1))
	if store.KindOf(err) != store.KindConflict {
		t.Errorf("kind %s: %v", store.KindOf(err), err)
	}
	for _, word := range []string{"newer", "x.db", "3", "1", "restore a backup"} {
		if !strings.Contains(fmt.Sprint(err), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	// A copy that this program can open is named with its whole path; one that
	// it cannot, and what is no copy at all, are passed over.
	for n := range 2 {
		f, err := Open(t.Context(), fmt.Sprint(path, ".schema-", n+1), config(n+1))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path+".schema-0", []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, config(1)); err == nil || !strings.Contains(err.Error(), "put back the copy") || !strings.HasSuffix(err.Error(), path+".schema-1") {
		t.Errorf("the way back is: %v", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed (%v)", err)
	}
}

// Two programs of schema 3, one of which lacks migration 2: the file of the one
// is refused by the other, in words that do not say that 3 is newer than 3.
func TestAFileWithAMigrationThatCameLateIsRefusedByWhoLacksIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	lacks := config(3)
	delete(lacks.Migrations.(fstest.MapFS), "0002_c.sql")
	upgrade := func(c Config) {
		f, err := Open(t.Context(), path, c)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	upgrade(lacks)
	upgrade(lacks)
	upgrade(config(3))
	if _, err := Open(t.Context(), path, lacks); store.KindOf(err) != store.KindConflict || !strings.Contains(err.Error(), "migration 2, which this program does not know") || !strings.HasSuffix(err.Error(), path+".schema-3") {
		t.Errorf("the refusal is: %v", err)
	}
	if _, err := Inspect(t.Context(), path, lacks.Migrations, func(Querier) error { return nil }); store.KindOf(err) != store.KindConflict || !strings.Contains(err.Error(), "migration 2") {
		t.Errorf("a restore of it: %v", err)
	}
	upgrade(config(4))
	// The second upgrade from a schema 3 kept the copy of the first, and each
	// program is sent to the one that it can open.
	for _, c := range []struct {
		program Config
		copy    string
	}{{lacks, ".schema-3"}, {config(3), ".schema-3.2"}} {
		if _, err := Open(t.Context(), path, c.program); err == nil || !strings.HasSuffix(err.Error(), path+c.copy) {
			t.Errorf("of the copies %s: %v", glob(t, filepath.Dir(path)), err)
		}
		if f, err := Open(t.Context(), path+c.copy, c.program); err != nil {
			t.Error(err)
		} else if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAMigrationThatCameLateIsRunOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	late := config(3)
	second := late.Migrations.(fstest.MapFS)["0002_c.sql"]
	delete(late.Migrations.(fstest.MapFS), "0002_c.sql")
	f, err := Open(t.Context(), path, late)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Write(t.Context(), insert(7)), f.Close()); err != nil {
		t.Fatal(err)
	}
	late.Migrations.(fstest.MapFS)["0002_c.sql"] = second
	for range 2 {
		f, err := Open(t.Context(), path, late)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := One(t.Context(), f.Reader(), Scalar[int], nil, "SELECT count(*) FROM t WHERE c2 = 'x' AND c3 = 'x'"); n != 1 || err != nil {
			t.Errorf("%d rows have both columns, %v", n, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path + ".schema-3"); err != nil {
		t.Errorf("the file was not copied before it changed: %v", err)
	}
}

func TestFailedMigrationChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	f, err := Open(t.Context(), path, config(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Write(t.Context(), insert(7)), f.Close()); err != nil {
		t.Fatal(err)
	}
	c := config(2)
	c.Migrations.(fstest.MapFS)["0002_c.sql"].Data = []byte("-- +goose Up\nUPDATE t SET n = 8;\nALTER TABLE none ADD COLUMN c TEXT;\n")
	if _, err := Open(t.Context(), path, c); err == nil || !strings.Contains(err.Error(), "schema 1 to 2") {
		t.Errorf("a migration that cannot work: %v", err)
	}
	f = open(t, path, config(1))
	if n, err := One(t.Context(), f.Reader(), Scalar[int], nil, "SELECT n FROM t"); n != 7 || err != nil {
		t.Errorf("the row holds %d, %v", n, err)
	}
}

func TestFilesThatAreNotOurs(t *testing.T) {
	dir := t.TempDir()
	noise := filepath.Join(dir, "noise.db")
	if err := os.WriteFile(noise, bytes.Repeat([]byte("this is no database "), 500), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign.db")
	db, err := openPool(foreign, 1, url.Values{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE browser_history (url TEXT)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(dir, "torn.db")
	f, err := Open(t.Context(), torn, config(1))
	if err != nil {
		t.Fatal(err)
	}
	for n := range 2000 {
		if err := f.Write(t.Context(), insert(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(torn)
	if err != nil {
		t.Fatal(err)
	}
	for i := 3 * 4096; i < len(raw); i++ {
		raw[i] ^= 0x5a
	}
	if err := os.WriteFile(torn, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]store.Kind{
		noise: store.KindCorrupt, torn: store.KindCorrupt, foreign: store.KindInvalid,
		filepath.Join(dir, "none", "x.db"): store.KindNotFound,
	} {
		f, err := Open(t.Context(), path, config(1))
		if store.KindOf(err) != want || f != nil {
			t.Errorf("%s: kind %s, %v; want %s", filepath.Base(path), store.KindOf(err), err, want)
		}
	}
}

func TestWriteIsAllOrNothing(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "x.db"), config(1))
	wrong := errors.New("wrong")
	for name, fn := range map[string]func(*Tx) error{
		"an error":            func(x *Tx) error { return errors.Join(insert(1)(x), wrong) },
		"a broken constraint": func(x *Tx) error { return errors.Join(insert(1)(x), insert(1)(x)) },
		"a broken statement": func(x *Tx) error {
			_, err := x.Run("no SQL")
			return errors.Join(insert(1)(x), err)
		},
	} {
		if err := f.Write(t.Context(), fn); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if n := count(t, f.Reader()); n != 0 {
			t.Errorf("%s: left %d rows", name, n)
		}
	}
	// A caller that ends in the middle.
	ctx, cancel := context.WithCancel(t.Context())
	err := f.Write(ctx, func(x *Tx) error {
		defer cancel()
		return insert(1)(x)
	})
	if !errors.Is(err, context.Canceled) || count(t, f.Reader()) != 0 {
		t.Errorf("a caller that ended: %v, %d rows", err, count(t, f.Reader()))
	}
	if err := f.Write(t.Context(), insert(1)); err != nil || count(t, f.Reader()) != 1 {
		t.Errorf("the next writer: %v", err)
	}
}

func TestWaitingWriterLeavesWhenItsCallerEnds(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "x.db"), config(1))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := f.Write(t.Context(), func(x *Tx) error {
		if err := f.Write(ctx, insert(2)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the second writer: %v", err)
		}
		return insert(1)(x)
	})
	if err != nil || count(t, f.Reader()) != 1 {
		t.Errorf("the first writer: %v", err)
	}
}

func TestFullDiskIsSaidAndSurvived(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "x.db"), config(1))
	// A bound on the file's pages is SQLite's own full disk.
	limit := func(pages int) {
		var now int
		if err := f.w.QueryRow(fmt.Sprintf("PRAGMA max_page_count = %d", pages)).Scan(&now); err != nil {
			t.Fatal(err)
		}
	}
	var pages int
	if err := f.w.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	limit(pages)
	err := f.Write(t.Context(), func(x *Tx) error {
		for n := range 10000 {
			if err := insert(n)(x); err != nil {
				return err
			}
		}
		return nil
	})
	err = Explain("write", err)
	if store.KindOf(err) != store.KindUnavailable || !strings.Contains(err.Error(), "full") {
		t.Errorf("kind %s: %v", store.KindOf(err), err)
	}
	if n := count(t, f.Reader()); n != 0 {
		t.Errorf("left %d rows", n)
	}
	limit(1 << 30)
	if err := f.Write(t.Context(), insert(1)); err != nil {
		t.Errorf("after room was made: %v", err)
	}
}

func TestReadSeesOneState(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "x.db"), config(1))
	err := f.Read(t.Context(), func(q Querier) error {
		a := count(t, q)
		if err := f.Write(t.Context(), insert(1)); err != nil {
			return err
		}
		if b := count(t, q); a != 0 || b != 0 {
			t.Errorf("one read saw %d and then %d rows", a, b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, f.Reader()); n != 1 {
		t.Errorf("the next read saw %d rows", n)
	}
}

func TestBackupWhileOthersWrite(t *testing.T) {
	dir := t.TempDir()
	f := open(t, filepath.Join(dir, "x.db"), config(1))
	stop := make(chan struct{})
	written := make(chan error, 1)
	go func() {
		for n := 0; ; n += 2 {
			select {
			case <-stop:
				written <- nil
				return
			default:
			}
			err := f.Write(context.Background(), func(x *Tx) error { return errors.Join(insert(n)(x), insert(n+1)(x)) })
			if err != nil {
				written <- err
				return
			}
		}
	}()
	path := filepath.Join(dir, "copy")
	for range 5 {
		if err := f.Backup(t.Context(), path); err != nil {
			t.Error(err)
		}
		c, err := Open(t.Context(), path, config(1))
		if err != nil {
			t.Fatal(err)
		}
		if n := count(t, c.Reader()); n%2 != 0 {
			t.Errorf("the copy has %d rows: half a transaction", n)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if err := <-written; err != nil {
		t.Error(err)
	}
	if err := f.Backup(t.Context(), filepath.Join(dir, "none", "copy")); store.KindOf(err) != store.KindNotFound {
		t.Errorf("into a folder that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Backup(ctx, filepath.Join(dir, "canceled")); err == nil {
		t.Error("a canceled copy was made")
	}
	if names := glob(t, dir); strings.Contains(names, ".canceled") || strings.Contains(names, "canceled") {
		t.Errorf("a canceled copy left files: %s", names)
	}
}

func TestErrorsGetTheirKind(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "x.db"), config(1))
	if err := f.Write(t.Context(), insert(1)); err != nil {
		t.Fatal(err)
	}
	twice := f.Write(t.Context(), insert(1))
	known := store.InUse("held")
	for what, c := range map[string]struct {
		err  error
		want store.Kind
	}{
		"nothing":     {nil, store.KindUnknown},
		"ours":        {known, store.KindInUse},
		"a duplicate": {twice, store.KindConflict},
		"a canceled":  {context.Canceled, store.KindUnavailable},
		"a deadline":  {fmt.Errorf("x: %w", context.DeadlineExceeded), store.KindUnavailable},
		"a mode":      {&fs.PathError{Op: "open", Path: "x", Err: os.ErrPermission}, store.KindDenied},
		"a surprise":  {errors.New("x"), store.KindInternal},
	} {
		got := Explain("try", c.err)
		if store.KindOf(got) != c.want {
			t.Errorf("%s: kind %s, want %s: %v", what, store.KindOf(got), c.want, got)
		}
		if c.err != nil && !errors.Is(got, c.err) {
			t.Errorf("%s: the cause is lost: %v", what, got)
		}
	}
}

func TestTimesComeBack(t *testing.T) {
	for _, want := range []time.Time{{}, time.Unix(0, 1).UTC(), time.Date(2026, 11, 22, 10, 9, 8, 7, time.UTC), time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if got := Instant(Nanos(want)); !got.Equal(want) || got.IsZero() != want.IsZero() {
			t.Errorf("%v comes back as %v", want, got)
		}
	}
}
