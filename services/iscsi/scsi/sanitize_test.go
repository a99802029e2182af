package scsi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"lunboot/services/iscsi/scsi/sense"
	"lunboot/store"
)

// wipeable is a rig whose nexus may wipe the unit.
func wipeable(t *testing.T) *rig {
	r := newRig(t)
	r.nexus.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit, Sanitize: true}})
	copy(r.vol.data, pattern(3, len(r.vol.data)))
	t.Cleanup(r.unit.Stop)
	return r
}

func overwrite(flags byte, pat []byte) (cdb string, list []byte) {
	list = append([]byte{flags, 0, byte(len(pat) >> 8), byte(len(pat))}, pat...)
	return fmt.Sprintf("48 01 0000000000 %04x 00", len(list)), list
}

func TestSanitizeNeedsPermission(t *testing.T) {
	r := newRig(t)
	for _, cdb := range []string{"48 01 0000000000 0005 00", "48 02 0000000000 0000 00", "48 1f 0000000000 0000 00", "48 07 0000000000 0000 00"} {
		wantSense(t, r.do(cdb, nil), 5, 0x20, 0)
	}
	listed := func(r *rig) bool {
		c := r.do("a3 0c 00 00 0000 00001000 00 00", nil)
		wantGood(t, c)
		for b := c.In[4:]; len(b) > 0; b = b[8:] {
			if b[0] == 0x48 {
				return true
			}
		}
		return false
	}
	one := "a3 0c 03 48 0002 00001000 00 00"
	for option := 1; option <= 3; option++ {
		wantData(t, r.do(fmt.Sprintf("a3 0c %02x 48 0002 00001000 00 00", option), nil), "00 01 0000")
	}
	if listed(r) || r.do(one, nil).In[1]&7 != 1 {
		t.Error("a unit that may not be wiped says that it can be")
	}
	if r := wipeable(t); !listed(r) || r.do(one, nil).In[1]&7 != 3 {
		t.Error("a unit that may be wiped does not say so")
	}
	reader := newRig(t)
	reader.nexus.SetMap(map[store.LUN]MapEntry{0: {Unit: reader.unit, ReadOnly: true, Sanitize: true}})
	run(t, reader.nexus, 0, testReady, nil)
	wantSense(t, reader.do("48 02 0000000000 0000 00", nil), 7, 0x27, 0)
}

func TestSanitizeWipesEveryBlock(t *testing.T) {
	t.Run("block erase", func(t *testing.T) {
		r := wipeable(t)
		wantGood(t, r.do("48 02 0000000000 0000 00", nil))
		if !bytes.Equal(r.vol.durable, make([]byte, len(r.vol.data))) {
			t.Error("something is left on the disk")
		}
		wantGood(t, r.do(testReady, nil))
	})
	t.Run("overwrite with a pattern that begins anew in each block", func(t *testing.T) {
		r := wipeable(t)
		wantGood(t, r.do(overwrite(1, []byte("abcde"))))
		want := bytes.Repeat([]byte("abcde"), 103)[:512]
		for at := 0; at < len(r.vol.durable); at += 512 {
			if !bytes.Equal(r.vol.durable[at:at+512], want) {
				t.Fatalf("block %d holds %q", at/512, r.vol.durable[at:at+16])
			}
		}
	})
	// What is left is the pattern in any case: the first pass of an even number
	// is the inverted one (SBC-4, OVERWRITE service action).
	for _, tc := range []struct {
		flags byte
		want  []byte // the passes
	}{
		{0x01, []byte{0x0f}}, {0x02, []byte{0x0f, 0x0f}}, {0x81, []byte{0x0f}},
		{0x82, []byte{0xf0, 0x0f}}, {0x83, []byte{0x0f, 0xf0, 0x0f}},
	} {
		t.Run(fmt.Sprintf("overwrite with flags and count %02x", tc.flags), func(t *testing.T) {
			r := wipeable(t)
			v := &logged{memory: r.vol}
			r.unit.cfg.Volume = v
			wantGood(t, r.do(overwrite(tc.flags, []byte{0x0f})))
			if !bytes.Equal(v.firsts, tc.want) || !bytes.Equal(r.vol.durable, bytes.Repeat([]byte{0x0f}, len(r.vol.data))) {
				t.Errorf("passes wrote %x, want %x; %02x is left", v.firsts, tc.want, r.vol.durable[0])
			}
		})
	}
}

// logged keeps the first byte of each write to the volume's beginning.
type logged struct {
	*memory
	firsts []byte
}

func (l *logged) WriteAt(ctx context.Context, p []byte, off int64) error {
	if off == 0 {
		l.firsts = append(l.firsts, p[0])
	}
	return l.memory.WriteAt(ctx, p, off)
}

func TestSanitizeIsChecked(t *testing.T) {
	r := wipeable(t)
	before := bytes.Clone(r.vol.data)
	for _, tc := range []struct {
		name, cdb string
		list      []byte
		asc       byte
	}{
		{"IMMED, of a list that is wrong", "48 81 0000000000 0005 00", []byte{0, 0, 0, 1, 9}, 0x26},
		{"ZNR", "48 42 0000000000 0000 00", nil, 0x24},
		{"cryptographic erase", "48 03 0000000000 0000 00", nil, 0x24},
		{"a list for block erase", "48 02 0000000000 0008 00", make([]byte, 8), 0x24},
		{"no pattern", "48 01 0000000000 0004 00", []byte{1, 0, 0, 0}, 0x24},
		{"a pattern longer than a block", "48 01 0000000000 0205 00", make([]byte, 517), 0x24},
		{"no pass", "48 01 0000000000 0005 00", []byte{0, 0, 0, 1, 9}, 0x26},
		{"a test", "48 01 0000000000 0005 00", []byte{0x21, 0, 0, 1, 9}, 0x26},
		{"a pattern that is not all there", "48 01 0000000000 0005 00", []byte{1, 0, 0, 2, 9}, 0x26},
		{"leaving a failure with a list", "48 1f 0000000000 0008 00", make([]byte, 8), 0x24},
	} {
		t.Run(tc.name, func(t *testing.T) { wantSense(t, r.do(tc.cdb, tc.list), 5, tc.asc, 0) })
	}
	if !bytes.Equal(r.vol.data, before) {
		t.Error("a command that was refused wrote")
	}
}

// While a unit is wiped it is not ready, says how far it is, and goes on when
// the command that began it is aborted and its unit reset.
func TestSanitizeGoesOnByItself(t *testing.T) {
	r := wipeable(t)
	started, release := make(chan struct{}), make(chan struct{})
	writes := 0
	r.vol.hold = func(_ context.Context, op string) error {
		if op == "write" {
			if writes++; writes == 3 { // half of it is done
				close(started)
				<-release
			}
		}
		return nil
	}
	cdb, list := overwrite(1, []byte{7})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan *Command)
	go func() {
		c := &Command{CDB: cdbBytes(t, cdb), Expected: len(list), Out: list}
		r.nexus.Begin(c)
		r.nexus.Execute(ctx, c)
		done <- c
	}()
	<-started
	wantSense(t, r.do(testReady, nil), 2, 0x04, 0x1b)
	wantSense(t, r.do("28 00 00000000 00 0001 00", nil), 2, 0x04, 0x1b)
	wantSense(t, r.do("48 02 0000000000 0000 00", nil), 2, 0x04, 0x1b)
	wantGood(t, r.do("12 00 00 0024 00", nil))
	wantGood(t, r.do(reportCodes, nil))
	wantGood(t, r.do("a3 0d 00 000000 00000010 00 00", nil))
	c := r.do("03 00 00 00 fc 00", nil)
	wantGood(t, c)
	if progress := int(c.In[16])<<8 | int(c.In[17]); c.In[2] != 2 || c.In[12] != 4 || c.In[13] != 0x1b || c.In[15] != 0x80 || progress != 32768 {
		t.Errorf("REQUEST SENSE says %x", c.In)
	}
	cancel()
	if c := <-done; c.Status != StatusCheckCondition {
		t.Errorf("the aborted command ended with status %02x", c.Status)
	}
	r.nexus.LogicalUnitReset([8]byte{}, func() {})
	wantSense(t, r.do(testReady, nil), 6, 0x29, 3)
	wantSense(t, r.do(testReady, nil), 2, 0x04, 0x1b)
	if !r.unit.Busy() {
		t.Error("the unit is not busy")
	}
	close(release)
	r.unit.wipers.Wait()
	wantGood(t, r.do(testReady, nil))
	if !bytes.Equal(r.vol.durable, bytes.Repeat([]byte{7}, len(r.vol.data))) {
		t.Error("it did not come to its end")
	}
}

// wipeLog is what is written down of wipes.
type wipeLog struct {
	mu    sync.Mutex
	now   *store.Wipe
	fails bool
}

func (l *wipeLog) change(f func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails {
		return errors.New("the disk is full")
	}
	f()
	return nil
}

func (l *wipeLog) Begin(_ context.Context, w store.Wipe) error {
	return l.change(func() { l.now = &w })
}

func (l *wipeLog) Fail(context.Context) error { return l.change(func() { l.now.Failed = true }) }
func (l *wipeLog) End(context.Context) error  { return l.change(func() { l.now = nil }) }

func (l *wipeLog) read() *store.Wipe {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// logging is a rig that may wipe its unit, and writes that down.
func logging(t *testing.T, l *wipeLog) *rig {
	r := newRig(t, func(cfg *UnitConfig) { cfg.Wipes = l })
	r.nexus.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit, Sanitize: true}})
	copy(r.vol.data, pattern(3, len(r.vol.data)))
	t.Cleanup(r.unit.Stop)
	return r
}

// With IMMED=1 the answer comes when the wipe is written down; then an end of the
// appliance interrupts it, and the next run begins it anew.
func TestASanitizeIsAnsweredAtOnceAndOutlivesTheAppliance(t *testing.T) {
	for name, tc := range map[string]struct {
		cdb  string
		list []byte
		want func(block []byte) []byte
	}{
		"block erase": {"48 82 0000000000 0000 00", nil, func(b []byte) []byte { return b }},
		"overwrite": {"48 a1 0000000000 0007 00", []byte{0x83, 0, 0, 3, 1, 2, 3}, func(b []byte) []byte {
			for k := range b {
				b[k] = byte(k%3 + 1)
			}
			return b
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l := &wipeLog{}
			r := logging(t, l)
			begun := make(chan struct{})
			var once sync.Once
			r.vol.hold = func(ctx context.Context, op string) error {
				if l.read() == nil {
					t.Error("something was wiped before that was written down")
				}
				once.Do(func() { close(begun) })
				<-ctx.Done()
				return ctx.Err()
			}
			wantGood(t, r.do(tc.cdb, tc.list))
			wantSense(t, r.do(testReady, nil), 2, 0x04, 0x1b)
			<-begun
			r.unit.Stop()
			if w := l.read(); w == nil || w.Failed {
				t.Fatalf("written down is %+v", w)
			}
			// The same volume, in the next run.
			next := logging(t, l)
			copy(next.vol.data, r.vol.data)
			inside, resume := make(chan struct{}), make(chan struct{})
			var held sync.Once
			next.vol.hold = func(context.Context, string) error {
				held.Do(func() { close(inside); <-resume })
				return nil
			}
			next.unit.Resume(*l.read())
			<-inside
			wantSense(t, next.do(testReady, nil), 2, 0x04, 0x1b)
			if !next.unit.Busy() {
				t.Error("the unit could be forgotten")
			}
			close(resume)
			next.unit.wipers.Wait()
			wantGood(t, next.do(testReady, nil))
			want := bytes.Repeat(tc.want(make([]byte, 512)), testBlocks)
			if l.read() != nil || !bytes.Equal(next.vol.durable, want) {
				t.Error("it did not come to its end")
			}
		})
	}
}

// What cannot be written down is not begun, and a failure is one in the next run too.
func TestASanitizeThatFailedIsWrittenDown(t *testing.T) {
	l := &wipeLog{fails: true}
	r := logging(t, l)
	before := bytes.Clone(r.vol.data)
	wantSense(t, r.do("48 a2 0000000000 0000 00", nil), 4, 0x44, 0)
	wantGood(t, r.do(testReady, nil))
	if !bytes.Equal(r.vol.data, before) {
		t.Error("it was begun")
	}
	l.fails = false
	r.vol.fail = func(string, int64) error { return errors.New("input/output error") }
	wantGood(t, r.do("48 a2 0000000000 0000 00", nil)) // AUSE
	r.unit.wipers.Wait()
	if w := l.read(); w == nil || !w.Failed || !w.Unrestricted {
		t.Fatalf("written down is %+v", w)
	}
	next := logging(t, l)
	next.unit.Resume(*l.read())
	wantSense(t, next.do(testReady, nil), 3, 0x31, 3)
	l.fails = true
	wantSense(t, next.do("48 1f 0000000000 0000 00", nil), 4, 0x44, 0)
	wantSense(t, next.do(testReady, nil), 3, 0x31, 3)
	l.fails = false
	wantGood(t, next.do("48 1f 0000000000 0000 00", nil))
	wantGood(t, next.do(testReady, nil))
	if l.read() != nil {
		t.Error("it is written down still")
	}
	next.unit.Resume(store.Wipe{Passes: 1}) // nobody writes such a thing
	wantSense(t, next.do(testReady, nil), 3, 0x31, 3)
}

func TestAFailedSanitizeIsNeverForgotten(t *testing.T) {
	for _, tc := range []struct {
		name  string
		ause  byte
		leave bool
	}{{"restricted", 0, false}, {"unrestricted", 0x20, true}} {
		t.Run(tc.name, func(t *testing.T) {
			r := wipeable(t)
			r.vol.fail = func(op string, _ int64) error {
				if op == "sync" {
					return errors.New("input/output error")
				}
				return nil
			}
			wantSense(t, r.do(fmt.Sprintf("48 %02x 0000000000 0000 00", 2|tc.ause), nil), 3, 0x31, 3)
			wantSense(t, r.do(testReady, nil), 3, 0x31, 3)
			exit := r.do("48 1f 0000000000 0000 00", nil)
			if tc.leave {
				wantGood(t, exit)
				wantGood(t, r.do(testReady, nil))
				return
			}
			// Only another one that works helps, and none that could be left
			// otherwise (SBC-4 §4.11).
			wantSense(t, exit, 5, 0x24, 0)
			wantSense(t, r.do("48 22 0000000000 0000 00", nil), 5, 0x24, 0)
			wantSense(t, r.do("48 21 0000000000 0005 00", []byte{1, 0, 0, 1, 9}), 5, 0x24, 0)
			wantSense(t, r.do(testReady, nil), 3, 0x31, 3)
			r.vol.fail = nil
			wantGood(t, r.do("48 02 0000000000 0000 00", nil))
			wantGood(t, r.do(testReady, nil))
		})
	}
}

// What was begun before a unit is wiped neither waits for the wipe nor lands
// behind it: the wipe ends all commands (SBC-3 §4.11.2).
func TestNothingLandsBehindASanitize(t *testing.T) {
	for _, cmd := range []struct {
		cdb string
		out []byte
	}{
		{"0a 00 00 00 01 00", pattern(9, 512)},
		{"2a 00 00000000 00 0001 00", pattern(9, 512)},
		{"2e 00 00000000 00 0001 00", pattern(9, 512)},
		{"89 00 0000000000000000 00000001 00 00", append(pattern(3, 512), pattern(9, 512)...)},
		{"8b 00 0000000000000000 00000001 00 00", pattern(9, 512)},
		{"41 00 00000000 00 0001 00", pattern(9, 512)},
		{"42 00 00000000 00 0018 00", unmapList(0, 1)},
		{"28 00 00000000 00 0001 00", nil},
		{"2f 00 00000000 00 0001 00", nil},
	} {
		for _, done := range []bool{false, true} {
			begun := func(r *rig) *Command {
				c := &Command{CDB: cdbBytes(t, cmd.cdb), Expected: len(cmd.out), Out: cmd.out}
				if c.Expected == 0 {
					c.Expected = 512
				}
				if p := r.nexus.Begin(c); p.Done {
					t.Fatalf("%s: status %02x", cmd.cdb, c.Status)
				}
				return c
			}
			r := wipeable(t)
			c := begun(r)
			started, release := make(chan struct{}), make(chan struct{})
			r.vol.hold = func(_ context.Context, op string) error {
				if op == "sync" {
					close(started)
					<-release
				}
				return nil
			}
			wiped := make(chan struct{})
			go func() {
				defer close(wiped)
				w := &Command{CDB: cdbBytes(t, "48 02 0000000000 0000 00")}
				r.nexus.Begin(w)
				r.nexus.Execute(context.Background(), w)
			}()
			<-started
			if done {
				close(release)
				<-wiped
				r.vol.hold = nil
			}
			ended := make(chan struct{})
			go func() { r.nexus.Execute(context.Background(), c); close(ended) }()
			select {
			case <-ended:
			case <-time.After(5 * time.Second):
				t.Errorf("%s waits for the wipe", cmd.cdb)
			}
			if !done {
				close(release)
				<-wiped
			}
			<-ended
			if done {
				wantSense(t, c, 0x0b, 0, 0)
			} else {
				wantSense(t, c, 2, 0x04, 0x1b)
			}
			if !isZero(r.vol.data) {
				t.Errorf("%s (wipe done: %v) left data behind", cmd.cdb, done)
			}
		}
	}
}

// A copy from another unit meets a unit that is being wiped like any command.
func TestACopyLeavesAWipedUnitAlone(t *testing.T) {
	r, other, vol := pair(t, 512)
	copy(vol.data, pattern(5, 4096))
	r.nexus.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit, Sanitize: true}, 1: {Unit: other}})
	t.Cleanup(r.unit.Stop)
	started, release := make(chan struct{}), make(chan struct{})
	r.vol.hold = func(_ context.Context, op string) error {
		if op == "sync" {
			close(started)
			<-release
		}
		return nil
	}
	wiped := make(chan struct{})
	go func() {
		defer close(wiped)
		w := &Command{CDB: cdbBytes(t, "48 02 0000000000 0000 00")}
		r.nexus.Begin(w)
		r.nexus.Execute(context.Background(), w)
	}()
	<-started
	for _, p := range []piece{{src: 1, dst: 0, blocks: 1}, {src: 0, dst: 1, blocks: 1, to: 9}} {
		list := copyList(1, []*Unit{r.unit, other}, p)
		done := make(chan *Command, 1)
		go func() {
			c := &Command{LUN: store.LUN(1).Wire(), CDB: [16]byte{0: 0x83, 13: byte(len(list))}, Expected: len(list), Out: list}
			r.nexus.Begin(c)
			r.nexus.Execute(context.Background(), c)
			done <- c
		}()
		select {
		case c := <-done:
			wantSense(t, c, 0x0a, 0, 0)
		case <-time.After(5 * time.Second):
			t.Error("a copy waits for the wipe")
		}
	}
	close(release)
	<-wiped
	if !isZero(r.vol.data) {
		t.Error("a copy landed behind the wipe")
	}
}

func TestTheProgressOfAWipe(t *testing.T) {
	for _, tc := range []struct {
		done, total int64
		want        uint16
	}{
		{0, 1 << 20, 0}, {1 << 19, 1 << 20, 32768}, {1 << 20, 1 << 20, 65535}, {0, 0, 0}, {300, 512, 38400},
		{31 << 43, 31 << 44, 32768}, // 31 passes over 16 TiB
	} {
		w := &wipe{total: tc.total}
		w.done.Store(tc.done)
		if got := w.sense(); !reflect.DeepEqual(got, sense.Sanitizing(tc.want)) {
			t.Errorf("%d of %d: %x, want %d", tc.done, tc.total, got.Append(nil, false), tc.want)
		}
	}
}

// A copy that was begun before a unit was wiped writes nothing to it afterwards.
func TestACopyThatWasBegunLeavesAWipedUnitAlone(t *testing.T) {
	r, other, vol := pair(t, 512)
	copy(vol.data, pattern(5, 4096))
	r.nexus.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit, Sanitize: true}, 1: {Unit: other}})
	t.Cleanup(r.unit.Stop)
	inside, resume := make(chan struct{}), make(chan struct{})
	vol.hold = func(_ context.Context, op string) error {
		if op == "write" {
			close(inside)
			<-resume
		}
		return nil
	}
	list := copyList(1, []*Unit{r.unit, other}, piece{src: 1, dst: 1, blocks: 1, to: 9}, piece{src: 1, dst: 0, blocks: 1})
	done := make(chan *Command)
	go func() {
		c := &Command{LUN: store.LUN(1).Wire(), CDB: [16]byte{0: 0x83, 13: byte(len(list))}, Expected: len(list), Out: list}
		r.nexus.Begin(c)
		r.nexus.Execute(context.Background(), c)
		done <- c
	}()
	<-inside
	wantGood(t, r.do("48 02 0000000000 0000 00", nil))
	close(resume)
	wantSense(t, <-done, 0x0a, 0, 0)
	if !isZero(r.vol.data) {
		t.Error("a copy landed behind the wipe")
	}
}

// Nor does a piece of a WRITE of which others were written before.
func TestNoPieceLandsBehindASanitize(t *testing.T) {
	r := wipeable(t)
	c := &Command{CDB: cdbBytes(t, "2a 00 00000000 00 0002 00"), Expected: 1024}
	if p := r.nexus.Begin(c); p.Done || p.Slow || !c.ComesInPieces() {
		t.Fatalf("%+v", p)
	}
	if err := r.nexus.WritePiece(t.Context(), c, pattern(9, 512), 0); err != nil {
		t.Fatal(err)
	}
	wantGood(t, r.do("48 02 0000000000 0000 00", nil))
	err := r.nexus.WritePiece(t.Context(), c, pattern(9, 512), 512)
	if err == nil || !isZero(r.vol.data) {
		t.Errorf("a piece was written behind the wipe: %v", err)
	}
	if !r.nexus.Written(c, err) {
		t.Error("the command goes on")
	}
	wantSense(t, c, 0x0b, 0, 0)
}
