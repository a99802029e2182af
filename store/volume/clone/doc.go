// Package clone is the copy-on-write layer of a volume: a writable (or frozen)
// piece of bytes over an immutable parent, which may be such a layer itself.
//
// A layer is two files. The data file is sparse, as large as the layer, and
// holds every byte at its own offset. The map file says for each granule of
// 4 KiB where its bytes are, in two bits:
//
//	00  below: the parent's bytes; zero behind the parent's end
//	01  here: the data file's bytes
//	10  zero: it was unmapped, and never shows the parent's bytes again
//	11  nothing: damage
//
// Nothing returns to 00 but by dropping the layer. What the data file holds
// under 00 and 10 is never looked at, since bytes of a write whose state a crash
// took back may lie there: a granule becomes 01 only when all of it is written.
// All numbers are little-endian:
//
//	map file   0       4096     8192     12288    16384    20480
//	           +-------+--------+--------+--------+--------+--------+--
//	           |header | page 0 | page 0 | page 1 | page 1 | page 2 | ...
//	           |       | slot 0 | slot 1 | slot 0 | slot 1 | slot 0 |
//	           +-------+--------+--------+--------+--------+--------+--
//
//	header     the same 512 bytes eight times over, written once, never changed
//	             0  8  "LBCLONE\n"
//	             8  4  version of the format: 1
//	            12  4  bytes of a granule: 4096
//	            16 16  UUID of the layer
//	            32 16  UUID of the parent, a layer too
//	            48  8  bytes of the parent
//	            56  8  bytes of the layer when it was made; it may have grown
//	            64  4  bytes of a logical block
//	            68     zero
//	           508  4  CRC32C of bytes 0 to 507
//
//	slot       eight sectors of 512 bytes, each with 1968 states
//	             0  8  sequence number of the slot
//	             8  8  sequence number of the other slot, at that time on disk
//	            16  4  CRC32C of the layer's UUID, the sector's offset in the
//	                   file (8 bytes), bytes 0 to 15 and bytes 20 to 511
//	            20 492 states, the lowest two bits of the first byte first
//
// A page has 15,744 states, 61.5 MiB of the volume. Page 0 begins with granule
// 0. Its slots are written in turn: odd sequence numbers to slot 1, even ones to
// slot 0. A sector of zeros was never written and has the sequence number 0. No
// number is used twice, also not after a write that failed or a crash: two
// attempts with one number could not be told apart when each left a half.
//
// Reading a page, sectors whose CRC is wrong, and sectors older than the other
// slot says they were, are damaged. A slot whose intact sectors have different
// numbers was being written when the power failed: its flush was never
// acknowledged, and the other slot is the page. Otherwise the higher number is
// the page. A damaged sector of that slot is damage of the range that it speaks
// of: reading there fails, the layer is read-only, and no older copy takes its
// place, since that would hand out the parent's bytes for what a machine wrote.
// A slot without one intact sector may have been the newer one: then all of the
// page is damaged. Damage of the older copy costs nothing; Check names it.
//
// A flush copies the dirty pages, makes the data file durable, writes the
// copies to their older slots and makes the map durable. The copy comes first:
// a state is set in memory after its bytes were written, so what is in the copy
// is in the data file that is made durable next, and a state reaches the disk
// only after its bytes. After a crash a sector is what was flushed or what was
// written since, and never a hole in place of the parent's bytes. Opening for
// writing makes the map durable once, since after the death of the process the
// newer slot may be in the page cache alone, and the next flush would write over
// the only one on the disk.
//
// A page's two slots are written with zeros before its first state is set, so
// that a full disk refuses the write which needs room and not the flush after
// it.
package clone
