package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"lunboot/store"
)

// writers are all ways to write a qcow2 file.
var writers = map[string]func(ctx context.Context, f *os.File, src Source) error{
	"plain": func(ctx context.Context, f *os.File, src Source) error {
		p, err := PlanQcow2(ctx, src)
		if err != nil {
			return err
		}
		var last int64
		if err := p.Write(ctx, f, func(done int64) { last = done }); err != nil {
			return err
		}
		fi, err := f.Stat()
		if err == nil && (fi.Size() != p.Length() || last != p.Data()) {
			err = fmt.Errorf("%d bytes and %d of the disk, planned were %d and %d", fi.Size(), last, p.Length(), p.Data())
		}
		return err
	},
	"zlib": packWith(CompressionZlib),
	"zstd": packWith(CompressionZstd),
}

func packWith(c Compression) func(context.Context, *os.File, Source) error {
	return func(ctx context.Context, f *os.File, src Source) error {
		total, err := Data(ctx, src)
		if err != nil {
			return err
		}
		var last int64
		n, err := WriteQcow2Compressed(ctx, f, src, c, func(done int64) { last = done })
		if err != nil {
			return err
		}
		fi, err := f.Stat()
		if err == nil && (fi.Size() != n || last != total) {
			err = fmt.Errorf("%d bytes and %d of the disk, %d and %d are right", fi.Size(), last, n, total)
		}
		return err
	}
}

// pieces is a disk of bytes at a few places.
type pieces struct {
	size  int64
	at    []int64 // ascending; each is length bytes of data
	b     []byte
	reads int64
}

func (s *pieces) Size() int64 { return s.size }

func (s *pieces) Extent(off int64) (bool, int64, error) {
	for _, at := range s.at {
		if off < at {
			return false, at, nil
		}
		if off < at+int64(len(s.b)) {
			return true, at + int64(len(s.b)), nil
		}
	}
	return false, s.size + 1<<20, nil // an end behind the disk's is no fault
}

func (s *pieces) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	s.reads += int64(len(p))
	for _, at := range s.at {
		if from, to := max(at, off), min(at+int64(len(s.b)), off+int64(len(p))); from < to {
			copy(p[from-off:to-off], s.b[from-at:to-at])
		}
	}
	return len(p), nil
}

func TestQcow2ThatIsWrittenIsWhatQemuReads(t *testing.T) {
	need(t, "qemu-img")
	for name, writer := range writers {
		for n, size := range []int{512, 1000, 64 << 10, 64<<10 + 512, 3<<20 + 4096, 9<<20 - 512} {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) {
				dir := t.TempDir()
				want := disk(uint64(n), size)
				raw, path := write(t, dir, "raw", want), filepath.Join(dir, "qcow2")
				f, err := os.Create(path)
				require.NoError(t, err)
				require.NoError(t, writer(context.Background(), f, open(t, raw)))
				require.NoError(t, f.Close())
				run(t, "qemu-img", "check", "-f", "qcow2", path)
				run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, path)
				requireDisk(t, append(want, make([]byte, (512-size%512)%512)...), open(t, path))
			})
		}
	}
}

// The holes of a volume take no room in the file, wherever they are, and are
// not read.
func TestQcow2OfALargeSparseDisk(t *testing.T) {
	need(t, "qemu-img")
	for name, writer := range writers {
		src := &pieces{size: 64 << 40, b: disk(3, 200<<10), at: []int64{4096, 512<<20 - 100<<10, 3<<40 + 70<<10, 64<<40 - 200<<10}}
		path := filepath.Join(t.TempDir(), "qcow2")
		f, err := os.Create(path)
		require.NoError(t, err)
		took := allocated(func() { err = writer(context.Background(), f, src) })
		require.NoErrorf(t, err, name)
		require.Less(t, took, uint64(48<<20))
		fi, err := f.Stat()
		require.NoError(t, err)
		require.Less(t, fi.Size(), int64(4<<20))
		require.Less(t, src.reads, int64(3<<20))
		require.NoError(t, f.Close())
		run(t, "qemu-img", "check", "-f", "qcow2", path)
		i := open(t, path)
		require.EqualValues(t, 64<<40, i.Size())
		got := make([]byte, len(src.b))
		for _, at := range src.at {
			_, err := i.ReadAt(got, at)
			require.NoError(t, err)
			requireSame(t, src.b, got)
		}
	}
}

// noise is a disk of which every cluster has data that cannot be packed.
type noise struct {
	size int64
	b    []byte
}

func (s *noise) Size() int64                             { return s.size }
func (s *noise) Extent(int64) (bool, int64, error)       { return true, s.size, nil }
func (s *noise) ReadAt(p []byte, off int64) (int, error) { return copy(p, s.b[off%64:]), nil }

// tablesOnly keeps of a file what is no data of the disk.
type tablesOnly struct {
	*os.File
	noise []byte
}

func (f *tablesOnly) WriteAt(p []byte, off int64) (int, error) {
	if len(p) == outCluster && bytes.Equal(p[:64], f.noise[:64]) {
		return len(p), nil
	}
	return f.File.WriteAt(p, off)
}

func (f *tablesOnly) Write(p []byte) (int, error) {
	if bytes.Equal(p[:min(64, len(p))], f.noise[:min(64, len(p))]) {
		_, err := f.Seek(int64(len(p)), io.SeekCurrent)
		return len(p), err
	}
	return f.File.Write(p)
}

// Every 2 GiB of clusters need another block of reference counts.
func TestQcow2OfManyClustersIsCountedRight(t *testing.T) {
	need(t, "qemu-img")
	b := make([]byte, walkChunk+64)
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	src := &noise{size: 4<<30 + 200<<20, b: b}
	for _, name := range []string{"plain", "zstd"} {
		path := filepath.Join(t.TempDir(), "qcow2")
		file, err := os.Create(path)
		require.NoError(t, err)
		f := &tablesOnly{File: file, noise: b}
		if name == "plain" {
			p, err := PlanQcow2(context.Background(), src)
			require.NoError(t, err)
			require.NoError(t, p.Write(context.Background(), f, nil))
			require.NoError(t, f.Truncate(p.Length()))
		} else { // as WriteQcow2Compressed does with what the packers made
			out := newPackedFile(f, src.size, CompressionZstd)
			for n := range src.size >> outBits {
				packed := b[:outCluster]
				if n%7 == 0 {
					packed = b[64 : 64+30000+n%977]
				}
				require.NoError(t, out.put(n, b[:outCluster], packed))
			}
			n, err := out.finish(src.size)
			require.NoError(t, err)
			require.NoError(t, f.Truncate(n))
		}
		require.NoError(t, f.Close())
		run(t, "qemu-img", "check", "-f", "qcow2", path)
	}
}

// Packed clusters among others go on where the last one ended only when the
// file's next cluster is free.
func TestPackedClustersAmongOthers(t *testing.T) {
	need(t, "qemu-img")
	rnd := rand.New(rand.NewPCG(5, 5))
	want := make([]byte, 24<<20)
	for c := 0; c < len(want); c += outCluster {
		kind := rnd.IntN(4)
		for i := range outCluster {
			switch {
			case kind == 0, kind == 1 && i < rnd.IntN(outCluster):
				want[c+i] = byte(rnd.Uint32())
			case kind == 2:
				want[c+i] = byte(i % 251)
			}
		}
	}
	dir := t.TempDir()
	raw := write(t, dir, "raw", want)
	for _, c := range []Compression{CompressionZlib, CompressionZstd} {
		path := filepath.Join(dir, string(c))
		f, err := os.Create(path)
		require.NoError(t, err)
		require.NoError(t, writers[string(c)](context.Background(), f, open(t, raw)))
		require.NoError(t, f.Close())
		run(t, "qemu-img", "check", "-f", "qcow2", path)
		run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, path)
		requireDisk(t, want, open(t, path))
	}
}

// full is a disk that takes so many bytes.
type full struct{ left int }

var errFull = errors.New("no space left on device")

func (f *full) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func (f *full) WriteAt(p []byte, _ int64) (int, error) { return f.Write(p) }

func TestWritingEndsWithTheFirstError(t *testing.T) {
	src := &pieces{size: 1 << 30, b: disk(3, 6<<20), at: []int64{0, 100 << 20}}
	p, err := PlanQcow2(context.Background(), src)
	require.NoError(t, err)
	for left := 0; left < int(p.Length()); left += 700_000 {
		require.ErrorIs(t, p.Write(context.Background(), &full{left}, nil), errFull)
	}
	for _, left := range []int{0, 1 << 20, 3 << 20} {
		_, err := WriteQcow2Compressed(context.Background(), &full{left}, src, CompressionZlib, nil)
		require.ErrorIs(t, err, errFull)
	}
	ctx, cancel := context.WithCancel(context.Background())
	require.ErrorIs(t, p.Write(ctx, io.Discard, func(int64) { cancel() }), context.Canceled)
	_, err = WriteQcow2Compressed(ctx, &full{1 << 30}, src, CompressionZstd, nil)
	require.ErrorIs(t, err, context.Canceled)
	_, err = PlanQcow2(ctx, src)
	require.ErrorIs(t, err, context.Canceled)
	_, err = WriteQcow2Compressed(context.Background(), &full{1 << 30}, src, CompressionNone, nil)
	require.Equal(t, store.KindInvalid, store.KindOf(err))
	_, err = PlanQcow2(context.Background(), &pieces{})
	require.Equal(t, store.KindInvalid, store.KindOf(err))
}

// A volume may change between plan and copy: the file stays sound.
func TestAPlanThatIsOvertakenMakesASoundFile(t *testing.T) {
	need(t, "qemu-img")
	src := &pieces{size: 8 << 20, b: disk(4, 300<<10), at: []int64{0, 2 << 20}}
	p, err := PlanQcow2(context.Background(), src)
	require.NoError(t, err)
	src.at = []int64{2<<20 + 64<<10, 6 << 20}
	path := filepath.Join(t.TempDir(), "qcow2")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, p.Write(context.Background(), f, nil))
	require.NoError(t, f.Close())
	run(t, "qemu-img", "check", "-f", "qcow2", path)
	got := make([]byte, 200<<10)
	_, err = open(t, path).ReadAt(got, 2<<20+64<<10)
	require.NoError(t, err)
	requireSame(t, src.b[:len(got)], got)
}

func TestWalkVisitsWhatIsData(t *testing.T) {
	src := &pieces{size: 1 << 40, b: disk(9, 2500<<10), at: []int64{512, 7 << 20, 1<<40 - 2500<<10}}
	got := make(map[int64]byte)
	var visited, told, end int64
	require.NoError(t, Walk(context.Background(), src, func(p []byte, off int64) error {
		require.LessOrEqual(t, len(p), 1<<20)
		require.Equal(t, off>>20, (off+int64(len(p))-1)>>20, "a piece over a multiple of 1 MiB")
		require.GreaterOrEqual(t, off, end)
		end = off + int64(len(p))
		visited += int64(len(p))
		got[off] = p[0]
		return nil
	}, func(done int64) { told = done }))
	total, err := Data(context.Background(), src)
	require.NoError(t, err)
	require.EqualValues(t, 3*2500<<10, total)
	require.Equal(t, total, visited)
	require.Equal(t, total, told)
	require.Equal(t, src.b[0], got[512])
	stop := errors.New("enough")
	require.ErrorIs(t, Walk(context.Background(), src, func([]byte, int64) error { return stop }, nil), stop)
}
