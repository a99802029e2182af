package image

import (
	"bytes"
	"fmt"
	"io"
)

// windowSize is what is read at once of a table. Entries do not cross it: they
// are as long as a power of two, and a table begins at a multiple of that.
const windowSize = 64 << 10

// window reads entries of tables that lie in a file, in memory that does not
// depend on what the file says about their length.
type window struct {
	file     io.ReaderAt
	fileSize int64
	from     int64
	b        []byte
	buf      []byte
}

func newWindow(r io.ReaderAt, size int64) *window {
	return &window{file: r, fileSize: size, from: -1}
}

// entry returns the n bytes at off, until the next call. They are of a table that
// is named, for a byte of the disk.
func (w *window) entry(off int64, n int, table string, disk int64) ([]byte, error) {
	if off < 0 || off > w.fileSize-int64(n) {
		return nil, cut(fmt.Sprintf("the image's %s, for what the disk has at byte %d,", table, disk), off+int64(n), w.fileSize)
	}
	from := off / windowSize * windowSize
	if from != w.from {
		if w.buf == nil {
			w.buf = make([]byte, windowSize)
		}
		w.from = -1
		b := w.buf[:min(windowSize, w.fileSize-from)]
		if err := readFull(w.file, b, from); err != nil {
			return nil, err
		}
		w.from, w.b = from, b
	}
	at := off - from
	if at+int64(n) > int64(len(w.b)) {
		return nil, invalid("the image's %s is where it cannot be; the image is damaged", table)
	}
	return w.b[at : at+int64(n)], nil
}

// same counts the entries that follow the one of n bytes at off, which was read
// last, and are equal to it: as far as the window reaches, and at most limit.
func (w *window) same(off int64, n int, limit int64) (count int64) {
	b := w.b[off-w.from:]
	for e := b[:n]; count < limit && len(b) >= 2*n && bytes.Equal(b[n:2*n], e); count++ {
		b = b[n:]
	}
	return count
}
