package scsi

import (
	"bytes"
	"context"
	"encoding/binary"

	"lunboot/services/iscsi/scsi/sense"
)

func parseUnmap(c *Command) (Plan, error) {
	if c.CDB[1]&0x01 != 0 { // ANCHOR, which ANC_SUP=0 denies
		return Plan{}, sense.InvalidField(1, 0)
	}
	return c.parameterList(int(binary.BigEndian.Uint16(c.CDB[7:]))), nil
}

// unmapRange is an UNMAP block descriptor (SBC-3, UNMAP).
type unmapRange struct{ lba, blocks uint64 }

// execUnmap checks every descriptor before it unmaps anything.
func execUnmap(ctx context.Context, c *Command) error {
	list, err := c.list()
	if err != nil || len(list) == 0 {
		return err
	}
	u := c.itl.unit
	ranges, err := unmapRanges(list, u.blocks())
	if err != nil {
		return err
	}
	u.order.RLock()
	if err = c.wiped(); err == nil {
		err = c.unmap(ctx, ranges)
	}
	u.order.RUnlock()
	if err != nil {
		return err
	}
	return c.commit(ctx)
}

func (c *Command) unmap(ctx context.Context, ranges []unmapRange) error {
	u := c.itl.unit
	if v, ok := u.cfg.Volume.(Foreseeing); ok && len(ranges) > 1 {
		err := v.Foresee(ctx, func(yield func(off, n int64) bool) {
			for _, r := range ranges {
				if !yield(int64(r.lba)<<u.shift, int64(r.blocks)<<u.shift) {
					return
				}
			}
		})
		if err != nil {
			return sense.WriteError(err, ranges[0].lba)
		}
	}
	for _, r := range ranges {
		if r.blocks == 0 {
			continue
		}
		if err := u.cfg.Volume.Unmap(ctx, int64(r.lba)<<u.shift, int64(r.blocks)<<u.shift); err != nil {
			return sense.WriteError(err, r.lba)
		}
	}
	return nil
}

// unmapRanges reads the UNMAP parameter list. A descriptor that is cut off is
// not one (SBC-3, UNMAP).
func unmapRanges(list []byte, capacity uint64) ([]unmapRange, error) {
	if len(list) < 8 {
		return nil, sense.ParameterLength
	}
	body := list[8:]
	body = body[:min(len(body), int(binary.BigEndian.Uint16(list[2:])))]
	if len(body)/16 > maxUnmapRanges {
		return nil, sense.InvalidParameter(2)
	}
	ranges := make([]unmapRange, 0, len(body)/16)
	var total uint64
	for at := 8; len(body) >= 16; at, body = at+16, body[16:] {
		r := unmapRange{binary.BigEndian.Uint64(body), uint64(binary.BigEndian.Uint32(body[8:]))}
		if err := checkRange(capacity, r.lba, r.blocks); err != nil {
			return nil, err
		}
		if total += r.blocks; total > maxUnmapBlocks {
			return nil, sense.InvalidParameter(at + 8)
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

// Bits of byte 1 of WRITE SAME (SBC-3).
const (
	sameNDOB   = 0x01 // no data out: zeros; WRITE SAME(16) only
	sameUnmap  = 0x08
	sameAnchor = 0x10
	sameOld    = 0x06 // LBDATA, PBDATA: obsolete
)

func parseWriteSame(c *Command) (Plan, error) {
	c.flags = c.CDB[1]
	wide := c.CDB[0]>>5 == 4
	switch {
	case c.flags&protectBits != 0:
		return Plan{}, sense.InvalidField(1, 7)
	case c.flags&sameAnchor != 0:
		return Plan{}, sense.InvalidField(1, 4)
	case c.flags&sameOld != 0:
		return Plan{}, sense.InvalidField(1, 2)
	case !wide && c.flags&sameNDOB != 0:
		return Plan{}, sense.InvalidField(1, 0)
	}
	err := c.extent()
	if c.blocks == 0 || c.blocks > maxWriteSame { // WSNZ=1
		return Plan{}, sense.InvalidField(c.lengthField(), 7)
	}
	if err != nil || c.flags&sameNDOB != 0 {
		return Plan{}, err
	}
	c.length = c.itl.unit.cfg.BlockSize
	return Plan{Dir: DirOut, Len: c.length}, c.exactly()
}

func execWriteSame(ctx context.Context, c *Command) error {
	block, err := c.allData()
	if err != nil {
		return err
	}
	u := c.itl.unit
	u.order.RLock()
	if err = c.wiped(); err == nil {
		err = c.fill(ctx, block)
	}
	u.order.RUnlock()
	if err != nil {
		return err
	}
	return c.commit(ctx)
}

// fill writes the block to each of the command's blocks; no block means zeros.
// UNMAP=1 unmaps only when the initiator can read back what it sent (SBC-3,
// logical block provisioning): unmapped blocks read zero here.
func (c *Command) fill(ctx context.Context, block []byte) error {
	u := c.itl.unit
	v, off, n := u.cfg.Volume, c.offset(), int64(c.blocks)<<u.shift
	if !isZero(block) {
		return c.repeat(ctx, block, off, n)
	}
	zero := v.Zero
	if c.flags&sameUnmap != 0 {
		zero = v.Unmap
	}
	if err := zero(ctx, off, n); err != nil {
		return sense.WriteError(err, c.lba)
	}
	return nil
}

func (c *Command) repeat(ctx context.Context, block []byte, off, n int64) error {
	u := c.itl.unit
	buf := u.buffers.Get().(*[]byte)
	defer u.buffers.Put(buf)
	pattern := (*buf)[:min(n, Chunk)]
	for at := 0; at < len(pattern); at += len(block) {
		copy(pattern[at:], block)
	}
	for n > 0 {
		k := min(n, int64(len(pattern)))
		if err := c.put(ctx, pattern[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

func isZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

func parseGetLBAStatus(c *Command) (Plan, error) {
	c.lba = binary.BigEndian.Uint64(c.CDB[2:])
	if c.lba >= c.itl.unit.blocks() {
		return Plan{}, sense.OutOfRange(c.lba)
	}
	return c.allocation(binary.BigEndian.Uint32(c.CDB[10:])), nil
}

// Bounds of one GET LBA STATUS; what is left out is asked for next.
const (
	maxStatusRanges  = 256
	maxStatusQueries = 4096
)

// execGetLBAStatus describes the blocks from the one asked for on (SBC-3),
// neighbours of one status in one descriptor.
func execGetLBAStatus(ctx context.Context, c *Command) error {
	const mapped, deallocated = 0x00, 0x01
	u := c.itl.unit
	b := make([]byte, 8, 8+16*maxStatusRanges)
	lba, end := c.lba, u.blocks()
	room := min(max((c.length-8)/16, 1), maxStatusRanges)
	for q := 0; q < maxStatusQueries && lba < end; q++ {
		isMapped, run, err := u.cfg.Volume.BlockStatus(ctx, int64(lba)<<u.shift, int64(end-lba)<<u.shift)
		if err != nil {
			return sense.ReadError(err, lba)
		}
		// A run that ends within a block leaves that block mapped: it can
		// hold data.
		blocks := min(uint64(max(run, 0))>>u.shift, end-lba, 1<<31)
		if blocks == 0 {
			isMapped, blocks = true, 1
		}
		status := byte(deallocated)
		if isMapped {
			status = mapped
		}
		if last := len(b) - 16; last >= 8 && b[last+12] == status {
			n := uint64(binary.BigEndian.Uint32(b[last+8:])) + blocks
			if n <= 0xffffffff {
				binary.BigEndian.PutUint32(b[last+8:], uint32(n))
				lba += blocks
				continue
			}
		}
		if (len(b)-8)/16 == room {
			break
		}
		b = binary.BigEndian.AppendUint64(b, lba)
		b = binary.BigEndian.AppendUint32(b, uint32(blocks))
		b = append(b, status, 0, 0, 0)
		lba += blocks
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return c.reply(b)
}
