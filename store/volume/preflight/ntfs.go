package preflight

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"
)

// Windows' NTFS boot sector is there as soon as the file system is, and looks for one
// of these in the root folder: until Setup has put it there, nothing starts.
var ntfsStarters = []string{"BOOTMGR", "NTLDR"}

// Bounds of an NTFS file system's sizes.
const (
	ntfsBoot     = 8 << 10
	rootRecord   = 5 // of the root folder, in the file table
	maxNTFSBlock = 64 << 10
)

// lacking names the file that the boot code of an NTFS file system looks for and does
// not find; empty when it is there, or nothing is known of it.
func (d *disk) lacking(start int64) (string, error) {
	b, err := d.read(start, ntfsBoot)
	if err != nil || string(b[3:11]) != "NTFS    " {
		return "", err
	}
	var wanted []string
	for _, name := range ntfsStarters {
		if bytes.Contains(b, wide(name)) {
			wanted = append(wanted, name)
		}
	}
	if len(wanted) == 0 {
		return "", nil
	}
	names, ok, err := d.ntfsRoot(start, b)
	if err != nil || !ok {
		return "", err
	}
	for _, name := range wanted {
		if names[name] {
			return "", nil
		}
	}
	return wanted[0], nil
}

func wide(s string) (b []byte) {
	for _, c := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return b
}

// ntfsRoot reads which names stand in the root folder, in capitals: in the index
// within its record, and in the blocks that this spills into. ok is false for what
// makes no sense.
func (d *disk) ntfsRoot(start int64, b []byte) (names map[string]bool, ok bool, err error) {
	le := binary.LittleEndian
	cluster := int64(le.Uint16(b[11:])) * ntfsSize(b[13], 1)
	record := ntfsSize(b[64], cluster)
	table := le.Uint64(b[48:])
	if cluster < 256 || cluster > 2<<20 || record < 256 || record > maxNTFSBlock || table > uint64(d.size)/uint64(cluster) {
		return nil, false, nil
	}
	r, err := d.read(start+int64(table)*cluster+rootRecord*record, int(record))
	if err != nil || !mended(r, "FILE") {
		return nil, false, err
	}
	const indexRoot, indexAllocation, last = 0x90, 0xa0, 0xffffffff
	names = map[string]bool{}
	block := 0
	for at := int(le.Uint16(r[0x14:])); at+0x18 <= len(r); {
		kind, n := le.Uint32(r[at:]), int(le.Uint32(r[at+4:]))
		if kind == last {
			return names, ok, nil
		}
		if n < 0x18 || n > len(r)-at {
			break
		}
		a := r[at : at+n]
		switch {
		case kind == indexRoot && a[8] == 0:
			v := int(le.Uint16(a[0x14:]))
			if v+0x20 > len(a) {
				return nil, false, nil
			}
			block = int(le.Uint32(a[v+8:]))
			ok = listed(a, v+0x10, names)
		case kind == indexAllocation && a[8] == 1 && n >= 0x40 && block >= 512 && block <= maxNTFSBlock:
			if err := d.spilled(start, cluster, block, a[min(int(le.Uint16(a[0x20:])), n):], names); err != nil {
				return nil, false, err
			}
		}
		at += n
	}
	return nil, false, nil
}

// ntfsSize reads a size in units, or as a power of two when it is negative.
func ntfsSize(b byte, unit int64) int64 {
	if b > 0x80 {
		return 1 << min(256-int(b), 30)
	}
	return int64(b) * unit
}

// mended undoes the marks at the end of each 512 bytes of a record, which tell one
// that was written in part.
func mended(b []byte, magic string) bool {
	le := binary.LittleEndian
	if len(b) < 0x30 || string(b[:4]) != magic {
		return false
	}
	at, n := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	if n == 0 || at+2*n > len(b) || (n-1)*512 > len(b) {
		return false
	}
	for k := 1; k < n; k++ {
		end := b[k*512-2 : k*512]
		if !bytes.Equal(end, b[at:at+2]) {
			return false
		}
		copy(end, b[at+2*k:at+2*k+2])
	}
	return true
}

// listed takes the names of an index whose header stands at head.
func listed(b []byte, head int, names map[string]bool) bool {
	le := binary.LittleEndian
	if head+8 > len(b) {
		return false
	}
	end := head + int(le.Uint32(b[head+4:]))
	for at := head + int(le.Uint32(b[head:])); at+0x10 <= min(end, len(b)); {
		n, flags := int(le.Uint16(b[at+8:])), le.Uint16(b[at+12:])
		if flags&2 != 0 { // the last has no name
			return true
		}
		if n < 0x52 || at+n > len(b) {
			return false
		}
		size := int(b[at+0x50])
		if 0x52+2*size > n {
			return false
		}
		text := make([]uint16, size)
		for k := range text {
			text[k] = le.Uint16(b[at+0x52+2*k:])
		}
		names[strings.ToUpper(string(utf16.Decode(text)))] = true
		at += n
	}
	return false
}

// spilled reads the blocks of an index along its runs of clusters.
func (d *disk) spilled(start, cluster int64, block int, runs []byte, names map[string]bool) error {
	var at int64
	for left := maxDirectory; len(runs) > 0 && runs[0] != 0 && left > 0; {
		counts, offs := int(runs[0]&0xf), int(runs[0]>>4)
		if counts == 0 || counts > 7 || offs == 0 || offs > 7 || 1+counts+offs > len(runs) {
			return nil
		}
		n, off := signed(runs[1:1+counts]), signed(runs[1+counts:1+counts+offs])
		runs = runs[1+counts+offs:]
		at += off
		if n <= 0 || at <= 0 || at > d.size/cluster || n > d.size/cluster {
			return nil
		}
		b, err := d.read(start+at*cluster, int(min(n*cluster, int64(left))))
		if err != nil {
			return err
		}
		left -= len(b)
		for ; len(b) >= block; b = b[block:] {
			if mended(b[:block], "INDX") {
				listed(b[:block], 0x18, names)
			}
		}
	}
	return nil
}

// signed reads a number of a few bytes, the lowest first.
func signed(b []byte) (n int64) {
	for k := len(b) - 1; k >= 0; k-- {
		n = n<<8 | int64(b[k])
	}
	bits := 64 - 8*len(b)
	return n << bits >> bits
}
