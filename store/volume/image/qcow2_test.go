package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQcow2HasTheBytesThatQemuReads(t *testing.T) {
	need(t, "qemu-img")
	for n, options := range []string{
		"", "compat=0.10", "cluster_size=512", "cluster_size=2M", "cluster_size=4k,refcount_bits=1",
		"extended_l2=on", "extended_l2=on,cluster_size=16k", "preallocation=metadata", "preallocation=full", "lazy_refcounts=on",
	} {
		for _, packed := range []bool{false, true} {
			if packed && n > 6 {
				continue
			}
			t.Run(fmt.Sprintf("%s packed %t", options, packed), func(t *testing.T) {
				dir := t.TempDir()
				size := 1<<20 + 512*(n*37%11)
				want := disk(uint64(n), size)
				from, to := write(t, dir, "raw", want), filepath.Join(dir, "qcow2")
				args := []string{"convert", "-f", "raw", "-O", "qcow2"}
				if options != "" {
					args = append(args, "-o", options)
				}
				if packed {
					args = append(args, "-c")
				}
				run(t, "qemu-img", append(args, from, to)...)
				i := open(t, to)
				require.Equal(t, FormatQcow2, i.Format())
				require.Equal(t, 512, i.BlockSize())
				requireDisk(t, want, i)
			})
		}
	}
}

func TestQcow2WithZstdHasTheBytesThatQemuReads(t *testing.T) {
	need(t, "qemu-img")
	for _, cluster := range []string{"4k", "64k", "2M"} {
		dir := t.TempDir()
		want := disk(99, 1<<20+512)
		from, to := write(t, dir, "raw", want), filepath.Join(dir, "qcow2")
		run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd,cluster_size="+cluster, from, to)
		requireDisk(t, want, open(t, to))
	}
}

// A disk that was used has every sort of cluster: written in part, discarded,
// zeroed, compressed and written over, and snapshots besides.
func TestQcow2ThatWasUsedHasTheBytesThatQemuReads(t *testing.T) {
	need(t, "qemu-io")
	for seed, options := range []string{"cluster_size=64k", "extended_l2=on,cluster_size=32k", "cluster_size=1k", "compat=0.10,cluster_size=4k"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "used")
		run(t, "qemu-img", "create", "-f", "qcow2", "-o", options, path, "2097152")
		rnd := rand.New(rand.NewPCG(uint64(seed), 3))
		var args []string
		for n := range 60 {
			off, length := rnd.IntN(4000)*512, 512*(1+rnd.IntN(150))
			off = min(off, 2<<20-length)
			args = append(args, "-c", fmt.Sprintf([]string{"write -P 0x%[3]x %[1]d %[2]d", "write -z %[1]d %[2]d", "discard %[1]d %[2]d", "write -z -u %[1]d %[2]d"}[min(rnd.IntN(6)*rnd.IntN(2), 3)], off, length, 1+n))
		}
		run(t, "qemu-io", append(append([]string{"-d", "unmap"}, args[:80]...), path)...)
		run(t, "qemu-img", "snapshot", "-c", "one", path)
		run(t, "qemu-io", append(append([]string{"-d", "unmap"}, args[80:]...), path)...)
		flat := filepath.Join(dir, "flat")
		run(t, "qemu-img", "convert", "-O", "raw", path, flat)
		want, err := os.ReadFile(flat)
		require.NoError(t, err)
		requireDisk(t, want, open(t, path))
	}
}

// A disk of many terabytes with nothing in it is walked by its tables, not by
// its clusters.
func TestQcow2HolesAreWalkedByTheirTables(t *testing.T) {
	need(t, "qemu-img")
	path := filepath.Join(t.TempDir(), "large")
	run(t, "qemu-img", "create", "-f", "qcow2", path, "60T")
	i := open(t, path)
	var steps int
	for off := int64(0); off < i.Size(); steps++ {
		data, end, err := i.Extent(off)
		require.NoError(t, err)
		require.False(t, data)
		off = end
	}
	require.Less(t, steps, 100)
}

func TestQcow2ThatNeedsAnotherFileIsRefused(t *testing.T) {
	need(t, "qemu-img")
	dir := t.TempDir()
	secret := write(t, dir, "secret", make([]byte, 1<<20))
	backed, outside := filepath.Join(dir, "backed"), filepath.Join(dir, "outside")
	run(t, "qemu-img", "create", "-f", "qcow2", "-b", secret, "-F", "raw", backed)
	run(t, "qemu-img", "create", "-f", "qcow2", "-o", "data_file="+filepath.Join(dir, "bytes")+",data_file_raw=on", outside, "1M")
	for path, words := range map[string]string{backed: "difference to another file", outside: "keeps its bytes in another file"} {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		err = readAll(b, 1<<20)
		requireRefused(t, err, words, "qemu-img convert")
	}
}

// sample is a small qcow2 image to be broken: the bytes of a file.
func sample(t testing.TB, options string, extra ...string) []byte {
	need(t, "qemu-img")
	dir := t.TempDir()
	from, to := write(t, dir, "raw", disk(5, 300<<10)), filepath.Join(dir, "image")
	args := append([]string{"convert", "-f", "raw", "-O"}, extra...)
	if options != "" {
		args = append(args, "-o", options)
	}
	run(t, "qemu-img", append(args, from, to)...)
	b, err := os.ReadFile(to)
	require.NoError(t, err)
	return b
}

func TestQcow2HeaderThatLiesIsRefused(t *testing.T) {
	good := sample(t, "cluster_size=4k", "qcow2")
	require.NoError(t, readAll(good, 1<<30))
	be := binary.BigEndian
	for _, c := range []struct {
		name  string
		at, n int
		value uint64
		words string
	}{
		{"version 0", qcowVersion, 4, 0, "version 0"},
		{"version 1", qcowVersion, 4, 1, "version 1; convert"},
		{"version 4", qcowVersion, 4, 4, "version 4"},
		{"backing file", qcowBackingAt, 8, 0x300, "difference to another file"},
		{"backing file nowhere", qcowBackingAt, 8, 1 << 63, "difference to another file"},
		{"clusters of 256 bytes", qcowClusterBits, 4, 8, "2^8"},
		{"clusters of 4 MiB", qcowClusterBits, 4, 22, "2^22"},
		{"clusters of 2^4294967295", qcowClusterBits, 4, 1<<32 - 1, "2^4294967295"},
		{"no bytes", qcowSize, 8, 0, "no bytes"},
		{"more bytes than a volume", qcowSize, 8, 1<<46 + 1, "64 TiB"},
		{"negative bytes", qcowSize, 8, 1 << 63, "64 TiB"},
		{"more bytes than its table", qcowSize, 8, 1 << 40, "first table has"},
		{"encrypted", qcowCrypt, 4, 1, "encrypted"},
		{"LUKS", qcowCrypt, 4, 2, "encrypted"},
		{"no first table", qcowL1Size, 4, 0, "first table has 0"},
		{"first table of 32 GiB", qcowL1Size, 4, 1<<32 - 1, "more than any program"},
		{"first table of 32 MiB", qcowL1Size, 4, 4 << 20, "cut short"},
		{"first table inside a cluster", qcowL1At, 8, 0x3008, "no cluster begins"},
		{"first table nowhere", qcowL1At, 8, 0, "no cluster begins"},
		{"first table behind the file", qcowL1At, 8, 1 << 40, "cut short"},
		{"first table before the file", qcowL1At, 8, 1<<64 - 4096, "no cluster begins"},
		{"counts inside a cluster", qcowRefcountAt, 8, 0x1001, "reference counts"},
		{"counts behind the file", qcowRefcountAt, 8, 1 << 50, "reference counts"},
		{"counts without end", qcowRefcountLen, 4, 1<<32 - 1, "reference counts"},
		{"marked as damaged", qcowIncompatible, 8, qcowCorrupt, "qemu-img check"},
		{"another file", qcowIncompatible, 8, qcowDataFile, "another file"},
		{"a packer without name", qcowIncompatible, 8, qcowOtherPacker, "compressed in a way"},
		{"subclusters in small clusters", qcowIncompatible, 8, qcowExtendedL2, "subclusters"},
		{"a feature of the future", qcowIncompatible, 8, 1 << 5, "not known (bits 0x20)"},
		{"the last feature", qcowIncompatible, 8, 1 << 63, "not known"},
		{"counts of 128 bits", qcowRefcountOrder, 4, 7, "2^7"},
		{"a short header", qcowHeaderLength, 4, 72, "header has 72"},
		{"an odd header", qcowHeaderLength, 4, 105, "header has 105"},
		{"an endless header", qcowHeaderLength, 4, 1<<32 - 8, "header has"},
		{"another packer", qcowCompression, 1, 9, "compressed in a way that is not known (9)"},
		{"zstd without its feature", qcowCompression, 1, 1, "compressed in a way"},
	} {
		b := append([]byte(nil), good...)
		switch c.n {
		case 1:
			b[c.at] = byte(c.value)
		case 4:
			be.PutUint32(b[c.at:], uint32(c.value))
		case 8:
			be.PutUint64(b[c.at:], c.value)
		}
		var err error
		took := allocated(func() { err = readAll(b, 1<<20) })
		require.Errorf(t, err, c.name)
		requireRefused(t, err, c.words)
		require.Lessf(t, took, uint64(1<<20), c.name)
	}
}

func TestQcow2TablesThatLieAreRefused(t *testing.T) {
	good := sample(t, "cluster_size=4k", "qcow2")
	be := binary.BigEndian
	l1 := int(be.Uint64(good[qcowL1At:]))
	l2 := int(be.Uint64(good[l1:]) & qcowOffset)
	held := l2
	for be.Uint64(good[held:])&qcowOffset == 0 {
		held += 8
	}
	for _, c := range []struct {
		name  string
		at    int
		value uint64
		words string
	}{
		{"a table behind the file", l1, 1 << 40, "cut short"},
		{"a table inside a cluster", l1, uint64(l2) + 512, "no cluster begins"},
		{"a cluster behind the file", held, 1 << 40, "cut short"},
		{"a cluster at the end of what can be", held, qcowOffset, "no cluster begins"},
		{"a cluster inside a cluster", held, 0x10200, "no cluster begins"},
		{"a packed cluster behind the file", held, qcowPacked | 1<<40, "cut short"},
		{"a packed cluster in the header", held, qcowPacked, "head"},
		{"a packed cluster of nonsense", held, qcowPacked | be.Uint64(good[held:])&qcowOffset + 3, "cannot be unpacked"},
		{"a cluster in the first table", held, uint64(l1), "where its first table is"},
	} {
		b := append([]byte(nil), good...)
		be.PutUint64(b[c.at:], c.value)
		var err error
		took := allocated(func() { err = readAll(b, 1<<20) })
		require.Errorf(t, err, c.name)
		requireRefused(t, err, c.words)
		require.Lessf(t, took, uint64(1<<20), c.name)
	}
	// A disk of 64 TiB whose tables are one would be walked for days.
	t.Run("every table is one", func(t *testing.T) {
		b := bytes.Clone(good)
		be.PutUint64(b[qcowSize:], 1<<30)
		be.PutUint64(b[qcowL1At:], uint64(len(b)+4095)/4096*4096)
		be.PutUint32(b[qcowL1Size:], 512)
		b = append(b, make([]byte, (4096-len(b)%4096)%4096)...)
		for range 512 {
			b = be.AppendUint64(b, uint64(l2))
		}
		requireRefused(t, readAll(b, 1<<30), "where something else is too")
	})
	t.Run("every entry at one cluster", func(t *testing.T) {
		b := append([]byte(nil), good...)
		entry := be.Uint64(b[held:])
		be.PutUint64(b[qcowSize:], 512*4096)
		for e := range 512 {
			be.PutUint64(b[l2+8*e:], entry)
		}
		requireRefused(t, readAll(b, 1<<30), "where others are too")
	})
	t.Run("every entry at one packed cluster", func(t *testing.T) {
		b := sample(t, "cluster_size=512", "qcow2", "-c")
		be.PutUint64(b[qcowL1At:], uint64(len(b)+511)/512*512)
		be.PutUint64(b[qcowSize:], 1<<30)
		be.PutUint32(b[qcowL1Size:], 1<<30/512/64)
		b = append(b, make([]byte, (512-len(b)%512)%512)...)
		table := uint64(len(b) + 1<<30/512/64*8)
		for range 1 << 30 / 512 / 64 {
			b = be.AppendUint64(b, table)
		}
		for range 64 {
			b = be.AppendUint64(b, qcowPacked|0x400)
		}
		requireRefused(t, readAll(b, 1<<30), "where something else is too")
	})
}

func TestQcow2CutAnywhereIsRefused(t *testing.T) {
	for _, good := range [][]byte{sample(t, "cluster_size=4k", "qcow2"), sample(t, "", "qcow2", "-c")} {
		rnd := rand.New(rand.NewPCG(4, 4))
		for range 100 {
			n := rnd.IntN(len(good) - 512)
			if n < 600 {
				n = 4 + n%104
			}
			requireRefused(t, readAll(good[:n], 1<<30))
		}
	}
}

// A file that was not closed has stale reference counts, which reading does not
// need; what was written is there.
func TestQcow2ThatWasNotClosedHasTheBytesThatQemuReads(t *testing.T) {
	need(t, "qemu-io")
	path := filepath.Join(t.TempDir(), "dirty")
	run(t, "qemu-img", "create", "-f", "qcow2", "-o", "lazy_refcounts=on,cluster_size=4k", path, "8M")
	out, err := exec.Command("qemu-io", "-c", "write -P 9 1m 70k", "-c", "flush", "-c", "write -P 3 5m 1m", "-c", "flush", "-c", "abort", path).CombinedOutput()
	require.Errorf(t, err, "%s", out)
	b := contents(t, path)
	require.EqualValues(t, qcowDirty, binary.BigEndian.Uint64(b[qcowIncompatible:]), "the file is not marked as in use")
	requireDisk(t, qemuReads(t, "qcow2", path), open(t, path))
}

// Internal snapshots are older states: the disk is the one that is in use now.
func TestQcow2WithSnapshotsIsReadAsItIsNow(t *testing.T) {
	need(t, "qemu-io")
	path := filepath.Join(t.TempDir(), "snapshots")
	run(t, "qemu-img", "create", "-f", "qcow2", path, "8M")
	for n := range 3 {
		run(t, "qemu-io", "-c", fmt.Sprintf("write -P %d %dk 1m", n+1, 1000*n), path)
		run(t, "qemu-img", "snapshot", "-c", fmt.Sprint("s", n), path)
	}
	run(t, "qemu-img", "snapshot", "-a", "s1", path)
	run(t, "qemu-io", "-c", "write -P 77 4m 64k", path)
	want := qemuReads(t, "qcow2", path)
	require.Equal(t, byte(77), want[4<<20])
	require.Zero(t, want[2800<<10])
	requireDisk(t, want, open(t, path))
}

func TestQcow2ThatIsEncryptedIsRefused(t *testing.T) {
	need(t, "qemu-img")
	path := filepath.Join(t.TempDir(), "secret")
	run(t, "qemu-img", "create", "--object", "secret,id=s,data=geheim", "-f", "qcow2", "-o", "encrypt.format=aes,encrypt.key-secret=s", path, "1M")
	requireRefused(t, readAll(contents(t, path), 1<<20), "encrypted")
}
