package volume

import (
	"bytes"
	"strings"
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
				if e := wantKind(t, err, store.KindUnavailable); !strings.Contains(e.Msg, "is volatile, and the appliance") {
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

func TestWhatCouldNotBeMadeDurableAtTheStopIsDiscarded(t *testing.T) {
	fs := crashfs.New(3)
	p, err := newPool(crashFiles{fs}, quiet())
	must(t, err)
	y := &yard{Pool: p}
	y.boot = "the first boot"
	v := y.volatileClone(t, y.raw(t, 1<<20, 512))
	h, err := y.Open(t.Context(), v)
	must(t, err)
	must(t, h.WriteAt(t.Context(), make([]byte, 4096), 0))
	stop := failing(fs, crashfs.OpSync, v.Path, errDisk)
	if err := y.Close(); err == nil {
		t.Error("a stop that lost bytes says that all is well")
	}
	stop()
	next := &yard{Pool: crashPool(t, fs.Restart())}
	next.boot = "the second boot"
	_, err = next.Open(t.Context(), v)
	wantKind(t, err, store.KindUnavailable)
}
