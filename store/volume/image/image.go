package image

import (
	"context"
	"fmt"
	"io"
	"math"

	"lunboot/store"
)

// Image is a disk that a file holds.
type Image struct {
	format    Format
	file      io.ReaderAt
	fileSize  int64
	size      int64
	blockSize int
	layout    layout
	// unit is the packed unit that was read last, which begins at unitAt of the
	// disk: readers come in order, and a unit is larger than what they ask.
	unit    []byte
	unitAt  int64
	workers []*worker
	units   []unit // of the last read
	tables  []extent
}

// extent is a run of bytes of the file.
type extent struct {
	at, n int64
	what  string
}

// layout is one format's answer to where a byte of the disk is.
type layout interface {
	// span returns what holds the disk's byte off, which is inside the disk, and
	// the bytes behind it.
	span(off int64) (span, error)
	// unpacker returns a new one, which is used beside others.
	unpacker() unpacker
	// unitSize is how many bytes of the disk are packed together.
	unitSize() int
}

// span is a run of bytes of the disk that are held in one way.
type span struct {
	held held
	end  int64 // where the run ends on the disk; may be behind the disk's end
	at   int64 // stored: where the asked byte is in the file; packed: where the unit begins there
	n    int64 // packed: bytes in the file at most
	// The second table that says all this, when there are such: which one it is,
	// where in the file, and its length.
	index, table, tableLen int64
}

type held uint8

const (
	hole   held = iota // nowhere: reads as zeros
	stored             // as they are
	packed             // in a compressed unit, which begins at a multiple of unitSize
)

// neverPacks is the part of a layout without compression.
type neverPacks struct{}

func (neverPacks) unpacker() unpacker { return nil }
func (neverPacks) unitSize() int      { return 1 }

// Open reads the head of a disk image, size bytes long, and checks all of it
// that needs no walk through its tables. Images that need another file, are
// encrypted, are marked as damaged, or use what is not known are refused in
// words. r is read until the Image is no longer used, by several goroutines at
// once; a raw disk has holes when r is an *os.File.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	f, err := Detect(r, size)
	if err != nil {
		return nil, err
	}
	i := &Image{format: f, file: r, fileSize: size, size: size, blockSize: 512, unitAt: -1}
	switch f {
	case FormatRaw:
		i.layout = openRaw(r)
	case FormatQcow2:
		err = i.openQcow2()
	case FormatVHDX:
		err = i.openVHDX()
	case FormatVHD:
		err = i.openVHD()
	case FormatVMDK:
		err = i.openVMDK()
	default:
		err = invalid("the image is a compressed stream (%s), which can only be read from its beginning to its end", f)
	}
	if err != nil {
		return nil, err
	}
	if err := i.checkTables(); err != nil {
		return nil, err
	}
	if i.size <= 0 {
		return nil, invalid("the image says that its disk has no bytes; it is empty, or damaged")
	}
	if i.size > store.MaxVolumeSize {
		return nil, invalid("the image says that its disk has %d bytes, and a volume has at most %s", i.size, store.Bytes(store.MaxVolumeSize))
	}
	return i, nil
}

// checkTables refuses tables that share bytes of the file.
func (i *Image) checkTables() error {
	for n, a := range i.tables {
		for _, b := range i.tables[:n] {
			if a.at < b.at+b.n && b.at < a.at+a.n {
				return invalid("the image has %s and %s at the same place, byte %d of the file; it is damaged", b.what, a.what, max(a.at, b.at))
			}
		}
	}
	return nil
}

// Format is the format of the file.
func (i *Image) Format() Format { return i.format }

// Size is the disk's size in bytes; for a raw file it need not be whole blocks.
func (i *Image) Size() int64 { return i.size }

// BlockSize is the logical block that the disk was made for, in bytes: 4096 for
// a VHDX that says so, else 512.
func (i *Image) BlockSize() int { return i.blockSize }

// span is the layout's span, checked against the disk and the file.
func (i *Image) span(off int64) (span, error) {
	s, err := i.layout.span(off)
	if err != nil {
		return s, err
	}
	s.end = min(s.end, i.size)
	if s.end <= off {
		return s, &store.Error{Kind: store.KindInternal, Op: "read image", Msg: fmt.Sprintf("no run of bytes at %d", off)}
	}
	switch s.held {
	case stored:
		n := s.end - off
		if s.at < 0 || s.at > math.MaxInt64-n {
			return s, invalid("the bytes of the disk at %d are said to be where no file has bytes; the image is damaged", off)
		}
		if end := s.at + n; end > i.fileSize {
			return s, cut(fmt.Sprintf("what the disk has at byte %d", off), end, i.fileSize)
		}
		return s, i.checkPlace(off, s.at, n)
	case packed:
		if s.at < 0 || s.n <= 0 {
			return s, invalid("the bytes of the disk at %d are said to be where no file has bytes; the image is damaged", off)
		}
		if s.at >= i.fileSize {
			return s, cut(fmt.Sprintf("what the disk has at byte %d", off), s.at+1, i.fileSize)
		}
		s.n = min(s.n, i.fileSize-s.at)
		return s, i.checkPlace(off, s.at, 1)
	}
	return s, nil
}

// checkPlace refuses bytes of the disk that are said to be where the image's own
// head and tables are.
func (i *Image) checkPlace(off, at, n int64) error {
	for _, t := range i.tables {
		if at < t.at+t.n && t.at < at+n {
			return invalid("the bytes of the disk at %d are said to be at byte %d of the file, where %s is; the image is damaged", off, at, t.what)
		}
	}
	return nil
}

// ReadAt reads bytes of the disk (io.ReaderAt).
func (i *Image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, invalid("a read before the disk's first byte")
	}
	if off >= i.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > i.size-off {
		p, end = p[:i.size-off], io.EOF
	}
	done := 0
	for done < len(p) {
		n, err := i.readRun(p[done:], off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, end
}

// readRun reads the bytes at off that are held in one way and next to each other.
func (i *Image) readRun(p []byte, off int64) (int, error) {
	s, err := i.span(off)
	if err != nil {
		return 0, err
	}
	for s.held == stored && s.end-off < int64(len(p)) {
		next, err := i.span(s.end)
		if err != nil || next.held != stored || next.at != s.at+s.end-off {
			break // the next read meets it
		}
		s.end = next.end
	}
	whole := p
	p = p[:min(int64(len(p)), s.end-off)]
	switch s.held {
	case hole:
		clear(p)
		return len(p), nil
	case stored:
		if err := readFull(i.file, p, s.at); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	if size := int64(i.layout.unitSize()); off%size == 0 && int64(len(whole)) >= size {
		return i.readUnits(whole, off, s)
	}
	if err := i.load(s, off); err != nil {
		return 0, err
	}
	return copy(p, i.unit[off-i.unitAt:]), nil
}

// mergeSpans bounds one call of Extent.
const mergeSpans = 4096

// Extent reports whether the image holds bytes for the disk at off, and where
// that ends: from off to end the disk is all data, or all zeros that are
// nowhere. The next extent may be of the same sort.
func (i *Image) Extent(off int64) (data bool, end int64, err error) {
	if off < 0 || off >= i.size {
		return false, 0, invalid("byte %d is outside of the disk's %d", off, i.size)
	}
	for n := 0; n < mergeSpans && off < i.size; n++ {
		s, err := i.span(off)
		if err != nil {
			if n > 0 {
				break // whoever asks for the rest is told
			}
			return false, 0, err
		}
		if n > 0 && data != (s.held != hole) {
			break
		}
		data, end, off = s.held != hole, s.end, s.end
	}
	return data, end, nil
}

// Data walks all tables of the image and returns how many bytes of the disk it
// holds, the others being zeros. An image in which an offset points nowhere, in
// which two parts of the disk are at one place, or whose last packed part is
// damaged, is refused.
func (i *Image) Data(ctx context.Context) (int64, error) {
	var data, storedBytes, units int64
	seen := newClaims(i.fileSize)
	for _, t := range i.tables {
		seen.claim(t.at, min(t.n, i.fileSize-t.at))
	}
	var last span // the packed unit at the file's end, which a cut hits
	lastAt, table := int64(-1), int64(-1)
	for off, n := int64(0), 0; off < i.size; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		s, err := i.span(off)
		if err != nil {
			return 0, err
		}
		if s.tableLen != 0 && s.index != table {
			table = s.index
			if !seen.claim(s.table, min(s.tableLen, i.fileSize-s.table)) {
				return 0, invalid("the table for what the disk has at byte %d is at byte %d of the file, where something else is too; the image is damaged", off, s.table)
			}
		}
		switch s.held {
		case stored:
			storedBytes += s.end - off
			data += s.end - off
			if i.format != FormatRaw && !seen.claim(s.at, s.end-off) {
				return 0, invalid("the bytes of the disk at %d are at byte %d of the file, where others are too; the image is damaged", off, s.at)
			}
		case packed:
			units++
			data += s.end - off
			if s.at > last.at {
				last, lastAt = s, off
			}
		}
		// No packed unit is smaller than 8 bytes. What shares bytes is found by its
		// place, or, when it is too small for that, by the sum.
		if storedBytes > i.fileSize || units > i.fileSize/8 {
			return 0, invalid("the image's tables name more bytes than its file has; it is damaged, or made to deceive")
		}
		off = s.end
	}
	if lastAt >= 0 {
		if err := i.load(last, lastAt); err != nil {
			return 0, err
		}
	}
	return data, nil
}
