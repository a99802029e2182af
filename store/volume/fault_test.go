package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
	"lunboot/store/volume/volumetest"
)

// counted is the crash kit with a count of the files that are open.
type counted struct {
	crashFiles
	open *atomic.Int64
}

type countedFile struct {
	file
	open   *atomic.Int64
	closed atomic.Bool
}

func (c counted) Create(name string) (file, error) { return c.count(c.crashFiles.Create(name)) }
func (c counted) Open(name string, write bool) (file, error) {
	return c.count(c.crashFiles.Open(name, write))
}

func (c counted) count(f file, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return &countedFile{file: f, open: c.open}, nil
}

func (f *countedFile) Close() error {
	if f.closed.Swap(true) {
		panic("a file is closed twice")
	}
	f.open.Add(-1)
	return f.file.Close()
}

// dense is a disk that is data from one end to the other.
type dense []byte

func (d dense) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(d).ReadAt(p, off) }
func (d dense) Size() int64                             { return int64(len(d)) }
func (d dense) Extent(int64) (bool, int64, error)       { return true, int64(len(d)), nil }

// Whatever operation of the file system fails, at whichever step of an act on a
// volume: no file stays open, none of those that are being filled stays behind, and
// the volume has what was written to it.
func TestAFaultAtAnyStepOfAnActLeaksNothingAndLosesNothing(t *testing.T) {
	const size = 256 << 10
	disk := volumetest.Pattern(make([]byte, size), 1)
	// The volume has a snapshot's layers below it: raw, two overlays, and its top.
	acts := map[string]func(ctx context.Context, y *yard, v store.Volume) error{
		"open and read": func(ctx context.Context, y *yard, v store.Volume) error {
			h, err := y.Open(ctx, v)
			if err != nil {
				return err
			}
			return errors.Join(h.ReadAt(ctx, make([]byte, size), 0), h.Close())
		},
		"snapshot": func(ctx context.Context, y *yard, v store.Volume) error { return second(y.snapshot(ctx, v)) },
		"replace": func(ctx context.Context, y *yard, v store.Volume) error {
			return second(y.renew(ctx, v, v.Layers[:1]))
		},
		"flatten": func(ctx context.Context, y *yard, v store.Volume) error { return second(y.flatten(ctx, v)) },
		"merge": func(ctx context.Context, y *yard, v store.Volume) error {
			_, _, err := y.merge(ctx, v, 1, 2)
			return err
		},
		"copy": func(ctx context.Context, y *yard, v store.Volume) error {
			return y.CopyOut(ctx, v, store.Layer{ID: 900, Kind: store.LayerRaw, Path: "copy.raw", Size: size}, nil)
		},
		"resize": func(ctx context.Context, y *yard, v store.Volume) error {
			return y.Resize(ctx, v, 2*size, func() error { return nil })
		},
		"check": func(ctx context.Context, y *yard, v store.Volume) error { return second(y.Check(ctx, v)) },
		"export": func(ctx context.Context, y *yard, v store.Volume) error {
			return y.Export(ctx, v, io.Discard, nil)
		},
		"look": func(ctx context.Context, y *yard, v store.Volume) error { return second(y.Look(ctx, v)) },
		"create": func(ctx context.Context, y *yard, v store.Volume) error {
			return y.Create(ctx, store.Volume{ID: 90, Name: "new", Kind: store.VolumeRaw, Size: size, BlockSize: 512, Path: "new.raw"})
		},
		"import": func(ctx context.Context, y *yard, v store.Volume) error {
			return second(y.Import(ctx, store.Volume{ID: 90, Name: "new", Kind: store.VolumeRaw, Size: size, BlockSize: 512, Path: "new.raw"}, bytes.NewReader(disk), nil))
		},
		"import of a stream": func(ctx context.Context, y *yard, v store.Volume) error {
			return second(y.ImportStream(ctx, store.Volume{ID: 90, Name: "new", Kind: store.VolumeRaw, BlockSize: 512, Path: "new.raw"}, bytes.NewReader(disk[:size-100]), nil))
		},
		"import of a disk": func(ctx context.Context, y *yard, v store.Volume) error {
			return y.ImportDisk(ctx, store.Volume{ID: 90, Name: "new", Kind: store.VolumeRaw, Size: size, BlockSize: 512, Path: "new.raw"}, dense(disk), nil)
		},
		"whether copies take room": func(_ context.Context, y *yard, v store.Volume) error { return second(y.tryShare()) },
		"view": func(ctx context.Context, y *yard, v store.Volume) error {
			w, err := y.View(ctx, v)
			if err != nil {
				return err
			}
			h, err := y.Open(ctx, v)
			if err == nil {
				err = errors.Join(h.WriteAt(ctx, disk[:100<<10], 0), h.Close()) // what is there already
			}
			return errors.Join(err, second(w.ReadAt(make([]byte, size), 0)), w.Close())
		},
	}
	remade := map[string]bool{"flatten": true, "merge": true}
	for name, act := range acts {
		for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
			running := fault == syscall.ENOSPC // and a machine goes on with the volume afterwards
			t.Run(fmt.Sprintf("%s, %v", name, fault), func(t *testing.T) {
				for step := 1; ; step++ {
					if step > 2000 {
						t.Fatal("it never ends")
					}
					fs, open := crashfs.New(1), &atomic.Int64{}
					p, err := newPool(counted{crashFiles{fs}, open}, quiet())
					must(t, err)
					y := &yard{Pool: p}
					v := y.clone(t, y.raw(t, size, 512))
					h := y.open(t, v)
					put(t, h, 0, disk)
					for range 2 {
						v, err = y.snapshot(t.Context(), v)
						must(t, err)
						put(t, h, 64<<10, disk[64<<10:128<<10])
					}
					must(t, h.Sync(t.Context()))
					if !running {
						must(t, h.Close())
					}
					n, hit := 0, crashfs.Op{}
					fs.Inject(func(o crashfs.Op) error {
						if n++; n == step {
							hit = o
							return fault
						}
						return nil
					})
					failed := act(t.Context(), y, v)
					fs.Inject(nil)
					if running {
						if failed != nil && hit.Kind != crashfs.OpSync {
							wantBytes(t, h, 0, disk)
							put(t, h, 8<<10, disk[8<<10:80<<10])
							must(t, h.Sync(t.Context()))
						}
						_ = h.Close()
					}
					closing := y.Close()
					if n := open.Load(); n != 0 {
						t.Errorf("step %d, %v: %d files stay open (%v, %v)", step, hit, n, failed, closing)
					}
					if len(p.layers)+len(p.open)+len(p.views) > 0 {
						t.Errorf("step %d, %v: %d layers, %d volumes and %d views stay in the books", step, hit, len(p.layers), len(p.open), len(p.views))
					}
					left, err := fs.Names()
					must(t, err)
					for _, file := range left {
						if strings.HasPrefix(file, ".") && hit.Kind != crashfs.OpRemove {
							t.Errorf("step %d, %v: %s stays behind", step, hit, file)
						}
					}
					// The rows of before lead to all that was there, unless the act has made
					// others; a flush that failed has lost what Linux had still to save.
					if !remade[name] && hit.Kind != crashfs.OpSync {
						again := &yard{Pool: crashPool(t, fs)}
						h := again.open(t, v)
						wantBytes(t, h, 0, disk)
						must(t, h.Close())
						must(t, again.Close())
					}
					if hit.Kind == "" { // nothing was left to fail
						if failed != nil {
							t.Errorf("without a fault: %v", failed)
						}
						return
					}
					if t.Failed() {
						return
					}
				}
			})
		}
	}
}
