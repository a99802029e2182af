package image

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// benchDisk is a third zeros, a third of noise, a third of what can be packed.
func benchDisk(b *testing.B) []byte {
	b.Helper()
	return disk(21, 96<<20)
}

// cpu reports the time on processors of each operation, which does not depend on
// who else is at work: of this process, or of the programs that it runs.
func cpu(b *testing.B, who int) func() {
	used := func() time.Duration {
		var u unix.Rusage
		require.NoError(b, unix.Getrusage(who, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric((used()-before).Seconds()*1000/float64(b.N), "cpu-ms/op") }
}

// Each format is copied to a raw file by us and by qemu-img convert, which
// starts a process for it.
func BenchmarkRead(b *testing.B) {
	want := benchDisk(b)
	for _, c := range []struct {
		name, format string
		options      []string
	}{
		{"qcow2", "qcow2", nil},
		{"qcow2 zlib", "qcow2", []string{"-c"}},
		{"qcow2 zstd", "qcow2", []string{"-c", "-o", "compression_type=zstd"}},
		{"vhdx", "vhdx", nil},
		{"vhd", "vpc", []string{"-o", "force_size=on"}},
		{"vmdk", "vmdk", nil},
		{"vmdk stream", "vmdk", []string{"-o", "subformat=streamOptimized"}},
	} {
		path, _ := made(b, want, c.format, c.options...)
		to := filepath.Join(b.TempDir(), "raw")
		b.Run(c.name+"/lunboot", func(b *testing.B) {
			defer cpu(b, unix.RUSAGE_SELF)()
			b.SetBytes(int64(len(want)))
			for b.Loop() {
				from, err := os.Open(path)
				require.NoError(b, err)
				fi, err := from.Stat()
				require.NoError(b, err)
				i, err := Open(from, fi.Size())
				require.NoError(b, err)
				_, err = i.Data(context.Background())
				require.NoError(b, err)
				out, err := os.Create(to)
				require.NoError(b, err)
				require.NoError(b, out.Truncate(i.Size()))
				require.NoError(b, Walk(context.Background(), i, func(p []byte, off int64) error {
					_, err := out.WriteAt(p, off)
					return err
				}, nil))
				require.NoError(b, out.Close())
				require.NoError(b, from.Close())
			}
		})
		b.Run(c.name+"/qemu-img", func(b *testing.B) {
			defer cpu(b, unix.RUSAGE_CHILDREN)()
			b.SetBytes(int64(len(want)))
			for b.Loop() {
				run(b, "qemu-img", "convert", "-f", c.format, "-O", "raw", path, to)
			}
		})
	}
}

func BenchmarkWriteQcow2(b *testing.B) {
	raw := write(b, b.TempDir(), "raw", benchDisk(b))
	size := func(b *testing.B, path string) {
		fi, err := os.Stat(path)
		require.NoError(b, err)
		b.ReportMetric(float64(fi.Size())/(1<<20), "MiB")
	}
	for name, options := range map[string][]string{"plain": nil, "zlib": {"-c"}, "zstd": {"-c", "-o", "compression_type=zstd"}} {
		to := filepath.Join(b.TempDir(), "qcow2")
		b.Run(name+"/lunboot", func(b *testing.B) {
			defer cpu(b, unix.RUSAGE_SELF)()
			b.SetBytes(96 << 20)
			for b.Loop() {
				f, err := os.Create(to)
				require.NoError(b, err)
				require.NoError(b, writers[name](context.Background(), f, open(b, raw)))
				require.NoError(b, f.Close())
			}
			size(b, to)
		})
		b.Run(name+"/qemu-img", func(b *testing.B) {
			defer cpu(b, unix.RUSAGE_CHILDREN)()
			b.SetBytes(96 << 20)
			for b.Loop() {
				run(b, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, options...), raw, to)...)
			}
			size(b, to)
		})
	}
}
