package volume

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
	"lunboot/store/volume/volumetest"
)

// volatileClone makes a volatile clone that begins anew at each boot.
func (y *yard) volatileClone(t testing.TB, parent store.Volume) store.Volume {
	t.Helper()
	y.volumes++
	v := store.Volume{ID: y.volumes, Name: "volatile", Kind: store.VolumeClone, Parent: parent.ID, Size: parent.Size, BlockSize: parent.BlockSize, State: store.VolumeReady, Reset: true, Volatile: true}
	y.row(&v, y.freeze(parent).Layers...)
	must(t, y.Create(t.Context(), v))
	return v
}

func TestAVolatileVolumeWaitsForNoDisk(t *testing.T) {
	fs := crashfs.New(1)
	y := &yard{Pool: crashPool(t, fs)}
	v := y.volatileClone(t, y.raw(t, 1<<20, 512))
	h := y.open(t, v)
	stop := failing(fs, crashfs.OpSync, "", errDisk) // whoever waits for the disk is told
	for n := range 20 {
		put(t, h, int64(n)*8192, volumetest.Pattern(make([]byte, 8192), uint64(n)))
		must(t, h.Sync(t.Context()))
	}
	stop()
	wantBytes(t, h, 8192, volumetest.Pattern(make([]byte, 8192), 1))
}

func TestAVolatileVolumeOutlivesTheProcessAndNotTheHost(t *testing.T) {
	const size = 1 << 20
	for name, again := range map[string]func(*crashfs.FS) *crashfs.FS{
		"killed":                   (*crashfs.FS).Revive,
		"the host crashed":         (*crashfs.FS).Restart,
		"the host, and all is old": func(fs *crashfs.FS) *crashfs.FS { return fs.After(func(int, int) int { return 0 }) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := crashfs.New(7)
			y := &yard{Pool: crashPool(t, fs)}
			y.boot = "the first boot"
			g := y.raw(t, size, 512)
			h := y.open(t, g)
			disk := volumetest.Pattern(make([]byte, size), 1)
			put(t, h, 0, disk)
			must(t, h.Close())
			v := y.volatileClone(t, g)
			h = y.open(t, v)
			put(t, h, 4096, bytes.Repeat([]byte{0xab}, 64<<10))
			copy(disk[4096:], bytes.Repeat([]byte{0xab}, 64<<10))
			must(t, h.Unmap(t.Context(), 512<<10, 8192))
			clear(disk[512<<10 : 512<<10+8192])
			must(t, h.Sync(t.Context()))

			next := &yard{Pool: crashPool(t, again(fs)), volumes: y.volumes, layers: y.layers}
			next.boot = "the first boot"
			if name == "killed" {
				h := next.open(t, v)
				wantBytes(t, h, 0, disk)
				put(t, h, 0, []byte("and goes on"))
				return
			}
			next.boot = "the second boot"
			told := make(chan string, 8)
			next.OnFault(func(volume, sentence string) { told <- volume + ": " + sentence })
			for range 2 {
				_, err := next.Open(t.Context(), v)
				if e := wantKind(t, err, store.KindUnavailable); !strings.Contains(e.Msg, "is volatile, and the appliance") || e.Cause != store.CauseDiscarded {
					t.Errorf("%v", err)
				}
			}
			if len(told) != 1 || len(next.Faults()) != 1 {
				t.Errorf("told %d times, %d faults", len(told), len(next.Faults()))
			}
			check, err := next.Check(t.Context(), v)
			if must(t, err); check.OK {
				t.Errorf("%+v", check)
			}
			// A stop in order does not make good what is lost.
			files := next.files
			must(t, next.settleRest())
			if _, err := files.Open(v.Path+markSuffix, false); err != nil {
				t.Errorf("the mark of the crash is gone: %v", err)
			}
			// It begins anew at its machine's next boot.
			out, err := next.renew(t.Context(), v, v.Layers[:1])
			must(t, err)
			must(t, next.RemoveLayers(t.Context(), v.Layers[1:]))
			if len(next.Faults()) != 0 {
				t.Errorf("faults: %v", next.Faults())
			}
			h = next.open(t, out)
			wantBytes(t, h, 0, volumetest.Pattern(make([]byte, size), 1))
			if _, err := files.Open(v.Path+markSuffix, false); err == nil {
				t.Error("the mark of the layer that is gone stays")
			}
		})
	}
}

// An appliance that is stopped in order makes durable what it holds, whether or not
// its machine is logged in at that moment.
func TestAVolatileVolumeOutlivesAnOrderlyStop(t *testing.T) {
	for _, open := range []bool{true, false} {
		fs := crashfs.New(3)
		p, err := newPool(crashFiles{fs}, quiet())
		must(t, err)
		y := &yard{Pool: p}
		y.boot = "the first boot"
		v := y.volatileClone(t, y.raw(t, 1<<20, 512))
		h, err := y.Open(t.Context(), v)
		must(t, err)
		want := volumetest.Pattern(make([]byte, 128<<10), 5)
		must(t, h.WriteAt(t.Context(), want, 65536))
		if !open {
			must(t, h.Close())
		}
		must(t, y.Close())
		next := &yard{Pool: crashPool(t, fs.Restart())}
		next.boot = "the second boot"
		wantBytes(t, next.open(t, v), 65536, want)
	}
}

// What could not be brought to the disk is discarded by every later start: of the
// same boot too, whose page cache has other bytes than the disk will have.
func TestWhatCouldNotBeMadeDurableAtTheStopIsDiscarded(t *testing.T) {
	for boot, again := range map[string]func(*crashfs.FS) *crashfs.FS{
		"the first boot":  (*crashfs.FS).Revive,
		"the second boot": (*crashfs.FS).Restart,
	} {
		for _, open := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, open: %v", boot, open), func(t *testing.T) {
				fs := crashfs.New(3)
				p, err := newPool(crashFiles{fs}, quiet())
				must(t, err)
				y := &yard{Pool: p}
				y.boot = "the first boot"
				v := y.volatileClone(t, y.raw(t, 1<<20, 512))
				h, err := y.Open(t.Context(), v)
				must(t, err)
				must(t, h.WriteAt(t.Context(), make([]byte, 4096), 0))
				if !open {
					must(t, h.Close())
				}
				stop := failing(fs, crashfs.OpSync, v.Path, errDisk)
				if err := y.Close(); err == nil {
					t.Error("a stop that lost bytes says that all is well")
				}
				stop()
				next := &yard{Pool: crashPool(t, again(fs))}
				next.boot = boot
				_, err = next.Open(t.Context(), v)
				if e := wantKind(t, err, store.KindUnavailable); !strings.Contains(e.Msg, "could not all be brought to the disk") {
					t.Errorf("%v", err)
				}
				// Nor does another stop, which has no error to tell of, make it good.
				must(t, next.settleRest())
				_, err = next.Open(t.Context(), v)
				wantKind(t, err, store.KindUnavailable)
			})
		}
	}
}

// A volatile volume that was stopped in order opens where there is no room for one
// more file, and what is written from then on is volatile as before.
func TestAVolatileVolumeOpensOnAFullDisk(t *testing.T) {
	fs := crashfs.New(3)
	y := &yard{}
	boot := func(name string, fs *crashfs.FS) {
		p, err := newPool(crashFiles{fs}, quiet())
		must(t, err)
		y.Pool = p
		y.boot = name
	}
	boot("the first boot", fs)
	v := y.volatileClone(t, y.raw(t, 1<<20, 512))
	want := bytes.Repeat([]byte{7}, 64<<10)
	for n, name := range []string{"the first boot", "the first boot", "the second boot"} {
		h, err := y.Open(t.Context(), v)
		must(t, err)
		if n > 0 {
			wantBytes(t, h, 0, want)
		}
		must(t, h.WriteAt(t.Context(), want, 0))
		must(t, h.Sync(t.Context()))
		must(t, h.Close())
		must(t, y.Close())
		fs = fs.Restart()
		fs.SetFree(0)
		fs.Inject(func(o crashfs.Op) error {
			if o.Kind == crashfs.OpCreate {
				return syscall.ENOSPC
			}
			return nil
		})
		boot(name, fs)
	}
	h, err := y.Open(t.Context(), v)
	must(t, err)
	wantBytes(t, h, 0, want)
	must(t, h.WriteAt(t.Context(), want, 0))
	// The host crashes, and the mark that was written over knows.
	next := &yard{Pool: crashPool(t, fs.Restart())}
	next.boot = "the third boot"
	_, err = next.Open(t.Context(), v)
	wantKind(t, err, store.KindUnavailable)
}

// Whenever the power fails in an orderly stop, or in the start after it, the next
// boot has all of the bytes or hands out none.
func TestACrashInAStopOrAStartOfAVolatileVolumeHandsOutAllOrNothing(t *testing.T) {
	opened, refused := 0, 0
	for seed := range uint64(8) {
		for k := 1; ; k++ {
			fs := crashfs.New(seed<<32 | uint64(k))
			p, err := newPool(crashFiles{fs}, quiet())
			must(t, err)
			y := &yard{Pool: p}
			y.boot = "the first boot"
			v := y.volatileClone(t, y.raw(t, 1<<20, 512))
			h, err := y.Open(t.Context(), v)
			must(t, err)
			want := volumetest.Pattern(make([]byte, 64<<10), seed)
			must(t, h.WriteAt(t.Context(), want, 4096))
			must(t, h.Sync(t.Context()))
			if k%2 == 0 {
				must(t, h.Close())
			}
			fs.CrashAt(k)
			if err := y.Close(); err == nil {
				y.Pool, err = newPool(crashFiles{fs}, quiet())
				must(t, err)
				y.boot = "the first boot"
				if h, err := y.Open(t.Context(), v); err == nil {
					// What is written from here on makes the layer volatile again.
					_ = h.WriteAt(t.Context(), make([]byte, 512), 4096)
				}
			}
			crashed := fs.Crashed()
			next := &yard{Pool: crashPool(t, fs.Restart())}
			next.boot = "the second boot"
			if h, err := next.Open(t.Context(), v); err == nil {
				opened++
				got := make([]byte, len(want))
				must(t, h.ReadAt(t.Context(), got, 4096))
				if !bytes.Equal(got, volumetest.Pattern(make([]byte, len(want)), seed)) {
					t.Fatalf("seed %d, change %d: other bytes are handed out", seed, k)
				}
				must(t, h.Close())
			} else {
				refused++
				wantKind(t, err, store.KindUnavailable)
			}
			if !crashed {
				break
			}
		}
	}
	if opened == 0 || refused == 0 {
		t.Errorf("%d opened, %d refused", opened, refused)
	}
}
