package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zlib"

	"lunboot/store"
)

// vmdk is a disk of VMware in one file: grains that a table of tables finds, as
// they are (monolithicSparse) or each packed (streamOptimized, which is what an
// OVA has). The names are those of "Virtual Disk Format 5.0".
type vmdk struct {
	grain     int64 // bytes
	perTable  int64
	directory int64
	packed    bool
	zeroed    bool // an entry of 1 is a grain of zeros
	size      int64
	gd, gt    *window
}

// The header's fields, little-endian, by their offset in bytes. Offsets and
// lengths in it are in sectors.
const (
	vmdkMagic      = "KDMV"
	vmdkVersion    = 4
	vmdkFlags      = 8
	vmdkCapacity   = 12
	vmdkGrain      = 20
	vmdkDescAt     = 28
	vmdkDescSize   = 36
	vmdkPerTable   = 44
	vmdkDirectory  = 56
	vmdkNewlines   = 73
	vmdkAlgorithm  = 77
	vmdkHeaderSize = 512
)

const (
	vmdkHasNewlines = 1 << 0
	vmdkHasZeroed   = 1 << 2
	vmdkCompressed  = 1 << 16
	vmdkMarkers     = 1 << 17
	vmdkDeflate     = 1
	vmdkAtEnd       = 1<<64 - 1 // of vmdkDirectory: the header at the end has it
	vmdkFooter      = 3         // a marker's sort
	vmdkFooterSize  = 3 * 512   // its marker, the footer, and the marker of the stream's end
	vmdkMaxGrain    = 1 << 30   // bytes
	vmdkMaxTable    = 1 << 16   // entries; 512 are usual
	vmdkMaxDesc     = 64 << 10  // bytes of the descriptor that are looked at
	vmdkGrainHead   = 12        // bytes before a packed grain: where on the disk, and how long
	vmdkNewlineText = "\n \r\n"
)

func (i *Image) openVMDK() error {
	if i.fileSize < vmdkHeaderSize {
		return cut("the header", vmdkHeaderSize, i.fileSize)
	}
	h := make([]byte, vmdkHeaderSize)
	if err := readFull(i.file, h, 0); err != nil {
		return err
	}
	le := binary.LittleEndian
	version, flags := le.Uint32(h[vmdkVersion:]), le.Uint32(h[vmdkFlags:])
	if version < 1 || version > 3 {
		return invalid("the image is VMDK of version %d, and versions 1 to 3 are known; %s", version, convert)
	}
	if flags&vmdkHasNewlines != 0 && string(h[vmdkNewlines:vmdkNewlines+4]) != vmdkNewlineText {
		return invalid("the image was copied as if it were text, which damages it; copy it again, as binary")
	}
	if err := i.vmdkDescriptor(le.Uint64(h[vmdkDescAt:]), le.Uint64(h[vmdkDescSize:])); err != nil {
		return err
	}
	if le.Uint64(h[vmdkDirectory:]) == vmdkAtEnd {
		var err error
		if h, err = i.vmdkFooter(h); err != nil {
			return err
		}
		flags = le.Uint32(h[vmdkFlags:])
	}
	v := &vmdk{packed: flags&vmdkCompressed != 0, zeroed: flags&vmdkHasZeroed != 0}
	if algorithm := le.Uint16(h[vmdkAlgorithm:]); v.packed && (algorithm != vmdkDeflate || flags&vmdkMarkers == 0) {
		return invalid("the image's grains are compressed in a way that is not known (%d); %s", algorithm, convert)
	}
	if err := i.vmdkTables(v, h); err != nil {
		return err
	}
	v.gd, v.gt = newWindow(i.file, i.fileSize), newWindow(i.file, i.fileSize)
	i.layout = v
	return nil
}

// vmdkTables takes the disk's and the tables' sizes and places from a header.
func (i *Image) vmdkTables(v *vmdk, h []byte) error {
	le := binary.LittleEndian
	capacity, grain, per := le.Uint64(h[vmdkCapacity:]), le.Uint64(h[vmdkGrain:]), le.Uint32(h[vmdkPerTable:])
	if capacity > uint64(store.MaxVolumeSize)/512 {
		return invalid("the image says that its disk has %d sectors, and a volume has at most %s", capacity, store.Bytes(store.MaxVolumeSize))
	}
	largest := uint64(vmdkMaxGrain)
	if v.packed {
		largest = maxUnit
	}
	if grain == 0 || grain > largest/512 || grain&(grain-1) != 0 {
		return invalid("the image says that its grains have %d sectors; it is damaged, or %s", grain, convert)
	}
	if per == 0 || per > vmdkMaxTable {
		return invalid("the image says that its tables have %d entries; it is damaged", per)
	}
	v.size, v.grain, v.perTable = int64(capacity)*512, int64(grain)*512, int64(per)
	i.size = v.size
	at := le.Uint64(h[vmdkDirectory:])
	covered := v.grain * v.perTable
	entries := (v.size + covered - 1) / covered
	if at > uint64(i.fileSize)/512 || entries*4 > i.fileSize-int64(at)*512 {
		return invalid("the image's directory of tables is said to be at sector %d, with %d entries, and the file ends at byte %d: it was cut short, or is damaged; copy it again", at, entries, i.fileSize)
	}
	v.directory = int64(at) * 512
	i.tables = append(i.tables, extent{0, vmdkHeaderSize, "its header"}, extent{v.directory, entries * 4, "its directory of tables"})
	return nil
}

// vmdkFooter returns the header that a stream has at its end, where the place of
// its directory is known.
func (i *Image) vmdkFooter(head []byte) ([]byte, error) {
	b, err := readUpTo(i.file, max(0, i.fileSize-vmdkFooterSize), vmdkFooterSize)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if len(b) < vmdkFooterSize || le.Uint32(b[12:]) != vmdkFooter || !bytes.HasPrefix(b[512:], []byte(vmdkMagic)) {
		return nil, invalid("the image has to have its directory at its end and it is not there: the image was cut short; copy it again")
	}
	foot := b[512:1024]
	if !bytes.Equal(foot[vmdkCapacity:vmdkDescAt], head[vmdkCapacity:vmdkDescAt]) || le.Uint32(foot[vmdkPerTable:]) != le.Uint32(head[vmdkPerTable:]) || le.Uint64(foot[vmdkDirectory:]) == vmdkAtEnd {
		return nil, invalid("the image's header and footer contradict each other; it is damaged, copy it again")
	}
	return foot, nil
}

const wholeVMDK = "with all of them in one folder, make one file, with: " + convertCommand

// vmdkDescriptor refuses what the text in the image says of other files.
func (i *Image) vmdkDescriptor(at, n uint64) error {
	if at == 0 || n == 0 {
		return invalid("the image is one of several files that make a disk; %s", wholeVMDK)
	}
	if at > uint64(i.fileSize)/512 || n > (uint64(i.fileSize)-at*512)/512 {
		return invalid("the image's description is said to have %d sectors at sector %d, and the file ends at byte %d: it was cut short, or is damaged; copy it again", n, at, i.fileSize)
	}
	i.tables = []extent{{int64(at) * 512, int64(n) * 512, "its description"}}
	b, err := readUpTo(i.file, int64(at)*512, min(int64(n)*512, vmdkMaxDesc))
	if err != nil {
		return err
	}
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	d := parseDescriptor(string(b))
	switch kind := strings.ToLower(d.fields["createtype"]); {
	case len(d.fields)+len(d.extents) == 0:
		return invalid("the image is one of several files that make a disk; %s", wholeVMDK)
	case d.parent():
		return invalid("the image holds only the difference to another file (%s); make it whole, with both in one folder, with: %s", clip(d.fields["parentfilenamehint"]), convertCommand)
	case kind == "" || len(d.extents) == 0:
		return invalid("the image's description does not say how its disk is kept; it is damaged, or %s", convert)
	case kind != "monolithicsparse" && kind != "streamoptimized" || len(d.extents) > 1:
		return invalid("the image is one of several files that make a disk (%s, %d parts); %s", clip(d.fields["createtype"]), len(d.extents), wholeVMDK)
	case !strings.EqualFold(d.extents[0], "SPARSE"):
		return invalid("the image keeps its bytes in another file (as %s); %s", clip(d.extents[0]), wholeVMDK)
	}
	return nil
}

// descriptor is what the text says.
type descriptor struct {
	fields  map[string]string // by their names in lower case
	extents []string          // how each part is kept
}

func parseDescriptor(text string) descriptor {
	d := descriptor{fields: map[string]string{}}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		if words := strings.Fields(line); len(words) >= 3 {
			switch strings.ToUpper(words[0]) {
			case "RW", "RDONLY", "NOACCESS":
				d.extents = append(d.extents, words[2])
				continue
			}
		}
		if name, value, ok := strings.Cut(line, "="); ok {
			d.fields[strings.ToLower(strings.TrimSpace(name))] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return d
}

// parent reports whether the disk is a difference.
func (d descriptor) parent() bool {
	cid := d.fields["parentcid"]
	return d.fields["parentfilenamehint"] != "" || cid != "" && !strings.EqualFold(cid, "ffffffff")
}

// clip makes a word of the image fit to be shown.
func clip(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	return strconv.Quote(s)
}

func (v *vmdk) span(off int64) (span, error) {
	n := off / v.grain
	first, second := n/v.perTable, n%v.perTable
	e, err := v.gd.entry(v.directory+4*first, 4, "directory of tables", off)
	if err != nil {
		return span{}, err
	}
	table := int64(binary.LittleEndian.Uint32(e)) * 512
	if table == 0 {
		return span{held: hole, end: (first + 1) * v.perTable * v.grain}, nil
	}
	e, err = v.gt.entry(table+4*second, 4, "table of grains", off)
	if err != nil {
		return span{}, err
	}
	sector := binary.LittleEndian.Uint32(e)
	s := span{held: stored, at: int64(sector)*512 + off%v.grain, end: (n + 1) * v.grain, index: first, table: table, tableLen: 4 * v.perTable}
	switch {
	case sector == 0 || sector == 1 && v.zeroed:
		s.held = hole
		s.end += v.gt.same(table+4*second, 4, v.perTable-1-second) * v.grain
	case v.packed: // deflate makes nothing longer by more than a few bytes in a thousand
		s.held, s.at, s.n = packed, int64(sector)*512, vmdkGrainHead+v.grain+v.grain/64+1024
	}
	return s, nil
}

func (v *vmdk) unitSize() int { return int(v.grain) }

var (
	errGrainPlace = errors.New("the grain belongs elsewhere")
	errGrainLong  = errors.New("the grain is too long")
)

// unpacker reads a grain. The disk's last one may be as short as the disk.
func (v *vmdk) unpacker() unpacker {
	var z io.ReadCloser
	return func(unit, b []byte, off int64) error {
		if len(b) < vmdkGrainHead {
			return io.ErrUnexpectedEOF
		}
		n := binary.LittleEndian.Uint32(b[8:])
		switch {
		case binary.LittleEndian.Uint64(b) != uint64(off)/512:
			return errGrainPlace
		case int64(n) > int64(len(b)-vmdkGrainHead):
			return io.ErrUnexpectedEOF
		}
		r := bytes.NewReader(b[vmdkGrainHead:][:n])
		var err error
		if z == nil {
			z, err = zlib.NewReader(r)
		} else {
			err = z.(zlib.Resetter).Reset(r, nil)
		}
		if err != nil {
			return noEOF(err)
		}
		return v.fill(unit, z, off)
	}
}

// fill reads a grain to its end, behind which its checksum is.
func (v *vmdk) fill(unit []byte, z io.Reader, off int64) error {
	got := 0
	for got < len(unit) {
		n, err := z.Read(unit[got:])
		got += n
		if errors.Is(err, io.EOF) && off+int64(got) >= v.size {
			clear(unit[got:])
			return nil
		} else if err != nil && (got < len(unit) || !errors.Is(err, io.EOF)) {
			return noEOF(err)
		}
	}
	var more [1]byte
	switch n, err := z.Read(more[:]); {
	case n > 0:
		return errGrainLong
	case err == nil || errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}
