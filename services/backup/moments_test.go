package backup

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lunboot/store"
	"lunboot/store/archive"
	"lunboot/store/volume"
)

// desk is an inventory of volumes that change while they are backed up.
type desk struct {
	all   []store.Volume
	wiped map[store.VolumeID]bool
	// copied is called when the inventory is copied, for the n-th time.
	copied func(n int)
	copies int
}

func (d *desk) Backup(_ context.Context, path string) error {
	d.copies++
	if err := os.WriteFile(path, []byte("rows"), 0o600); err != nil {
		return err
	}
	if d.copied != nil {
		d.copied(d.copies)
	}
	return nil
}

func (d *desk) Volumes(context.Context) ([]store.Volume, error) {
	return append([]store.Volume{}, d.all...), nil
}

func (d *desk) MappingsOf(context.Context, store.MachineID) ([]store.Mapping, error) { return nil, nil }
func (d *desk) Wipe(_ context.Context, id store.VolumeID) (*store.Wipe, error) {
	if d.wiped[id] {
		return &store.Wipe{}, nil
	}
	return nil, nil
}
func (d *desk) Record(context.Context, store.Actor, string, string, string) error { return nil }

// house is a data folder with a few volumes.
type house struct {
	*desk
	dir   string
	pool  *volume.Pool
	maker *Maker
	last  store.LayerID
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{desk: &desk{wiped: map[store.VolumeID]bool{}}, dir: t.TempDir()}
	var err error
	h.pool, err = volume.OpenPool(filepath.Join(h.dir, "volumes"), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.pool.Close()) })
	h.maker = New(Config{Dir: h.dir, Rows: h.desk, Volumes: h.pool, Sessions: func() []store.Session { return nil }, Now: time.Now})
	return h
}

func (h *house) raw(t *testing.T, name string) int {
	t.Helper()
	v := store.Volume{ID: store.VolumeID(len(h.all) + 1), Name: name, Kind: store.VolumeRaw, Size: 1 << 20, BlockSize: 512, State: store.VolumeReady, Revision: 1}
	h.onto(&v)
	require.NoError(t, h.pool.Create(t.Context(), v))
	h.all = append(h.all, v)
	h.write(t, len(h.all)-1, name)
	return len(h.all) - 1
}

// onto gives a volume a new top layer.
func (h *house) onto(v *store.Volume) store.Layer {
	h.last++
	l := store.NewLayer(*v, v.TopLayer().ID)
	l.ID = h.last
	v.Layers = append(append([]store.Layer{}, v.Layers...), l)
	if n := len(v.Layers); n > 1 {
		v.Layers[n-2].Frozen = true
	}
	v.Top, v.Path, v.Revision = l.ID, l.Path, v.Revision+1
	return l
}

func (h *house) write(t *testing.T, n int, what string) {
	t.Helper()
	w, err := h.pool.Open(t.Context(), h.all[n])
	require.NoError(t, err)
	require.NoError(t, w.WriteAt(t.Context(), []byte(what), 4096))
	require.NoError(t, w.Close())
}

func (h *house) snapshot(t *testing.T, n int) {
	t.Helper()
	out := h.all[n]
	l := h.onto(&out)
	require.NoError(t, h.pool.Snapshot(t.Context(), h.all[n], l, func() (store.Volume, error) { return out, nil }))
	h.all[n] = out
}

func (h *house) backUp(t *testing.T) (archive.Manifest, string, error) {
	t.Helper()
	b, err := h.maker.Prepare(t.Context(), "ada", store.BackupSpec{Volumes: true})
	if err != nil {
		return archive.Manifest{}, "", err
	}
	var out bytes.Buffer
	require.NoError(t, b.Send(t.Context(), &out))
	require.NoError(t, b.Close())
	dir := t.TempDir()
	m, err := archive.Unpack(t.Context(), &out, dir)
	require.NoError(t, err)
	return m, dir, nil
}

func entry(t *testing.T, m archive.Manifest, file string) archive.Volume {
	t.Helper()
	for _, v := range m.Volumes {
		if v.Name == "volumes/"+file {
			return v
		}
	}
	t.Fatalf("%s is not listed", file)
	return archive.Volume{}
}

// The files that are in a backup are those of which its inventory speaks.
func TestABackupBeginsAnewWhenLayersChangeMeanwhile(t *testing.T) {
	h := newHouse(t)
	n, quiet := h.raw(t, "busy"), h.raw(t, "quiet")
	h.copied = func(copies int) {
		if copies == 1 {
			h.snapshot(t, n)
			h.write(t, n, "newer")
		}
	}
	m, dir, err := h.backUp(t)
	require.NoError(t, err)
	require.Equal(t, 2, h.copies)
	for _, l := range append(h.all[n].Layers, h.all[quiet].Layers...) {
		require.True(t, entry(t, m, l.Path).Included, l.Path)
	}
	got, err := os.ReadFile(filepath.Join(dir, "volumes", h.all[n].Path))
	require.NoError(t, err)
	require.Equal(t, "newer", string(got[4096:4101]))

	// Where that never ends, the volume is left out and says so; the rest is there.
	h.copied = func(int) { h.snapshot(t, n) }
	h.copies = 0
	m, _, err = h.backUp(t)
	require.NoError(t, err)
	require.Equal(t, attempts, h.copies)
	require.True(t, entry(t, m, h.all[quiet].Path).Included)
	require.Contains(t, entry(t, m, h.all[n].Path).LeftOut, "its layers changed")
	require.False(t, entry(t, m, h.all[n].Path).Included)
}

// What a machine wanted to be gone is in no backup, and neither is what has no bytes
// yet, of which nobody need be told.
func TestWhatIsBeingWipedOrMadeIsLeftOut(t *testing.T) {
	h := newHouse(t)
	wiped, made, whole := h.raw(t, "wiped"), h.raw(t, "made"), h.raw(t, "whole")
	h.wiped[h.all[wiped].ID] = true
	h.all[made].State = store.VolumeImporting
	m, dir, err := h.backUp(t)
	require.NoError(t, err)
	require.Contains(t, entry(t, m, h.all[wiped].Path).LeftOut, "wiping")
	require.Empty(t, entry(t, m, h.all[made].Path).LeftOut)
	for n, in := range map[int]bool{wiped: false, made: false, whole: true} {
		require.Equal(t, in, entry(t, m, h.all[n].Path).Included, h.all[n].Name)
		_, err := os.Stat(filepath.Join(dir, "volumes", h.all[n].Path))
		require.Equal(t, in, err == nil, h.all[n].Name)
	}
}

// A wipe that begins while the backup is sent takes the volume out of it.
func TestAWipeThatBeginsMeanwhileTakesItsVolumeOut(t *testing.T) {
	h := newHouse(t)
	wiped, whole := h.raw(t, "wiped"), h.raw(t, "whole")
	b, err := h.maker.Prepare(t.Context(), "ada", store.BackupSpec{Volumes: true})
	require.NoError(t, err)
	h.pool.GiveUp(h.all[wiped].ID)
	var out bytes.Buffer
	require.NoError(t, b.Send(t.Context(), &out))
	require.NoError(t, b.Close())
	m, err := archive.Verify(t.Context(), &out)
	require.NoError(t, err)
	require.Contains(t, entry(t, m, h.all[wiped].Path).LeftOut, "wiping")
	require.True(t, entry(t, m, h.all[whole].Path).Included)
}

// A file below others that was merged away before it could be opened is in no
// backup, and the inventory's copy would speak of it.
func TestABackupWhoseLayersWereMergedAsItBeganIsRefused(t *testing.T) {
	h := newHouse(t)
	n := h.raw(t, "busy")
	h.snapshot(t, n)
	below := h.all[n].Layers[0]
	golden := h.raw(t, "golden")
	h.all[golden].Layers[0].Frozen = true
	lists := 0
	h.maker.cfg.Rows = listing{h.desk, func() {
		if lists++; lists == 3 { // after the inventory was copied and before the folder is read
			require.NoError(t, os.Remove(filepath.Join(h.dir, "volumes", below.Path)))
			h.all[n].Layers = append([]store.Layer{}, h.all[n].Layers...)
			h.all[n].Layers[0].Path = "merged.raw"
		}
	}}
	_, _, err := h.backUp(t)
	require.Equal(t, store.KindConflict, store.KindOf(err), "%v", err)
	require.ErrorContains(t, err, "busy")
	left, err := filepath.Glob(filepath.Join(h.dir, scratchPrefix+"*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

type listing struct {
	*desk
	before func()
}

func (l listing) Volumes(ctx context.Context) ([]store.Volume, error) {
	l.before()
	return l.desk.Volumes(ctx)
}

// What changes although nobody should write to it is left out, and does not end the
// whole backup.
func TestAGoldenFileThatChangesIsLeftOut(t *testing.T) {
	h := newHouse(t)
	golden, other := h.raw(t, "golden"), h.raw(t, "other")
	h.all[golden].Layers[0].Frozen = true
	h.all[golden].Golden = true
	b, err := h.maker.Prepare(t.Context(), "ada", store.BackupSpec{Volumes: true})
	require.NoError(t, err)
	file := filepath.Join(h.dir, "volumes", h.all[golden].Path)
	require.NoError(t, os.Chtimes(file, time.Now(), time.Now().Add(time.Hour)))
	r, w := io.Pipe()
	go func() { w.CloseWithError(b.Send(t.Context(), w)) }()
	m, err := archive.Verify(t.Context(), r)
	require.NoError(t, err)
	require.NoError(t, b.Close())
	require.Contains(t, entry(t, m, h.all[golden].Path).LeftOut, "changed while it was copied")
	require.True(t, entry(t, m, h.all[other].Path).Included)
}

// A file that is missing is named, whoever stands on it.
func TestAVolumeWhoseFileIsMissingIsNamed(t *testing.T) {
	h := newHouse(t)
	golden, plain, whole := h.raw(t, "golden"), h.raw(t, "plain"), h.raw(t, "whole")
	h.all[golden].Layers[0].Frozen = true
	for _, n := range []int{golden, plain} {
		require.NoError(t, os.Remove(filepath.Join(h.dir, "volumes", h.all[n].Path)))
	}
	m, _, err := h.backUp(t)
	require.NoError(t, err)
	for _, n := range []int{golden, plain} {
		e := entry(t, m, h.all[n].Path)
		require.Contains(t, e.LeftOut, "file is missing")
		require.Equal(t, h.all[n].Name, e.Volume)
	}
	require.True(t, entry(t, m, h.all[whole].Path).Included)
}

// discarded is a pool of which every volume is volatile and lost with the host.
type discarded struct{}

func (discarded) View(context.Context, store.Volume) (*volume.View, error) {
	return nil, &store.Error{Kind: store.KindUnavailable, Cause: store.CauseDiscarded, Msg: "it is discarded"}
}

// What begins anew at its machine's next boot is no fault of a backup.
func TestAVolatileVolumeThatIsDiscardedIsNoFault(t *testing.T) {
	h := newHouse(t)
	n := h.raw(t, "volatile")
	h.maker.cfg.Volumes = discarded{}
	m, _, err := h.backUp(t)
	require.NoError(t, err)
	e := entry(t, m, h.all[n].Path)
	require.False(t, e.Included)
	require.Empty(t, e.LeftOut)
}

// leaving is a pool whose receiver has gone when a view is there.
type leaving struct {
	*volume.Pool
	leave func()
}

func (l leaving) View(ctx context.Context, v store.Volume) (*volume.View, error) {
	w, err := l.Pool.View(ctx, v)
	l.leave()
	return w, err
}

// A view that outlived its backup would have every write saved for nobody, until the
// file system is full.
func TestNoViewIsLeftWhenTheReceiverGoesAsABackupBegins(t *testing.T) {
	h := newHouse(t)
	n := h.raw(t, "disk")
	ctx, leave := context.WithCancel(t.Context())
	h.maker.cfg.Volumes = leaving{h.pool, leave}
	_, err := h.maker.Prepare(ctx, "ada", store.BackupSpec{Volumes: true})
	require.ErrorIs(t, err, context.Canceled)
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		to, _ := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		require.NotEqual(t, filepath.Join(h.dir, "volumes", h.all[n].Path), to, "the volume's file is still open")
	}
}
