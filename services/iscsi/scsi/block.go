package scsi

import (
	"bytes"
	"context"

	"lunboot/services/iscsi/scsi/sense"
)

func parseRead(c *Command) (Plan, error) {
	if err := c.transfer(); err != nil {
		return Plan{}, err
	}
	c.fua = c.CDB[0]>>5 != 0 && c.CDB[1]&fuaBit != 0
	return Plan{Dir: DirIn, Len: c.length, Slow: c.fua}, nil
}

func execRead(ctx context.Context, c *Command) error {
	v := c.itl.unit.cfg.Volume
	// FUA=1 reads from the medium, so what the cache holds goes there first
	// (SBC-3, READ(10)).
	if c.fua && !c.itl.unit.cfg.ReadOnly {
		if err := v.Sync(ctx); err != nil {
			return sense.WriteError(err, c.lba)
		}
	}
	c.In = grow(c.In, c.length)
	if c.length == 0 {
		return nil
	}
	return c.itl.unit.whole(func() error {
		if err := v.ReadAt(ctx, c.In, c.offset()); err != nil {
			return sense.ReadError(err, c.lba)
		}
		return nil
	})
}

// whole calls read, which reads from the volume, so that it sees all or nothing of
// every atomic read-modify-write. A unit that has seen none pays nothing for that:
// when the first one comes meanwhile, read is called again.
func (u *Unit) whole(read func() error) error {
	if !u.atomics.Load() {
		if err := read(); !u.atomics.Load() {
			return err
		}
	}
	u.order.RLock()
	defer u.order.RUnlock()
	return read()
}

// resident is whole for a volume's Resident; it returns false when it would have to
// wait.
func (u *Unit) resident(p []byte, off int64) bool {
	if !u.atomics.Load() {
		return u.cfg.Volume.Resident(p, off) && !u.atomics.Load()
	}
	if !u.order.TryRLock() {
		return false
	}
	defer u.order.RUnlock()
	return u.cfg.Volume.Resident(p, off)
}

func parseWrite(c *Command) (Plan, error) {
	if err := c.transfer(); err != nil {
		return Plan{}, err
	}
	c.fua = c.CDB[0]>>5 != 0 && c.CDB[1]&fuaBit != 0
	return c.planWrite(), nil
}

// planWrite plans a command whose data is written. While the unit has no write
// cache, or writes must queue behind an atomic one, it is slow.
func (c *Command) planWrite() Plan {
	u := c.itl.unit
	p := Plan{Len: c.length, Slow: c.fua || u.mode.Load()&modeWCE == 0 || u.atomics.Load()}
	if c.length > 0 {
		p.Dir = DirOut
	}
	return p
}

func execWrite(ctx context.Context, c *Command) error {
	if c.written {
		return c.commit(ctx)
	}
	data, err := c.data()
	if err != nil {
		return err
	}
	u := c.itl.unit
	u.order.RLock()
	if err = c.wiped(); err == nil {
		err = c.put(ctx, data[c.Ahead:], c.offset()+int64(c.Ahead))
	}
	u.order.RUnlock()
	if err != nil {
		return err
	}
	return c.commit(ctx)
}

// WritePiece executes a part of a WRITE, of which the Plan says that it is not
// slow: data that belongs off bytes behind the command's first block. An error is
// for Written; what was written before stays, as after every WRITE that fails.
func (n *Nexus) WritePiece(ctx context.Context, c *Command, data []byte, off int) error {
	u := c.itl.unit
	u.order.RLock()
	defer u.order.RUnlock()
	if err := c.wiped(); err != nil {
		return err
	}
	if err := u.cfg.Volume.WriteAt(ctx, data, c.offset()+int64(off)); err != nil {
		return sense.WriteError(err, c.lba+uint64(off)>>u.shift)
	}
	return nil
}

// Written ends a WRITE whose pieces have been executed, or failed with err. It
// returns false when the unit has lost its write cache meanwhile: then Execute
// makes them durable and ends the command.
func (n *Nexus) Written(c *Command, err error) bool {
	if err == nil && c.itl.unit.mode.Load()&modeWCE == 0 {
		c.written = true
		return false
	}
	n.end(c, err)
	return true
}

// put writes data; the caller holds the unit's order.
func (c *Command) put(ctx context.Context, data []byte, off int64) error {
	if len(data) == 0 {
		return nil
	}
	u := c.itl.unit
	if err := u.cfg.Volume.WriteAt(ctx, data, off); err != nil {
		return sense.WriteError(err, uint64(off)>>u.shift)
	}
	return nil
}

// commit makes a write durable when the command or the lack of a write cache
// asks for it. Every command that changed the volume ends here.
func (c *Command) commit(ctx context.Context) error {
	u := c.itl.unit
	if !c.fua && u.mode.Load()&modeWCE != 0 {
		return nil
	}
	if c.unflushed {
		c.written = true
		return nil
	}
	c.settle()
	if err := u.cfg.Volume.Sync(ctx); err != nil {
		return sense.WriteError(err, c.lba)
	}
	return nil
}

// settle says that only a flush is left.
func (c *Command) settle() {
	if c.Settled != nil {
		c.Settled()
	}
}

// SYNCHRONIZE CACHE flushes the whole volume, whatever part is named, and
// answers afterwards even when IMMED=1: an early GOOD could not be taken back.
func parseSynchronize(c *Command) (Plan, error) {
	return Plan{}, c.extent()
}

func execSynchronize(ctx context.Context, c *Command) error {
	c.fua = true
	return c.commit(ctx)
}

// PRE-FETCH has nothing to do: the page cache reads ahead by itself. GOOD says
// that not all blocks need be in the cache (SBC-3, PRE-FETCH(10)).
func parsePrefetch(c *Command) (Plan, error) {
	return Plan{}, c.extent()
}

// How VERIFY and WRITE AND VERIFY compare: the BYTCHK field (SBC-3, VERIFY(10)).
const (
	verifyMedium = 0 // the blocks can be read
	verifyBytes  = 1 // they are equal to the data
	verifySame   = 3 // each is equal to the one block of data
)

func (c *Command) bytchk() byte { return c.CDB[1] & bytchkBits >> 1 }

func parseVerify(c *Command) (Plan, error) {
	if err := c.transfer(); err != nil {
		return Plan{}, err
	}
	switch c.field = c.bytchk(); c.field {
	case verifyMedium:
		return Plan{}, nil
	case verifyBytes:
	case verifySame:
		c.length = min(c.length, 1<<c.itl.unit.shift)
	default:
		return Plan{}, sense.InvalidField(1, 2)
	}
	if c.length == 0 {
		return Plan{}, nil
	}
	return Plan{Dir: DirOut, Len: c.length}, c.exactly()
}

func execVerify(ctx context.Context, c *Command) error {
	u := c.itl.unit
	if c.field == verifyMedium {
		return c.examine(ctx, c.blocks<<u.shift, func([]byte, uint64) error { return nil })
	}
	data, err := c.allData()
	if err != nil {
		return err
	}
	return u.whole(func() error { return c.compare(ctx, data, c.blocks<<u.shift) })
}

func parseWriteVerify(c *Command) (Plan, error) {
	if err := c.transfer(); err != nil {
		return Plan{}, err
	}
	if c.field = c.bytchk(); c.field > verifyBytes {
		return Plan{}, sense.InvalidField(1, 2)
	}
	c.fua = true // what is verified is the medium (SBC-3)
	return c.planWrite(), nil
}

func execWriteVerify(ctx context.Context, c *Command) error {
	if err := execWrite(ctx, c); err != nil {
		return err
	}
	data, err := c.data()
	if err != nil {
		return err
	}
	if c.field == verifyBytes {
		return c.compare(ctx, data, uint64(len(data)))
	}
	return c.examine(ctx, uint64(len(data)), func([]byte, uint64) error { return nil })
}

// examine reads n bytes from the command's first block on and shows them piece
// by piece, with their distance from the start. A piece has whole blocks.
func (c *Command) examine(ctx context.Context, n uint64, look func(piece []byte, at uint64) error) error {
	u := c.itl.unit
	buf := u.buffers.Get().(*[]byte)
	defer u.buffers.Put(buf)
	for at := uint64(0); at < n; {
		piece := (*buf)[:min(n-at, Chunk)]
		if err := u.cfg.Volume.ReadAt(ctx, piece, c.offset()+int64(at)); err != nil {
			return sense.ReadError(err, c.lba+at>>u.shift)
		}
		if err := look(piece, at); err != nil {
			return err
		}
		at += uint64(len(piece))
	}
	return nil
}

// compare checks that n bytes of the volume are data, repeated as often as that
// takes.
func (c *Command) compare(ctx context.Context, data []byte, n uint64) error {
	return c.examine(ctx, n, func(piece []byte, at uint64) error {
		for len(piece) > 0 {
			from := at % uint64(len(data))
			want := data[from:]
			k := min(len(piece), len(want))
			if !bytes.Equal(piece[:k], want[:k]) {
				return sense.Miscompare(from + uint64(firstDifference(piece[:k], want[:k])))
			}
			piece, at = piece[k:], at+uint64(k)
		}
		return nil
	})
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// COMPARE AND WRITE (SBC-3 §5.2): the first half of the data is what must be
// there, the second half replaces it. No other command sees or changes what is
// between.
func parseCompareWrite(c *Command) (Plan, error) {
	// NUMBER OF LOGICAL BLOCKS is the last byte of what extent reads.
	if c.CDB[10]|c.CDB[11]|c.CDB[12] != 0 {
		return Plan{}, sense.InvalidField(10, 7)
	}
	if err := c.transfer(); err != nil {
		return Plan{}, err
	}
	c.length *= 2
	return c.planAtomic()
}

// planAtomic plans a read-modify-write: from now on writes to the unit may have
// to wait for one.
func (c *Command) planAtomic() (Plan, error) {
	if err := c.exactly(); err != nil || c.length == 0 {
		return Plan{}, err
	}
	c.fua = c.CDB[1]&fuaBit != 0
	c.itl.unit.atomics.Store(true)
	return c.planWrite(), nil
}

func execCompareWrite(ctx context.Context, c *Command) error {
	data, err := c.allData()
	if err != nil || len(data) == 0 {
		return err
	}
	half := len(data) / 2
	if err := c.swap(ctx, data[:half], data[half:]); err != nil {
		return err
	}
	return c.commit(ctx)
}

func (c *Command) swap(ctx context.Context, old, new []byte) error {
	u := c.itl.unit
	u.order.Lock()
	defer u.order.Unlock()
	if err := c.wiped(); err != nil {
		return err
	}
	if err := c.compare(ctx, old, uint64(len(old))); err != nil {
		return err
	}
	return c.put(ctx, new, c.offset())
}

// ORWRITE(16) (SBC-3) sets bits; like COMPARE AND WRITE it is atomic.
func parseOrWrite(c *Command) (Plan, error) {
	if err := c.transfer(); err != nil {
		return Plan{}, err
	}
	return c.planAtomic()
}

func execOrWrite(ctx context.Context, c *Command) error {
	data, err := c.allData()
	if err != nil || len(data) == 0 {
		return err
	}
	if err := c.or(ctx, data); err != nil {
		return err
	}
	return c.commit(ctx)
}

func (c *Command) or(ctx context.Context, data []byte) error {
	u := c.itl.unit
	u.order.Lock()
	defer u.order.Unlock()
	if err := c.wiped(); err != nil {
		return err
	}
	return c.examine(ctx, uint64(len(data)), func(piece []byte, at uint64) error {
		for i := range piece {
			piece[i] |= data[at+uint64(i)]
		}
		return c.put(ctx, piece, c.offset()+int64(at))
	})
}
