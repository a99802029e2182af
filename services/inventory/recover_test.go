package inventory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"lunboot/store"
	"lunboot/store/volume/image"
)

var errPower = errors.New("the power failed")

// power fails before or after the n-th change, and stays off.
type power struct {
	mu    sync.Mutex
	n     int
	after bool // the n-th change is carried out
	off   bool
	count int
}

// change runs one change unless the power is off.
func (p *power) change(fn func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		return errPower
	}
	p.count++
	if p.count != p.n {
		return fn()
	}
	p.off = true
	if p.after {
		return errors.Join(fn(), errPower)
	}
	return errPower
}

func (p *power) failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.off
}

// weakDB is a database whose machine loses power.
type weakDB struct {
	DB
	p *power
}

func weak[T any](p *power, fn func() (T, error)) (out T, err error) {
	err = p.change(func() (err error) { out, err = fn(); return err })
	return out, err
}

func (d weakDB) CreateVolume(ctx context.Context, by store.Actor, v store.Volume) (store.Volume, error) {
	return weak(d.p, func() (store.Volume, error) { return d.DB.CreateVolume(ctx, by, v) })
}

func (d weakDB) UpdateVolume(ctx context.Context, by store.Actor, v store.Volume) (store.Volume, error) {
	return weak(d.p, func() (store.Volume, error) { return d.DB.UpdateVolume(ctx, by, v) })
}

func (d weakDB) DeleteVolume(ctx context.Context, by store.Actor, id store.VolumeID) error {
	return d.p.change(func() error { return d.DB.DeleteVolume(ctx, by, id) })
}

func (d weakDB) CreateJob(ctx context.Context, j store.Job) (store.Job, error) {
	return weak(d.p, func() (store.Job, error) { return d.DB.CreateJob(ctx, j) })
}

func (d weakDB) UpdateJob(ctx context.Context, j store.Job) error {
	return d.p.change(func() error { return d.DB.UpdateJob(ctx, j) })
}

func (d weakDB) UpdateMapping(ctx context.Context, by store.Actor, m store.Mapping) (store.Mapping, error) {
	return weak(d.p, func() (store.Mapping, error) { return d.DB.UpdateMapping(ctx, by, m) })
}

// weakPool is a folder on the same machine.
type weakPool struct {
	Volumes
	p *power
}

func (w weakPool) Create(ctx context.Context, v store.Volume) error {
	return w.p.change(func() error { return w.Volumes.Create(ctx, v) })
}

func (w weakPool) Remove(ctx context.Context, v store.Volume) error {
	return w.p.change(func() error { return w.Volumes.Remove(ctx, v) })
}

func (w weakPool) Import(ctx context.Context, v store.Volume, r io.Reader, progress func(int64)) (string, error) {
	return weak(w.p, func() (string, error) {
		return w.Volumes.Import(ctx, v, r, nil) // progress is a change of its own
	})
}

func (w weakPool) ImportDisk(ctx context.Context, v store.Volume, d image.Source, _ func(int64)) error {
	return w.p.change(func() error { return w.Volumes.ImportDisk(ctx, v, d, nil) })
}

func (w weakPool) ImportStream(ctx context.Context, v store.Volume, r io.Reader, _ func(int64)) (int64, error) {
	return weak(w.p, func() (int64, error) { return w.Volumes.ImportStream(ctx, v, r, nil) })
}

func (w weakPool) Adopt(ctx context.Context, v store.Volume, path string) error {
	return w.p.change(func() error { return w.Volumes.Adopt(ctx, v, path) })
}

func (w weakPool) Resize(ctx context.Context, v store.Volume, size int64, commit func() error) error {
	if w.p.failed() {
		return errPower
	}
	return w.Volumes.Resize(ctx, v, size, commit)
}

// sound checks that nothing is half-done: rows and files agree, and no job
// runs.
func (h *house) sound(t *testing.T) {
	t.Helper()
	all, err := h.db.Volumes(t.Context())
	must(t, err)
	want := map[string]bool{}
	for _, v := range all {
		switch v.State {
		case store.VolumeReady:
			want[v.Path] = true
			handle, err := h.pool.Open(t.Context(), v)
			if err != nil {
				t.Errorf("the volume %s is ready and does not open: %v", v.Name, err)
				continue
			}
			handle.Close()
		case store.VolumeFailed:
			if v.Reason == "" {
				t.Errorf("the volume %s failed without a reason", v.Name)
			}
		default:
			t.Errorf("the volume %s is still %s", v.Name, v.State)
		}
	}
	for _, name := range strings.Fields(h.files(t)) {
		if !want[name] {
			t.Errorf("the file %s belongs to no volume", name)
		}
	}
	jobs, err := h.Jobs(t.Context())
	must(t, err)
	for _, j := range jobs {
		if j.State == store.JobRunning {
			t.Errorf("job %d still runs", j.ID)
		}
	}
}

func TestAnActIsDoneOrUndoneAfterAPowerCutAtEveryStep(t *testing.T) {
	content := someBytes(5000)
	path := imageFile(t, content)
	acts := []struct {
		name string
		act  func(*house, context.Context) error
		done func(t *testing.T, h *house) // what an act that succeeded promised
	}{
		{"create", func(h *house, ctx context.Context) error {
			_, err := h.CreateVolume(ctx, ada, store.VolumeSpec{Name: "new", Size: 4096})
			return err
		}, func(t *testing.T, h *house) {
			if v, err := h.FindVolume(t.Context(), "new"); err != nil || v.State != store.VolumeReady {
				t.Errorf("the new volume is %+v, %v", v, err)
			}
		}},
		{"remove", func(h *house, ctx context.Context) error {
			v, err := h.FindVolume(ctx, "old")
			if err != nil {
				return err
			}
			return h.RemoveVolume(ctx, ada, v.ID)
		}, func(t *testing.T, h *house) {
			if _, err := h.FindVolume(t.Context(), "old"); !store.IsNotFound(err) {
				t.Errorf("the old volume: %v", err)
			}
		}},
		{"resize", func(h *house, ctx context.Context) error {
			v, err := h.FindVolume(ctx, "old")
			if err != nil {
				return err
			}
			_, err = h.ResizeVolume(ctx, ada, v.ID, 1<<20)
			return err
		}, func(t *testing.T, h *house) {
			if v, err := h.FindVolume(t.Context(), "old"); err != nil || v.Size != 1<<20 {
				t.Errorf("the old volume is %+v, %v", v, err)
			}
		}},
		{"import a file", func(h *house, ctx context.Context) error {
			_, job, err := h.ImportFile(ctx, ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "new"}}, path)
			if err != nil {
				return err
			}
			job, err = h.Wait(ctx, job.ID)
			if err == nil && job.State != store.JobDone {
				err = errors.New(job.Error)
			}
			return err
		}, func(t *testing.T, h *house) {
			v, err := h.FindVolume(t.Context(), "new")
			if err != nil || v.State != store.VolumeReady || !bytes.HasPrefix(h.content(t, v), content) {
				t.Errorf("the imported volume is %+v, %v", v, err)
			}
		}},
		{"upload", func(h *house, ctx context.Context) error {
			_, err := h.ImportStream(ctx, ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "new"}}, "", bytes.NewReader(content), int64(len(content)))
			return err
		}, func(t *testing.T, h *house) {
			v, err := h.FindVolume(t.Context(), "new")
			if err != nil || v.State != store.VolumeReady || !bytes.HasPrefix(h.content(t, v), content) {
				t.Errorf("the uploaded volume is %+v, %v", v, err)
			}
		}},
		{"move the boot mark", func(h *house, ctx context.Context) error {
			m, err := h.FindMachine(ctx, "lab-01")
			if err != nil {
				return err
			}
			_, err = h.SetMapping(ctx, ada, m.ID, 1, store.MappingPatch{Boot: ptr(true)})
			return err
		}, func(t *testing.T, h *house) {}},
	}
	for _, a := range acts {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, after=%v", a.name, after), func(t *testing.T) {
				for n := 1; ; n++ {
					p := &power{}
					h := newHouse(t, func(c *Config) { c.DB = weakDB{c.DB, p}; c.Volumes = weakPool{c.Volumes, p} })
					h.volume(t, "old", 4096)
					m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
					h.mapped(t, m, h.volume(t, "boots", 1<<20))
					h.mapped(t, m, h.volume(t, "data", 1<<20))
					p.mu.Lock()
					p.n, p.after, p.count = n, after, 0
					p.mu.Unlock()
					err := a.act(h, t.Context())
					cut := p.failed()
					if err == nil && cut && !after && a.name != "import a file" && a.name != "upload" {
						t.Errorf("step %d: the act succeeded without power", n)
					}
					h.stop()

					next := reopen(t, h.dir)
					must(t, next.Recover(t.Context()))
					next.sound(t)
					if err == nil {
						a.done(t, next)
					}
					boots := 0
					maps, err := next.db.MappingsOf(t.Context(), m.ID)
					must(t, err)
					for _, mp := range maps {
						if mp.Boot {
							boots++
						}
					}
					if boots > 1 || boots == 0 && a.name != "move the boot mark" {
						t.Errorf("step %d: %d boot mappings", n, boots)
					}
					must(t, next.Recover(t.Context())) // once more is nothing
					next.sound(t)
					next.stop()
					if !cut {
						break
					}
					if n > 20 {
						t.Fatal("the act never ends")
					}
				}
			})
		}
	}
}

func TestOneVolumeThatCannotBeMendedKeepsNoOtherFromStarting(t *testing.T) {
	pool := &brokenPool{}
	h := newHouse(t, func(c *Config) { pool.Volumes = c.Volumes; c.Volumes = pool })
	for _, state := range []store.VolumeState{store.VolumeCreating, store.VolumeImporting, store.VolumeRemoving} {
		row, err := newVolume(store.VolumeSpec{Name: "v-" + string(state), Size: 512}, state)
		must(t, err)
		_, err = h.db.CreateVolume(t.Context(), ada, row)
		must(t, err)
	}
	pool.remove = errPower
	must(t, h.Recover(t.Context()))
	pool.remove, pool.create = nil, errPower
	must(t, h.Recover(t.Context()))
	all, err := h.db.Volumes(t.Context())
	must(t, err)
	if len(all) != 2 || all[0].State != store.VolumeCreating || all[1].State != store.VolumeFailed {
		t.Errorf("the volumes are %+v", all)
	}
	pool.create = nil
	must(t, h.Recover(t.Context()))
	h.sound(t)
}
