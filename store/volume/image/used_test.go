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
