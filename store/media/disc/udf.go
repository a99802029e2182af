package disc

import (
	"encoding/binary"
	"io"
	"strings"
	"time"
	"unicode/utf16"
)

// UDF 1.02 to 2.01 (ECMA-167): what Windows is delivered on. Virtual, sparable
// and metadata partitions belong to media that are written piece by piece.
const (
	anchorAt = 256

	tagAnchor     = 2
	tagPartition  = 5
	tagLogical    = 6
	tagEnd        = 8
	tagFileSet    = 256
	tagIdentifier = 257
	tagEntry      = 261
	tagExtended   = 266

	maxSequence = 256 // descriptors of the volume
)

var le = binary.LittleEndian

type udf struct {
	d     *Disc
	block int64
	parts []partition // by partition reference
}

type partition struct{ off, n int64 }

// longAD is a place in a partition.
type longAD struct {
	n, kind int64
	block   int64
	ref     int
}

func readLongAD(b []byte) longAD {
	n := int64(le.Uint32(b))
	return longAD{n & (1<<30 - 1), n >> 30, int64(le.Uint32(b[4:])), int(le.Uint16(b[8:]))}
}

// tag checks a descriptor's tag (ECMA-167, 3/7.2) and returns its identifier.
func tag(b []byte) (int, bool) {
	if len(b) < 16 {
		return 0, false
	}
	var sum byte
	for i, c := range b[:16] {
		if i != 4 {
			sum += c
		}
	}
	return int(le.Uint16(b)), sum == b[4]
}

func openUDF(r io.ReaderAt, size int64) (*Disc, error) {
	b := make([]byte, sector)
	if read(r, size, b, anchorAt*sector) != nil {
		return nil, ErrNoDisc
	}
	if id, ok := tag(b); !ok || id != tagAnchor {
		return nil, ErrNoDisc
	}
	u := &udf{}
	n, at := int64(le.Uint32(b[16:]))/sector, int64(le.Uint32(b[20:]))
	numbered := map[int]partition{}
	var logical []byte
	for i := range min(n, maxSequence) {
		b := make([]byte, sector)
		if err := read(r, size, b, (at+i)*sector); err != nil {
			return nil, err
		}
		id, ok := tag(b)
		if !ok || id == tagEnd {
			break
		}
		switch id {
		case tagPartition:
			numbered[int(le.Uint16(b[22:]))] = partition{int64(le.Uint32(b[188:])) * sector, int64(le.Uint32(b[192:])) * sector}
		case tagLogical:
			logical = b
		}
	}
	if logical == nil {
		return nil, damaged("it has no logical volume")
	}
	if u.block = int64(le.Uint32(logical[212:])); u.block != sector {
		return nil, damaged("its blocks have %d bytes", u.block)
	}
	maps := logical[440:]
	maps = maps[:min(int64(len(maps)), int64(le.Uint32(logical[264:])))]
	for len(maps) >= 2 && int(maps[1]) >= 2 && int(maps[1]) <= len(maps) {
		var p partition
		if maps[0] == 1 && maps[1] >= 6 {
			p = numbered[int(le.Uint16(maps[4:]))]
		}
		u.parts = append(u.parts, p)
		maps = maps[maps[1]:]
	}
	u.d = &Disc{System: "UDF", Label: dstring(logical[84:212]), r: r, size: size, list: u.list, complete: u.complete}
	set, err := u.descriptor(readLongAD(logical[248:]), tagFileSet)
	if err != nil {
		return nil, err
	}
	root, err := u.entry(readLongAD(set[400:]))
	if err != nil {
		return nil, err
	}
	if !root.dir {
		return nil, damaged("its root is no folder")
	}
	u.d.root = root
	return u.d, nil
}

// place is where a block of a partition stands in the image.
func (u *udf) place(ref int, block, n int64) (int64, error) {
	if ref >= len(u.parts) || u.parts[ref].n == 0 {
		return 0, damaged("it names a partition that it does not have")
	}
	p := u.parts[ref]
	if block*u.block > p.n || n > p.n-block*u.block {
		return 0, damaged("block %d is beyond its partition", block)
	}
	return p.off + block*u.block, nil
}

// descriptor reads one block whose tag must be among ids.
func (u *udf) descriptor(at longAD, ids ...int) ([]byte, error) {
	off, err := u.place(at.ref, at.block, u.block)
	if err != nil {
		return nil, err
	}
	b := make([]byte, u.block)
	if err := read(u.d.r, u.d.size, b, off); err != nil {
		return nil, err
	}
	have, ok := tag(b)
	for _, id := range ids {
		if ok && id == have {
			return b, nil
		}
	}
	return nil, damaged("the descriptor in block %d is of the wrong kind", at.block)
}

// entry reads a file entry (ECMA-167, 4/14.9 and 4/14.17).
func (u *udf) entry(at longAD) (entry, error) {
	b, err := u.descriptor(at, tagEntry, tagExtended)
	if err != nil {
		return entry{}, err
	}
	times, lengths := 84, 168
	if id, _ := tag(b); id == tagExtended {
		times, lengths = 92, 208
	}
	e := entry{dir: b[27] == 4, size: int64(le.Uint64(b[56:])), mod: timestamp(b[times:])}
	if e.size < 0 || b[27] != 4 && b[27] != 5 {
		return entry{}, damaged("the entry in block %d is neither a file nor a folder", at.block)
	}
	from := lengths + 8 + int(min(le.Uint32(b[lengths:]), sector))
	n := int(min(le.Uint32(b[lengths+4:]), sector))
	if from > len(b) || n > len(b)-from {
		return entry{}, damaged("the entry in block %d is cut off", at.block)
	}
	ads := b[from : from+n]
	switch le.Uint16(b[34:]) & 7 {
	case 0:
		e.extents, err = u.extents(ads, 8, at.ref, e.size)
	case 1:
		e.extents, err = u.extents(ads, 16, at.ref, e.size)
	case 3:
		if e.size > int64(len(ads)) {
			return entry{}, damaged("a file that stands in its entry is cut off")
		}
		e.inline = ads[:e.size]
	default:
		return entry{}, damaged("the entry in block %d says in an unknown way where it is", at.block)
	}
	return e, err
}

// extents reads allocation descriptors of 8 or 16 bytes, up to the file's end.
func (u *udf) extents(ads []byte, width, ref int, size int64) ([]extent, error) {
	var out []extent
	for have := int64(0); have < size; {
		if len(ads) < width {
			return nil, damaged("a file has fewer bytes than it should")
		}
		a := longAD{n: int64(le.Uint32(ads)) & (1<<30 - 1), kind: int64(le.Uint32(ads)) >> 30, block: int64(le.Uint32(ads[4:])), ref: ref}
		if width == 16 {
			a = readLongAD(ads)
		}
		ads = ads[width:]
		if len(out) > maxExtents {
			return nil, damaged("a file has too many parts")
		}
		if a.n == 0 {
			return nil, damaged("a file has fewer bytes than it should")
		}
		if a.kind == 3 { // the list goes on there (ECMA-167, 4/14.12)
			off, err := u.place(a.ref, a.block, u.block)
			if err != nil {
				return nil, err
			}
			b := make([]byte, u.block)
			if err := read(u.d.r, u.d.size, b, off); err != nil {
				return nil, err
			}
			n := int64(le.Uint32(b[20:]))
			if n > u.block-24 {
				return nil, damaged("a list of parts is cut off")
			}
			ads = b[24 : 24+n]
			out = append(out, extent{-1, 0}) // counts against endless lists
			continue
		}
		x := extent{-1, a.n}
		if a.kind == 0 {
			off, err := u.place(a.ref, a.block, a.n)
			if err != nil {
				return nil, err
			}
			x.off = off
		}
		out = append(out, x)
		have += a.n
	}
	return join(out), nil
}

// list reads a folder's file identifiers (ECMA-167, 4/14.4). What they name is
// described elsewhere; complete reads that.
func (u *udf) list(dir entry) ([]entry, error) {
	b, err := u.d.contents(dir, maxFolder)
	if err != nil {
		return nil, err
	}
	var out []entry
	for len(b) >= 38 {
		if id, ok := tag(b); !ok || id != tagIdentifier {
			return nil, damaged("a folder holds something that is no name")
		}
		n, use := int(b[19]), int(le.Uint16(b[36:]))
		whole := (38 + n + use + 3) &^ 3
		if 38+use+n > len(b) {
			return nil, damaged("a name is cut off")
		}
		const deleted, parent = 4, 8
		if b[18]&(deleted|parent) == 0 {
			at := readLongAD(b[20:])
			e := entry{name: compressed(b[38+use : 38+use+n]), dir: b[18]&2 != 0, at: at.block<<16 | int64(at.ref)}
			if out = append(out, e); len(out) > maxEntries {
				return nil, damaged("a folder has too many entries")
			}
		}
		b = b[min(whole, len(b)):]
	}
	return out, nil
}

// complete reads what a folder's entry leaves to the file's own.
func (u *udf) complete(e entry) (entry, error) {
	if e.at == 0 {
		return e, nil
	}
	full, err := u.entry(longAD{block: e.at >> 16, ref: int(e.at & 0xffff)})
	full.name = e.name
	return full, err
}

// compressed reads a name (UDF 2.1.1): 8 or 16 bits a letter.
func compressed(b []byte) string {
	if len(b) < 2 {
		return ""
	}
	var s string
	if b[0] == 16 || b[0] == 255 {
		u := make([]uint16, (len(b)-1)/2)
		for i := range u {
			u[i] = binary.BigEndian.Uint16(b[1+2*i:])
		}
		s = string(utf16.Decode(u))
	} else {
		r := make([]rune, len(b)-1)
		for i, c := range b[1:] {
			r[i] = rune(c)
		}
		s = string(r)
	}
	return strings.ReplaceAll(s, "/", "_")
}

// dstring reads a label: its last byte is how many are used.
func dstring(b []byte) string {
	n := int(b[len(b)-1])
	if n > len(b)-1 {
		return ""
	}
	return strings.TrimSpace(compressed(b[:n]))
}

// timestamp reads a time (ECMA-167, 1/7.3).
func timestamp(b []byte) time.Time {
	zone := int(int16(le.Uint16(b)<<4) >> 4) // minutes, twelve bits
	if zone < -1440 || zone > 1440 {
		zone = 0
	}
	return time.Date(int(le.Uint16(b[2:])), time.Month(b[4]), int(b[5]), int(b[6]), int(b[7]), int(b[8]), 0, time.FixedZone("", zone*60)).UTC()
}
