package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"lunboot/store/archive"

	. "lunboot/services/iscsi/iscsitest"
)

// manifest reads a backup.
func manifest(t *testing.T, file string) archive.Manifest {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	m, err := archive.Verify(t.Context(), f)
	require.NoError(t, err)
	return m
}

func (p *child) must(t *testing.T, args ...string) string {
	t.Helper()
	return (&testAppliance{dir: p.dir}).must(t, args...)
}

// The whole way: a backup while a machine writes, an empty folder, and machines
// that find what they left.
func TestMachinesBootAgainFromABackup(t *testing.T) {
	dir := furnished(t)
	p := bear(t, dir, onLoopback...)
	p.enroll(t, "idle")
	p.must(t, "machine", "add", "chap", "--mac", "02:00:00:00:00:99")
	idle, err := p.dial("idle", 1)
	require.NoError(t, err)
	mark := bytes.Repeat([]byte("what it left"), 512)[:512]
	w := Write10(0, 77, mark)
	w.Immediate = len(mark)
	idle.Must(t, w)
	idle.Must(t, Sync10(0))
	_ = idle.Conn.Close()

	busy, err := p.dial("victim", 2)
	require.NoError(t, err)
	done, ended := make(chan struct{}), make(chan error)
	go func() {
		_, err := (&victim{i: busy, rnd: seeded()}).work(done, 512, 4096)
		ended <- err
	}()
	for range 100 { // the session that was closed is gone
		if !strings.Contains(p.must(t, "session", "list"), "idle") {
			break
		}
	}
	file := filepath.Join(t.TempDir(), "lab.tar.gz")
	require.NoError(t, os.WriteFile(file, []byte("an older one"), 0o644))
	said := p.must(t, "backup", file, "--volumes", "--journal")
	require.Contains(t, said, "wrote and checked")
	require.Contains(t, said, "it holds secrets that can be read")
	close(done)
	require.NoError(t, <-ended, "a backup is no business of a machine that works")
	st, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm(), "it holds secrets")
	left, err := filepath.Glob(filepath.Join(dir, ".backup-*"))
	require.NoError(t, err)
	require.Empty(t, left)
	m := manifest(t, file)
	in := map[string]bool{}
	for _, v := range m.Volumes {
		in[v.Volume] = v.Included
	}
	require.Equal(t, map[string]bool{"victim": true, "idle": true}, in)
	require.Regexp(t, `victim +\S+ +64 MiB +in it, running: as after a power cut`, said)
	require.Contains(t, p.must(t, "event", "list"), "iscsi")
	before := p.must(t, "--json", "machine", "show", "chap", "--secrets")
	leases := leasesOf(t, dir)

	empty := filepath.Join(dataDir(t), "lunboot")
	code, out, errs := cliIn(empty, "restore", file)
	require.Equal(t, exitDone, code, errs)
	require.Contains(t, out, "3 machines, 2 volumes, 1 leases")
	require.Contains(t, out, "volume victim was running when it was copied")
	require.Equal(t, leases, leasesOf(t, empty))
	q := bear(t, empty, onLoopback...)
	require.Equal(t, p.up.Target, q.up.Target, "installed machines know the target by its name")
	require.JSONEq(t, before, q.must(t, "--json", "machine", "show", "chap", "--secrets"))
	again, err := q.dial("idle", 3)
	require.NoError(t, err)
	require.Equal(t, mark, again.Must(t, Read10(0, 77, 1)).Data)
	require.Contains(t, q.must(t, "--json", "event", "list"), "iscsi", "the journal came too")
	_ = again.Conn.Close()

	code, _, errs = cliIn(empty, "restore", file)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "inventory.db")
	require.Contains(t, errs, "--data")
}

func TestARestoreThatIsRefusedLeavesTheFolderEmpty(t *testing.T) {
	a := started(t, dataDir(t))
	a.must(t, "volume", "create", "v1", "--size", "8M")
	work := t.TempDir()
	good := filepath.Join(work, "good")
	require.Contains(t, a.must(t, "backup", good, "--hash"), "left out")
	m := manifest(t, good)
	require.Len(t, m.Volumes, 1)
	require.Len(t, m.Volumes[0].SHA256, 64)
	require.False(t, slices.ContainsFunc(m.Files, func(f archive.File) bool { return strings.HasPrefix(f.Name, "volumes/") || f.Name == "journal.db" }))

	b, err := os.ReadFile(good)
	require.NoError(t, err)
	newer := filepath.Join(work, "inventory.db")
	require.NoError(t, a.db(t).Close())
	for name, make := range map[string]func() []byte{
		"cut off":      func() []byte { return b[:len(b)-20] },
		"another file": func() []byte { return []byte("#!ipxe\n") },
		"newer": func() []byte {
			stage := t.TempDir()
			_, err := archive.Unpack(t.Context(), bytes.NewReader(b), stage)
			require.NoError(t, err)
			require.NoError(t, os.Rename(filepath.Join(stage, "inventory.db"), newer))
			db, err := sql.Open("sqlite3", newer)
			require.NoError(t, err)
			_, err = db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)")
			require.NoError(t, err)
			require.NoError(t, db.Close())
			var out bytes.Buffer
			_, err = archive.Write(t.Context(), &out, m.Head, []archive.Item{{Name: "inventory.db", Path: newer}}, nil)
			require.NoError(t, err)
			return out.Bytes()
		},
		"without an inventory": func() []byte {
			var out bytes.Buffer
			_, err := archive.Write(t.Context(), &out, m.Head, nil, nil)
			require.NoError(t, err)
			return out.Bytes()
		},
	} {
		bad, empty := filepath.Join(work, "bad"), dataDir(t)
		require.NoError(t, os.WriteFile(bad, make(), 0o600))
		code, _, errs := cliIn(empty, "restore", bad)
		require.Equal(t, exitFailed, code, name)
		require.NotEmpty(t, errs, name)
		files, err := os.ReadDir(empty)
		require.NoError(t, err)
		require.Empty(t, files, name)
	}
}

// db is the inventory's file, as another program reads it.
func (a *testAppliance) db(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(a.dir, "inventory.db"))
	require.NoError(t, err)
	return db
}

func TestABackupIsForAdminsAndIsAudited(t *testing.T) {
	a := started(t, dataDir(t))
	a.must(t, "backup", filepath.Join(t.TempDir(), "b"))
	var audit struct {
		Items []struct{ Action, Actor string }
	}
	c := socketClient(a.dir)
	resp, err := c.Get("http://lunboot/api/v1/audit")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&audit))
	require.Equal(t, "backup.create", audit.Items[0].Action)
	token := strings.TrimSpace(a.must(t, "token", "create", "robot", "--scope", "operate"))
	req, err := http.NewRequest("POST", "http://"+a.Admin+"/api/v1/backup", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	refused, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	require.NoError(t, err)
	defer refused.Body.Close()
	require.Equal(t, http.StatusForbidden, refused.StatusCode)
	code, _, errs := cliIn(a.dir, "backup", "/nonexistent/folder/file")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "/nonexistent/folder")
}

// socketClient asks the appliance of a data folder.
func socketClient(dir string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "lunboot.sock"))
	}}}
}

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// What never changes is listed with its SHA-256, and read for it once.
func TestABackupKnowsGoldenVolumesByTheirSums(t *testing.T) {
	a := started(t, dataDir(t))
	a.must(t, "volume", "create", "golden", "--size", "4M")
	a.must(t, "volume", "freeze", "golden")
	a.must(t, "volume", "create", "plain", "--size", "4M")
	sums := func(args ...string) map[string]string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "b")
		a.must(t, append([]string{"backup", file}, args...)...)
		out := map[string]string{}
		for _, v := range manifest(t, file).Volumes {
			out[v.Volume] = v.SHA256
		}
		return out
	}
	first := sums()
	require.Len(t, first["golden"], 64)
	require.Empty(t, first["plain"], "a machine may write to it tomorrow")
	all := sums("--hash")
	require.Equal(t, first["golden"], all["golden"])
	require.Len(t, all["plain"], 64)
	require.Empty(t, sums("--no-hash")["golden"])
	require.Equal(t, first, sums())

	// What is kept is believed for as long as the file is as it was.
	kept := filepath.Join(a.dir, "backup-sums.json")
	st, err := os.Stat(kept)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	b, err := os.ReadFile(kept)
	require.NoError(t, err)
	other := strings.Repeat("0", 64)
	require.NoError(t, os.WriteFile(kept, bytes.ReplaceAll(b, []byte(first["golden"]), []byte(other)), 0o600))
	require.Equal(t, other, sums()["golden"], "it is read again although nothing changed")
	files, err := filepath.Glob(filepath.Join(a.dir, "volumes", "golden-*.raw"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	require.NoError(t, os.Chmod(files[0], 0o600))
	require.NoError(t, os.Chmod(files[0], 0o640))
	require.Equal(t, first["golden"], sums()["golden"], "it is not read again although the file was touched")
	require.NoError(t, os.WriteFile(kept, []byte("half of"), 0o600))
	require.Equal(t, first["golden"], sums()["golden"])
}

// Whoever watches sees that something happens.
func TestABackupShowsHowFarItIs(t *testing.T) {
	a := started(t, dataDir(t))
	person, program := terminal(t)
	var errs bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(context.Background(), nil, []string{"--data", a.dir, "backup", filepath.Join(t.TempDir(), "b")}, strings.NewReader(""), program, &errs)
	}()
	seen := reads(t, person, "wrote and checked")
	require.Contains(t, seen, "have come")
	require.Contains(t, seen, "checking what was written")
	require.Equal(t, exitDone, <-code, errs.String())
}

// Who asked for volumes is told by the exit code that one is not there; what could be
// had is kept.
func TestABackupThatLacksAVolumeSaysSoByItsExitCode(t *testing.T) {
	a := started(t, dataDir(t))
	a.must(t, "volume", "create", "lost", "--size", "4M")
	a.must(t, "volume", "create", "kept", "--size", "4M")
	files, err := filepath.Glob(filepath.Join(a.dir, "volumes", "lost-*"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	require.NoError(t, os.Remove(files[0]))
	file := filepath.Join(t.TempDir(), "b")
	code, out, errs := cliIn(a.dir, "backup", file, "--volumes")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "without the bytes of volume lost")
	require.Contains(t, errs, "file is missing")
	require.Regexp(t, `lost .*left out: .*file is missing`, out)
	for _, v := range manifest(t, file).Volumes {
		require.Equal(t, v.Volume == "kept", v.Included, v.Volume)
	}
	a.must(t, "backup", file) // which wants no bytes
}
