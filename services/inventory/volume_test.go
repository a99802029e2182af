package inventory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lunboot/store"
)

func TestCreateVolumeMakesARowAndAFile(t *testing.T) {
	h := newHouse(t)
	v, err := h.CreateVolume(t.Context(), ada, store.VolumeSpec{Name: "Debian", Size: 8 << 30, Shared: true})
	must(t, err)
	if v.Name != "debian" || v.State != store.VolumeReady || v.Kind != store.VolumeRaw || v.BlockSize != 512 || v.UUID.IsZero() || !v.Shared {
		t.Errorf("the volume is %+v", v)
	}
	if want := fmt.Sprintf("debian-%s.raw", v.UUID.String()[:8]); v.Path != want || h.files(t) != want {
		t.Errorf("the path is %q, the folder holds %q", v.Path, h.files(t))
	}
	handle, err := h.pool.Open(t.Context(), v)
	must(t, err)
	defer handle.Close()
	if handle.Size() != 8<<30 {
		t.Errorf("the size is %d", handle.Size())
	}
	lines, _, err := h.db.Audit(t.Context(), store.Page{})
	must(t, err)
	if len(lines) != 1 || lines[0].Action != "volume.create" || lines[0].Actor != ada {
		t.Errorf("the audit log ends with %+v", lines)
	}
}

func TestBadVolumesAreRefusedAndChangeNothing(t *testing.T) {
	h := newHouse(t)
	h.volume(t, "debian", 1<<20)
	for _, tt := range []struct {
		spec  store.VolumeSpec
		kind  store.Kind
		parts []string
	}{
		{store.VolumeSpec{Name: "", Size: 512}, store.KindInvalid, []string{"name"}},
		{store.VolumeSpec{Name: "../etc/passwd", Size: 512}, store.KindInvalid, []string{"position 1"}},
		{store.VolumeSpec{Name: "DEBIAN", Size: 512}, store.KindConflict, []string{"debian"}},
		{store.VolumeSpec{Name: "x", Size: 0}, store.KindInvalid, []string{"whole blocks"}},
		{store.VolumeSpec{Name: "x", Size: 1000}, store.KindInvalid, []string{"1000 bytes", "whole blocks of 512"}},
		{store.VolumeSpec{Name: "x", Size: 65 << 40}, store.KindInvalid, []string{"64 TiB"}},
		{store.VolumeSpec{Name: "x", Size: 8192, BlockSize: 1024}, store.KindInvalid, []string{"512 or 4096"}},
		{store.VolumeSpec{Name: "x", Size: 512, BlockSize: 4096}, store.KindInvalid, []string{"whole blocks of 4096"}},
	} {
		h.wantRefusal(t, tt.kind, tt.parts, func() error { _, err := h.CreateVolume(t.Context(), ada, tt.spec); return err })
	}
}

// brokenPool fails one of its methods.
type brokenPool struct {
	Volumes
	create, remove, resize error
}

func (b *brokenPool) Create(ctx context.Context, v store.Volume) error {
	if b.create != nil {
		return b.create
	}
	return b.Volumes.Create(ctx, v)
}

func (b *brokenPool) Remove(ctx context.Context, v store.Volume) error {
	if b.remove != nil {
		return b.remove
	}
	return b.Volumes.Remove(ctx, v)
}

func (b *brokenPool) Resize(ctx context.Context, v store.Volume, size int64, commit func() error) error {
	if b.resize != nil {
		return b.resize
	}
	return b.Volumes.Resize(ctx, v, size, commit)
}

func TestAFileThatFailsTakesItsActBack(t *testing.T) {
	ill := errors.New("the disk is ill")
	pool := &brokenPool{}
	h := newHouse(t, func(c *Config) { pool.Volumes = c.Volumes; c.Volumes = pool })
	pool.create = ill
	if _, err := h.CreateVolume(t.Context(), ada, store.VolumeSpec{Name: "a", Size: 512}); !errors.Is(err, ill) {
		t.Errorf("CreateVolume returned %v", err)
	}
	if all, err := h.db.Volumes(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("volumes %v are left, %v", all, err)
	}
	pool.create = nil
	v := h.volume(t, "a", 512)
	pool.remove, pool.resize = ill, ill
	if err := h.RemoveVolume(t.Context(), ada, v.ID); !errors.Is(err, ill) {
		t.Errorf("RemoveVolume returned %v", err)
	}
	if _, err := h.ResizeVolume(t.Context(), ada, v.ID, 1024); !errors.Is(err, ill) {
		t.Errorf("ResizeVolume returned %v", err)
	}
	if got, err := h.db.Volume(t.Context(), v.ID); err != nil || got.State != store.VolumeReady || got.Size != 512 {
		t.Errorf("the volume is %+v, %v", got, err)
	}
}

func TestAnActGoesOnWhenItsCallerHangsUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := newHouse(t, func(c *Config) { c.Volumes = hangsUp{c.Volumes, cancel} })
	v, err := h.CreateVolume(ctx, ada, store.VolumeSpec{Name: "a", Size: 512})
	must(t, err)
	if v.State != store.VolumeReady {
		t.Errorf("the volume is %+v", v)
	}
}

// hangsUp is a pool during whose work the caller goes away.
type hangsUp struct {
	Volumes
	cancel func()
}

func (p hangsUp) Create(ctx context.Context, v store.Volume) error {
	p.cancel()
	return p.Volumes.Create(ctx, v)
}

func TestAVolumeIsFoundByNameOrNumber(t *testing.T) {
	h := newHouse(t)
	v := h.volume(t, "debian", 512)
	for _, key := range []string{"debian", "Debian", fmt.Sprint(v.ID)} {
		if got, err := h.FindVolume(t.Context(), key); err != nil || got.ID != v.ID {
			t.Errorf("%q finds %v, %v", key, got, err)
		}
	}
	for _, key := range []string{"", "ubuntu", "99"} {
		_, err := h.FindVolume(t.Context(), key)
		wantSentence(t, err, store.KindNotFound, fmt.Sprintf("%q", key))
	}
}

func TestSetVolumeReachesOpenHandles(t *testing.T) {
	h := newHouse(t)
	v := h.volume(t, "debian", 4096)
	handle, err := h.pool.Open(t.Context(), v)
	must(t, err)
	defer handle.Close()
	got, err := h.SetVolume(t.Context(), ada, v.ID, store.VolumePatch{Name: ptr("golden"), ReadOnly: ptr(true)})
	must(t, err)
	if got.Name != "golden" || !got.ReadOnly || got.Path != v.Path {
		t.Errorf("the volume is %+v", got)
	}
	wantSentence(t, handle.WriteAt(t.Context(), make([]byte, 512), 0), store.KindDenied, "golden", "read-only")
	h.wantRefusal(t, store.KindConflict, nil, func() error {
		_, err := h.SetVolume(t.Context(), ada, v.ID, store.VolumePatch{Revision: v.Revision, ReadOnly: ptr(false)})
		return err
	})
	h.wantRefusal(t, store.KindNotFound, nil, func() error { _, err := h.SetVolume(t.Context(), ada, 99, store.VolumePatch{}); return err })
	_, err = h.SetVolume(t.Context(), ada, v.ID, store.VolumePatch{ReadOnly: ptr(false)})
	must(t, err)
	must(t, handle.WriteAt(t.Context(), make([]byte, 512), 0))
}

func TestAVolumeGrowsAndNeverShrinks(t *testing.T) {
	h := newHouse(t)
	v := h.volume(t, "debian", 4096)
	handle, err := h.pool.Open(t.Context(), v)
	must(t, err)
	defer handle.Close()
	got, err := h.ResizeVolume(t.Context(), ada, v.ID, 1<<20)
	must(t, err)
	if got.Size != 1<<20 || handle.Size() != 1<<20 {
		t.Errorf("the row has %d bytes, the handle %d", got.Size, handle.Size())
	}
	h.audited(t, ada, "volume.update", "debian")
	same, err := h.ResizeVolume(t.Context(), ada, v.ID, 1<<20)
	if err != nil || same.Revision != got.Revision {
		t.Errorf("the same size again: %+v, %v", same, err)
	}
	for _, size := range []int64{4096, 0, -512, 1<<20 + 1, 65 << 40} {
		h.wantRefusal(t, store.KindInvalid, nil, func() error { _, err := h.ResizeVolume(t.Context(), ada, v.ID, size); return err })
	}
	h.wantRefusal(t, store.KindNotFound, nil, func() error { _, err := h.ResizeVolume(t.Context(), ada, 99, 512); return err })
}

func TestAVolumeInUseStays(t *testing.T) {
	h := newHouse(t)
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	v := h.volume(t, "debian", 1<<20)
	h.mapped(t, m, v)
	h.wantRefusal(t, store.KindInUse, []string{"debian", "lab-01", "LUN 0"}, func() error { return h.RemoveVolume(t.Context(), ada, v.ID) })
	must(t, h.Unmap(t.Context(), ada, m.ID, 0))
	_, err := h.db.FreezeVolume(t.Context(), ada, v.ID, "")
	must(t, err)
	clone, err := h.db.CreateVolume(t.Context(), ada, store.Volume{Name: "clone", Kind: store.VolumeClone, Size: v.Size, BlockSize: 512, Parent: v.ID})
	must(t, err)
	h.wantRefusal(t, store.KindInUse, []string{"parent", "clone"}, func() error { return h.RemoveVolume(t.Context(), ada, v.ID) })
	must(t, h.db.DeleteVolume(t.Context(), ada, clone.ID))
	must(t, h.RemoveVolume(t.Context(), ada, v.ID))
	h.audited(t, ada, "volume.delete", "debian")
	if h.files(t) != "" {
		t.Errorf("the folder holds %q", h.files(t))
	}
	h.wantRefusal(t, store.KindNotFound, nil, func() error { return h.RemoveVolume(t.Context(), ada, v.ID) })
}

func TestAVolumeThatIsHalfDoneIsLeftAlone(t *testing.T) {
	h := newHouse(t)
	for state, part := range map[store.VolumeState]string{store.VolumeCreating: "created", store.VolumeImporting: "imported", store.VolumeRemoving: "removed"} {
		row, err := newVolume(store.VolumeSpec{Name: "v-" + string(state), Size: 512}, state)
		must(t, err)
		v, err := h.db.CreateVolume(t.Context(), ada, row)
		must(t, err)
		for _, act := range []func() error{
			func() error { return h.RemoveVolume(t.Context(), ada, v.ID) },
			func() error { _, err := h.ResizeVolume(t.Context(), ada, v.ID, 1024); return err },
			func() error {
				_, err := h.SetVolume(t.Context(), ada, v.ID, store.VolumePatch{Name: ptr("x")})
				return err
			},
		} {
			h.wantRefusal(t, store.KindInUse, []string{part}, act)
		}
	}
}

func TestAFailedVolumeCanBeRemoved(t *testing.T) {
	h := newHouse(t)
	row, err := newVolume(store.VolumeSpec{Name: "a", Size: 512}, store.VolumeFailed)
	must(t, err)
	v, err := h.db.CreateVolume(t.Context(), ada, row)
	must(t, err)
	must(t, h.RemoveVolume(t.Context(), ada, v.ID))
}

func TestAMissingFileIsSaidAndTheRowStays(t *testing.T) {
	h := newHouse(t)
	v := h.volume(t, "a", 512)
	must(t, os.Remove(filepath.Join(h.dir, "volumes", v.Path)))
	must(t, h.Recover(t.Context())) // the file system may not be mounted yet
	got, err := h.db.Volume(t.Context(), v.ID)
	if err != nil || got.State != store.VolumeReady {
		t.Errorf("the volume is %+v, %v", got, err)
	}
	if _, err := h.pool.Open(t.Context(), got); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("Open returned %v", err)
	}
}
