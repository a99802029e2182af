package load

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// startEcho serves a file that carries the pattern of generation 1.
func startEcho(t testing.TB, size int) Target {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	b := make([]byte, size)
	fill(b, 1, 0)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Echo(ctx, l, f) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		f.Close()
	})
	return Target{Portal: l.Addr().String(), Bare: true}
}

func TestACommandCostsNoAllocation(t *testing.T) {
	target := startEcho(t, 8<<20)
	for _, l := range []Load{
		{Sessions: 1, Depth: 32, Block: 4 << 10},
		{Sessions: 8, Depth: 1, Block: 4 << 10},
		{Sessions: 2, Depth: 4, Block: 32 << 10},
	} {
		l.Span, l.Time = 8<<20, 10*time.Second
		allocated := func(commands int64) uint64 {
			l.Commands = commands
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if r, err := Run(target, l, os.Getpid()); err != nil || r.Ops != commands {
				t.Fatalf("%d of %d commands: %v", r.Ops, commands, err)
			}
			runtime.ReadMemStats(&after)
			return after.Mallocs - before.Mallocs
		}
		few, many := allocated(1000), allocated(11000)
		if many > few+500 {
			t.Errorf("%+v: 10,000 more commands allocate %d times more", l, many-few)
		}
	}
}

func BenchmarkEcho(b *testing.B) {
	target := startEcho(b, 64<<20)
	for _, l := range []Load{
		{Sessions: 1, Depth: 32, Block: 4 << 10},
		{Sessions: 1, Depth: 1, Block: 4 << 10},
		{Sessions: 64, Depth: 1, Block: 4 << 10},
		{Sessions: 1, Depth: 8, Block: 256 << 10},
		{Sessions: 1, Depth: 4, Block: 1 << 20},
	} {
		l.Span, l.Time = 64<<20, time.Second
		r, err := Run(target, l, os.Getpid())
		if err != nil {
			b.Fatal(err)
		}
		b.Logf("s%d d%d b%d: %.0f/s p50 %s p99 %s, %s for both, %s own", l.Sessions, l.Depth, l.Block, r.IOPS(), r.P50, r.P99, r.CPUPerOp(), r.Own/time.Duration(r.Ops))
	}
}
