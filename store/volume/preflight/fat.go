package preflight

import (
	"encoding/binary"
	"strings"
)

// fat reads directories of a FAT file system (Microsoft FAT specification,
// December 2000). A library that opens a whole file system loads both tables
// and refuses when they differ, as they do while a machine writes; two look-ups
// need neither.
type fat struct {
	d       *disk
	bits    int   // 12, 16 or 32
	table   int64 // where the first table begins on the volume, in bytes
	rootAt  int64 // of FAT12 and FAT16
	rootLen int
	rootAtN uint32 // first cluster of FAT32's root
	data    int64  // where cluster 2 begins
	cluster int    // bytes
	last    uint32 // highest cluster
	id      []byte // the serial number that it was given when it was made
}

// Bounds of one look: a directory of a hostile file system may be endless.
const (
	maxDirectory   = 1 << 20
	maxName        = 255
	maxClusterSize = 1 << 20
)

// openFAT reads the BIOS parameter block; nil when it makes no sense.
func (d *disk) openFAT(start, size int64) (*fat, error) {
	b, err := d.read(start, 512)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	sector := int64(le.Uint16(b[11:]))
	v := &fat{d: d, cluster: int(sector) * int(b[13])}
	reserved, tables, roots := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	sectors, length := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if sectors == 0 {
		sectors = int64(le.Uint32(b[32:]))
	}
	if length == 0 {
		length = int64(le.Uint32(b[36:]))
		v.rootAtN = le.Uint32(b[44:])
	}
	switch sector {
	case 512, 1024, 2048, 4096:
	default:
		return nil, nil
	}
	if v.cluster == 0 || v.cluster > maxClusterSize || reserved == 0 || tables == 0 || length == 0 || sectors*sector > size {
		return nil, nil
	}
	v.table = start + reserved*sector
	v.rootAt = v.table + tables*length*sector
	v.rootLen = int(roots) * 32
	v.data = v.rootAt + (int64(v.rootLen)+sector-1)/sector*sector
	clusters := (start + sectors*sector - v.data) / int64(v.cluster)
	if clusters <= 0 || clusters > 0x0ffffff5 {
		return nil, nil
	}
	v.last, v.id = uint32(clusters)+1, b[39:43]
	switch { // the count of clusters alone decides
	case clusters < 4085:
		v.bits = 12
	case clusters < 65525:
		v.bits = 16
	default:
		v.bits, v.id = 32, b[67:71]
	}
	return v, nil
}

// entry is a file or directory, by its name in capitals.
type entry struct {
	name    string
	dir     bool
	size    uint32
	first   uint32
	changed uint32 // date and time
}

func (v *fat) root() entry { return entry{dir: true, first: v.rootAtN} }

// find looks for a directory in a directory.
func (v *fat) find(in entry, name string) (entry, bool, error) {
	list, err := v.list(in)
	for _, e := range list {
		if e.dir && e.name == name {
			return e, true, err
		}
	}
	return entry{}, false, err
}

// list reads a directory: short names, or long ones where they are given.
func (v *fat) list(dir entry) ([]entry, error) {
	b, err := v.content(dir)
	if err != nil {
		return nil, err
	}
	const volumeLabel, directory, longName, deleted = 0x08, 0x10, 0x0f, 0xe5
	var found []entry
	var long string
	for ; len(b) >= 32 && b[0] != 0; b = b[32:] {
		e := b[:32]
		switch attr := e[11]; {
		case e[0] == deleted:
			long = ""
			continue
		case attr&0x3f == longName:
			if len(long) < maxName {
				long = longPart(e) + long // the parts stand last first
			}
			continue
		case attr&volumeLabel != 0:
			long = ""
			continue
		}
		name := strings.TrimRight(string(e[:8]), " ")
		if ext := strings.TrimRight(string(e[8:11]), " "); ext != "" {
			name += "." + ext
		}
		if long != "" {
			name = long
		}
		long = ""
		found = append(found, entry{
			name: strings.ToUpper(name), dir: e[11]&directory != 0, size: binary.LittleEndian.Uint32(e[28:]),
			first:   uint32(binary.LittleEndian.Uint16(e[20:]))<<16 | uint32(binary.LittleEndian.Uint16(e[26:])),
			changed: binary.LittleEndian.Uint32(e[22:]),
		})
	}
	return found, nil
}

// longPart returns the characters of one long name entry; those beyond ASCII
// are in no name that is looked for.
func longPart(e []byte) string {
	var s strings.Builder
	for _, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
		c := binary.LittleEndian.Uint16(e[at:])
		if c == 0 || c == 0xffff {
			break
		}
		if c > 0x7e {
			c = '?'
		}
		s.WriteByte(byte(c))
	}
	return s.String()
}

// content reads a directory's bytes along its chain of clusters.
func (v *fat) content(dir entry) ([]byte, error) {
	if dir.first == 0 && v.bits != 32 { // the root of FAT12 and FAT16
		return v.d.read(v.rootAt, min(v.rootLen, maxDirectory))
	}
	var b []byte
	for n := dir.first; n >= 2 && n <= v.last && len(b) < maxDirectory; {
		part, err := v.d.read(v.data+int64(n-2)*int64(v.cluster), v.cluster)
		if err != nil {
			return nil, err
		}
		b = append(b, part...)
		if n, err = v.next(n); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// head reads how a file begins, within its first cluster.
func (v *fat) head(e entry, most int) ([]byte, error) {
	if e.first < 2 || e.first > v.last {
		return nil, nil
	}
	return v.d.read(v.data+int64(e.first-2)*int64(v.cluster), int(min(int64(most), int64(v.cluster), int64(e.size))))
}

// next reads a table entry.
func (v *fat) next(n uint32) (uint32, error) {
	switch v.bits {
	case 12:
		b, err := v.d.read(v.table+int64(n)*3/2, 2)
		if err != nil {
			return 0, err
		}
		w := uint32(binary.LittleEndian.Uint16(b))
		if n&1 != 0 {
			return w >> 4, nil
		}
		return w & 0xfff, nil
	case 16:
		b, err := v.d.read(v.table+int64(n)*2, 2)
		if err != nil {
			return 0, err
		}
		return uint32(binary.LittleEndian.Uint16(b)), nil
	}
	b, err := v.d.read(v.table+int64(n)*4, 4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b) & 0x0fffffff, nil
}
