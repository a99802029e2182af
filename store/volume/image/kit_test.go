package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"lunboot/store"
)

// need skips a test without the program, except where everything must run.
func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func run(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	require.NoErrorf(t, err, "%s %q: %s", program, args, out)
	return string(out)
}

// disk makes the bytes of a disk: runs of zeros, of noise and of what can be
// compressed, which begin and end anywhere.
func disk(seed uint64, size int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for at := 0; at < size; {
		n := min(1+rnd.IntN(1<<(8+rnd.IntN(11))), size-at)
		run := b[at : at+n]
		switch rnd.IntN(5) {
		case 0, 1:
			for i := range run {
				run[i] = byte(rnd.Uint32())
			}
		case 2:
			for i := range run {
				run[i] = byte(i % 23)
			}
		}
		at += n
	}
	return b
}

func write(t testing.TB, dir, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, b, 0o600))
	return path
}

// open opens an image file until the test ends.
func open(t testing.TB, path string) *Image {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	fi, err := f.Stat()
	require.NoError(t, err)
	i, err := Open(f, fi.Size())
	require.NoErrorf(t, err, "%s", path)
	return i
}

// requireDisk reads an image in every way and compares it with the disk's bytes.
func requireDisk(t testing.TB, want []byte, i *Image) {
	t.Helper()
	require.EqualValues(t, len(want), i.Size())
	data, err := i.Data(context.Background())
	require.NoError(t, err)
	got := make([]byte, len(want))
	n, err := i.ReadAt(got, 0)
	require.NoError(t, err)
	require.Equal(t, len(want), n)
	requireSame(t, want, got)
	var held int64
	for off := int64(0); off < i.Size(); {
		isData, end, err := i.Extent(off)
		require.NoError(t, err)
		require.Greater(t, end, off)
		require.LessOrEqual(t, end, i.Size())
		if isData {
			held += end - off
		} else {
			require.Truef(t, zeros(want[off:end]), "a hole at %d where there are bytes", off)
		}
		off = end
	}
	require.Equal(t, data, held, "Data and Extent")
	rnd := rand.New(rand.NewPCG(7, 7))
	for range 10 {
		off, length := rnd.IntN(len(want)), 1+rnd.IntN(100<<10)
		n, err := i.ReadAt(got[:min(length, len(got))], int64(off))
		if err != nil {
			require.ErrorIs(t, err, io.EOF)
		}
		requireSame(t, want[off:min(off+length, len(want))], got[:n])
	}
}

func requireSame(t testing.TB, want, got []byte) {
	t.Helper()
	if !bytes.Equal(want, got) {
		at := 0
		for at < min(len(want), len(got)) && want[at] == got[at] {
			at++
		}
		t.Fatalf("%d bytes, %d expected, which differ from byte %d (%#x) on", len(got), len(want), at, at)
	}
}

func zeros(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// requireRefused checks that an error is about the source, in words.
func requireRefused(t testing.TB, err error, words ...string) {
	t.Helper()
	require.Error(t, err)
	var e *store.Error
	require.Truef(t, errors.As(err, &e), "%v", err)
	require.Equalf(t, store.KindInvalid, e.Kind, "%v", err)
	require.Equalf(t, "source", e.Field, "%v", err)
	require.NotEmpty(t, e.Msg)
	for _, w := range words {
		require.Contains(t, err.Error(), w)
	}
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// readAll walks and reads a whole image, up to a bound, and returns the first
// error.
func readAll(b []byte, bound int64) error {
	i, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	if _, err := i.Data(context.Background()); err != nil {
		return err
	}
	buf := make([]byte, 128<<10)
	for off := int64(0); off < i.Size() && bound > 0; {
		data, end, err := i.Extent(off)
		if err != nil {
			return err
		}
		if !data {
			off = end
			continue
		}
		n, err := i.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		off, bound = off+int64(n), bound-int64(n)
	}
	return nil
}

// made converts a disk to another format with qemu-img, and returns the path of
// that and the bytes that qemu-img reads from it: some formats round sizes up.
func made(t testing.TB, want []byte, format string, options ...string) (path string, back []byte) {
	t.Helper()
	need(t, "qemu-img")
	dir := t.TempDir()
	path = filepath.Join(dir, "image")
	args := append([]string{"convert", "-f", "raw", "-O", format}, options...)
	run(t, "qemu-img", append(args, write(t, dir, "raw", want), path)...)
	return path, qemuReads(t, format, path)
}

// qemuReads are the bytes of an image's disk, read by qemu-img.
func qemuReads(t testing.TB, format, path string) []byte {
	t.Helper()
	flat := filepath.Join(t.TempDir(), "flat")
	run(t, "qemu-img", "convert", "-f", format, "-O", "raw", path, flat)
	b, err := os.ReadFile(flat)
	require.NoError(t, err)
	return b
}

func contents(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

// lie is a field that is changed, and what is said about it.
type lie struct {
	name  string
	at, n int
	value uint64
	words string
}

// requireLiesRefused changes a good image in one place after the other. seal
// makes its checksums right again.
func requireLiesRefused(t *testing.T, good []byte, order binary.ByteOrder, seal func(b []byte), lies []lie) {
	t.Helper()
	require.NoError(t, readAll(good, 1<<30))
	for _, c := range lies {
		b := bytes.Clone(good)
		switch c.n {
		case 1:
			b[c.at] = byte(c.value)
		case 2:
			order.PutUint16(b[c.at:], uint16(c.value))
		case 4:
			order.PutUint32(b[c.at:], uint32(c.value))
		case 8:
			order.PutUint64(b[c.at:], c.value)
		}
		seal(b)
		var err error
		took := allocated(func() { err = readAll(b, 1<<20) })
		require.Errorf(t, err, c.name)
		requireRefused(t, err, c.words)
		require.Lessf(t, took, uint64(1<<20), c.name)
	}
}

// requireCutsRefused cuts a good image short anywhere before end.
func requireCutsRefused(t *testing.T, good []byte, end int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(4, 4))
	for n := range 150 {
		at := 12 + rnd.IntN(end-12)
		if n%3 == 0 {
			at = 12 + rnd.IntN(min(end, 4096)-12)
		}
		err := readAll(good[:at], 1<<30)
		require.Errorf(t, err, "cut at %d of %d", at, len(good))
		requireRefused(t, err)
	}
}
