package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// unpackAll reads a compressed stream, as an import does.
func unpackAll(b []byte, size int64) ([]byte, error) {
	f, err := Detect(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	s, err := OpenStream(bytes.NewReader(b), f, size)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return io.ReadAll(s)
}

// pack compresses a file with the program that everybody uses.
func pack(t testing.TB, want []byte, program string, args ...string) []byte {
	t.Helper()
	need(t, program)
	dir := t.TempDir()
	from := write(t, dir, "raw", want)
	b := []byte(run(t, program, append(args, "-c", from)...))
	return b
}

var packers = []struct {
	f       Format
	program string
	args    []string
}{
	{FormatGzip, "gzip", []string{"-6"}},
	{FormatXZ, "xz", []string{"-0"}},
	{FormatXZ, "xz", []string{"-1", "-C", "none", "--block-size=20000"}},
	{FormatXZ, "xz", []string{"-1", "-C", "crc32", "-T2", "--block-size=50000"}},
	{FormatXZ, "xz", []string{"-1", "-C", "sha256"}},
	{FormatZstd, "zstd", []string{"-q", "-3"}},
	{FormatZstd, "zstd", []string{"-q", "-1", "--no-check", "--long=27"}},
}

func TestCompressedStreamsHaveTheBytesThatWerePacked(t *testing.T) {
	want := disk(17, 120<<10+123)
	for _, p := range packers {
		b := pack(t, want, p.program, p.args...)
		f, err := Detect(bytes.NewReader(b), int64(len(b)))
		require.NoError(t, err)
		require.Equal(t, p.f, f)
		require.True(t, f.Compressed())
		for name, b := range map[string][]byte{"one": b, "two": append(append([]byte(nil), b...), b...)} {
			whole := want
			if name == "two" {
				whole = append(append([]byte(nil), want...), want...)
			}
			n, err := StreamSize(context.Background(), bytes.NewReader(b), int64(len(b)), f, math.MaxInt64)
			require.NoErrorf(t, err, "%s %v", name, p)
			require.EqualValues(t, len(whole), n)
			got, err := unpackAll(b, n)
			require.NoErrorf(t, err, "%s %v", name, p)
			requireSame(t, whole, got)
			_, err = unpackAll(b, n-1)
			requireRefused(t, err, "more than")
			_, err = StreamSize(context.Background(), bytes.NewReader(b), int64(len(b)), f, n-1)
			requireRefused(t, err)
		}
	}
}

func TestXZWithPaddingBetweenStreams(t *testing.T) {
	want := disk(3, 5000)
	b := pack(t, want, "xz", "-0")
	padded := append(append(append([]byte(nil), b...), make([]byte, 8)...), append(b, make([]byte, 4)...)...)
	n, err := StreamSize(context.Background(), bytes.NewReader(padded), int64(len(padded)), FormatXZ, math.MaxInt64)
	require.NoError(t, err)
	require.EqualValues(t, 10000, n)
	got, err := unpackAll(padded, n)
	require.NoError(t, err)
	requireSame(t, append(append([]byte(nil), want...), want...), got)
}

func TestACompressedStreamThatIsCutOrDamagedIsRefused(t *testing.T) {
	want := disk(18, 30<<10)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, p := range packers {
		good := pack(t, want, p.program, p.args...)
		for range 8 {
			_, err := unpackAll(good[:8+rnd.IntN(len(good)-9)], math.MaxInt64)
			requireRefused(t, err, string(p.f))
		}
		for range 8 {
			b := append([]byte(nil), good...)
			b[8+rnd.IntN(len(b)-8)] ^= 1 << rnd.IntN(8)
			got, err := unpackAll(b, math.MaxInt64)
			if err == nil {
				// A stream without checksums cannot tell, and a few bits mean nothing.
				if !bytes.Equal(want, got) {
					require.Contains(t, []string{"none", "--no-check"}, p.args[min(2, len(p.args)-1)], "%v", p)
				}
				continue
			}
			requireRefused(t, err)
		}
		_, err := unpackAll(append(append([]byte(nil), good...), "and something else behind"...), math.MaxInt64)
		requireRefused(t, err)
	}
}

func TestAnXZThatLiesAboutItsSizeIsRefused(t *testing.T) {
	good := pack(t, disk(1, 9000), "xz", "-0")
	for name, at := range map[string]int{"footer": len(good) - 3, "footer's index size": len(good) - 7, "index": len(good) - 15} {
		b := append([]byte(nil), good...)
		b[at] ^= 0x55
		_, err := StreamSize(context.Background(), bytes.NewReader(b), int64(len(b)), FormatXZ, math.MaxInt64)
		if name != "index" { // only the checksum of the index shows that
			requireRefused(t, err)
		}
		_, err = unpackAll(b, math.MaxInt64)
		requireRefused(t, err)
	}
	_, err := StreamSize(context.Background(), bytes.NewReader(make([]byte, 1<<20)), 1<<20, FormatXZ, math.MaxInt64)
	requireRefused(t, err)
}

func TestAStreamThatAsksForMuchMemoryIsRefused(t *testing.T) {
	want := disk(2, 4000)
	xz := pack(t, want, "xz", "-0")
	// The block's header: its size, flags, LZMA2, one byte of properties.
	require.Equal(t, byte(xzLZMA2), xz[xzHeaderSize+2])
	xz[xzHeaderSize+4] = 40
	end := xzHeaderSize + (int(xz[xzHeaderSize])+1)*4 - 4
	binary.LittleEndian.PutUint32(xz[end:], crc32.ChecksumIEEE(xz[xzHeaderSize:end]))
	need(t, "zstd")
	from := write(t, t.TempDir(), "raw", bytes.Repeat(want, 100))
	out := from + ".zst"
	run(t, "sh", "-c", "zstd -q --ultra --long=30 -c <"+from+" >"+out)
	long, err := os.ReadFile(out)
	require.NoError(t, err)
	for words, b := range map[string][]byte{"xz -9": xz, "--long=27": long} {
		took := allocated(func() { _, err = unpackAll(b, math.MaxInt64) })
		requireRefused(t, err, words)
		require.Less(t, took, uint64(4<<20))
	}
}

func TestABombOfEmptyXZBlocksIsRefused(t *testing.T) {
	// Blocks of one byte, each of which asks for 64 MiB.
	one := pack(t, []byte{7}, "xz", "-9", "-C", "none")
	size := (int(one[xzHeaderSize])+1)*4 + 8 // of the block
	b := append([]byte(nil), one[:xzHeaderSize]...)
	for range 100 {
		b = append(b, one[xzHeaderSize:xzHeaderSize+size]...)
	}
	_, err := unpackAll(b, math.MaxInt64)
	requireRefused(t, err, "nearly nothing")
}

func TestABombEndsWhereItsSizeWasAnnounced(t *testing.T) {
	zeros := make([]byte, 1<<20)
	var gz, zs bytes.Buffer
	w := gzip.NewWriter(&gz)
	z, err := zstd.NewWriter(&zs, zstd.WithEncoderConcurrency(1))
	require.NoError(t, err)
	for range 64 {
		w.Write(zeros)
		z.Write(zeros)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	for _, b := range [][]byte{gz.Bytes(), zs.Bytes()} {
		require.Less(t, len(b), 1<<20)
		f, err := DetectHead(b[:HeadSize])
		require.NoError(t, err)
		took := allocated(func() {
			s, err := OpenStream(bytes.NewReader(b), f, 10<<20)
			require.NoError(t, err)
			n, err := io.Copy(io.Discard, s)
			require.EqualValues(t, 10<<20, n)
			requireRefused(t, err, "more than the 10485760 bytes")
			require.NoError(t, s.Close())
		})
		require.Less(t, took, uint64(16<<20))
	}
}

func TestAnImageInsideOfAStreamIsRefused(t *testing.T) {
	need(t, "qemu-img")
	dir := t.TempDir()
	raw := write(t, dir, "raw", disk(4, 1<<20))
	for _, c := range [][]string{{"qcow2"}, {"vmdk"}, {"vpc"}, {"vpc", "-o", "subformat=fixed,force_size=on"}, {"vdi"}} {
		to := filepath.Join(dir, "inside")
		run(t, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O"}, c...), raw, to)...)
		inside, err := os.ReadFile(to)
		require.NoError(t, err)
		_, err = unpackAll(pack(t, inside, "gzip", "-1"), math.MaxInt64)
		requireRefused(t, err)
		s, err := OpenStream(bytes.NewReader(inside), FormatRaw, int64(len(inside)))
		if err == nil {
			_, err = io.ReadAll(s)
		}
		requireRefused(t, err)
	}
}

func TestAStreamOfRawBytesIsAsLongAsAnnounced(t *testing.T) {
	want := disk(8, 70000)
	s, err := OpenStream(bytes.NewReader(want), FormatRaw, 70000)
	require.NoError(t, err)
	got, err := io.ReadAll(s)
	require.NoError(t, err)
	requireSame(t, want, got)
	n, err := StreamSize(context.Background(), bytes.NewReader(want), 70000, FormatRaw, 1<<40)
	require.NoError(t, err)
	require.EqualValues(t, 70000, n)
}

func TestStreamSizeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b := pack(t, disk(8, 70000), "gzip")
	_, err := StreamSize(ctx, bytes.NewReader(b), int64(len(b)), FormatGzip, math.MaxInt64)
	require.ErrorIs(t, err, context.Canceled)
}
