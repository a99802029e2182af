package scsi

import (
	"context"
	"fmt"
	"testing"

	"lunboot/store"
)

// hotPath returns functions that run a command of n bytes the way a connection
// does: the same Command and the same buffer each time.
func hotPath(n int) (try, execute, write func(i int)) {
	v := newMemory(16 << 20)
	unit := NewUnit(UnitConfig{UUID: testUUID, BlockSize: 512, Volume: v})
	nexus := NewNexus(NexusConfig{})
	nexus.SetMap(map[store.LUN]MapEntry{0: {Unit: unit}})
	ctx := context.Background()
	c := &Command{}
	c.In = make([]byte, 0, n)
	buf := make([]byte, n)
	nexus.Begin(c) // takes the power-on attention
	begin := func(code byte, i int) {
		lba := i * n >> 9 & 0x3fff
		c.CDB = [16]byte{code, 0, 0, 0, byte(lba >> 8), byte(lba), 0, byte(n >> 17), byte(n >> 9)}
		c.Expected = n
		if p := nexus.Begin(c); p.Done || p.Len != n {
			panic(fmt.Sprintf("plan %+v", p))
		}
	}
	end := func() {
		if c.Status != StatusGood {
			panic(fmt.Sprintf("status %02x, sense %x", c.Status, c.Sense))
		}
	}
	try = func(i int) {
		begin(0x28, i)
		if !nexus.TryExecute(c) {
			panic("not resident")
		}
		end()
	}
	execute = func(i int) {
		begin(0x28, i)
		nexus.Execute(ctx, c)
		end()
	}
	write = func(i int) {
		begin(0x2a, i)
		c.Out = buf
		nexus.Execute(ctx, c)
		end()
	}
	return try, execute, write
}

// A command that costs garbage costs every machine a pause.
func TestHotPathAllocatesNothing(t *testing.T) {
	try, execute, write := hotPath(4096)
	for name, fn := range map[string]func(int){"READ from memory": try, "READ": execute, "WRITE": write} {
		i := 0
		if got := testing.AllocsPerRun(1000, func() { fn(i); i++ }); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
	t.Run("nor does a refused LUN", func(t *testing.T) {
		n := NewNexus(NexusConfig{OnNoLUN: func([8]byte, []byte) {}})
		c := &Command{}
		if got := testing.AllocsPerRun(1000, func() { n.Begin(c) }); got != 0 {
			t.Errorf("%v allocations", got)
		}
	})
}

func BenchmarkCommands(b *testing.B) {
	for _, n := range []int{512, 4096, 65536} {
		try, execute, write := hotPath(n)
		for _, bench := range []struct {
			name string
			fn   func(int)
		}{{"try", try}, {"read", execute}, {"write", write}} {
			b.Run(fmt.Sprintf("%s/%d", bench.name, n), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(n))
				for i := 0; b.Loop(); i++ {
					bench.fn(i)
				}
			})
		}
	}
}
