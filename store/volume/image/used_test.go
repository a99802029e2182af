package image

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
)

// Disks that were written here and there, and zeroed, by QEMU, which is then
// asked what is on them.
func TestDisksThatWereUsedHaveTheBytesThatQemuReads(t *testing.T) {
	need(t, "qemu-io")
	for n, c := range []struct{ format, options string }{
		{"vhdx", "block_size=1M"},
		{"vhdx", "block_size=8M"},
		{"vpc", "force_size=on"},
		{"vpc", "subformat=fixed,force_size=on"},
		{"vmdk", "subformat=monolithicSparse"},
		{"vmdk", "subformat=monolithicSparse,zeroed_grain=on"},
		{"qcow2", "extended_l2=on,cluster_size=128k"},
		{"qcow2", "cluster_size=2M,lazy_refcounts=on"},
	} {
		t.Run(c.format+" "+c.options, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "used")
			const size = 40<<20 + 512*37
			run(t, "qemu-img", "create", "-f", c.format, "-o", c.options, path, fmt.Sprint(size))
			rnd := rand.New(rand.NewPCG(uint64(n), 9))
			for range 3 { // closed and opened again between
				args := []string{"-f", c.format}
				for range 20 {
					length := 512 * (1 + rnd.IntN(1<<rnd.IntN(13)))
					off := min(512*rnd.IntN(size/512), size-length)
					if rnd.IntN(4) == 0 {
						args = append(args, "-c", fmt.Sprintf("write -z %d %d", off, length))
					} else {
						args = append(args, "-c", fmt.Sprintf("write -P %d %d %d", 1+rnd.IntN(255), off, length))
					}
				}
				run(t, "qemu-io", append(args, path)...)
			}
			requireDisk(t, qemuReads(t, c.format, path), open(t, path))
		})
	}
}

// Images that were made larger and smaller, have bitmaps, or were committed to have
// tables at other places and of other lengths than new ones.
func TestQcow2ThatWasResizedAndMarkedHasTheBytesThatQemuReads(t *testing.T) {
	need(t, "qemu-io")
	for _, cluster := range []string{"512", "4k", "64k"} {
		t.Run(cluster, func(t *testing.T) {
			dir := t.TempDir()
			path, above := filepath.Join(dir, "base"), filepath.Join(dir, "above")
			run(t, "qemu-img", "create", "-f", "qcow2", "-o", "cluster_size="+cluster, path, "5M")
			run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 1 1m 64k", "-c", "write -P 2 4900k 20k", path)
			run(t, "qemu-img", "resize", "-f", "qcow2", path, "20M")
			run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 3 19m 300k", "-c", "write -P 4 12m 3m", path)
			requireDisk(t, qemuReads(t, "qcow2", path), open(t, path))
			run(t, "qemu-img", "resize", "-f", "qcow2", "--shrink", path, "14337K")
			requireDisk(t, qemuReads(t, "qcow2", path), open(t, path))
			run(t, "qemu-img", "bitmap", "--add", path, "since")
			run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 5 2m 64k", "-c", "discard 12m 1m", path)
			requireDisk(t, qemuReads(t, "qcow2", path), open(t, path))
			run(t, "qemu-img", "create", "-f", "qcow2", "-b", path, "-F", "qcow2", above)
			run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 6 3m 100k", "-c", "write -z 1m 32k", above)
			run(t, "qemu-img", "commit", "-f", "qcow2", above)
			requireDisk(t, qemuReads(t, "qcow2", path), open(t, path))
			i := open(t, path)
			if _, err := i.Data(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A VHDX may say of what was never written that it reads as whatever, or as zeros.
func TestVHDXWithBlocksInEitherStateHasTheBytesThatQemuReads(t *testing.T) {
	need(t, "qemu-io")
	for _, options := range []string{"block_size=1M,block_state_zero=off", "block_size=1M,block_state_zero=on", "block_size=2M,subformat=fixed"} {
		t.Run(options, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "vhdx")
			run(t, "qemu-img", "create", "-f", "vhdx", "-o", options, path, "5M")
			run(t, "qemu-io", "-f", "vhdx", "-c", "write -P 1 3m 64k", "-c", "write -P 2 512 700", path)
			requireDisk(t, qemuReads(t, "vhdx", path), open(t, path))
		})
	}
}
