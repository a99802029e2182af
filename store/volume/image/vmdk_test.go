package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zlib"
	"github.com/stretchr/testify/require"
)

func TestVMDKHasTheBytesThatQemuReads(t *testing.T) {
	for n, options := range []string{
		"subformat=monolithicSparse", "subformat=streamOptimized", "subformat=monolithicSparse,zeroed_grain=on",
		"subformat=monolithicSparse,adapter_type=lsilogic,hwversion=11", "compat6=on", "subformat=streamOptimized,adapter_type=buslogic",
	} {
		for seed, size := range []int{512, 64<<10 + 512, 5<<20 + 512*7, 34 << 20} { // a table is for 32 MiB
			if size > 10<<20 && n > 1 {
				continue
			}
			t.Run(fmt.Sprintf("%s %d", options, size), func(t *testing.T) {
				b := disk(uint64(10*n+seed), size)
				clear(b[min(size, 3<<20):min(size, 31<<20)])
				path, want := made(t, b, "vmdk", "-o", options)
				i := open(t, path)
				require.Equal(t, FormatVMDK, i.Format())
				require.Equal(t, 512, i.BlockSize())
				require.EqualValues(t, size, i.Size())
				requireDisk(t, want, i)
			})
		}
	}
}

func TestVMDKThatWasUsedHasTheBytesThatQemuReads(t *testing.T) {
	need(t, "qemu-io")
	path := filepath.Join(t.TempDir(), "used")
	run(t, "qemu-img", "create", "-f", "vmdk", "-o", "zeroed_grain=on", path, "100M")
	run(t, "qemu-io", "-f", "vmdk", "-c", "write -P 1 97m 3m", "-c", "write -P 2 512 4096", "-c", "write -P 3 33000k 2m", "-c", "write -z 33m 512k", path)
	requireDisk(t, qemuReads(t, "vmdk", path), open(t, path))
}

func TestVMDKOfALargeDiskIsWalkedByItsTables(t *testing.T) {
	need(t, "qemu-img")
	path := filepath.Join(t.TempDir(), "large")
	run(t, "qemu-img", "create", "-f", "vmdk", path, "2T")
	i := open(t, path)
	data, err := i.Data(t.Context())
	require.NoError(t, err)
	require.Zero(t, data)
}

// streamOptimized makes such an image as VMware and VirtualBox do, from the
// first byte to the last: grains and tables with markers, the directory and a
// second header at the end. QEMU makes none such, and reads it.
func streamOptimized(t testing.TB, want []byte) []byte {
	le := binary.LittleEndian
	const grain, per = 128, 512
	sector := func(b []byte) []byte { return append(b, make([]byte, (512-len(b)%512)%512)...) }
	marker := func(n, sort int) []byte {
		b := make([]byte, 512)
		le.PutUint64(b, uint64(n))
		le.PutUint32(b[12:], uint32(sort))
		return b
	}
	header := make([]byte, vmdkHeaderSize)
	copy(header, vmdkMagic)
	le.PutUint32(header[vmdkVersion:], 3)
	le.PutUint32(header[vmdkFlags:], vmdkHasNewlines|vmdkCompressed|vmdkMarkers)
	le.PutUint64(header[vmdkCapacity:], uint64(len(want)/512))
	le.PutUint64(header[vmdkGrain:], grain)
	le.PutUint64(header[vmdkDescAt:], 1)
	le.PutUint64(header[vmdkDescSize:], 20)
	le.PutUint32(header[vmdkPerTable:], per)
	le.PutUint64(header[vmdkDirectory:], vmdkAtEnd)
	le.PutUint64(header[64:], 128) // overhead
	copy(header[vmdkNewlines:], vmdkNewlineText)
	le.PutUint16(header[vmdkAlgorithm:], vmdkDeflate)
	b := append([]byte(nil), header...)
	b = append(b, fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=7a7a7a7a\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\nRDONLY %d SPARSE \"disk.vmdk\"\n", len(want)/512)...)
	b = append(b, make([]byte, 128*512-len(b))...)
	var directory []byte
	for first := 0; first < len(want); first += grain * per * 512 {
		table := make([]byte, per*4)
		for n := range per {
			off := first + n*grain*512
			if off >= len(want) || zeros(want[off:min(off+grain*512, len(want))]) {
				continue
			}
			whole := append(bytes.Clone(want[off:min(off+grain*512, len(want))]), make([]byte, grain*512)...)[:grain*512]
			var z bytes.Buffer
			w := zlib.NewWriter(&z)
			w.Write(whole)
			require.NoError(t, w.Close())
			le.PutUint32(table[4*n:], uint32(len(b)/512))
			b = le.AppendUint64(b, uint64(off/512))
			b = le.AppendUint32(b, uint32(z.Len()))
			b = sector(append(b, z.Bytes()...))
		}
		if zeros(table) {
			directory = le.AppendUint32(directory, 0)
			continue
		}
		b = append(b, marker(per*4/512, 1)...)
		directory = le.AppendUint32(directory, uint32(len(b)/512))
		b = append(b, table...)
	}
	b = append(b, marker((len(directory)+511)/512, 2)...)
	le.PutUint64(header[vmdkDirectory:], uint64(len(b)/512))
	b = sector(append(b, directory...))
	b = append(b, marker(1, vmdkFooter)...)
	b = append(b, header...)
	return append(b, marker(0, 0)...)
}

func TestVMDKStreamWithItsTablesAtItsEnd(t *testing.T) {
	want := disk(12, 66<<20+512*3) // three tables, of which the first is nowhere
	clear(want[:33<<20])
	clear(want[35<<20 : 62<<20])
	path := write(t, t.TempDir(), "stream", streamOptimized(t, want))
	requireSame(t, want, qemuReads(t, "vmdk", path))
	requireDisk(t, want, open(t, path))
	good := streamOptimized(t, disk(13, 300<<10))
	le := binary.LittleEndian
	foot := len(good) - 1024
	requireLiesRefused(t, good, le, func([]byte) {}, []lie{
		{"no footer's marker", foot - 500, 4, 0, "cut short"},
		{"no footer", foot, 4, 0, "cut short"},
		{"a footer without directory", foot + vmdkDirectory, 8, vmdkAtEnd, "contradict"},
		{"another disk's footer", foot + vmdkCapacity, 8, 9, "contradict"},
		{"directory behind the file", foot + vmdkDirectory, 8, 1 << 50, "directory of tables is said"},
		{"directory in the header", foot + vmdkDirectory, 8, 0, "same place"},
		{"a grain of another place", 128 * 512, 8, 128, "cannot be unpacked"},
		{"a grain of 4 GiB", 128*512 + 8, 4, 1<<32 - 1, "cannot be unpacked"},
		{"a grain of no bytes", 128*512 + 8, 4, 0, "cannot be unpacked"},
		{"a grain of nonsense", 128*512 + 12, 4, 0, "cannot be unpacked"},
		{"no compression that is known", foot + vmdkAlgorithm, 2, 2, "compressed in a way"},
	})
	requireCutsRefused(t, good, len(good)-1)
	t.Run("a grain's checksum", func(t *testing.T) {
		b := bytes.Clone(good)
		b[128*512+12+int(le.Uint32(b[128*512+8:]))-1] ^= 1
		requireRefused(t, readAll(b, 1<<30), "cannot be unpacked")
	})
	t.Run("a grain that is longer than it may be", func(t *testing.T) {
		var z bytes.Buffer
		w := zlib.NewWriter(&z)
		w.Write(make([]byte, 1<<20))
		require.NoError(t, w.Close())
		b := bytes.Clone(good)
		le.PutUint32(b[128*512+8:], uint32(z.Len()))
		copy(b[128*512+12:], z.Bytes())
		took := allocated(func() { requireRefused(t, readAll(b, 1<<30), "cannot be unpacked") })
		require.Less(t, took, uint64(1<<20))
	})
}

func TestVMDKThatLiesIsRefused(t *testing.T) {
	path, _ := made(t, disk(5, 2<<20), "vmdk")
	good := contents(t, path)
	le := binary.LittleEndian
	gd := int(le.Uint64(good[vmdkDirectory:])) * 512
	gt := int(le.Uint32(good[gd:])) * 512
	grain := le.Uint32(good[gt:])
	require.NotZero(t, grain)
	lies := []lie{
		{"version 0", vmdkVersion, 4, 0, "version 0"},
		{"version 4", vmdkVersion, 4, 4, "version 4"},
		{"newlines of another system", vmdkNewlines, 1, '\r', "as if it were text"},
		{"no bytes", vmdkCapacity, 8, 0, "no bytes"},
		{"more bytes than a volume", vmdkCapacity, 8, 1<<37 + 1, "64 TiB"},
		{"sectors without end", vmdkCapacity, 8, 1<<64 - 1, "64 TiB"},
		{"more bytes than its directory", vmdkCapacity, 8, 1 << 36, "directory of tables"},
		{"grains of no bytes", vmdkGrain, 8, 0, "grains have 0"},
		{"grains of 3 sectors", vmdkGrain, 8, 3, "grains have 3"},
		{"grains of 2 GiB", vmdkGrain, 8, 1 << 22, "grains have"},
		{"grains without end", vmdkGrain, 8, 1 << 63, "grains have"},
		{"tables of no entries", vmdkPerTable, 4, 0, "tables have 0"},
		{"tables without end", vmdkPerTable, 4, 1<<32 - 1, "tables have"},
		{"directory behind the file", vmdkDirectory, 8, 1 << 40, "directory of tables"},
		{"directory at an impossible place", vmdkDirectory, 8, 1 << 62, "directory of tables"},
		{"directory in the description", vmdkDirectory, 8, 2, "same place"},
		{"directory at the end, where it is not", vmdkDirectory, 8, vmdkAtEnd, "cut short"},
		{"no description", vmdkDescAt, 8, 0, "one of several files"},
		{"a description behind the file", vmdkDescAt, 8, 1 << 40, "description is said"},
		{"a description at an impossible place", vmdkDescAt, 8, 1<<64 - 1, "description is said"},
		{"a description without end", vmdkDescSize, 8, 1<<64 - 1, "description is said"},
		{"a description of zeros", vmdkDescAt, 8, uint64(gd/512) + 1, ""},
		{"a table behind the file", gd, 4, 1<<32 - 1, "cut short"},
		{"a grain behind the file", gt, 4, 1<<32 - 1, "cut short"},
		{"a grain in the header", gt, 4, 1, "where its description is"},
		{"a grain in the directory", gt, 4, uint64(gd / 512), "where its directory of tables is"},
		{"two grains at one place", gt + 4, 4, uint64(grain), "where others are too"},
		{"packed in an unknown way", vmdkFlags, 4, vmdkCompressed, "compressed in a way"},
		{"packed, which it is not", vmdkFlags, 4, vmdkCompressed | vmdkMarkers, "compressed in a way"},
	}
	requireLiesRefused(t, good, le, func([]byte) {}, lies)
	b := bytes.Clone(good)
	le.PutUint64(b[vmdkCapacity:], 64<<20/512)
	copy(b[gd+4:], b[gd:gd+4])
	requireRefused(t, readAll(b, 1<<30), "where something else is too")
	requireCutsRefused(t, good, len(good)-1)
}

func TestVMDKThatNeedsOtherFilesIsRefused(t *testing.T) {
	need(t, "qemu-img")
	dir := t.TempDir()
	raw := write(t, dir, "raw", disk(3, 1<<20))
	base := filepath.Join(dir, "base.vmdk")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, base)
	run(t, "qemu-img", "create", "-f", "vmdk", "-b", base, "-F", "vmdk", filepath.Join(dir, "backed.vmdk"))
	for _, s := range []string{"monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"} {
		run(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat="+s, raw, filepath.Join(dir, s+".vmdk"))
	}
	for file, words := range map[string]string{
		"backed.vmdk":                    "difference to another file",
		"monolithicFlat.vmdk":            "bytes are in other files",
		"twoGbMaxExtentSparse.vmdk":      "bytes are in other files",
		"twoGbMaxExtentFlat.vmdk":        "bytes are in other files",
		"twoGbMaxExtentSparse-s001.vmdk": "one of several files",
	} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		requireRefused(t, readAll(b, 1<<20), words, "qemu-img convert")
	}
	good := contents(t, base)
	for name, c := range map[string]struct{ from, to, words string }{
		"two parts":      {"\n# The Disk Data Base", "\nRW 1 SPARSE \"more\"\n#", "several files"},
		"a flat part":    {"SPARSE \"", "FLAT \"\" \"", "keeps its bytes in another file"},
		"a physical one": {"monolithicSparse\"", "fullDevice\"      ", "several files"},
		"no type":        {"createType=", "createKind=", "does not say"},
		"no part":        {"RW ", "XX ", "does not say"},
		"a parent's id":  {"parentCID=ffffffff", "parentCID=12345678", "difference to another file"},
		"a parent":       {"\n# The Disk Data Base", "\nparentFileNameHint=/etc/shadow\n#", "/etc/shadow"},
	} {
		b := bytes.Clone(good)
		at := bytes.Index(b, []byte(c.from))
		require.Positivef(t, at, name)
		copy(b[at:], c.to)
		requireRefused(t, readAll(b, 1<<20), c.words, "qemu-img convert")
	}
}
