package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVHDXHasTheBytesThatQemuReads(t *testing.T) {
	for n, options := range []string{"subformat=dynamic", "subformat=fixed", "block_size=1M", "block_size=32M,log_size=4M", "block_size=1M,subformat=fixed"} {
		for seed, size := range []int{512, 1<<20 + 512, 5<<20 + 512*7} {
			t.Run(fmt.Sprintf("%s %d", options, size), func(t *testing.T) {
				path, want := made(t, disk(uint64(10*n+seed), size), "vhdx", "-o", options)
				i := open(t, path)
				require.Equal(t, FormatVHDX, i.Format())
				require.Equal(t, 512, i.BlockSize())
				require.EqualValues(t, size, i.Size())
				requireDisk(t, want, i)
			})
		}
	}
}

// A disk that was used has blocks in every state.
func TestVHDXThatWasUsedHasTheBytesThatQemuReads(t *testing.T) {
	need(t, "qemu-io")
	path := filepath.Join(t.TempDir(), "used")
	run(t, "qemu-img", "create", "-f", "vhdx", "-o", "block_size=1M", path, "20M")
	run(t, "qemu-io", "-f", "vhdx", "-c", "write -P 1 17m 3m", "-c", "write -P 2 512 4096", "-c", "write -P 3 5000k 2m", "-c", "write -z 6m 1m", path)
	requireDisk(t, qemuReads(t, "vhdx", path), open(t, path))
}

// Behind every 4096 blocks of 1 MiB the table has an entry for a sector bitmap.
func TestVHDXOfALargeDiskIsFoundThroughItsTable(t *testing.T) {
	need(t, "qemu-io")
	path := filepath.Join(t.TempDir(), "large")
	run(t, "qemu-img", "create", "-f", "vhdx", "-o", "block_size=1M", path, "40G")
	places := []int64{0, 4095 << 20, 4096 << 20, 8191 << 20, 8192 << 20, 40<<30 - 1<<20}
	args := []string{"-f", "vhdx"}
	for n, at := range places {
		args = append(args, "-c", fmt.Sprintf("write -P %d %d 1m", n+1, at))
	}
	run(t, "qemu-io", append(args, path)...)
	requirePlaces := func(i *Image) {
		b := make([]byte, 1<<20)
		for n, at := range places {
			_, err := i.ReadAt(b, at)
			require.NoError(t, err)
			requireSame(t, bytes.Repeat([]byte{byte(n + 1)}, 1<<20), b)
			_, err = i.ReadAt(b[:512], at+1<<20)
			if at+1<<20 < i.Size() && n != 1 && n != 3 {
				require.NoError(t, err)
				require.Truef(t, zeros(b[:512]), "behind %d", at)
			}
		}
	}
	requirePlaces(open(t, path))

	// With sectors of 4096 bytes one bitmap is for eight times as many blocks. No
	// program here makes such a file: its table is made from the other's.
	b := contents(t, path)
	le := binary.LittleEndian
	bat, meta := vhdxPlaces(t, b)
	le.PutUint32(b[vhdxItem(t, b, meta, vhdxLogical):], 4096)
	var old []uint64
	for n := range int64(40 << 10) {
		old = append(old, le.Uint64(b[bat+8*(n+n/4096):]))
	}
	for n := range int64(40<<10 + 10) {
		le.PutUint64(b[bat+8*n:], 0)
	}
	for n, e := range old {
		le.PutUint64(b[bat+8*int64(n+n/32768):], e)
	}
	i, err := Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	require.Equal(t, 4096, i.BlockSize())
	require.EqualValues(t, 40<<30, i.Size())
	requirePlaces(i)
	require.NoError(t, readAll(b, 1<<30))
}

// vhdxPlaces are the places of the table of blocks and of the metadata.
func vhdxPlaces(t testing.TB, b []byte) (bat, meta int64) {
	i := &Image{file: bytes.NewReader(b), fileSize: int64(len(b))}
	table, metadata, err := i.vhdxFind()
	require.NoError(t, err)
	return table.at, metadata.at
}

// vhdxItem is the place of a metadata item, vhdxItemEntry that of its entry.
func vhdxItem(t testing.TB, b []byte, meta int64, id guid) int {
	return int(meta) + int(binary.LittleEndian.Uint32(b[vhdxItemEntry(t, b, meta, id)+16:]))
}

func vhdxItemEntry(t testing.TB, b []byte, meta int64, id guid) int {
	at := bytes.Index(b[meta:meta+vhdxItemsAt], id[:])
	require.Positive(t, at)
	return int(meta) + at
}

// sealVHDX makes the checksums of a VHDX right.
func sealVHDX(b []byte) {
	for _, s := range []struct{ at, n int }{{vhdxHeaderAt, vhdxHeaderSize}, {vhdxHeaderAt + vhdxPart, vhdxHeaderSize}, {vhdxRegionsAt, vhdxPart}, {vhdxRegionsAt + vhdxPart, vhdxPart}} {
		binary.LittleEndian.PutUint32(b[s.at+vhdxChecksum:], vhdxSumOf(b[s.at:s.at+s.n]))
	}
}

func TestVHDXThatLiesIsRefused(t *testing.T) {
	path, _ := made(t, disk(5, 5<<20), "vhdx", "-o", "block_size=1M")
	good := contents(t, path)
	le := binary.LittleEndian
	bat64, meta := vhdxPlaces(t, good)
	bat := int(bat64)
	first := le.Uint64(good[bat:])
	head := vhdxHeaderAt
	if le.Uint64(good[vhdxHeaderAt+vhdxPart+vhdxSequence:]) > le.Uint64(good[head+vhdxSequence:]) {
		head += vhdxPart
	}
	regions := vhdxRegionsAt + 16
	good[regions+28] = vhdxRequired // QEMU leaves that out
	sealVHDX(good)
	params, size, sector := vhdxItem(t, good, meta, vhdxParameters), vhdxItem(t, good, meta, vhdxDiskSize), vhdxItem(t, good, meta, vhdxLogical)
	paramsEntry := vhdxItemEntry(t, good, meta, vhdxParameters)
	requireLiesRefused(t, good, le, sealVHDX, []lie{
		{"version 2", head + vhdxVersion, 2, 2, "version 2"},
		{"log behind the file", head + vhdxLogAt, 8, 1 << 40, "log is said"},
		{"log before the file", head + vhdxLogAt, 8, 1<<64 - 1<<20, "log is said"},
		{"log in the head", head + vhdxLogAt, 8, 0, "log is said"},
		{"log of 4 GiB", head + vhdxLogLength, 4, 0xfff00000, "log is said"},
		{"log in the table", head + vhdxLogAt, 8, uint64(bat), "same place"},
		{"log without entries", head + vhdxLogGUID, 8, 77, "log is damaged"},
		{"no regions", vhdxRegionsAt + 8, 4, 0, "no table of blocks"},
		{"one region", vhdxRegionsAt + 8, 4, 1, "no metadata"},
		{"regions without end", vhdxRegionsAt + 8, 4, 1<<32 - 1, "4294967295 regions"},
		{"2048 regions", vhdxRegionsAt + 8, 4, 2048, "2048 regions"},
		{"unknown region", regions, 8, 1, "region that is not known"},
		{"table behind the file", regions + 16, 8, 1 << 40, "cut short"},
		{"table at the end of what can be", regions + 16, 8, 1<<64 - 1<<20, "says that its table of blocks"},
		{"table in the head", regions + 16, 8, 0, "says that its table of blocks"},
		{"table between megabytes", regions + 16, 8, uint64(bat) + 4096, "says that its table of blocks"},
		{"table of 4 GiB", regions + 24, 4, 0xfff00000, "cut short"},
		{"no table", regions + 24, 4, 0, "says that its table of blocks"},
		{"table at the metadata", regions + 16, 8, uint64(meta), "same place"},
		{"metadata in the table", regions + vhdxEntrySize + 16, 8, uint64(bat), "metadata do not begin"},
		{"metadata without a name", int(meta), 8, 0, "metadata do not begin"},
		{"metadata without end", int(meta) + 10, 2, 65535, "65535 metadata items"},
		{"no metadata items", int(meta) + 10, 2, 0, "do not have the disk's size"},
		{"a needed item that is not known", paramsEntry, 8, 1, "metadata item that is not known"},
		{"an item behind the metadata", paramsEntry + 16, 4, 1<<32 - 8, "metadata item"},
		{"an item in the table of items", paramsEntry + 16, 4, 0, "metadata item"},
		{"an item of 4 GiB", paramsEntry + 20, 4, 1<<32 - 1, "metadata item"},
		{"an item of no bytes", paramsEntry + 20, 4, 0, "metadata item"},
		{"blocks of no bytes", params, 4, 0, "blocks have 0"},
		{"blocks of 1.5 MiB", params, 4, 3 << 19, "blocks have"},
		{"blocks of 512 MiB", params, 4, 512 << 20, "blocks have"},
		{"a difference", params + 4, 4, vhdxHasParent, "difference to another file"},
		{"no bytes", size, 8, 0, "no bytes"},
		{"more bytes than a volume", size, 8, 1<<46 + 512, "64 TiB"},
		{"negative bytes", size, 8, 1 << 63, "64 TiB"},
		{"more bytes than its table", size, 8, 1 << 41, "table of blocks has"},
		{"half a sector", size, 8, 5<<20 + 100, "whole sectors"},
		{"sectors of no bytes", sector, 4, 0, "sectors have 0"},
		{"sectors of 1024 bytes", sector, 4, 1024, "sectors have 1024"},
		{"a block behind the file", bat, 8, 1<<40 | vhdxPresent, "cut short"},
		{"a block at the end of what can be", bat, 8, 1<<64 - 1<<20 | vhdxPresent, "no file has bytes"},
		{"a block at the largest offset", bat, 8, 1<<63 - 1<<20 | vhdxPresent, ""},
		{"a block in the head", bat, 8, vhdxPresent, "where its head is"},
		{"a block in the metadata", bat, 8, uint64(meta) | vhdxPresent, "where its metadata is"},
		{"a block in the table", bat, 8, uint64(bat) | vhdxPresent, "where its table of blocks is"},
		{"two blocks at one place", bat + 8, 8, first, "where others are too"},
		{"a block in part", bat, 8, first&^7 | vhdxPartly, "in another file"},
		{"a block of state 4", bat, 8, first&^7 | 4, "not known (4)"},
	})
	for name, at := range map[string]int{"headers": vhdxHeaderAt, "region tables": vhdxRegionsAt} {
		b := bytes.Clone(good)
		b[at+100] ^= 1
		require.NoErrorf(t, readAll(b, 1<<30), "one of the %s is enough", name)
		b[at+vhdxPart+100] ^= 1
		requireRefused(t, readAll(b, 1<<30), "neither of the image's two "+name)
	}
	requireCutsRefused(t, good, len(good)-1)
}

func TestVHDXWithAParentIsRefused(t *testing.T) {
	path, _ := made(t, disk(5, 1<<20), "vhdx")
	b := contents(t, path)
	_, meta := vhdxPlaces(t, b)
	binary.LittleEndian.PutUint32(b[vhdxItem(t, b, meta, vhdxParameters)+4:], vhdxHasParent)
	requireRefused(t, readAll(b, 1<<20), "difference to another file", "merging")
}

// unclosed is a VHDX whose last write reached the log and not its table of
// blocks.
func unclosed(t testing.TB) string {
	t.Helper()
	need(t, "qemu-io")
	path := filepath.Join(t.TempDir(), "unclosed")
	run(t, "qemu-img", "create", "-f", "vhdx", "-o", "block_size=1M", path, "20M")
	run(t, "qemu-io", "-f", "vhdx", "-c", "write -P 5 1m 64k", path)
	bat, _ := vhdxPlaces(t, contents(t, path))
	out, err := exec.Command("qemu-io", "-c", "write -P 6 5m 3m", fmt.Sprintf(`json:{"driver":"vhdx","file":{"driver":"blkdebug","image":{"driver":"file","filename":%q},
		"inject-error":[{"event":"none","iotype":"write","errno":5,"sector":%d}]}}`, path, bat/512)).CombinedOutput()
	require.Errorf(t, err, "%s", out)
	return path
}

// repaired are the bytes that QEMU reads after it wrote the log's changes into a
// copy of the file.
func repaired(t testing.TB, path string) []byte {
	t.Helper()
	file := write(t, t.TempDir(), "repaired", contents(t, path))
	run(t, "qemu-img", "check", "-f", "vhdx", "-r", "all", file)
	return qemuReads(t, "vhdx", file)
}

func TestVHDXThatWasNotClosedIsReadWithItsLog(t *testing.T) {
	path := unclosed(t)
	before := contents(t, path)
	want := repaired(t, path)
	require.Equal(t, byte(6), want[5<<20])
	requireDisk(t, want, open(t, path))
	require.Equal(t, before, contents(t, path), "the file is not written")
}

// logWriter makes entries of a log, as [MS-VHDX] has them.
type logWriter struct {
	b    []byte
	ring extent
	at   int64
	seq  uint64
	id   guid
}

type change struct {
	to   int64
	page []byte // of 4 KiB; nil: zeros
	n    int64  // of zeros
}

// add writes an entry whose sequence begins at tail.
func (w *logWriter) add(tail int64, last int64, changes ...change) {
	le := binary.LittleEndian
	e := make([]byte, (vhdxLogHead+len(changes)*vhdxEntrySize+vhdxLogSector-1)/vhdxLogSector*vhdxLogSector)
	copy(e, vhdxLogEntry)
	le.PutUint32(e[vhdxEntryTail:], uint32(tail))
	le.PutUint64(e[vhdxEntrySeq:], w.seq)
	le.PutUint32(e[vhdxEntryDescs:], uint32(len(changes)))
	copy(e[vhdxEntryGUID:], w.id[:])
	le.PutUint64(e[vhdxFlushed:], uint64(len(w.b)))
	le.PutUint64(e[vhdxLast:], uint64(last))
	for n, c := range changes {
		d := e[vhdxLogHead+n*vhdxEntrySize:][:vhdxEntrySize]
		le.PutUint64(d[16:], uint64(c.to))
		le.PutUint64(d[24:], w.seq)
		if c.page == nil {
			copy(d, vhdxLogZero)
			le.PutUint64(d[8:], uint64(c.n))
			continue
		}
		copy(d, vhdxLogDesc)
		copy(d[4:8], c.page[vhdxLogSector-4:])
		copy(d[8:16], c.page)
		s := append([]byte(vhdxLogData), make([]byte, 4)...)
		le.PutUint32(s[4:], uint32(w.seq>>32))
		s = append(s, c.page[8:vhdxLogSector-4]...)
		e = append(e, le.AppendUint32(s, uint32(w.seq))...)
	}
	le.PutUint32(e[vhdxEntryLen:], uint32(len(e)))
	le.PutUint32(e[vhdxChecksum:], vhdxSumOf(e))
	for n := range e {
		w.b[w.ring.at+(w.at+int64(n))%w.ring.n] = e[n]
	}
	w.at = (w.at + int64(len(e))) % w.ring.n
	w.seq++
}

// startLog gives a closed VHDX a log that is to be replayed.
func startLog(t testing.TB, b []byte) *logWriter {
	le := binary.LittleEndian
	w := &logWriter{b: b, id: guid{1, 2, 3}, seq: 1<<32 - 2}
	for _, head := range []int{vhdxHeaderAt, vhdxHeaderAt + vhdxPart} {
		w.ring = extent{at: int64(le.Uint64(b[head+vhdxLogAt:])), n: int64(le.Uint32(b[head+vhdxLogLength:]))}
		copy(b[head+vhdxLogGUID:], w.id[:])
	}
	sealVHDX(b)
	require.EqualValues(t, 1<<20, w.ring.n)
	clear(b[w.ring.at : w.ring.at+w.ring.n])
	return w
}

// A log of several entries, which goes on at the ring's beginning, writes pages
// twice, makes others zeros, and stands behind an older one.
func TestVHDXLogOfManyEntriesIsReplayedAsQemuDoes(t *testing.T) {
	path, _ := made(t, disk(8, 6<<20), "vhdx", "-o", "block_size=1M")
	good := contents(t, path)
	bat64, _ := vhdxPlaces(t, good)
	bat := int(bat64)
	le := binary.LittleEndian
	table := bytes.Clone(good[bat : bat+vhdxLogSector])
	a, b := le.Uint64(table), le.Uint64(table[8:])
	other := bytes.Clone(table)
	le.PutUint64(other, b) // the first two blocks change places
	le.PutUint64(other[8:], a)
	noise := disk(9, 1<<20)
	pages := func(from int64, n int) (c []change) {
		for i := range n {
			c = append(c, change{to: from + int64(i*vhdxLogSector), page: noise[i*vhdxLogSector : (i+1)*vhdxLogSector]})
		}
		return c
	}
	block := int64(le.Uint64(table[16:]) & vhdxPlace)
	// The same log, in the ring's middle and around its end. QEMU begins a log at
	// the ring's first entry, whatever tail is named: it is asked about the first.
	var want []byte
	for _, tail := range []int64{300 << 10, 1<<20 - 200<<10} {
		file := bytes.Clone(good)
		copy(file[bat:], bytes.Repeat([]byte{0xff}, 16)) // a torn table, which the log mends
		w := startLog(t, file)
		end := int64(len(file))
		w.add(0, end, change{to: int64(bat), page: make([]byte, vhdxLogSector)}) // stale
		w.at, w.seq = tail, w.seq+5
		w.add(tail, end, pages(block, 20)...)
		w.add(tail, end, change{to: int64(bat), page: make([]byte, vhdxLogSector)}, change{to: block + 64<<10, n: 128 << 10})
		w.add(tail, end, pages(block+300<<10, 40)...)
		w.add(tail, end, change{to: block, n: 8192}, change{to: int64(bat), page: other}, change{to: block + 4096, page: noise[:vhdxLogSector]})
		path = write(t, t.TempDir(), "log", file)
		if want == nil {
			want = repaired(t, path)
		} else {
			require.Less(t, w.at, tail, "the log goes on at its beginning")
		}
		requireDisk(t, want, open(t, path))
	}

	t.Run("the file becomes longer", func(t *testing.T) {
		file := bytes.Clone(good)
		w := startLog(t, file)
		longer := bytes.Clone(table)
		le.PutUint64(longer, uint64(len(file)+1<<20-1)&vhdxPlace|vhdxPresent)
		last := int64(len(file)+1<<20-1)&^(1<<20-1) + 1<<20
		w.add(0, last, change{to: int64(bat), page: longer})
		i, err := Open(bytes.NewReader(file), int64(len(file)))
		require.NoError(t, err)
		b := make([]byte, 1<<20)
		_, err = i.ReadAt(b, 0)
		require.NoError(t, err)
		require.True(t, zeros(b))
		require.NoError(t, readAll(file, 1<<30))
	})
}

func TestVHDXLogThatLiesIsRefused(t *testing.T) {
	path, _ := made(t, disk(8, 2<<20), "vhdx", "-o", "block_size=1M")
	good := contents(t, path)
	bat, _ := vhdxPlaces(t, good)
	p := disk(1, vhdxLogSector)
	end := int64(len(good))
	for name, c := range map[string]struct {
		make  func(w *logWriter)
		words string
	}{
		"no entry":                  {func(*logWriter) {}, "log is damaged"},
		"a tail elsewhere":          {func(w *logWriter) { w.add(8192, end, change{to: bat, n: 4096}) }, "log is damaged"},
		"another log's entries":     {func(w *logWriter) { w.id[0]++; w.add(0, end, change{to: bat, n: 4096}) }, "log is damaged"},
		"a page behind the file":    {func(w *logWriter) { w.add(0, end, change{to: 1 << 40, page: p}) }, "log is damaged in entry"},
		"a page between pages":      {func(w *logWriter) { w.add(0, end, change{to: bat + 512, page: p}) }, "log is damaged in entry"},
		"zeros behind the file":     {func(w *logWriter) { w.add(0, end, change{to: bat, n: 1 << 40}) }, "log is damaged in entry"},
		"zeros without end":         {func(w *logWriter) { w.add(0, end, change{to: bat, n: -4096}) }, "log is damaged in entry"},
		"half a page of zeros":      {func(w *logWriter) { w.add(0, end, change{to: bat, n: 100}) }, "log is damaged in entry"},
		"a file of 1 TiB":           {func(w *logWriter) { w.add(0, 1<<40, change{to: bat, n: 4096}) }, "is to become a file"},
		"a file of negative length": {func(w *logWriter) { w.add(0, -1, change{to: bat, n: 4096}) }, "is to become a file"},
		"much made zeros": {func(w *logWriter) {
			var c []change
			for range 300 {
				c = append(c, change{to: 8 << 20, n: 1 << 20})
			}
			w.add(0, end+900<<20, c...)
		}, "too much in it"},
		"a file that was longer": {func(w *logWriter) {
			w.add(0, end, change{to: bat, n: 4096})
			e := w.b[w.ring.at:][:vhdxLogSector]
			binary.LittleEndian.PutUint64(e[vhdxFlushed:], uint64(end+1))
			binary.LittleEndian.PutUint32(e[vhdxChecksum:], vhdxSumOf(e))
		}, "cut short"},
		"descriptors without end": {func(w *logWriter) {
			w.add(0, end, change{to: bat, n: 4096})
			binary.LittleEndian.PutUint32(w.b[w.ring.at+vhdxEntryDescs:], 1<<32-1)
		}, "log is damaged"},
		"a wrong checksum": {func(w *logWriter) {
			w.add(0, end, change{to: bat, n: 4096})
			w.b[w.ring.at+4000] ^= 1
		}, "log is damaged"},
		"entries in entries": {func(w *logWriter) {
			// Each says that it reaches around the whole ring, and none is right.
			le := binary.LittleEndian
			for at := int64(0); at < w.ring.n; at += vhdxLogSector {
				e := w.b[w.ring.at+at:]
				copy(e, vhdxLogEntry)
				le.PutUint32(e[vhdxEntryLen:], uint32(w.ring.n))
				le.PutUint64(e[vhdxEntrySeq:], uint64(at+5))
				copy(e[vhdxEntryGUID:], w.id[:])
			}
		}, "made to deceive"},
	} {
		b := bytes.Clone(good)
		c.make(startLog(t, b))
		var err error
		took := allocated(func() { err = readAll(b, 1<<20) })
		require.Errorf(t, err, name)
		requireRefused(t, err, c.words)
		require.Lessf(t, took, uint64(32<<20), name)
	}
	b := bytes.Clone(good)
	for _, head := range []int{vhdxHeaderAt, vhdxHeaderAt + vhdxPart} {
		b[head+vhdxLogGUID], b[head+vhdxLogVersion] = 1, 1
	}
	sealVHDX(b)
	requireRefused(t, readAll(b, 1<<20), "version 1, which is not known")
}
