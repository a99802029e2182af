package image

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"lunboot/store"
)

// requireSound opens an image of any bytes, walks it and reads a part. Whatever
// is in it, there is an error in words or a disk that holds together, in little
// memory.
func requireSound(t testing.TB, b []byte) {
	var err error
	// A packed unit of qcow2 may ask for a window of 64 MiB.
	took := allocated(func() { err = soundRead(t, b) })
	if took > 80<<20+8*uint64(len(b)) {
		t.Fatalf("%d bytes allocated for a file of %d", took, len(b))
	}
	if err != nil {
		requireWords(t, err)
	}
}

func requireWords(t testing.TB, err error) {
	var e *store.Error
	if !errors.As(err, &e) || e.Kind != store.KindInvalid || e.Field != "source" || e.Msg == "" {
		t.Fatalf("not an error about the image: %v", err)
	}
}

func soundRead(t testing.TB, b []byte) error {
	i, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	if i.Size() <= 0 || i.Size() > store.MaxVolumeSize || i.BlockSize() != 512 && i.BlockSize() != 4096 {
		t.Fatalf("a disk of %d bytes in blocks of %d", i.Size(), i.BlockSize())
	}
	data, err := i.Data(t.Context())
	if err != nil {
		return err
	}
	if data > i.Size() {
		t.Fatalf("%d bytes of data on a disk of %d", data, i.Size())
	}
	buf := make([]byte, 96<<10)
	left := int64(4 << 20)
	for off, n := int64(0), 0; off < i.Size() && left > 0 && n < 10000; n++ {
		isData, end, err := i.Extent(off)
		if err != nil {
			return err
		}
		if end <= off || end > i.Size() {
			t.Fatalf("an extent from %d to %d on a disk of %d", off, end, i.Size())
		}
		p := buf[:min(int64(len(buf)), end-off)]
		got, err := i.ReadAt(p, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if got != len(p) {
			t.Fatalf("%d bytes read at %d, %d asked for", got, off, len(p))
		}
		if !isData {
			if !zeros(p) {
				t.Fatalf("a hole with bytes at %d", off)
			}
			off = end
			continue
		}
		off, left = off+int64(got), left-int64(got)
	}
	return nil
}

// patched changes an image as a fuzzer's input says: where, and what. Offsets
// count in the image's parts that matter, one behind the other.
func patched(good []byte, input []byte, parts ...extent) []byte {
	b := bytes.Clone(good)
	var total int64
	for _, p := range parts {
		total += p.n
	}
	for len(input) >= 4 {
		at, n := int64(binary.LittleEndian.Uint16(input))%total, int(input[2]%16)+1
		input = input[3:]
		n = min(n, len(input))
		for _, p := range parts {
			if at < p.n {
				copy(b[p.at+at:], input[:n])
				break
			}
			at -= p.n
		}
		input = input[n:]
	}
	return b
}

// patches is the input that writes v at a place of the parts.
func patches(at int, v ...byte) []byte {
	return append([]byte{byte(at), byte(at >> 8), byte(len(v) - 1)}, v...)
}

func FuzzQcow2(f *testing.F) {
	for _, options := range []string{"cluster_size=512", "cluster_size=512,compat=0.10", "cluster_size=16k,extended_l2=on"} {
		f.Add(sampleOf(f, 20<<10, "qcow2", "-o", options))
	}
	f.Add(sampleOf(f, 20<<10, "qcow2", "-c", "-o", "cluster_size=512"))
	f.Add(sampleOf(f, 20<<10, "qcow2", "-c", "-o", "cluster_size=4k,compression_type=zstd"))
	f.Fuzz(func(t *testing.T, b []byte) { requireSound(t, append([]byte("QFI\xfb"), b[min(4, len(b)):]...)) })
}

func FuzzVMDK(f *testing.F) {
	packed := streamOptimized(f, disk(13, 20<<10))
	f.Add(packed)
	f.Add(packed[:len(packed)-512])
	f.Add(sampleOf(f, 20<<10, "vmdk", "-o", "subformat=streamOptimized"))
	f.Add(sampleOf(f, 20<<10, "vmdk", "-o", "zeroed_grain=on"))
	f.Fuzz(func(t *testing.T, b []byte) { requireSound(t, append([]byte(vmdkMagic), b[min(4, len(b)):]...)) })
}

func FuzzVHD(f *testing.F) {
	dynamic := sampleOf(f, 5<<20, "vpc", "-o", "force_size=on")
	fixed := sampleOf(f, 20<<10, "vpc", "-o", "force_size=on,subformat=fixed")
	f.Add(byte(0), patches(vhdSize, 0, 0, 1))
	f.Add(byte(1), patches(vhdType, 0, 0, 0, 3))
	f.Add(byte(0), patches(footSize+vhdBlockSize, 0, 1))
	f.Add(byte(0), patches(2*footSize+vhdHeaderSize, 0, 0, 0, 9))
	f.Fuzz(func(t *testing.T, base byte, input []byte) {
		good := dynamic
		parts := []extent{{at: int64(len(dynamic) - footSize), n: footSize}, {at: footSize, n: vhdHeaderSize}, {at: footSize + vhdHeaderSize, n: 512}, {at: 0, n: footSize}}
		if base&1 == 1 {
			good, parts = fixed, []extent{{at: int64(len(fixed) - footSize), n: footSize}, {at: 0, n: footSize}}
		}
		b := patched(good, input, parts...)
		if base&2 == 0 {
			sealVHD(b)
		}
		requireSound(t, b)
	})
}

func FuzzVHDX(f *testing.F) {
	good := sampleOf(f, 3<<20, "vhdx", "-o", "block_size=1M")
	bat, meta := vhdxPlaces(f, good)
	le := binary.LittleEndian
	open := bytes.Clone(good)
	w := startLog(f, open)
	w.add(0, int64(len(open)), change{to: bat, page: open[bat : bat+vhdxLogSector]}, change{to: meta + 512<<10, n: 8192})
	w.add(0, int64(len(open)), change{to: meta + 512<<10, page: disk(3, vhdxLogSector)})
	f.Add(byte(0), patches(0))
	f.Add(byte(1), patches(0))
	f.Add(byte(0), patches(80+16, 6, 7))
	f.Add(byte(1), patches(80+16+2*vhdxEntrySize+512+256+64, 1))
	f.Add(byte(1), patches(80+16+2*vhdxEntrySize+512+256+vhdxLogHead+8, 0, 0, 1))
	f.Fuzz(func(t *testing.T, base byte, input []byte) {
		from := good
		if base&1 == 1 {
			from = open
		}
		// The headers' ends, both regions, items and their values, blocks, the log.
		b := patched(from, input, extent{at: vhdxHeaderAt, n: 80}, extent{at: vhdxRegionsAt, n: 16 + 2*vhdxEntrySize},
			extent{at: meta, n: 256}, extent{at: meta + vhdxItemsAt, n: 256}, extent{at: bat, n: 256}, extent{at: w.ring.at, n: 32 << 10})
		copy(b[vhdxHeaderAt+vhdxPart:], b[vhdxHeaderAt:vhdxHeaderAt+80])
		copy(b[vhdxRegionsAt+vhdxPart:], b[vhdxRegionsAt:vhdxRegionsAt+80])
		if base&2 == 0 {
			sealVHDX(b)
			for at := int64(0); at < 32<<10; at += vhdxLogSector { // entries of a log are sealed too
				e := b[w.ring.at+at:]
				if n := int64(le.Uint32(e[vhdxEntryLen:])); bytes.HasPrefix(e, []byte(vhdxLogEntry)) && n >= vhdxLogSector && n <= 64<<10 {
					le.PutUint32(e[vhdxChecksum:], vhdxSumOf(e[:n]))
				}
			}
		}
		requireSound(t, b)
	})
}

// FuzzDetect gives any bytes to everything that looks at a file first, and
// unpacks what is a stream.
func FuzzDetect(f *testing.F) {
	want := disk(17, 3000)
	for _, p := range packers {
		f.Add(pack(f, want, p.program, p.args...))
	}
	f.Add(want)
	f.Add(append(bytes.Clone(want), append([]byte(vhdCookie), make([]byte, 504)...)...))
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(make([]byte, 5<<20))
	require.NoError(f, w.Close())
	f.Add(z.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, err := Detect(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			requireWords(t, err)
			return
		}
		if !kind.Compressed() {
			requireSound(t, b)
			return
		}
		const limit = 1 << 20
		took := allocated(func() {
			n, err := StreamSize(t.Context(), bytes.NewReader(b), int64(len(b)), kind, limit)
			if err == nil && n > limit {
				t.Fatalf("%d bytes, %d were allowed", n, limit)
			}
			if err != nil {
				requireWords(t, err)
			}
			s, err := OpenStream(bytes.NewReader(b), kind, limit)
			if err != nil {
				requireWords(t, err)
				return
			}
			got, err := io.Copy(io.Discard, s)
			if got > limit {
				t.Fatalf("%d bytes, %d were allowed", got, limit)
			}
			if err != nil {
				requireWords(t, err)
			}
			s.Close()
		})
		// Three windows of the largest sort, at the very most.
		if took > 3*maxWindow+64<<20 {
			t.Fatalf("%d bytes allocated for a stream of %d", took, len(b))
		}
	})
}

// sampleOf is a small image that qemu-img made.
func sampleOf(t testing.TB, size int, format string, options ...string) []byte {
	path, _ := made(t, disk(5, size), format, options...)
	return contents(t, path)
}
