package image

import (
	"bytes"
	"encoding/binary"
	"math"

	"lunboot/store"
)

// vhd is a disk of Virtual PC and the first Hyper-V: fixed, which is raw with a
// footer, or dynamic, in blocks that one table finds ("Virtual Hard Disk Image
// Format Specification", version 1.0, of which the names are).
type vhd struct {
	neverPacks
	blockSize int64
	bitmap    int64 // bytes of the sector bitmap before each block
	tableAt   int64
	table     *window // nil: fixed
}

// The footer's fields, big-endian, by their offset in bytes. A dynamic disk has
// a copy of the footer at its beginning.
const (
	vhdDataOffset = 16
	vhdCreator    = 28
	vhdSize       = 48
	vhdCylinders  = 56
	vhdHeads      = 58
	vhdSectors    = 59
	vhdType       = 60
	vhdChecksum   = 64
)

// And those of a dynamic disk's header.
const (
	vhdHeaderSize  = 1024
	vhdHeadCookie  = "cxsparse"
	vhdTableOffset = 16
	vhdEntries     = 28
	vhdBlockSize   = 32
	vhdHeaderSum   = 36
)

const (
	vhdFixed        = 2
	vhdDynamic      = 3
	vhdDifferencing = 4
	vhdUnused       = math.MaxUint32
	vhdMaxGeometry  = 65535 * 16 * 255 // sectors; what is larger has no geometry
	vhdMaxBlock     = 256 << 20        // bytes; 2 MiB is usual
)

func (i *Image) openVHD() error {
	foot, at, err := i.vhdFooter()
	if err != nil {
		return err
	}
	be := binary.BigEndian
	i.size = vhdDiskSize(foot)
	if i.size < 0 || i.size > store.MaxVolumeSize {
		return invalid("the image says that its disk has %d bytes, and a volume has at most %s", uint64(i.size), store.Bytes(store.MaxVolumeSize))
	}
	switch kind := be.Uint32(foot[vhdType:]); kind {
	case vhdFixed:
		if at == 0 || i.size > at {
			return invalid("the image says that its disk has %d bytes, and the file has %d before its footer: it was cut short, or is damaged; copy it again", i.size, at)
		}
		head, err := readUpTo(i.file, 0, int64(len(vhdCookie)))
		if err != nil {
			return err
		} else if string(head) == vhdCookie {
			return invalid("the image says that it is a fixed VHD and begins as a dynamic one; it is damaged")
		}
		i.layout = &vhd{}
		return nil
	case vhdDynamic:
		return i.openDynamicVHD(be.Uint64(foot[vhdDataOffset:]))
	case vhdDifferencing:
		return invalid("the image holds only the difference to another file; make it whole, by merging it into its parent on the machine that has both")
	default:
		return invalid("the image is a VHD of type %d, and fixed (2) and dynamic (3) are known; it is damaged", kind)
	}
}

// vhdFooter finds the footer, or its copy, and the end of what is before it. The
// copy is for files whose end was lost; that of Virtual PC before 2004 has 511
// bytes.
func (i *Image) vhdFooter() (foot []byte, at int64, err error) {
	if i.fileSize < footSize {
		return nil, 0, cut("the footer", footSize, i.fileSize)
	}
	for _, at := range []int64{i.fileSize - footSize, i.fileSize - footSize + 1, 0} {
		b, err := readUpTo(i.file, at, min(footSize, i.fileSize-at))
		if err != nil {
			return nil, 0, err
		}
		if !bytes.HasPrefix(b, []byte(vhdCookie)) {
			continue
		}
		if b = append(b, make([]byte, footSize-len(b))...); vhdSum(b, vhdChecksum) == binary.BigEndian.Uint32(b[vhdChecksum:]) {
			return b, at, nil
		}
	}
	return nil, 0, invalid("the image's VHD footer has a wrong checksum; it is damaged, copy it again")
}

// vhdSum is the checksum of a footer or header, in which its own field counts
// as zeros.
func vhdSum(b []byte, field int) uint32 {
	var n uint32
	for i, c := range b {
		if i < field || i >= field+4 {
			n += uint32(c)
		}
	}
	return ^n
}

// vhdDiskSize is what the machine saw, in bytes: Virtual PC and its like go by
// the geometry, which is rounded, the others by the size. The geometry's largest
// value says nothing (QEMU block/vpc.c).
func vhdDiskSize(foot []byte) int64 {
	be := binary.BigEndian
	sectors := int64(be.Uint16(foot[vhdCylinders:])) * int64(foot[vhdHeads]) * int64(foot[vhdSectors])
	switch string(foot[vhdCreator : vhdCreator+4]) {
	case "vpc ", "vs  ", "qemu":
		if sectors != vhdMaxGeometry {
			return sectors * 512
		}
	}
	return int64(be.Uint64(foot[vhdSize:]))
}

func (i *Image) openDynamicVHD(at uint64) error {
	if at > uint64(i.fileSize) || int64(at) > i.fileSize-vhdHeaderSize {
		return invalid("the image's header is said to be at byte %d and the file ends at %d: it was cut short, or is damaged; copy it again", at, i.fileSize)
	}
	h := make([]byte, vhdHeaderSize)
	if err := readFull(i.file, h, int64(at)); err != nil {
		return err
	}
	be := binary.BigEndian
	if !bytes.HasPrefix(h, []byte(vhdHeadCookie)) || vhdSum(h, vhdHeaderSum) != be.Uint32(h[vhdHeaderSum:]) {
		return invalid("the image's header for a dynamic disk has a wrong checksum; it is damaged, copy it again")
	}
	v := &vhd{blockSize: int64(be.Uint32(h[vhdBlockSize:])), tableAt: int64(be.Uint64(h[vhdTableOffset:]))}
	entries := int64(be.Uint32(h[vhdEntries:]))
	if v.blockSize < 512 || v.blockSize > vhdMaxBlock || v.blockSize&(v.blockSize-1) != 0 {
		return invalid("the image says that its blocks have %d bytes; it is damaged", v.blockSize)
	}
	if need := (i.size + v.blockSize - 1) / v.blockSize; entries < need {
		return invalid("the image's table has %d entries, and a disk of %d bytes needs %d; it is damaged", entries, i.size, need)
	}
	if v.tableAt < 0 || v.tableAt%512 != 0 || v.tableAt > i.fileSize || entries*4 > i.fileSize-v.tableAt {
		return invalid("the image's table is said to be at byte %d, with %d entries, and the file ends at %d: it was cut short, or is damaged; copy it again", uint64(v.tableAt), entries, i.fileSize)
	}
	v.bitmap = (v.blockSize/512/8 + 511) / 512 * 512
	v.table = newWindow(i.file, i.fileSize)
	i.tables = []extent{
		{0, footSize, "the copy of its footer"},
		{int64(at), vhdHeaderSize, "its header"},
		{v.tableAt, entries * 4, "its table"},
	}
	i.layout = v
	return nil
}

// span takes a block as it is: in a dynamic disk a sector that its bitmap does
// not name is zeros there.
func (v *vhd) span(off int64) (span, error) {
	if v.table == nil {
		return span{held: stored, at: off, end: math.MaxInt64}, nil
	}
	n, in := off/v.blockSize, off%v.blockSize
	e, err := v.table.entry(v.tableAt+4*n, 4, "table", off)
	if err != nil {
		return span{}, err
	}
	end := (n + 1) * v.blockSize
	sector := binary.BigEndian.Uint32(e)
	if sector == vhdUnused {
		more := v.table.same(v.tableAt+4*n, 4, math.MaxInt32)
		return span{held: hole, end: end + more*v.blockSize}, nil
	}
	return span{held: stored, at: int64(sector)*512 + v.bitmap + in, end: end}, nil
}
