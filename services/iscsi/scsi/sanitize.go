package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"

	"lunboot/services/iscsi/scsi/sense"
	"lunboot/store"
)

// SANITIZE (SBC-3 §5.30) wipes a whole volume. It is there only for a unit whose
// volume allows it. Once begun it goes on whatever becomes of the command that
// began it, resets and the loss of its session among them; until it is done the
// unit is not ready. It is written down before it changes anything, and a restart
// begins it anew (SBC-4 §4.11.2 e): so IMMED=1 can be answered at once.

// wipe is a SANITIZE of a unit that runs, or that failed.
type wipe struct {
	store.Wipe
	total  int64
	done   atomic.Int64
	failed atomic.Bool
	end    chan struct{}
	err    error // after end
}

// errSanitizeFailed is SANITIZE COMMAND FAILED.
var errSanitizeFailed = &sense.Data{Key: sense.KeyMediumError, ASC: 0x31, ASCQ: 0x03}

// sense is what every other command meets meanwhile.
func (w *wipe) sense() *sense.Data {
	if w.failed.Load() {
		return errSanitizeFailed
	}
	// As floating point: 65,536 times the bytes of many passes are too many to
	// count.
	return sense.Sanitizing(uint16(min(float64(w.done.Load())/float64(max(w.total, 1))*65536, 65535)))
}

// wiped says why a command that was begun may not go on: a wipe ends all that
// came before it (SBC-3 §4.11.2). Whoever changes the volume asks again when it
// has the unit's order.
func (c *Command) wiped() error {
	if c.itl == nil || c.op.is(duringWipe) {
		return nil
	}
	return c.itl.unit.unwiped(c.wipes)
}

// unwiped says that no wipe was begun since there had been so many.
func (u *Unit) unwiped(since uint32) error {
	if w := u.wiping.Load(); w != nil {
		return w.sense()
	}
	if u.wipes.Load() != since {
		return sense.Aborted
	}
	return nil
}

// Bits of byte 1 of SANITIZE.
const (
	sanitizeImmed = 0x80
	sanitizeZNR   = 0x40 // for zoned devices
	sanitizeAUSE  = 0x20
)

// Bits of the first byte of the overwrite parameter list.
const (
	overwriteInvert = 0x80
	overwriteTest   = 0x60
	overwriteCount  = 0x1f
)

// sanitizePlan refuses every bit that means nothing: a wipe is not to be begun
// by a command that was meant otherwise.
func sanitizePlan(c *Command) error {
	if c.CDB[1]&sanitizeZNR != 0 {
		return sense.InvalidField(1, 6)
	}
	for k := 2; k < 7; k++ {
		if c.CDB[k] != 0 {
			return sense.InvalidField(k, 7)
		}
	}
	return nil
}

func parseOverwrite(c *Command) (Plan, error) {
	if err := sanitizePlan(c); err != nil {
		return Plan{}, err
	}
	n := int(binary.BigEndian.Uint16(c.CDB[7:]))
	if n < 5 || n > 4+c.itl.unit.cfg.BlockSize { // a pattern of at least a byte, and a block at most
		return Plan{}, sense.InvalidField(7, 7)
	}
	return c.parameterList(n), nil
}

func execOverwrite(ctx context.Context, c *Command) error {
	list, err := c.list()
	if err != nil {
		return err
	}
	count, n := int(list[0]&overwriteCount), int(binary.BigEndian.Uint16(list[2:]))
	switch {
	case count == 0, list[0]&overwriteTest != 0:
		return sense.InvalidParameter(0)
	case n == 0, n > len(list)-4:
		return sense.InvalidParameter(2)
	}
	return c.wipe(ctx, store.Wipe{Passes: count, Pattern: bytes.Clone(list[4 : 4+n]), Invert: list[0]&overwriteInvert != 0})
}

// piece returns what wipes one piece of a volume in a pass.
func (u *Unit) piece(w store.Wipe) func(ctx context.Context, v Volume, pass int, off, n int64) error {
	if w.Passes == 0 {
		return func(ctx context.Context, v Volume, _ int, off, n int64) error { return v.Unmap(ctx, off, n) }
	}
	pattern := make([]byte, Chunk)
	for at := 0; at < len(pattern); at += u.cfg.BlockSize {
		// The pattern begins anew in each block (SBC-3).
		for k := range u.cfg.BlockSize {
			pattern[at+k] = w.Pattern[k%len(w.Pattern)]
		}
	}
	inverted := pattern
	if w.Invert {
		inverted = make([]byte, Chunk)
		for k := range inverted {
			inverted[k] = ^pattern[k]
		}
	}
	return func(ctx context.Context, v Volume, pass int, off, n int64) error {
		// Every other pass is inverted, so that the last is not (SBC-4, OVERWRITE
		// service action).
		if (w.Passes-pass)%2 == 1 {
			return v.WriteAt(ctx, inverted[:n], off)
		}
		return v.WriteAt(ctx, pattern[:n], off)
	}
}

func parseErase(c *Command) (Plan, error) {
	if err := sanitizePlan(c); err != nil {
		return Plan{}, err
	}
	if c.CDB[7]|c.CDB[8] != 0 { // it has no parameters
		return Plan{}, sense.InvalidField(7, 7)
	}
	return Plan{}, nil
}

// execErase gives all blocks back; they read zero afterwards.
func execErase(ctx context.Context, c *Command) error {
	return c.wipe(ctx, store.Wipe{})
}

func parseExitFailure(c *Command) (Plan, error) {
	if c.CDB[7]|c.CDB[8] != 0 {
		return Plan{}, sense.InvalidField(7, 7)
	}
	w := c.itl.unit.wiping.Load()
	switch {
	case w == nil:
		return Plan{}, nil // nothing has failed
	case !w.failed.Load():
		return Plan{}, w.sense()
	case !w.Unrestricted: // begun in the restricted mode: only another SANITIZE helps
		return Plan{}, sense.InvalidField(1, 4)
	}
	return Plan{Slow: true}, nil // it is written down
}

func execExitFailure(ctx context.Context, c *Command) error {
	u := c.itl.unit
	w := u.wiping.Load()
	if w == nil || !w.failed.Load() {
		return nil
	}
	if u.cfg.Wipes != nil {
		if err := u.cfg.Wipes.End(ctx); err != nil {
			return errNotKept
		}
	}
	u.wiping.CompareAndSwap(w, nil)
	return nil
}

// Pinned is a Volume whose bytes can be held while no session has them.
type Pinned interface {
	// Pin returns the bytes and what lets go of them.
	Pin() (v Volume, release func(), err error)
}

// wipe begins a sanitize operation and, without IMMED, waits for its end. The
// operation belongs to the unit.
func (c *Command) wipe(ctx context.Context, as store.Wipe) error {
	as.Unrestricted = c.CDB[1]&sanitizeAUSE != 0
	u := c.itl.unit
	w := u.newWipe(as)
	was := u.wiping.Load()
	switch {
	case was != nil && !was.failed.Load():
		return was.sense()
	case was != nil && !was.Unrestricted && w.Unrestricted: // a way out of the restricted mode (SBC-4 §4.11.1)
		return sense.InvalidField(1, 5)
	case !u.wiping.CompareAndSwap(was, w):
		return sense.Sanitizing(0)
	}
	v, release, err := u.pin()
	if err != nil {
		u.wiping.CompareAndSwap(w, was)
		return sense.WriteError(err, 0)
	}
	if u.cfg.Wipes != nil {
		if err := u.cfg.Wipes.Begin(ctx, as); err != nil {
			release()
			u.wiping.CompareAndSwap(w, was)
			return errNotKept
		}
	}
	u.start(w, v, release)
	if c.CDB[1]&sanitizeImmed != 0 {
		return nil
	}
	select {
	case <-w.end:
	case <-ctx.Done():
		return sense.Aborted // the operation goes on
	}
	if w.err != nil {
		return errSanitizeFailed
	}
	return nil
}

// Resume goes on with a wipe that an earlier run of the appliance had begun, or is
// in the state that it left. It is called before anybody uses the unit, when its
// volume can be used.
func (u *Unit) Resume(as store.Wipe) {
	w := u.newWipe(as)
	u.wiping.Store(w)
	if as.Failed || as.Passes > 0 && len(as.Pattern) == 0 { // the second is none of ours
		w.failed.Store(true)
		return
	}
	v, release, err := u.pin()
	if err != nil {
		w.failed.Store(true) // until the next time
		return
	}
	u.start(w, v, release)
}

func (u *Unit) newWipe(as store.Wipe) *wipe {
	return &wipe{Wipe: as, total: int64(u.blocks()) << u.shift * int64(max(as.Passes, 1)), end: make(chan struct{})}
}

// pin holds the unit's bytes for work of its own.
func (u *Unit) pin() (v Volume, release func(), err error) {
	if p, ok := u.cfg.Volume.(Pinned); ok {
		return p.Pin()
	}
	return u.cfg.Volume, func() {}, nil
}

// start runs a wipe to its end.
func (u *Unit) start(w *wipe, v Volume, release func()) {
	u.wipers.Go(func() {
		defer close(w.end)
		passes := max(w.Passes, 1)
		w.err = u.wipeAll(v, w, w.total/int64(passes), passes, u.piece(w.Wipe))
		w.err = u.note(w.err)
		release() // before anybody sees that it has ended
		if w.err != nil {
			w.failed.Store(true)
			return
		}
		u.wiping.CompareAndSwap(w, nil)
	})
}

// note writes down how a wipe has ended. One that the end of the appliance has
// interrupted has not: it goes on with the next.
func (u *Unit) note(err error) error {
	if u.cfg.Wipes == nil || err != nil && u.wiperCtx.Err() != nil {
		return err
	}
	ctx := context.WithoutCancel(u.wiperCtx)
	if err == nil {
		return u.cfg.Wipes.End(ctx)
	}
	return errors.Join(err, u.cfg.Wipes.Fail(ctx))
}

// wipeAll does the passes and makes them durable.
func (u *Unit) wipeAll(v Volume, w *wipe, size int64, passes int, piece func(ctx context.Context, v Volume, pass int, off, n int64) error) error {
	// What changes the volume now comes to its end, and what is still to begin
	// finds that it may not. Nobody waits for the wipe itself: that can be hours.
	u.order.Lock()
	u.wipes.Add(1)
	u.order.Unlock()
	for pass := 1; pass <= passes; pass++ {
		for off := int64(0); off < size; off += Chunk {
			if err := u.wiperCtx.Err(); err != nil {
				return err
			}
			n := min(Chunk, size-off)
			if err := piece(u.wiperCtx, v, pass, off, n); err != nil {
				return err
			}
			w.done.Add(n)
		}
	}
	return v.Sync(u.wiperCtx)
}

// Busy says that the unit works by itself: it must not be forgotten yet.
func (u *Unit) Busy() bool { return u.wiping.Load() != nil }

// Rest waits until the unit does nothing by itself, and says whether all that it did
// went well. It returns when ctx ends, too.
func (u *Unit) Rest(ctx context.Context) bool {
	w := u.wiping.Load()
	if w == nil {
		return true
	}
	if w.failed.Load() {
		return false
	}
	select {
	case <-w.end:
		return w.err == nil
	case <-ctx.Done():
		return false
	}
}

// Stop ends what the unit does by itself and waits for it.
func (u *Unit) Stop() {
	u.wiperStop()
	u.wipers.Wait()
}
