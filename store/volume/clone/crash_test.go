package clone

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"lunboot/store/volume/crashfs"
)

// history holds for each sector of a layer what it may hold after a crash: what
// the last successful Sync saved, and everything written since.
type history [][][]byte

func newHistory(content []byte) history {
	h := make(history, len(content)/crashfs.Sector)
	for i := range h {
		h[i] = [][]byte{bytes.Clone(content[i*crashfs.Sector:][:crashfs.Sector])}
	}
	return h
}

func (h history) wrote(off int64, b []byte) {
	for ; len(b) > 0; b, off = b[crashfs.Sector:], off+crashfs.Sector {
		i := off / crashfs.Sector
		h[i] = append(h[i], bytes.Clone(b[:crashfs.Sector]))
	}
}

func (h history) synced() {
	for i, versions := range h {
		h[i] = versions[len(versions)-1:]
	}
}

// seen notes what is read after an operation failed, which did some of its work:
// the next Sync makes that durable.
func (h history) seen(t *testing.T, got []byte) {
	t.Helper()
	if i := h.wrong(got); i >= 0 {
		t.Fatalf("sector %d holds neither what was synced nor what was written since", i)
	}
	h.wrote(0, got)
}

// wrong returns a sector that holds what it cannot, or -1.
func (h history) wrong(got []byte) int {
next:
	for i, versions := range h {
		for _, v := range versions {
			if bytes.Equal(v, got[i*crashfs.Sector:][:crashfs.Sector]) {
				continue next
			}
		}
		return i
	}
	return -1
}

// The sweeps work around the border of two map pages.
const (
	sweepBase   = pageSpan - 17*Granule
	sweepSize   = 40 * Granule
	sweepParent = 29*Granule + 1536
)

// work writes, unmaps and syncs at random until something fails.
func work(l *Layer, h history, rng *rand.Rand, steps int) error {
	sectors := len(h)
	for range steps {
		first := rng.IntN(sectors)
		n := 1 + rng.IntN(min(sectors-first, 24))
		if rng.IntN(2) == 0 {
			first, n = first&^7, min(8*(1+rng.IntN(3)), sectors-first&^7)
		}
		off, size := int64(first*crashfs.Sector), int64(n*crashfs.Sector)
		var err error
		switch rng.IntN(8) {
		case 0, 1:
			if err = l.Sync(); err == nil {
				h.synced()
			}
		case 2, 3:
			h.wrote(off, make([]byte, size))
			err = l.Punch(sweepBase+off, size)
		default:
			b := pattern(int(size), rng.Uint64())
			h.wrote(off, b)
			_, err = l.WriteAt(b, sweepBase+off)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// outcomes are the powers' choices of what survives of n unsynced sectors.
func outcomes(n int, seed uint64, random, singles int) []func(i, versions int) int {
	out := []func(i, versions int) int{
		func(int, int) int { return 0 },
		func(_, versions int) int { return versions },
	}
	rng := rand.New(rand.NewPCG(seed, 31))
	for k := range n {
		if n > singles && rng.IntN(n) >= singles {
			continue
		}
		out = append(out,
			func(i, versions int) int {
				if i == k {
					return versions
				}
				return 0
			},
			func(i, versions int) int {
				if i == k {
					return 0
				}
				return versions
			})
	}
	for r := range random {
		var coin *rand.Rand
		out = append(out, func(i, versions int) int {
			if i == 0 {
				coin = rand.New(rand.NewPCG(seed, uint64(r)+100))
			}
			if coin == nil || coin.IntN(2) == 0 {
				return 0
			}
			return 1 + coin.IntN(versions)
		})
	}
	return out
}

// sweep crashes at every change that work makes, tries outcomes of each, and
// wants every sector to be what was synced or what was written since. killed
// kills the process alone first and goes on for a while.
func sweep(t *testing.T, seed uint64, steps, random, singles int, every int, killed bool) (crashes, tried int) {
	t.Helper()
	parent := holed(sweepParent, seed)
	for k := 1 + int(seed)%every; ; k += every {
		r := newRigAt(t, seed, sweepBase, sweepSize, parent)
		h := newHistory(r.model())
		r.fs.CrashAt(k)
		rng := rand.New(rand.NewPCG(seed, 5))
		err := work(r.Layer, h, rng, steps)
		if err != nil && !r.fs.Crashed() {
			t.Fatalf("seed %d, change %d: %v", seed, k, err)
		}
		crashed := r.fs.Crashed()
		if killed && crashed {
			r.fs = r.fs.Revive()
			r.fs.CrashAt(1 + rng.IntN(30))
			if err := r.open(t); err == nil {
				h.seen(t, r.all(t))
				_ = work(r.Layer, h, rng, steps)
			}
		}
		crashes++
		for o, pick := range outcomes(r.fs.Unsynced(), seed, random, singles) {
			tried++
			after := r.after(pick)
			if err := after.open(t); err != nil {
				t.Fatalf("seed %d, change %d, outcome %d: the layer does not open: %v", seed, k, o, err)
			}
			if d := after.Damage(); d != nil {
				t.Fatalf("seed %d, change %d, outcome %d: %v", seed, k, o, d)
			}
			if i := h.wrong(after.all(t)); i >= 0 {
				t.Fatalf("seed %d, change %d, outcome %d: sector %d holds neither what was synced nor what was written since", seed, k, o, i)
			}
			if rep, err := after.Check(t.Context()); err != nil || !rep.Sound() || rep.Stale != 0 {
				t.Fatalf("seed %d, change %d, outcome %d: Check found %+v, %v", seed, k, o, rep, err)
			}
		}
		if !crashed {
			return crashes, tried
		}
	}
}

func TestAfterACrashEverySectorIsWhatWasSyncedOrWrittenSince(t *testing.T) {
	seeds, steps, random, singles, every := uint64(3), 30, 3, 2, 11
	if soak() {
		seeds, steps, random, singles, every = 12, 60, 32, 1<<30, 1
	}
	for _, killed := range []bool{false, true} {
		crashes, tried := 0, 0
		for seed := range seeds {
			c, n := sweep(t, seed, steps, random, singles, every, killed)
			crashes, tried = crashes+c, tried+n
		}
		t.Logf("killed first %v: %d crashes with %d outcomes", killed, crashes, tried)
	}
}

// A crash while the appliance recovers from a crash: each time one more flush
// is torn, and numbers of slots that were never finished lie about.
func TestCrashAfterCrashLosesNothing(t *testing.T) {
	seeds, lives := uint64(4), 12
	if soak() {
		seeds, lives = 400, 60
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 6))
		r := newRigAt(t, seed, sweepBase, sweepSize, holed(sweepParent, seed))
		h := newHistory(r.model())
		for life := range lives {
			r.fs.CrashAt(1 + rng.IntN(25))
			if err := work(r.Layer, h, rng, 1000); err == nil || !r.fs.Crashed() {
				t.Fatalf("seed %d, life %d: %v", seed, life, err)
			}
			killed := rng.IntN(3) == 0
			if killed {
				r.fs = r.fs.Revive()
			} else {
				r.fs = r.fs.After(outcomes(r.fs.Unsynced(), rng.Uint64(), 6, 3)[2:][rng.IntN(6)])
			}
			must(t, r.open(t))
			h.seen(t, r.all(t))
			if !killed { // what is read is all that is on the disk
				h.synced()
			}
		}
	}
}

func TestAnErrorAtAnyOperationLosesNothing(t *testing.T) {
	every := 7
	if soak() {
		every = 1
	}
	for seed := range uint64(2) {
		for k := 1 + int(seed); ; k += every {
			r := newRigAt(t, seed, sweepBase, sweepSize, holed(sweepParent, seed))
			h := newHistory(r.model())
			rng := rand.New(rand.NewPCG(seed, 7))
			n, fired := 0, crashfs.OpKind("")
			r.fs.Inject(func(o crashfs.Op) error {
				if n++; n != k {
					return nil
				}
				fired = o.Kind
				if o.Kind == crashfs.OpWrite && k%2 == 0 {
					return &crashfs.Short{N: int(o.Len) / 2 &^ 511, Err: syscall.ENOSPC}
				}
				return errDisk
			})
			err := work(r.Layer, h, rng, 40)
			if fired == "" {
				must(t, err)
				break
			}
			if err == nil {
				t.Fatalf("seed %d, operation %d: %s failed and nobody was told", seed, k, fired)
			}
			if fired == crashfs.OpSync {
				h.seen(t, r.all(t))
				if !errors.Is(r.Layer.Sync(), errDisk) {
					t.Fatalf("seed %d, operation %d: a later Sync returned nil though bytes were lost", seed, k)
				}
				if _, err := r.WriteAt(make([]byte, 512), 0); err == nil {
					t.Fatalf("seed %d, operation %d: the layer takes writes after a lost flush", seed, k)
				}
			} else {
				h.seen(t, r.all(t))
				if err := work(r.Layer, h, rng, 40); err != nil { // it goes on
					t.Fatalf("seed %d, operation %d: after %s failed: %v", seed, k, fired, err)
				}
			}
			if i := h.wrong(r.all(t)); i >= 0 {
				t.Fatalf("seed %d, operation %d (%s): sector %d is wrong in memory", seed, k, fired, i)
			}
			for o, pick := range outcomes(r.fs.Unsynced(), seed, 2, 2) {
				after := r.after(pick)
				must(t, after.open(t))
				if i := h.wrong(after.all(t)); i >= 0 {
					t.Fatalf("seed %d, operation %d (%s), outcome %d: sector %d holds neither what was synced nor what was written since", seed, k, fired, o, i)
				}
			}
		}
	}
}

func TestAPageThatCouldNotBeWrittenIsWrittenByTheNextSync(t *testing.T) {
	const pages = 24
	r := newRig(t, 1, pages*pageSpan, nil)
	r.batch = 10
	h := map[int64][]byte{}
	write := func(off int64, seed uint64) {
		h[off] = pattern(Granule, seed)
		_, err := r.WriteAt(h[off], off)
		must(t, err)
	}
	for i := range int64(pages) { // three batches
		write(i*pageSpan, uint64(i))
	}
	for round := range 4 {
		n := 0
		r.fs.Inject(func(o crashfs.Op) error {
			if o.Kind == crashfs.OpWrite && o.Name == "data.map" {
				if n++; n == 3+5*round {
					return &crashfs.Short{N: 1024, Err: syscall.ENOSPC}
				}
			}
			return nil
		})
		if err := r.Layer.Sync(); !errors.Is(err, syscall.ENOSPC) || r.Lost() != nil {
			t.Fatalf("a page had no room: %v, final %v", err, r.Lost())
		}
		r.fs.Inject(nil)
		write(int64(round)*pageSpan+Granule, uint64(1000+round))
		write(int64(round+12)*pageSpan+Granule, uint64(2000+round))
		if round%2 == 1 {
			continue
		}
		must(t, r.Layer.Sync())
		after := r.after(func(int, int) int { return 0 })
		must(t, after.open(t))
		r.fs = after.fs
		must(t, r.open(t))
		r.batch = 10
		for off, want := range h {
			got := make([]byte, Granule)
			if _, err := r.ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("round %d: what was synced at %d is lost (%v)", round, off, err)
			}
		}
		for off := range h {
			write(off+2*Granule, uint64(off))
		}
	}
}

func ExampleDamageError() {
	fmt.Println(&DamageError{Range{0, int64(perSector) * Granule}, 512})
	fmt.Println(&ParentError{What: "parent", Have: layerUUID, Want: parentUUID, HaveBytes: 512, WantBytes: 4096})
	// Output:
	// the map of blocks 0 to 15743 is damaged
	// the map belongs to parent 09080700-0000-0000-0000-000000000000 of 4096 bytes, not to 01020300-0000-0000-0000-000000000000 of 512 bytes; reading through it would mix two disks
}
