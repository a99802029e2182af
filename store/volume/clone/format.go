package clone

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"lunboot/store"
)

const (
	// Granule is the unit of copying, in bytes: what guest file systems write
	// whole and aligned.
	Granule = 4096

	version    = 1
	headerSize = 4096
	sectorSize = 512
	slotSize   = 4096
	pairSize   = 2 * slotSize

	sectorHead = 20 // bytes before a sector's states
	sectors    = slotSize / sectorSize
	perSector  = (sectorSize - sectorHead) * 4 // granules
	perPage    = sectors * perSector
	pageWords  = perPage / 32
	pageSpan   = int64(perPage) * Granule // bytes of the volume
)

const magic = "LBCLONE\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Identity is whose layer a map is, over whose bytes.
type Identity struct {
	UUID       store.UUID // of the layer
	Parent     store.UUID // of the layer below
	ParentSize int64      // bytes
	Size       int64      // bytes of the layer; a map says what they were at first
	BlockSize  int        // bytes of a logical block
}

func (id *Identity) encode() []byte {
	h := make([]byte, sectorSize)
	copy(h, magic)
	binary.LittleEndian.PutUint32(h[8:], version)
	binary.LittleEndian.PutUint32(h[12:], Granule)
	copy(h[16:], id.UUID[:])
	copy(h[32:], id.Parent[:])
	binary.LittleEndian.PutUint64(h[48:], uint64(id.ParentSize))
	binary.LittleEndian.PutUint64(h[56:], uint64(id.Size))
	binary.LittleEndian.PutUint32(h[64:], uint32(id.BlockSize))
	return bytes.Repeat(sealHeader(h), headerSize/sectorSize)
}

func sealHeader(h []byte) []byte {
	binary.LittleEndian.PutUint32(h[508:], crc32.Checksum(h[:508], castagnoli))
	return h
}

// decodeHeader returns the identity that a header's intact copies agree in, and
// how many copies are damaged.
func decodeHeader(b []byte) (id Identity, damaged int, err error) {
	var good []byte
	looksLike := false
	for i := 0; i+sectorSize <= len(b) && i < headerSize; i += sectorSize {
		h := b[i : i+sectorSize]
		looksLike = looksLike || string(h[:8]) == magic
		switch {
		case crc32.Checksum(h[:508], castagnoli) != binary.LittleEndian.Uint32(h[508:]):
			damaged++
		case good == nil:
			good = h
		case !bytes.Equal(good, h):
			return Identity{}, damaged, &HeaderError{Msg: "the copies of its header contradict each other"}
		}
	}
	switch {
	case len(b) < headerSize:
		return Identity{}, damaged, &HeaderError{Msg: "it is shorter than its header"}
	case good == nil && looksLike:
		return Identity{}, damaged, &HeaderError{Msg: "every copy of its header is damaged"}
	case good == nil || string(good[:8]) != magic:
		return Identity{}, damaged, &HeaderError{Msg: "it is not the map of a clone"}
	}
	if v := binary.LittleEndian.Uint32(good[8:]); v != version {
		return Identity{}, damaged, &HeaderError{Msg: fmt.Sprintf("it is of version %d, and this lunboot knows version %d; a newer lunboot made it", v, version)}
	}
	if g := binary.LittleEndian.Uint32(good[12:]); g != Granule {
		return Identity{}, damaged, &HeaderError{Msg: fmt.Sprintf("its granules have %d bytes, not %d", g, Granule)}
	}
	copy(id.UUID[:], good[16:])
	copy(id.Parent[:], good[32:])
	id.ParentSize = int64(binary.LittleEndian.Uint64(good[48:]))
	id.Size = int64(binary.LittleEndian.Uint64(good[56:]))
	block := binary.LittleEndian.Uint32(good[64:])
	id.BlockSize = int(block)
	if block != 512 && block != 4096 || !plausible(id.Size, block) || id.ParentSize != 0 && !plausible(id.ParentSize, 1) {
		return Identity{}, damaged, &HeaderError{Msg: fmt.Sprintf("it speaks of %d bytes in blocks of %d over a parent of %d bytes", id.Size, block, id.ParentSize)}
	}
	return id, damaged, nil
}

func plausible(size int64, block uint32) bool {
	return size > 0 && size <= store.MaxVolumeSize && size%int64(block) == 0
}

// slots is what the two copies of a page say.
type slots struct {
	slot    int           // which of the two is the page
	seq     uint64        // its number; 0 when nothing was ever written
	highest uint64        // the highest number that was seen, in whatever state
	empty   [2]bool       // a slot that was never written
	damaged [sectors]bool // what of the page cannot be known
	stale   int           // damaged sectors of the copy that is not used
	torn    bool          // the copy that is not used was not written to its end
}

// sectorSum is a sector's checksum, bound to its place: a sector of another
// layer, or of another place of this one, does not fit.
func sectorSum(layer store.UUID, at int64, s []byte) uint32 {
	var place [24]byte
	copy(place[:], layer[:])
	binary.LittleEndian.PutUint64(place[16:], uint64(at))
	sum := crc32.Update(0, castagnoli, place[:])
	sum = crc32.Update(sum, castagnoli, s[:16])
	return crc32.Update(sum, castagnoli, s[sectorHead:])
}

// slotOffset is where a page's slot lies in the map file.
func slotOffset(page, slot int) int64 {
	return headerSize + int64(page)*pairSize + int64(slot)*slotSize
}

// encodeSlot makes the slot from states, which are its 3936 bytes.
func encodeSlot(dst []byte, layer store.UUID, page int, seq, before uint64, states []byte) {
	at := slotOffset(page, int(seq&1))
	for i := range sectors {
		s := dst[i*sectorSize : (i+1)*sectorSize]
		binary.LittleEndian.PutUint64(s, seq)
		binary.LittleEndian.PutUint64(s[8:], before)
		copy(s[sectorHead:], states[i*(sectorSize-sectorHead):])
		binary.LittleEndian.PutUint32(s[16:], sectorSum(layer, at+int64(i*sectorSize), s))
	}
}

// decodePair reads the two slots of a page. See the package's comment.
func decodePair(layer store.UUID, page int, pair *[pairSize]byte) slots {
	var bad [2][sectors]bool
	var seqs [2][sectors]uint64
	var before [2]uint64 // what this slot's sectors say of the other one
	var out slots
	for slot := range 2 {
		empty := true
		for i := range sectors {
			s := pair[slot*slotSize+i*sectorSize:][:sectorSize]
			if isZero(s) {
				continue
			}
			empty = false
			seq := binary.LittleEndian.Uint64(s)
			sum := sectorSum(layer, slotOffset(page, slot)+int64(i*sectorSize), s)
			if binary.LittleEndian.Uint32(s[16:]) != sum || seq == 0 || int(seq&1) != slot || hasNothing(s[sectorHead:]) {
				bad[slot][i] = true
				continue
			}
			seqs[slot][i] = seq
			before[slot] = max(before[slot], binary.LittleEndian.Uint64(s[8:]))
			out.highest = max(out.highest, seq)
		}
		out.empty[slot] = empty
	}
	// A number that was lost with its sectors is still told by the other slot.
	out.highest = max(out.highest, before[0], before[1])
	var whole [2]bool // all intact sectors have one number
	var torn [2]bool
	var number [2]uint64
	for slot := range 2 {
		first := true
		for i := range sectors {
			if seqs[slot][i] < before[1-slot] {
				bad[slot][i] = true
			}
			if bad[slot][i] {
				continue
			}
			if first {
				number[slot], first, whole[slot] = seqs[slot][i], false, true
			} else if seqs[slot][i] != number[slot] {
				torn[slot] = true
			}
		}
		whole[slot] = whole[slot] && !torn[slot]
	}
	switch {
	case whole[0] && whole[1]:
		if number[1] > number[0] {
			out.slot = 1
		}
	case whole[0] && torn[1]:
	case whole[1] && torn[0]:
		out.slot = 1
	default: // both torn, or one that is unknown
		for i := range out.damaged {
			out.damaged[i] = true
		}
		return out
	}
	out.torn = torn[1-out.slot]
	out.seq = number[out.slot]
	out.damaged = bad[out.slot]
	for i, b := range bad[1-out.slot] {
		if b && out.seq == 0 {
			out.damaged[i] = true // nothing says that it is the older copy
		} else if b {
			out.stale++
		}
	}
	return out
}

// next is the number of the next write, which goes to the slot that is not the
// page.
func (s *slots) next() uint64 {
	n := s.highest + 1
	if int(n&1) == s.slot {
		n++
	}
	return n
}

var noBytes [pairSize]byte

func isZero(b []byte) bool { return bytes.Equal(b, noBytes[:len(b)]) }

// hasNothing reports a state 11.
func hasNothing(states []byte) bool {
	for _, b := range states {
		if b&(b>>1)&0x55 != 0 {
			return true
		}
	}
	return false
}
