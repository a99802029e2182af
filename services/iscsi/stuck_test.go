package iscsi_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/store"
)

// From the initiator a disk that hangs looks like packets that are lost. The target
// knows better, and says so: once, while it hangs.
func TestACommandThatItsDiskKeepsIsToldOf(t *testing.T) {
	small := Write10(1, 16, make([]byte, 4096))
	small.Immediate = 4096
	for name, c := range map[string]struct {
		cmd    Command
		opcode string
		lba    int64
	}{
		"a read":        {Read10(1, 8, 8), "READ(10)", 8},
		"a small write": {small, "WRITE(10)", 16},
		"a write":       {Write10(1, 32, make([]byte, 256<<10)), "WRITE(10)", 32},
		"a flush":       {Sync10(1), "SYNCHRONIZE CACHE(10)", 0},
	} {
		t.Run(name, func(t *testing.T) {
			hang := make(chan struct{})
			var waiting atomic.Bool
			b, _ := startSlow(t, func(ctx context.Context) error {
				waiting.Store(true)
				select {
				case <-hang:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			i := b.login(t, alice, IPXE(1))
			i.Must(t, Ready(1))
			b.login(t, bob, Linux(1)).Must(t, Ready(1)) // which waits for nothing
			type end struct {
				Result
				err error
			}
			ended := make(chan end, 1)
			go func() {
				r, err := i.Do(c.cmd)
				ended <- end{r, err}
			}()
			stuck := func() []store.Event { return b.journal.all(store.EventISCSIStuck) }
			for end := time.Now().Add(10 * time.Second); !waiting.Load(); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the command does not come to its disk")
				}
			}
			time.Sleep(50 * time.Millisecond)
			b.clock.advance(5 * time.Second)
			time.Sleep(50 * time.Millisecond)
			if all := stuck(); len(all) > 0 {
				t.Fatalf("after five seconds it is told %+v", all[0])
			}
			for n := 0; len(stuck()) == 0 && n < 200; n++ {
				b.clock.advance(time.Second / 2)
				time.Sleep(20 * time.Millisecond)
			}
			all := stuck()
			if len(all) != 1 {
				t.Fatalf("it is told %d times", len(all))
			}
			d := all[0].Detail
			if d.Cause != store.CauseStorage || d.LUN == nil || *d.LUN != 1 || d.Opcode != c.opcode || d.LBA != c.lba || d.Millis < 10000 || d.Volume == "" || !d.IPXE || d.Initiator != string(alice) {
				t.Errorf("it is told %+v", d)
			}
			close(hang)
			if r := <-ended; r.err != nil || r.Status != 0 {
				t.Errorf("the command ends with %+v, %v", r.Result, r.err)
			}
			time.Sleep(50 * time.Millisecond)
			b.clock.advance(20 * time.Second)
			time.Sleep(100 * time.Millisecond)
			if n := len(stuck()); n != 1 {
				t.Errorf("it is told %d times though the disk answered", n)
			}
		})
	}
}
