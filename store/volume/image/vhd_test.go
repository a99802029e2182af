package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVHDHasTheBytesThatQemuReads(t *testing.T) {
	for n, options := range []string{"subformat=dynamic", "subformat=fixed", "subformat=dynamic,force_size=on", "subformat=fixed,force_size=on"} {
		for seed, size := range []int{512, 68 << 10, 1<<20 + 512, 5<<20 + 512*7, 9 << 20} {
			t.Run(fmt.Sprintf("%s %d", options, size), func(t *testing.T) {
				path, want := made(t, disk(uint64(10*n+seed), size), "vpc", "-o", options)
				i := open(t, path)
				require.Equal(t, FormatVHD, i.Format())
				require.Equal(t, 512, i.BlockSize())
				requireDisk(t, want, i)
				if n >= 2 {
					require.EqualValues(t, size, i.Size())
				}
			})
		}
	}
}

func TestVHDOfALargeDiskIsWalkedByItsTable(t *testing.T) {
	need(t, "qemu-img")
	path := filepath.Join(t.TempDir(), "large")
	run(t, "qemu-img", "create", "-f", "vpc", "-o", "force_size=on", path, "2040G")
	run(t, "qemu-io", "-f", "vpc", "-c", "write -P 7 1000g 1m", path)
	i := open(t, path)
	require.EqualValues(t, 2040<<30, i.Size())
	data, end, err := i.Extent(1000 << 30)
	require.NoError(t, err)
	require.True(t, data)
	require.EqualValues(t, 1000<<30+2<<20, end)
	b := make([]byte, 1<<20)
	_, err = i.ReadAt(b, 1000<<30)
	require.NoError(t, err)
	requireSame(t, bytes.Repeat([]byte{7}, 1<<20), b)
	require.NoError(t, readAll(contents(t, path), 8<<20))
}

// sealVHD makes the checksums of a VHD right.
func sealVHD(b []byte) {
	be := binary.BigEndian
	for _, at := range []int{0, len(b) - footSize} {
		if bytes.HasPrefix(b[at:], []byte(vhdCookie)) {
			be.PutUint32(b[at+vhdChecksum:], vhdSum(b[at:at+footSize], vhdChecksum))
		}
	}
	if h := b[footSize : footSize+vhdHeaderSize]; bytes.HasPrefix(h, []byte(vhdHeadCookie)) {
		be.PutUint32(h[vhdHeaderSum:], vhdSum(h, vhdHeaderSum))
	}
}

func TestVHDThatLiesIsRefused(t *testing.T) {
	path, _ := made(t, disk(5, 5<<20), "vpc", "-o", "subformat=dynamic,force_size=on")
	good := contents(t, path)
	foot, table := len(good)-footSize, int(binary.BigEndian.Uint64(good[footSize+vhdTableOffset:]))
	first := binary.BigEndian.Uint32(good[table:])
	requireLiesRefused(t, good, binary.BigEndian, sealVHD, []lie{
		{"no bytes", foot + vhdSize, 8, 0, "no bytes"},
		{"negative bytes", foot + vhdSize, 8, 1 << 63, "64 TiB"},
		{"more bytes than a volume", foot + vhdSize, 8, 1<<46 + 512, "64 TiB"},
		{"more bytes than its table", foot + vhdSize, 8, 1 << 40, "table has"},
		{"fixed", foot + vhdType, 4, vhdFixed, "begins as a dynamic one"},
		{"a difference", foot + vhdType, 4, vhdDifferencing, "difference to another file"},
		{"no type", foot + vhdType, 4, 0, "type 0"},
		{"a type of the future", foot + vhdType, 4, 7, "type 7"},
		{"header behind the file", foot + vhdDataOffset, 8, uint64(len(good)), "header is said to be"},
		{"header nowhere", foot + vhdDataOffset, 8, 1<<64 - 1, "header is said to be"},
		{"header in the table", foot + vhdDataOffset, 8, uint64(table), "header for a dynamic disk"},
		{"table behind the file", footSize + vhdTableOffset, 8, 1 << 40, "table is said to be"},
		{"table before the file", footSize + vhdTableOffset, 8, 1<<64 - 512, "table is said to be"},
		{"table between sectors", footSize + vhdTableOffset, 8, uint64(table) + 4, "table is said to be"},
		{"table of 16 GiB", footSize + vhdEntries, 4, 1<<32 - 1, "table is said to be"},
		{"no table", footSize + vhdEntries, 4, 0, "table has 0"},
		{"blocks of 0 bytes", footSize + vhdBlockSize, 4, 0, "blocks have 0"},
		{"blocks of 3 bytes", footSize + vhdBlockSize, 4, 3, "blocks have 3"},
		{"blocks of 2 GiB", footSize + vhdBlockSize, 4, 1 << 31, "blocks have 2147483648"},
		{"blocks of 512 bytes", footSize + vhdBlockSize, 4, 512, "table has"},
		{"a block behind the file", table, 4, 1 << 30, "cut short"},
		{"a block at the end", table, 4, uint64(len(good) / 512), "cut short"},
		{"a block in the table", table, 4, uint64(table/512 - 1), "where its table is"},
		{"two blocks at one place", table + 4, 4, uint64(first), "where others are too"},
		{"two blocks that overlap", table + 4, 4, uint64(first) + 8, "where others are too"},
	})
	for name, at := range map[string]int{"footer": foot + 30, "header": footSize + 40} {
		b := bytes.Clone(good)
		b[at] ^= 1
		if name == "footer" { // the copy is as good
			require.NoError(t, readAll(b, 1<<30))
			b[30] ^= 1
		}
		requireRefused(t, readAll(b, 1<<30), "checksum")
	}
	requireCutsRefused(t, good, foot-1<<20) // the last block is half behind the disk's end
	require.NoError(t, readAll(good[:foot], 1<<30), "without its footer it has the copy")

	path, _ = made(t, disk(5, 300<<10), "vpc", "-o", "subformat=fixed,force_size=on")
	fixed := contents(t, path)
	foot = len(fixed) - footSize
	requireLiesRefused(t, fixed, binary.BigEndian, sealVHD, []lie{
		{"more bytes than the file", foot + vhdSize, 8, 300<<10 + 512, "cut short"},
		{"dynamic", foot + vhdType, 4, vhdDynamic, "header is said to be"},
		{"no bytes", foot + vhdSize, 8, 0, "no bytes"},
	})
	fixed[foot+1+vhdSize] ^= 1
	requireRefused(t, readAll(fixed, 1<<30), "checksum")
}

// Virtual PC before 2004 wrote footers of 511 bytes.
func TestVHDWithAShortFooter(t *testing.T) {
	path, want := made(t, disk(6, 200<<10), "vpc", "-o", "subformat=fixed,force_size=on")
	b := contents(t, path)
	i, err := Open(bytes.NewReader(b[:len(b)-1]), int64(len(b)-1))
	require.NoError(t, err)
	require.Equal(t, FormatVHD, i.Format())
	requireDisk(t, want, i)
}

// What a machine saw as the disk's size depends on who made it.
func TestVHDSizeIsWhatItsMakerShowed(t *testing.T) {
	path, _ := made(t, disk(6, 200<<10), "vpc", "-o", "subformat=dynamic,force_size=on")
	for maker, byGeometry := range map[string]bool{"vpc ": true, "vs  ": true, "qemu": true, "win ": false, "qem2": false, "d2v ": false, "tap\x00": false, "CTXS": false, "vbox": false} {
		b := contents(t, path)
		foot := b[len(b)-footSize:]
		copy(foot[vhdCreator:], maker)
		binary.BigEndian.PutUint16(foot[vhdCylinders:], 5)
		foot[vhdHeads], foot[vhdSectors] = 4, 17
		sealVHD(b)
		copy(b, foot)
		i, err := Open(bytes.NewReader(b), int64(len(b)))
		require.NoError(t, err)
		want := 200 << 10
		if byGeometry {
			want = 5 * 4 * 17 * 512
		}
		require.EqualValuesf(t, want, i.Size(), maker)
		if maker == "vbox" {
			continue // QEMU goes by its geometry, VirtualBox itself by its size
		}
		file := write(t, t.TempDir(), "image", b)
		out, err := exec.Command("qemu-img", "info", "-f", "vpc", "--output=json", file).Output()
		require.NoError(t, err)
		require.Contains(t, string(out), fmt.Sprintf(`"virtual-size": %d`, want), maker)
		require.NoError(t, os.Remove(file))
	}
}
