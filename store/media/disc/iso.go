package disc

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"time"
	"unicode/utf16"
)

// ISO 9660 (ECMA-119); Rock Ridge by SUSP 1.12 and RRIP 1.12; Joliet by
// Microsoft's specification of 1995.
const (
	firstDescriptor = 16
	maxDescriptors  = 64
	flagFolder      = 0x02
	flagMore        = 0x80 // another extent of the file follows
)

// iso reads one tree of an ISO 9660 disc.
type iso struct {
	d     *Disc
	block int64
	wide  bool // Joliet: names are UCS-2
	ridge bool
	skip  int // bytes before the first field of Rock Ridge
}

// openISO opens the best tree, and says whether that has Rock Ridge's names.
func openISO(r io.ReaderAt, size int64) (*Disc, bool, error) {
	var plain, joliet []byte
	for i := range int64(maxDescriptors) {
		b := make([]byte, sector)
		if err := read(r, size, b, (firstDescriptor+i)*sector); err != nil {
			break
		}
		if string(b[1:6]) != "CD001" {
			break
		}
		end := false
		switch b[0] {
		case 1:
			if plain == nil {
				plain = b
			}
		case 2:
			if e := b[88:120]; joliet == nil && (bytes.HasPrefix(e, []byte("%/@")) || bytes.HasPrefix(e, []byte("%/C")) || bytes.HasPrefix(e, []byte("%/E"))) {
				joliet = b
			}
		case 255:
			end = true
		}
		if end {
			break
		}
	}
	if plain == nil {
		return nil, false, ErrNoDisc
	}
	v, err := newISO(r, size, plain, false)
	if err != nil {
		return nil, false, err
	}
	if err := v.findRidge(); err != nil {
		return nil, false, err
	}
	if !v.ridge && joliet != nil {
		if w, err := newISO(r, size, joliet, true); err == nil {
			w.d.Label = strings.TrimSpace(decodeWide(joliet[40:72]))
			return w.d, false, nil
		}
	}
	return v.d, v.ridge, nil
}

func newISO(r io.ReaderAt, size int64, desc []byte, wide bool) (*iso, error) {
	v := &iso{block: int64(binary.LittleEndian.Uint16(desc[128:])), wide: wide}
	if v.block != 512 && v.block != 1024 && v.block != 2048 {
		return nil, damaged("its blocks have %d bytes", v.block)
	}
	v.d = &Disc{System: "ISO 9660", Label: strings.TrimSpace(printable(desc[40:72])), r: r, size: size, list: v.list}
	root, err := v.record(desc[156:190])
	if err != nil {
		return nil, err
	}
	v.d.root = root.entry
	v.d.root.name, v.d.root.dir = "", true
	return v, nil
}

// printable keeps the letters of a label.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f {
			return -1
		}
		return r
	}, string(b))
}

// isoRecord is a directory record.
type isoRecord struct {
	entry
	ident []byte
	use   []byte // the system use field
	more  bool
}

// record reads a directory record (ECMA-119, 9.1).
func (v *iso) record(b []byte) (isoRecord, error) {
	if len(b) < 34 || int(b[0]) > len(b) || b[0] < 34 {
		return isoRecord{}, damaged("a directory record is cut off")
	}
	b = b[:b[0]]
	n := int(b[32])
	if 33+n > len(b) || n == 0 {
		return isoRecord{}, damaged("a directory record has a name that does not fit")
	}
	if b[26] != 0 || b[27] != 0 {
		return isoRecord{}, damaged("an interleaved file cannot be read")
	}
	var r isoRecord
	r.ident = b[33 : 33+n]
	use := 33 + n + 1 - n%2
	if use < len(b) {
		r.use = b[use:]
	}
	off := (int64(binary.LittleEndian.Uint32(b[2:])) + int64(b[1])) * v.block
	r.size = int64(binary.LittleEndian.Uint32(b[10:]))
	r.extents = []extent{{off, r.size}}
	r.dir, r.more = b[25]&flagFolder != 0, b[25]&flagMore != 0
	r.mod = time.Date(1900+int(b[18]), time.Month(b[19]), int(b[20]), int(b[21]), int(b[22]), int(b[23]), 0, time.FixedZone("", int(int8(b[24]))*15*60)).UTC()
	return r, nil
}

// findRidge looks at the root's first record for Rock Ridge (SUSP, 5.3).
func (v *iso) findRidge() error {
	b := make([]byte, sector)
	if err := read(v.d.r, v.d.size, b, v.d.root.extents[0].off); err != nil {
		return err
	}
	r, err := v.record(b)
	if err != nil {
		return err
	}
	if u := r.use; len(u) >= 7 && string(u[:2]) == "SP" && u[4] == 0xbe && u[5] == 0xef {
		v.ridge, v.skip = true, int(u[6])
	}
	return nil
}

// list reads a folder. Records do not cross a block.
func (v *iso) list(dir entry) ([]entry, error) {
	b, err := v.d.contents(dir, maxFolder)
	if err != nil {
		return nil, err
	}
	var out []entry
	var open *entry // a file of which another extent is due
	for pos := 0; pos < len(b); {
		if b[pos] == 0 {
			pos = (pos/sector + 1) * sector
			continue
		}
		r, err := v.record(b[pos:])
		if err != nil {
			return nil, err
		}
		pos += int(b[pos])
		if len(r.ident) == 1 && r.ident[0] <= 1 { // itself and its parent
			continue
		}
		if open != nil {
			open.size += r.size
			if open.extents = append(open.extents, r.extents...); len(open.extents) > maxExtents {
				return nil, damaged("%q has too many parts", open.name)
			}
			if !r.more {
				open.extents = join(open.extents)
				out, open = append(out, *open), nil
			}
			continue
		}
		e := r.entry
		e.name = v.name(r.ident)
		if v.ridge {
			hidden, err := v.rockRidge(&e, r.use)
			if err != nil {
				return nil, err
			}
			if hidden {
				continue
			}
		}
		if r.more && !e.dir {
			open = &e
			continue
		}
		if out = append(out, e); len(out) > maxEntries {
			return nil, damaged("a folder has too many entries")
		}
	}
	return out, nil
}

// name reads a file identifier: without its version, and without the dot that
// ends one without an extension.
func (v *iso) name(ident []byte) string {
	name := string(ident)
	if v.wide {
		name = decodeWide(ident)
	}
	if i := strings.LastIndexByte(name, ';'); i > 0 {
		name = name[:i]
	}
	if len(name) > 1 {
		name = strings.TrimSuffix(name, ".")
	}
	return strings.ReplaceAll(strings.ToValidUTF8(name, "_"), "/", "_")
}

func decodeWide(b []byte) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = binary.BigEndian.Uint16(b[2*i:])
	}
	return strings.TrimRight(string(utf16.Decode(u)), "\x00 ")
}

// rockRidge reads a record's longer name, link and moved folder, from its system
// use field and the areas that this goes on in.
func (v *iso) rockRidge(e *entry, use []byte) (hidden bool, err error) {
	if v.skip > len(use) {
		return false, nil
	}
	use = use[v.skip:]
	var name, link strings.Builder
	named, linked, joined := false, false, false
	for areas := 0; ; areas++ {
		if areas > 32 {
			return false, damaged("the description of %q does not end", e.name)
		}
		var next []byte
		for len(use) >= 4 {
			n := int(use[2])
			if n < 4 || n > len(use) {
				break
			}
			f := use[4:n]
			switch string(use[:2]) {
			case "NM":
				if len(f) > 0 && f[0]&6 == 0 {
					named = true
					name.Write(f[1:])
				}
			case "SL":
				if len(f) > 0 {
					linked = true
					if err := linkParts(&link, f[1:], &joined); err != nil {
						return false, err
					}
				}
			case "CL": // the folder was moved; here is where it is
				if len(f) >= 8 {
					if err := v.moved(e, int64(binary.LittleEndian.Uint32(f))); err != nil {
						return false, err
					}
				}
			case "RE":
				hidden = true
			case "CE":
				if len(f) >= 24 {
					n := binary.LittleEndian.Uint32(f[16:])
					if n > sector {
						return false, damaged("the description of %q is too long", e.name)
					}
					next = make([]byte, n)
					off := int64(binary.LittleEndian.Uint32(f))*v.block + int64(binary.LittleEndian.Uint32(f[8:]))
					if err := read(v.d.r, v.d.size, next, off); err != nil {
						return false, err
					}
				}
			case "ST":
				use = nil
				continue
			}
			use = use[n:]
		}
		if use = next; use == nil {
			break
		}
	}
	if named && name.Len() > 0 && name.Len() < 1024 {
		e.name = strings.ReplaceAll(strings.ToValidUTF8(name.String(), "_"), "/", "_")
	}
	if linked && !e.dir {
		e.link = strings.ToValidUTF8(link.String(), "_")
	}
	return hidden, nil
}

// linkParts reads the components of a link (RRIP, 4.1.3). A component may go on
// in the next one.
func linkParts(link *strings.Builder, b []byte, joined *bool) error {
	for len(b) >= 2 {
		flags, n := b[0], int(b[1])
		if 2+n > len(b) || link.Len() > 1024 {
			return damaged("a link is cut off")
		}
		if link.Len() > 0 && !*joined && !strings.HasSuffix(link.String(), "/") {
			link.WriteByte('/')
		}
		switch {
		case flags&2 != 0:
			link.WriteByte('.')
		case flags&4 != 0:
			link.WriteString("..")
		case flags&8 != 0:
			link.WriteByte('/')
		default:
			link.Write(b[2 : 2+n])
		}
		*joined = flags&1 != 0
		b = b[2+n:]
	}
	return nil
}

// moved makes e the folder at a block; its first record says how large it is.
func (v *iso) moved(e *entry, block int64) error {
	b := make([]byte, 256)
	if err := read(v.d.r, v.d.size, b, block*v.block); err != nil {
		return err
	}
	r, err := v.record(b)
	if err != nil {
		return err
	}
	e.dir, e.size, e.extents = true, r.size, []extent{{block * v.block, r.size}}
	return nil
}
