package scsi

import (
	"context"
	"encoding/binary"

	"lunboot/services/iscsi/scsi/sense"
)

// Limits that VPD page B0h announces.
const (
	maxTransfer     = 8 << 20 // bytes that one command moves
	optimalTransfer = 1 << 20 // bytes
	maxUnmapBlocks  = 1 << 20 // of one UNMAP, all descriptors together
	maxUnmapRanges  = 256     // descriptors of one UNMAP
	maxWriteSame    = 0xfff8  // blocks; the most whole granules that WRITE SAME(10) can say
	maxCompareWrite = 255     // blocks
)

// maxParameterData bounds what a parameter data command is planned to return;
// it is longer than the longest list of LUNs.
const maxParameterData = 1 << 18

// Chunk is how much of a volume is held at a time by commands that look at data
// without sending it.
const Chunk = 256 << 10

// Bits of byte 1 of the medium access commands (SBC-3 §5).
const (
	protectBits = 0xe0 // RDPROTECT, WRPROTECT, VRPROTECT, ORPROTECT
	fuaBit      = 0x08
	bytchkBits  = 0x06
)

func parseNothing(*Command) (Plan, error) { return Plan{}, nil }

func execNothing(context.Context, *Command) error { return nil }

// extent reads LOGICAL BLOCK ADDRESS and the length in blocks, which stand at
// the same places in every CDB of one length (SPC-4 §4.2.2), and checks that
// the volume has the blocks.
func (c *Command) extent() error {
	cdb := &c.CDB
	switch cdb[0] >> 5 {
	case 0: // 6 bytes; a length of 0 is 256 blocks (SBC-3, READ(6))
		c.lba = uint64(cdb[1]&0x1f)<<16 | uint64(cdb[2])<<8 | uint64(cdb[3])
		if c.blocks = uint64(cdb[4]); c.blocks == 0 {
			c.blocks = 256
		}
	case 1, 2: // 10 bytes
		c.lba = uint64(binary.BigEndian.Uint32(cdb[2:]))
		c.blocks = uint64(binary.BigEndian.Uint16(cdb[7:]))
	case 5: // 12 bytes
		c.lba = uint64(binary.BigEndian.Uint32(cdb[2:]))
		c.blocks = uint64(binary.BigEndian.Uint32(cdb[6:]))
	default: // 16 bytes
		c.lba = binary.BigEndian.Uint64(cdb[2:])
		c.blocks = uint64(binary.BigEndian.Uint32(cdb[10:]))
	}
	return c.inRange()
}

// inRange checks the blocks against the capacity (SBC-3 §4). A command for
// no blocks may stand at the end, but not behind it.
func (c *Command) inRange() error {
	return checkRange(c.itl.unit.blocks(), c.lba, c.blocks)
}

func checkRange(capacity, lba, blocks uint64) error {
	if lba > capacity || blocks > capacity-lba {
		return sense.OutOfRange(max(lba, capacity))
	}
	return nil
}

// lengthField is the octet where the length of the CDB begins.
func (c *Command) lengthField() int {
	switch c.CDB[0] >> 5 {
	case 0:
		return 4
	case 1, 2:
		return 7
	case 5:
		return 6
	}
	return 10
}

// transfer is extent for commands that move the blocks or compare them: the
// length is limited, and protection information is refused because no unit is
// formatted with it (SBC-3, protection information).
func (c *Command) transfer() error {
	if c.CDB[0]>>5 != 0 && c.CDB[1]&protectBits != 0 {
		return sense.InvalidField(1, 7)
	}
	if err := c.extent(); err != nil {
		return err
	}
	u := c.itl.unit
	if c.blocks > maxTransfer>>u.shift {
		return sense.InvalidField(c.lengthField(), 7)
	}
	c.length = int(c.blocks) << u.shift
	return nil
}

// offset is where the command's blocks begin in the volume, in bytes.
func (c *Command) offset() int64 { return int64(c.lba) << c.itl.unit.shift }

// allocation plans a command that returns parameter data.
func (c *Command) allocation(n uint32) Plan {
	c.length = int(min(n, maxParameterData))
	return Plan{Dir: DirIn, Len: c.length}
}

// parseAllocation10 is for commands whose CDB holds nothing else to look at than
// an allocation length in bytes 10 to 13.
func parseAllocation10(c *Command) (Plan, error) {
	return c.allocation(binary.BigEndian.Uint32(c.CDB[10:])), nil
}

// reply returns parameter data, cut at the allocation length (SPC-4 §4.2.5.6).
func (c *Command) reply(b []byte) error {
	c.In = append(c.In[:0], b[:min(len(b), c.length)]...)
	return nil
}

// parameterList plans a command that takes a parameter list of n bytes.
func (c *Command) parameterList(n int) Plan {
	c.length = n
	if n == 0 {
		return Plan{}
	}
	return Plan{Dir: DirOut, Len: n}
}

// list returns the whole parameter list: a shorter one is a PARAMETER LIST
// LENGTH ERROR.
func (c *Command) list() ([]byte, error) {
	if len(c.Out) < c.length {
		return nil, sense.ParameterLength
	}
	return c.Out[:c.length], nil
}

// data returns the blocks to write. An initiator that announced less than the
// CDB says has less written and reads of it in the residual count (RFC 7143
// §11.4.5.2); anything else that is missing is an error of the transfer.
func (c *Command) data() ([]byte, error) {
	n := min(c.length, c.Expected)
	if len(c.Out) < n {
		return nil, sense.DataPhase
	}
	return c.Out[:n], nil
}

// exactly demands that the initiator announced the data that the CDB says, for
// commands to which a part makes no sense. A length that wrapped around in the
// CDB, such as a COMPARE AND WRITE of 256 blocks, ends here.
func (c *Command) exactly() error {
	if c.Expected != c.length {
		return sense.InvalidField(c.lengthField(), 7)
	}
	return nil
}

// allData returns data that exactly vouched for.
func (c *Command) allData() ([]byte, error) {
	if len(c.Out) < c.length {
		return nil, sense.DataPhase
	}
	return c.Out[:c.length], nil
}
