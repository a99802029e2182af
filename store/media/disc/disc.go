// Package disc reads the file systems of discs in place: ISO 9660 with the names
// of Rock Ridge or Joliet, and UDF. A kernel that lies on the image of a disc is
// read from there, and nothing is unpacked.
//
// What it reads was made by others: every length and place is checked before it
// is used, every loop is bounded, and a disc that is wrong is an error.
package disc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

const (
	sector = 2048
	// maxFolder bounds the bytes of a folder's records, and maxEntries how many
	// they may be: Debian's largest folder has some thousand.
	maxFolder  = 16 << 20
	maxEntries = 1 << 16
	maxExtents = 1 << 12
	maxDepth   = 64 // folders and links on the way to a file
)

// ErrNoDisc is returned for bytes that hold no file system of a disc.
var ErrNoDisc = errors.New("there is no file system of a disc")

// errDamaged begins the errors of a disc that contradicts itself.
var errDamaged = errors.New("the disc is damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// Disc is the file system of a disc. It is safe for many readers, and an fs.FS
// whose files are io.ReadSeekers and io.ReaderAts.
type Disc struct {
	System string // "ISO 9660", "UDF"
	Label  string
	r      io.ReaderAt
	size   int64
	root   entry
	list   func(entry) ([]entry, error)
	// complete reads what a folder leaves to the entry's own description; nil: it
	// leaves nothing.
	complete func(entry) (entry, error)
}

// entry is one file or folder.
type entry struct {
	name    string
	dir     bool
	link    string // where a symbolic link leads
	size    int64
	at      int64    // where it is described, for systems that do so elsewhere
	extents []extent // in order
	inline  []byte   // contents that stand in the description
	mod     time.Time
}

// extent is a run of bytes; off is -1 for a run of zeros that is not written.
type extent struct{ off, n int64 }

// Open finds the file system. One with the names of Rock Ridge goes before UDF,
// and UDF before the bare or Joliet names of ISO 9660: Windows puts next to
// nothing into those.
func Open(r io.ReaderAt, size int64) (*Disc, error) {
	iso, ridge, err := openISO(r, size)
	if err == nil && ridge {
		return iso, nil
	}
	udf, udfErr := openUDF(r, size)
	switch {
	case udfErr == nil:
		return udf, nil
	case err == nil:
		return iso, nil
	case errors.Is(udfErr, ErrNoDisc):
		return nil, err
	}
	return nil, udfErr
}

// read fills b from off on; what lies beyond the image is damage.
func read(r io.ReaderAt, size int64, b []byte, off int64) error {
	if off < 0 || off > size || int64(len(b)) > size-off {
		return damaged("byte %d is beyond its end", off)
	}
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// contents reads all of an entry, which is a folder or short.
func (d *Disc) contents(e entry, most int64) ([]byte, error) {
	if e.inline != nil {
		return e.inline, nil
	}
	if e.size < 0 || e.size > most {
		return nil, damaged("%q has %d bytes", e.name, e.size)
	}
	b := make([]byte, e.size)
	f := &file{d: d, e: e}
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

// find walks to an entry, through links. Names are those of the disc, in any
// case when none fits exactly: a disc without longer names holds capitals only.
func (d *Disc) find(name string) (entry, error) {
	if !fs.ValidPath(name) {
		return entry{}, fs.ErrInvalid
	}
	todo := strings.Split(name, "/")
	at := []entry{d.root}
	for steps := 0; len(todo) > 0; steps++ {
		if steps > maxDepth {
			return entry{}, damaged("%q leads in a circle", name)
		}
		word := todo[0]
		todo = todo[1:]
		switch word {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		here := at[len(at)-1]
		if !here.dir {
			return entry{}, fs.ErrNotExist
		}
		all, err := d.list(here)
		if err != nil {
			return entry{}, err
		}
		next, ok := choose(all, word)
		if !ok {
			return entry{}, fs.ErrNotExist
		}
		if next.link != "" {
			if strings.HasPrefix(next.link, "/") {
				at = at[:1]
			}
			todo = append(strings.Split(next.link, "/"), todo...)
			continue
		}
		if next, err = d.full(next); err != nil {
			return entry{}, err
		}
		at = append(at, next)
	}
	return at[len(at)-1], nil
}

// full is an entry with what its folder does not say of it.
func (d *Disc) full(e entry) (entry, error) {
	if d.complete == nil {
		return e, nil
	}
	return d.complete(e)
}

// join puts extents that follow each other together.
func join(all []extent) []extent {
	out := all[:0]
	for _, x := range all {
		if n := len(out); n > 0 && x.off >= 0 && out[n-1].off >= 0 && out[n-1].off+out[n-1].n == x.off {
			out[n-1].n += x.n
			continue
		}
		out = append(out, x)
	}
	return out
}

func choose(all []entry, word string) (entry, bool) {
	for _, e := range all {
		if e.name == word {
			return e, true
		}
	}
	for _, e := range all {
		if strings.EqualFold(e.name, word) {
			return e, true
		}
	}
	return entry{}, false
}

// Open opens a file or folder.
func (d *Disc) Open(name string) (fs.File, error) {
	e, err := d.find(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	e.name = path.Base(name)
	return &file{d: d, e: e}, nil
}

// ReadFile reads a short file: fs.ReadFileFS for texts, never for images.
func (d *Disc) ReadFile(name string) ([]byte, error) {
	e, err := d.find(name)
	if err == nil && e.dir {
		err = fs.ErrInvalid
	}
	if err == nil && e.size > 1<<20 {
		err = fmt.Errorf("%d bytes are more than a short file has", e.size)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return d.contents(e, 1<<20)
}

// ReadDir lists a folder.
func (d *Disc) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := d.find(name)
	if err == nil && !e.dir {
		err = fs.ErrInvalid
	}
	var all []entry
	if err == nil {
		all, err = d.list(e)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "list", Path: name, Err: err}
	}
	out := make([]fs.DirEntry, 0, len(all))
	for _, e := range all {
		if e, err = d.full(e); err != nil {
			return nil, &fs.PathError{Op: "list", Path: name, Err: err}
		}
		out = append(out, fs.FileInfoToDirEntry(info{e}))
	}
	return out, nil
}

// Exists reports whether there is a file of this name.
func (d *Disc) Exists(name string) bool {
	e, err := d.find(name)
	return err == nil && !e.dir
}

// info is an entry for people and for net/http.
type info struct{ e entry }

func (i info) Name() string       { return i.e.name }
func (i info) Size() int64        { return i.e.size }
func (i info) ModTime() time.Time { return i.e.mod }
func (i info) IsDir() bool        { return i.e.dir }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	switch {
	case i.e.dir:
		return fs.ModeDir | 0o555
	case i.e.link != "":
		return fs.ModeSymlink | 0o444
	}
	return 0o444
}

// file is an open entry.
type file struct {
	d   *Disc
	e   entry
	pos int64
}

func (f *file) Stat() (fs.FileInfo, error) { return info{f.e}, nil }
func (f *file) Close() error               { return nil }

func (f *file) Read(b []byte) (int, error) {
	if f.e.dir {
		return 0, &fs.PathError{Op: "read", Path: f.e.name, Err: fs.ErrInvalid}
	}
	n, err := f.ReadAt(b, f.pos)
	f.pos += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *file) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += f.pos
	case io.SeekEnd:
		off += f.e.size
	}
	if off < 0 {
		return 0, &fs.PathError{Op: "seek", Path: f.e.name, Err: fs.ErrInvalid}
	}
	f.pos = off
	return off, nil
}

// ReadAt reads as io.ReaderAt says.
func (f *file) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	if off >= f.e.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(b)) > f.e.size-off {
		b, end = b[:f.e.size-off], io.EOF
	}
	if f.e.inline != nil {
		return copy(b, f.e.inline[off:]), end
	}
	done := 0
	for _, x := range f.e.extents {
		if off >= x.n {
			off -= x.n
			continue
		}
		part := b[done:min(int64(len(b)), int64(done)+x.n-off)]
		if x.off < 0 {
			clear(part)
		} else if err := read(f.d.r, f.d.size, part, x.off+off); err != nil {
			return done, err
		}
		if done += len(part); done == len(b) {
			return done, end
		}
		off = 0
	}
	return done, damaged("%q has fewer bytes than it should", f.e.name)
}

// Place says where the file's bytes stand in the image when they stand together,
// so that they can be sent from there without a copy.
func (f *file) Place() (off int64, ok bool) {
	if f.e.inline != nil || len(f.e.extents) != 1 || f.e.extents[0].off < 0 || f.e.extents[0].n < f.e.size {
		return 0, false
	}
	return f.e.extents[0].off, true
}
