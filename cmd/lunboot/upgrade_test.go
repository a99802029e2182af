package main

import (
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/store"
	"lunboot/store/sqlite"
)

// age makes the inventory in dir, which nobody has open, one that a lunboot of
// an older schema left: that lunboot's tables, with the rows of this one's as
// far as they had a place for them. It returns the newest schema.
func age(t *testing.T, dir string, schema int64) (newest int64) {
	t.Helper()
	path := filepath.Join(dir, "inventory.db")
	old, err := sql.Open("sqlite3", "file:"+path+".older?_foreign_keys=off")
	require.NoError(t, err)
	defer old.Close()
	old.SetMaxOpenConns(1)
	p, err := goose.NewProvider(goose.DialectSQLite3, old, os.DirFS("../../store/sqlite/migrations/inventory"), goose.WithSlog(slog.New(slog.DiscardHandler)), goose.WithDisableGlobalRegistry(true))
	require.NoError(t, err)
	_, err = p.UpTo(t.Context(), schema)
	require.NoError(t, err)
	_, newest, err = p.GetVersions(t.Context())
	require.NoError(t, err)
	_, err = old.Exec("PRAGMA foreign_keys = off")
	require.NoError(t, err)
	_, err = old.Exec("ATTACH ? AS now", path)
	require.NoError(t, err)
	names := func(query string, args ...any) (all []string) {
		t.Helper()
		rows, err := old.Query(query, args...)
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var name string
			require.NoError(t, rows.Scan(&name))
			all = append(all, name)
		}
		require.NoError(t, rows.Err())
		return all
	}
	for _, table := range names("SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'goose_db_version'") {
		columns := names("SELECT name FROM pragma_table_info(?, 'main') INTERSECT SELECT name FROM pragma_table_info(?, 'now')", table, table)
		require.NotEmpty(t, columns, table)
		into, from := strings.Join(columns, ", "), strings.Join(columns, ", ")
		if lost := names("SELECT name FROM pragma_table_info(?, 'main') EXCEPT SELECT name FROM pragma_table_info(?, 'now')", table, table); len(lost) > 0 {
			// Before there were layers, a volume was one file.
			require.Equal(t, []string{"path"}, lost, "a table that lost a column since needs a way back to it here")
			into, from = into+", path", from+", (SELECT path FROM now.layer WHERE layer.id = now.volume.top)"
		}
		_, err := old.Exec("DELETE FROM main." + table)
		require.NoError(t, err, table)
		_, err = old.Exec(fmt.Sprintf("INSERT INTO main.%s (%s) SELECT %s FROM now.%s", table, into, from, table))
		require.NoError(t, err, table)
	}
	require.Empty(t, names(`SELECT "table" FROM pragma_foreign_key_check`))
	_, err = old.Exec("DETACH now")
	require.NoError(t, err)
	require.NoError(t, old.Close())
	for _, end := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + end); !errors.Is(err, os.ErrNotExist) {
			require.NoError(t, err)
		}
	}
	require.NoError(t, os.Rename(path+".older", path))
	return newest
}

// machine is an initiator that writes, flushes and reads as long as it runs, and
// logs in again when its session ends, as an operating system does.
type machine struct {
	p       *child
	flushed atomic.Int64  // blocks whose flush was acknowledged
	again   chan int64    // a login after the first, with what was flushed before
	stop    chan struct{} // closed by the test
	ended   chan error
}

func (m *machine) run() { m.ended <- m.work() }

func (m *machine) work() error {
	const blocks = 64 << 11 // of the volume of 64 MiB
	for logins := 0; ; logins++ {
		i, err := m.login()
		if err != nil {
			return err
		}
		flushed := m.flushed.Load()
		for n := max(0, flushed-blocks); n < flushed; n += 1 + flushed/64 {
			if r, err := i.Do(Read10(0, uint32(n%blocks), 1)); err != nil || r.Status != 0 || binary.BigEndian.Uint64(r.Data) != uint64(n+1) {
				return fmt.Errorf("after %d logins, block %d of %d that were flushed is lost: %w", logins, n, flushed, err)
			}
		}
		if logins > 0 {
			select {
			case m.again <- flushed:
			case <-m.stop:
			}
		}
		for n := flushed; ; n++ {
			select {
			case <-m.stop:
				return i.Conn.Close()
			default:
			}
			b := make([]byte, 512)
			binary.BigEndian.PutUint64(b, uint64(n+1))
			w := Write10(0, uint32(n%blocks), b)
			w.Immediate = len(b)
			if r, err := i.Do(w); err != nil || r.Status != 0 {
				break
			}
			if n%16 == 15 {
				if r, err := i.Do(Sync10(0)); err != nil || r.Status != 0 {
					break
				}
				m.flushed.Store(n + 1)
			}
		}
		_ = i.Conn.Close()
	}
}

// login tries for half a minute: Linux does for two.
func (m *machine) login() (i *Initiator, err error) {
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		select {
		case <-m.stop:
			return nil, errors.New("the test has ended")
		default:
		}
		if i, err = m.p.dial("victim", 1); err != nil {
			continue
		}
		for range 3 { // unit attentions
			_, _ = i.Do(Ready(0))
		}
		if r, err := i.Do(Ready(0)); err == nil && r.Status == 0 {
			return i, nil
		}
		_ = i.Conn.Close()
	}
	return nil, fmt.Errorf("no login in half a minute: %w", err)
}

// takes is the room of a volume, which grows as its machine writes.
var takes = regexp.MustCompile(`"used": ?\d+`)

// nouns are what an operator would miss.
func (p *child) nouns(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, noun := range []string{"machine list", "volume list", "mapping list", "profile list", "subnet list", "lease list", "machine show chap --secrets"} {
		all[noun] = takes.ReplaceAllString(p.must(t, append([]string{"--json"}, strings.Fields(noun)...)...), `"used":0`)
	}
	return all
}

// An upgrade is a new binary over an old one's data: machines that run go on,
// nothing is missing, and the way back stands beside the database.
func TestMachinesRunOnThroughAnUpgrade(t *testing.T) {
	for schema, sig := range map[int64]syscall.Signal{1: syscall.SIGTERM, 8: syscall.SIGKILL, 13: syscall.SIGTERM} {
		t.Run(fmt.Sprintf("from schema %d after %s", schema, sig), func(t *testing.T) {
			dir := furnished(t)
			old := bear(t, dir, onLoopback...)
			old.enroll(t, "other")
			old.must(t, "machine", "add", "chap", "--mac", "02:00:00:00:00:99")
			want := old.nouns(t)
			same := []string{"--dhcp", "off", "--admin", old.up.Admin, "--boot", old.up.Boot, "--tftp", old.up.TFTP, "--iscsi", old.up.Portal, "--log-format", "json"}
			m := &machine{p: old, again: make(chan int64), stop: make(chan struct{}), ended: make(chan error, 1)}
			go m.run()
			stopped := false
			stop := func() error {
				if stopped {
					return nil
				}
				stopped = true
				close(m.stop)
				return <-m.ended
			}
			defer func() { _ = stop() }()
			require.Eventually(t, func() bool { return m.flushed.Load() >= 64 }, 20*time.Second, 20*time.Millisecond)

			require.NoError(t, old.cmd.Process.Signal(sig))
			<-old.done
			newest := age(t, dir, schema)
			begun := time.Now()
			p := bear(t, dir, same...)
			select {
			case flushed := <-m.again:
				t.Logf("it goes on %s after the start, with %d blocks flushed before", time.Since(begun), flushed)
				require.Positive(t, flushed, "nothing was going on before")
			case err := <-m.ended:
				stopped = true
				t.Fatal(err)
			case <-time.After(40 * time.Second):
				t.Fatal("the machine did not come back: ", p.log)
			}
			for noun, is := range p.nouns(t) {
				require.JSONEq(t, want[noun], is, noun)
			}
			require.NoError(t, stop(), "what it wrote over the new binary")

			// The copy is beside the database, is named, and is the older database.
			copied := filepath.Join(dir, fmt.Sprintf("inventory.db.schema-%d", schema))
			require.Contains(t, p.log.String(), copied)
			st, err := os.Stat(copied)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), st.Mode().Perm(), "it holds secrets")
			before, err := sql.Open("sqlite3", "file:"+copied+"?mode=ro&immutable=1")
			require.NoError(t, err)
			defer before.Close()
			var machines int
			var of int64
			require.NoError(t, before.QueryRow("SELECT (SELECT count(*) FROM machine), (SELECT max(version_id) FROM goose_db_version)").Scan(&machines, &of))
			require.Equal(t, 3, machines)
			require.Equal(t, schema, of)

			// Two schemas later: this binary over that file is a downgrade.
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
			<-p.done
			later, err := sql.Open("sqlite3", filepath.Join(dir, "inventory.db"))
			require.NoError(t, err)
			_, err = later.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (?, 1), (?, 1)", newest+1, newest+2)
			require.NoError(t, err)
			require.NoError(t, later.Close())
			refusedStart(t, dir, nil, "was written by a newer lunboot", fmt.Sprintf("its schema is %d, this program knows %d", newest+2, newest), "put back the copy", copied)

			// What the sentence says is the way back.
			for _, end := range []string{"-wal", "-shm"} {
				require.NoFileExists(t, filepath.Join(dir, "inventory.db"+end), "a refusal leaves no file that would be folded into another database")
			}
			require.NoError(t, os.Rename(copied, filepath.Join(dir, "inventory.db")))
			back := bear(t, dir, same...)
			for noun, is := range back.nouns(t) {
				require.JSONEq(t, want[noun], is, noun)
			}
		})
	}
}

// Whoever has not upgraded for long is brought up in one go.
func TestEveryOlderSchemaIsBroughtUp(t *testing.T) {
	dir := furnished(t)
	open := func() *sqlite.DB {
		t.Helper()
		db, err := sqlite.Open(t.Context(), dir, time.Now)
		require.NoError(t, err)
		return db
	}
	db := open()
	m, err := db.CreateMachine(t.Context(), store.ActorSystem, store.Machine{Name: "lab-01", MACs: []store.MAC{{2}}, Auth: store.AuthNone, Profile: "san", Initiator: "iqn.2026-11.test:lab-01"})
	require.NoError(t, err)
	v, err := db.CreateVolume(t.Context(), store.ActorSystem, store.Volume{Name: "v", Size: 1 << 20, BlockSize: 512, Kind: store.VolumeRaw})
	require.NoError(t, err)
	_, err = db.CreateMapping(t.Context(), store.ActorSystem, store.Mapping{Machine: m.ID, Volume: v.ID, Boot: true})
	require.NoError(t, err)
	everything := func(db *sqlite.DB) string {
		t.Helper()
		machines, _, err := db.Machines(t.Context(), store.MachineFilter{})
		require.NoError(t, err)
		volumes, err := db.Volumes(t.Context())
		require.NoError(t, err)
		mappings, err := db.Mappings(t.Context())
		require.NoError(t, err)
		subnets, err := db.Subnets(t.Context())
		require.NoError(t, err)
		leases, err := db.Leases(t.Context())
		require.NoError(t, err)
		b, err := json.Marshal([]any{machines, volumes, mappings, subnets, leases})
		require.NoError(t, err)
		return string(b)
	}
	want := everything(db)
	require.NoError(t, db.Close())
	for schema := int64(1); ; schema++ {
		newest := age(t, dir, schema)
		db := open()
		require.JSONEq(t, want, everything(db), "from schema %d", schema)
		require.NoError(t, db.Close())
		if schema == newest {
			break
		}
	}
}
