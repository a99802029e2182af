package image

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"lunboot/store"
)

// vhdx is a disk of Hyper-V in blocks that one table finds ([MS-VHDX], of which
// the names are). A file that was not closed has changes in its log, which are
// laid over it in memory; the file is never written.
type vhdx struct {
	neverPacks
	blockSize int64
	ratio     int64 // blocks between two entries for sector bitmaps
	tableAt   int64
	table     *window
}

// Structures and their fields, little-endian, by their offset in bytes.
const (
	vhdxMagic      = "vhdxfile"
	vhdxHeader     = "head"
	vhdxRegions    = "regi"
	vhdxMetadata   = "metadata"
	vhdxHeaderAt   = 64 << 10 // two of them, one behind the other
	vhdxHeaderSize = 4 << 10
	vhdxRegionsAt  = 192 << 10 // two as well
	vhdxPart       = 64 << 10  // the distance between these, and the length of a region table
	vhdxHeadEnd    = 1 << 20

	vhdxChecksum   = 4 // of headers, region tables and log entries
	vhdxSequence   = 8
	vhdxLogGUID    = 48
	vhdxLogVersion = 64
	vhdxVersion    = 66
	vhdxLogLength  = 68
	vhdxLogAt      = 72

	vhdxMaxEntries = 2047 // of a region table and of a metadata table
	vhdxEntrySize  = 32
	vhdxItemsAt    = 64 << 10 // items come behind the metadata table

	vhdxMinBlock  = 1 << 20
	vhdxMaxBlock  = 256 << 20
	vhdxChunk     = 1 << 23 // sectors that one sector bitmap is for
	vhdxHasParent = 1 << 1
	vhdxRequired  = 1 // of a region; bit 2 of a metadata item
)

// States of a block.
const (
	vhdxStateMask  = 7
	vhdxNowhere    = 0
	vhdxUndefined  = 1
	vhdxZero       = 2
	vhdxUnmapped   = 3
	vhdxUnmapped95 = 5 // of the specification's version 0.95, which QEMU reads
	vhdxPresent    = 6
	vhdxPartly     = 7
	vhdxPlace      = ^uint64(1<<20 - 1)
)

// guid is one in the order of the file's bytes.
type guid [16]byte

// The regions and the metadata items that are known.
var (
	vhdxBATRegion  = guid{0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08}
	vhdxMetaRegion = guid{0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e}
	vhdxParameters = guid{0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b}
	vhdxDiskSize   = guid{0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8}
	vhdxPage83     = guid{0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46}
	vhdxLogical    = guid{0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f}
	vhdxPhysical   = guid{0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56}
	vhdxParent     = guid{0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c}
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// vhdxSum reports whether the checksum of a structure, in which its own field
// counts as zeros, is right.
func vhdxSum(b []byte) bool { return vhdxSumOf(b) == binary.LittleEndian.Uint32(b[vhdxChecksum:]) }

func vhdxSumOf(b []byte) uint32 {
	n := crc32.Update(0, castagnoli, b[:vhdxChecksum])
	n = crc32.Update(n, castagnoli, make([]byte, 4))
	return crc32.Update(n, castagnoli, b[vhdxChecksum+4:])
}

const wholeVHDX = "make it whole, by merging it into its parent on the machine that has both"

func (i *Image) openVHDX() error {
	if i.fileSize < vhdxHeadEnd {
		return cut("the image's head", vhdxHeadEnd, i.fileSize)
	}
	h, err := i.vhdxHead()
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	i.tables = []extent{{0, vhdxHeadEnd, "its head"}}
	if log := (extent{int64(le.Uint64(h[vhdxLogAt:])), int64(le.Uint32(h[vhdxLogLength:])), "its log"}); log.n > 0 {
		if log.at < vhdxHeadEnd || log.at%vhdxHeadEnd != 0 || log.n%vhdxHeadEnd != 0 || log.at > i.fileSize-log.n {
			return invalid("the image's log is said to have %d bytes at byte %d, and the file ends at %d: it was cut short, or is damaged; copy it again", log.n, uint64(log.at), i.fileSize)
		}
		i.tables = append(i.tables, log)
	}
	if id := guid(h[vhdxLogGUID:]); id != (guid{}) {
		if v := le.Uint16(h[vhdxLogVersion:]); v != 0 {
			return invalid("the image was not closed, and its log is of version %d, which is not known; start and shut down the machine that it belongs to, and copy it again", v)
		}
		if len(i.tables) == 1 {
			return invalid("the image was not closed and has no log; it is damaged")
		}
		if err := i.replayVHDX(id, i.tables[1]); err != nil {
			return err
		}
	}
	bat, meta, err := i.vhdxFind()
	if err != nil {
		return err
	}
	i.tables = append(i.tables, bat, meta)
	v := &vhdx{tableAt: bat.at}
	if err := i.vhdxDisk(v, meta); err != nil {
		return err
	}
	last := (i.size - 1) / v.blockSize
	if need := last + last/v.ratio + 1; i.size > 0 && need > bat.n/8 {
		return invalid("the image's table of blocks has %d entries, and a disk of %d bytes needs %d; it is damaged", bat.n/8, i.size, need)
	}
	v.table = newWindow(i.file, i.fileSize)
	i.layout = v
	return nil
}

// vhdxHead returns the header that is in force.
func (i *Image) vhdxHead() ([]byte, error) {
	var best []byte
	le := binary.LittleEndian
	for n := range int64(2) {
		h := make([]byte, vhdxHeaderSize)
		if err := readFull(i.file, h, vhdxHeaderAt+n*vhdxPart); err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(h, []byte(vhdxHeader)) || !vhdxSum(h) {
			continue
		}
		if best == nil || le.Uint64(h[vhdxSequence:]) > le.Uint64(best[vhdxSequence:]) {
			best = h
		}
	}
	if best == nil {
		return nil, invalid("neither of the image's two headers has a right checksum; it is damaged, copy it again")
	}
	if v := le.Uint16(best[vhdxVersion:]); v != 1 {
		return nil, invalid("the image is VHDX of version %d, and version 1 is known; %s", v, convert)
	}
	return best, nil
}

// vhdxFind returns the places of the table of blocks and of the metadata.
func (i *Image) vhdxFind() (bat, meta extent, err error) {
	le := binary.LittleEndian
	b := make([]byte, vhdxPart)
	whole := false
	for n := int64(0); n < 2 && !whole; n++ {
		if err := readFull(i.file, b, vhdxRegionsAt+n*vhdxPart); err != nil {
			return bat, meta, err
		}
		whole = bytes.HasPrefix(b, []byte(vhdxRegions)) && vhdxSum(b)
	}
	if !whole {
		return bat, meta, invalid("neither of the image's two region tables has a right checksum; it is damaged, copy it again")
	}
	count := le.Uint32(b[8:])
	if count > vhdxMaxEntries {
		return bat, meta, invalid("the image says that it has %d regions, and %d are possible; it is damaged", count, vhdxMaxEntries)
	}
	for e := b[16:][:count*vhdxEntrySize]; len(e) > 0; e = e[vhdxEntrySize:] {
		r := extent{at: int64(le.Uint64(e[16:])), n: int64(le.Uint32(e[24:]))}
		var into *extent
		switch guid(e) {
		case vhdxBATRegion:
			into, r.what = &bat, "its table of blocks"
		case vhdxMetaRegion:
			into, r.what = &meta, "its metadata"
		default:
			if le.Uint32(e[28:])&vhdxRequired != 0 {
				return bat, meta, invalid("the image needs a region that is not known (%x); %s", e[:16], convert)
			}
			continue
		}
		switch {
		case into.n != 0:
			return bat, meta, invalid("the image has two places for %s; it is damaged", r.what)
		case r.at < vhdxHeadEnd || r.at%vhdxHeadEnd != 0 || r.n == 0 || r.n%vhdxHeadEnd != 0:
			return bat, meta, invalid("the image says that %s has %d bytes at byte %d; it is damaged", r.what, r.n, uint64(r.at))
		case r.at > i.fileSize-r.n:
			return bat, meta, cut(r.what, r.at+r.n, i.fileSize)
		}
		*into = r
	}
	if bat.n == 0 || meta.n == 0 {
		return bat, meta, invalid("the image has no table of blocks, or no metadata; it is damaged")
	}
	return bat, meta, nil
}

// vhdxDisk reads what the metadata say about the disk.
func (i *Image) vhdxDisk(v *vhdx, meta extent) error {
	le := binary.LittleEndian
	b := make([]byte, vhdxItemsAt)
	if err := readFull(i.file, b, meta.at); err != nil {
		return err
	}
	if !bytes.HasPrefix(b, []byte(vhdxMetadata)) {
		return invalid("the image's metadata do not begin as they have to; it is damaged, copy it again")
	}
	count := int(le.Uint16(b[10:]))
	if count > vhdxMaxEntries {
		return invalid("the image says that it has %d metadata items, and %d are possible; it is damaged", count, vhdxMaxEntries)
	}
	lengths := map[guid]int64{vhdxParameters: 8, vhdxDiskSize: 8, vhdxLogical: 4}
	items := map[guid][]byte{}
	for e := b[32:][:count*vhdxEntrySize]; len(e) > 0; e = e[vhdxEntrySize:] {
		id, at, n, flags := guid(e), int64(le.Uint32(e[16:])), int64(le.Uint32(e[20:])), le.Uint32(e[24:])
		want, known := lengths[id]
		switch {
		case id == vhdxPage83 || id == vhdxPhysical || id == vhdxParent:
			continue
		case !known && flags&(vhdxRequired<<2) != 0:
			return invalid("the image needs a metadata item that is not known (%x); %s", e[:16], convert)
		case !known:
			continue
		case n != want || at < vhdxItemsAt || at > meta.n-n || items[id] != nil:
			return invalid("the image has a metadata item of %d bytes at byte %d of its metadata, where it cannot be; it is damaged", n, at)
		}
		items[id] = make([]byte, n)
		if err := readFull(i.file, items[id], meta.at+at); err != nil {
			return err
		}
	}
	if len(items) != len(lengths) {
		return invalid("the image's metadata do not have the disk's size, its sectors and its blocks; it is damaged")
	}
	v.blockSize = int64(le.Uint32(items[vhdxParameters]))
	if le.Uint32(items[vhdxParameters][4:])&vhdxHasParent != 0 {
		return invalid("the image holds only the difference to another file; %s", wholeVHDX)
	}
	if v.blockSize < vhdxMinBlock || v.blockSize > vhdxMaxBlock || v.blockSize&(v.blockSize-1) != 0 {
		return invalid("the image says that its blocks have %d bytes, and 1 MiB to 256 MiB are possible; it is damaged", v.blockSize)
	}
	i.blockSize = int(le.Uint32(items[vhdxLogical]))
	if i.blockSize != 512 && i.blockSize != 4096 {
		return invalid("the image says that its sectors have %d bytes, and 512 and 4096 are possible; it is damaged", uint32(i.blockSize))
	}
	size := le.Uint64(items[vhdxDiskSize])
	if size > uint64(store.MaxVolumeSize) {
		return invalid("the image says that its disk has %d bytes, and a volume has at most %s", size, store.Bytes(store.MaxVolumeSize))
	}
	if size%uint64(i.blockSize) != 0 {
		return invalid("the image says that its disk has %d bytes, which are no whole sectors of %d; it is damaged", size, i.blockSize)
	}
	i.size, v.ratio = int64(size), int64(vhdxChunk)*int64(i.blockSize)/v.blockSize
	return nil
}

func (v *vhdx) span(off int64) (span, error) {
	n, in := off/v.blockSize, off%v.blockSize
	place := v.tableAt + 8*(n+n/v.ratio)
	e, err := v.table.entry(place, 8, "table of blocks", off)
	if err != nil {
		return span{}, err
	}
	entry, end := binary.LittleEndian.Uint64(e), (n+1)*v.blockSize
	switch state := entry & vhdxStateMask; state {
	case vhdxNowhere, vhdxUndefined, vhdxZero, vhdxUnmapped, vhdxUnmapped95:
		more := v.table.same(place, 8, v.ratio-1-n%v.ratio)
		return span{held: hole, end: end + more*v.blockSize}, nil
	case vhdxPresent:
		at := int64(entry & vhdxPlace)
		if at < 0 {
			return span{}, invalid("the image has a block for byte %d of the disk at byte %d of the file, where no file has bytes; it is damaged", off, uint64(at))
		}
		return span{held: stored, at: at + in, end: end}, nil
	case vhdxPartly:
		return span{}, invalid("the image has a block, for byte %d of the disk, of which a part is in another file, and names no other file; it is damaged", off)
	default:
		return span{}, invalid("the image has a block, for byte %d of the disk, in a state that is not known (%d); it is damaged", off, state)
	}
}
