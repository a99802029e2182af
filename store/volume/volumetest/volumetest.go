// Package volumetest is the contract of every kind of volume, as tests: what a
// machine may rely on whatever holds its bytes.
package volumetest

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"lunboot/store"
)

// Volume is what is tested: one hold of an open volume.
type Volume interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64) error
	Sync(ctx context.Context) error
	Unmap(ctx context.Context, off, n int64) error
	Zero(ctx context.Context, off, n int64) error
	BlockStatus(ctx context.Context, off, n int64) (mapped bool, run int64, err error)
	Size() int64
	Resident(p []byte, off int64) bool
	Close() error
}

// Opener opens one volume; every call is another hold of the same bytes.
type Opener func(t *testing.T) Volume

// Run tests the volumes that create makes: empty ones of size bytes.
func Run(t *testing.T, create func(t *testing.T, size int64) Opener) {
	tests := []struct {
		name string
		fn   func(*testing.T, func(*testing.T, int64) Opener)
	}{
		{"a new volume reads zero to its last byte", testFresh},
		{"random operations agree with a plain array", testModel},
		{"a range outside is refused and changes nothing", testBounds},
		{"an ended context is refused", testContext},
		{"writers of different ranges do not disturb each other", testConcurrent},
		{"an unmapped range reads zero and its neighbours stay", testErase},
		{"block status walks the volume and never hides data", testBlockStatus},
		{"what was synced is there after opening again", testReopen},
		{"two holds show the same bytes", testTwoHolds},
		{"a closed hold refuses everything", testClosed},
		{"what is lent is the volume's, until it is returned", testLend},
		{"reading and writing allocate nothing", testAllocations},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.fn(t, create) })
	}
}

// Pattern fills b with bytes that tell their place and the version.
func Pattern(b []byte, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(rng.Uint32()) | 1 // never zero
	}
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, v Volume, off, n int64) []byte {
	t.Helper()
	p := bytes.Repeat([]byte{0xee}, int(n))
	must(t, v.ReadAt(t.Context(), p, off))
	return p
}

func wantZero(t *testing.T, p []byte, what string) {
	t.Helper()
	if i := bytes.IndexFunc(p, func(r rune) bool { return r != 0 }); i >= 0 {
		t.Fatalf("%s: byte %d is not zero", what, i)
	}
}

func testFresh(t *testing.T, create func(*testing.T, int64) Opener) {
	const size = 1<<20 + 4096
	v := create(t, size)(t)
	if v.Size() != size {
		t.Fatalf("Size() = %d, want %d", v.Size(), size)
	}
	wantZero(t, read(t, v, 0, size), "the whole volume")
	must(t, v.WriteAt(t.Context(), []byte{7}, size-1))
	if got := read(t, v, size-1, 1); got[0] != 7 {
		t.Fatalf("the last byte reads %d, want 7", got[0])
	}
}

func testModel(t *testing.T, create func(*testing.T, int64) Opener) {
	const size = 256 << 10
	for seed := range uint64(8) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			open := create(t, size)
			v, model, ctx := open(t), make([]byte, size), t.Context()
			for step := range 400 {
				off := rng.Int64N(size)
				n := rng.Int64N(min(size-off, 24<<10) + 1)
				if rng.IntN(2) == 0 { // half of them whole blocks
					off, n = off&^511, n&^511
				}
				part := model[off : off+n]
				switch op := rng.IntN(16); {
				case op < 6:
					Pattern(part, rng.Uint64())
					must(t, v.WriteAt(ctx, part, off))
				case op < 8:
					clear(part)
					must(t, v.Unmap(ctx, off, n))
				case op < 10:
					clear(part)
					must(t, v.Zero(ctx, off, n))
				case op < 11:
					must(t, v.Sync(ctx))
				case op < 12:
					must(t, v.Close())
					v = open(t)
				default:
					p := make([]byte, n)
					if rng.IntN(2) == 0 && !v.Resident(p, off) {
						continue
					} else if err := v.ReadAt(ctx, p, off); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(p, part) {
						t.Fatalf("step %d: %d bytes at %d differ from the model", step, n, off)
					}
				}
			}
			if got := read(t, v, 0, size); !bytes.Equal(got, model) {
				t.Fatal("the volume differs from the model at the end")
			}
		})
	}
}

func testBounds(t *testing.T, create func(*testing.T, int64) Opener) {
	const size = 64 << 10
	v, ctx := create(t, size)(t), t.Context()
	before := Pattern(make([]byte, size), 3)
	must(t, v.WriteAt(ctx, before, 0))
	b := make([]byte, 1024)
	ops := map[string]func(off int64) error{
		"read":   func(off int64) error { return v.ReadAt(ctx, b, off) },
		"write":  func(off int64) error { return v.WriteAt(ctx, b, off) },
		"unmap":  func(off int64) error { return v.Unmap(ctx, off, 1024) },
		"zero":   func(off int64) error { return v.Zero(ctx, off, 1024) },
		"status": func(off int64) error { _, _, err := v.BlockStatus(ctx, off, 1024); return err },
	}
	for name, op := range ops {
		for _, off := range []int64{-1, -1024, size - 1023, size, size + 4096, math.MaxInt64, math.MaxInt64 - 512, math.MinInt64} {
			if err := op(off); store.KindOf(err) != store.KindInvalid {
				t.Errorf("%s at %d: error %v, want one of kind invalid", name, off, err)
			}
		}
	}
	for name, err := range map[string]error{"unmap": v.Unmap(ctx, 0, -1), "zero": v.Zero(ctx, 10, math.MaxInt64)} {
		if store.KindOf(err) != store.KindInvalid {
			t.Errorf("%s of a senseless length: error %v, want one of kind invalid", name, err)
		}
	}
	if v.Resident(b, size-100) {
		t.Error("Resident promised bytes beyond the end")
	}
	must(t, v.WriteAt(ctx, nil, size)) // nothing, at the very end
	if !bytes.Equal(read(t, v, 0, size), before) {
		t.Error("a refused operation changed the volume")
	}
	if v.Size() != size {
		t.Errorf("Size() = %d, want %d", v.Size(), size)
	}
}

func testContext(t *testing.T, create func(*testing.T, int64) Opener) {
	v := create(t, 4096)(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := make([]byte, 512)
	_, _, status := v.BlockStatus(ctx, 0, 512)
	for name, err := range map[string]error{
		"read": v.ReadAt(ctx, b, 0), "write": v.WriteAt(ctx, b, 0), "sync": v.Sync(ctx),
		"unmap": v.Unmap(ctx, 0, 512), "zero": v.Zero(ctx, 0, 512), "status": status,
	} {
		if err == nil {
			t.Errorf("%s went on with an ended context", name)
		}
	}
}

func testConcurrent(t *testing.T, create func(*testing.T, int64) Opener) {
	const writers, each = 8, 64 << 10
	v := create(t, writers*each)(t)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 4))
			model, base := make([]byte, each), int64(w*each)
			for range 60 {
				off := rng.Int64N(each)
				n := rng.Int64N(min(each-off, 8192) + 1)
				var err error
				switch rng.IntN(4) {
				case 0:
					clear(model[off : off+n])
					err = v.Unmap(t.Context(), base+off, n)
				case 1:
					err = v.Sync(t.Context())
				default:
					Pattern(model[off:off+n], rng.Uint64())
					err = v.WriteAt(t.Context(), model[off:off+n], base+off)
				}
				got := make([]byte, each)
				if err == nil {
					err = v.ReadAt(t.Context(), got, base)
				}
				if err != nil || !bytes.Equal(got, model) {
					t.Errorf("writer %d: its range differs from what it wrote (err %v)", w, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func testErase(t *testing.T, create func(*testing.T, int64) Opener) {
	const size = 128 << 10
	v, ctx := create(t, size)(t), t.Context()
	erase := map[string]func(context.Context, int64, int64) error{"unmap": v.Unmap, "zero": v.Zero}
	for name, op := range erase {
		for _, r := range [][2]int64{{0, size}, {4096, 8192}, {512, 512}, {1000, 3}, {4000, 9000}, {size - 700, 700}, {0, 0}} {
			model := Pattern(make([]byte, size), 5)
			must(t, v.WriteAt(ctx, model, 0))
			must(t, op(ctx, r[0], r[1]))
			clear(model[r[0] : r[0]+r[1]])
			if !bytes.Equal(read(t, v, 0, size), model) {
				t.Errorf("%s of %d bytes at %d left something else than zeros inside or changed something outside", name, r[1], r[0])
			}
		}
	}
}

func testBlockStatus(t *testing.T, create func(*testing.T, int64) Opener) {
	const size = 1 << 20
	v, ctx := create(t, size)(t), t.Context()
	must(t, v.WriteAt(ctx, Pattern(make([]byte, 8192), 6), 64<<10))
	must(t, v.WriteAt(ctx, Pattern(make([]byte, 512), 7), 300<<10))
	must(t, v.WriteAt(ctx, Pattern(make([]byte, 64<<10), 8), 512<<10))
	must(t, v.Unmap(ctx, 528<<10, 16<<10))
	for off := int64(0); off < size; {
		mapped, run, err := v.BlockStatus(ctx, off, size-off)
		must(t, err)
		if run <= 0 || run > size-off || run%512 != 0 {
			t.Fatalf("at %d: a run of %d bytes", off, run)
		}
		if !mapped {
			wantZero(t, read(t, v, off, run), fmt.Sprintf("unmapped bytes at %d", off))
		}
		off += run
	}
	if mapped, run, err := v.BlockStatus(ctx, 64<<10, 1024); err != nil || !mapped || run != 1024 {
		t.Errorf("written blocks: %v %d %v, want true 1024 nil", mapped, run, err)
	}
	if _, run, err := v.BlockStatus(ctx, size, 0); err != nil || run != 0 {
		t.Errorf("an empty range: run %d, err %v", run, err)
	}
}

func testReopen(t *testing.T, create func(*testing.T, int64) Opener) {
	const size = 256 << 10
	open := create(t, size)
	v := open(t)
	model := make([]byte, size)
	Pattern(model[1000:90000], 9)
	must(t, v.WriteAt(t.Context(), model[1000:90000], 1000))
	clear(model[8192:16384])
	must(t, v.Unmap(t.Context(), 8192, 8192))
	must(t, v.Sync(t.Context()))
	must(t, v.Close())
	if !bytes.Equal(read(t, open(t), 0, size), model) {
		t.Fatal("the volume differs after it was opened again")
	}
}

func testTwoHolds(t *testing.T, create func(*testing.T, int64) Opener) {
	open := create(t, 64<<10)
	a, b := open(t), open(t)
	p := Pattern(make([]byte, 5000), 10)
	must(t, a.WriteAt(t.Context(), p, 123))
	must(t, a.Close())
	if !bytes.Equal(read(t, b, 123, 5000), p) {
		t.Fatal("the second hold does not show what the first wrote")
	}
	must(t, b.WriteAt(t.Context(), p, 0)) // closing one hold leaves the other
	must(t, b.Sync(t.Context()))
}

func testClosed(t *testing.T, create func(*testing.T, int64) Opener) {
	v := create(t, 4096)(t)
	must(t, v.Close())
	must(t, v.Close()) // once more is nothing
	b := make([]byte, 512)
	for name, err := range map[string]error{"read": v.ReadAt(t.Context(), b, 0), "write": v.WriteAt(t.Context(), b, 0), "sync": v.Sync(t.Context())} {
		if err == nil {
			t.Errorf("%s succeeded after Close", name)
		}
	}
	if v.Resident(b, 0) {
		t.Error("Resident gave bytes after Close")
	}
}

// Lender is a Volume that may lend its bytes where they lie in a file.
type Lender interface {
	Lend(off, n int64) (fd int, at int64, back interface{ Return() }, ok bool)
}

func testLend(t *testing.T, create func(*testing.T, int64) Opener) {
	const size = 1 << 20
	v := create(t, size)(t)
	l, can := v.(Lender)
	if !can {
		t.Skip("this kind of volume lends nothing")
	}
	p := Pattern(make([]byte, 300<<10), 9)
	must(t, v.WriteAt(t.Context(), p, 4096))
	for _, r := range [][2]int64{{-1, 4096}, {0, 0}, {0, -1}, {size - 4095, 4096}, {0, math.MaxInt64}, {math.MaxInt64, 4096}} {
		if _, _, back, ok := l.Lend(r[0], r[1]); ok {
			back.Return()
			t.Errorf("%d bytes at %d were lent", r[1], r[0])
		}
	}
	fd, at, back, ok := l.Lend(4096, int64(len(p)))
	if !ok {
		must(t, v.Close())
		t.Skip("nothing is at hand: another kernel or file system")
	}
	ended := make(chan error, 1)
	go func() { ended <- v.Close() }()
	select {
	case <-ended:
		t.Error("the volume was closed under a loan")
	case <-time.After(20 * time.Millisecond):
	}
	got := make([]byte, len(p))
	if n, err := syscall.Pread(fd, got, at); err != nil || n != len(p) || !bytes.Equal(got, p) {
		t.Errorf("other bytes are lent than were written: %d, %v", n, err)
	}
	back.Return()
	must(t, <-ended)
	if _, _, back, ok := l.Lend(4096, 4096); ok {
		back.Return()
		t.Error("Lend gave bytes after Close")
	}
}

func testAllocations(t *testing.T, create func(*testing.T, int64) Opener) {
	v, ctx := create(t, 1<<20)(t), t.Context()
	if _, memory := v.(interface{ InMemory() }); memory {
		t.Skip("a test kit's volume may allocate")
	}
	b := make([]byte, 64<<10)
	for name, fn := range map[string]func() error{
		"write":    func() error { return v.WriteAt(ctx, b, 4096) },
		"read":     func() error { return v.ReadAt(ctx, b, 4096) },
		"resident": func() error { v.Resident(b, 4096); return nil },
		"lend": func() error {
			if l, can := v.(Lender); can {
				if _, _, back, ok := l.Lend(4096, 64<<10); ok {
					back.Return()
				}
			}
			return nil
		},
	} {
		var err error
		if n := testing.AllocsPerRun(50, func() { err = fn() }); n != 0 || err != nil {
			t.Errorf("%s: %v allocations, err %v", name, n, err)
		}
	}
}
