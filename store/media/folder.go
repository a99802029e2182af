package media

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"lunboot/store"
	"lunboot/store/media/disc"
)

// Folder holds the bytes of media, each file under its hash. One process uses
// it.
type Folder struct{ dir string }

// OpenFolder opens the folder and makes it when it is missing.
func OpenFolder(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fault("open the folder of media", dir, err)
	}
	return &Folder{dir: dir}, nil
}

// path is where a file lies. The hash is made of hexadecimal digits by
// store.Media's Validate; it is checked again, since a name is opened here.
func (f *Folder) path(sum string) (string, error) {
	if len(sum) != 2*sha256.Size || strings.Trim(sum, "0123456789abcdef") != "" {
		return "", store.Invalid("sha256", "%q is no SHA-256 sum in hexadecimal", sum)
	}
	return filepath.Join(f.dir, sum), nil
}

// Free is how many bytes may still be written to the folder.
func (f *Folder) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(f.dir, &st); err != nil {
		return 0, fault("look for room", f.dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// Sweep removes what a power cut left: files that no row speaks of.
func (f *Folder) Sweep(rows []store.Media) (removed []string, err error) {
	wanted := map[string]bool{}
	for _, m := range rows {
		wanted[m.SHA256] = true
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fault("clean the folder of media", f.dir, err)
	}
	for _, e := range entries {
		if wanted[e.Name()] || e.IsDir() {
			continue
		}
		if err := os.Remove(filepath.Join(f.dir, e.Name())); err != nil {
			return removed, fault("clean the folder of media", f.dir, err)
		}
		removed = append(removed, e.Name())
	}
	return removed, nil
}

// Adopt moves a file into the folder, whose hash its caller has computed while
// it came. It is durable when Adopt returns.
func (f *Folder) Adopt(path, sum string) error {
	to, err := f.path(sum)
	if err != nil {
		return err
	}
	if err := os.Rename(path, to); err != nil {
		return fault("keep media", sum, err)
	}
	return f.sync()
}

// Copy puts what r gives into a file that Adopt takes, and returns its path and
// hash. Its bytes are durable then; a failure leaves nothing behind.
func (f *Folder) Copy(ctx context.Context, r io.Reader) (path, sum string, size int64, err error) {
	tmp, err := os.CreateTemp(f.dir, "new-") // removed by Sweep if the process ends now
	if err != nil {
		return "", "", 0, fault("keep media", "", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fault("keep media", "", err), tmp.Close(), os.Remove(tmp.Name()))
		}
	}()
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for dirty := 0; ; {
		if err := ctx.Err(); err != nil {
			return "", "", 0, err
		}
		// A source that breaks off says io.ErrUnexpectedEOF, as io.ReadFull does of
		// one that ends: only the source's own io.EOF ends it.
		var n int
		var end error
		for n < len(buf) && end == nil {
			var m int
			m, end = r.Read(buf[n:])
			n += m
		}
		if n > 0 {
			h.Write(buf[:n])
			if _, err := tmp.Write(buf[:n]); err != nil {
				return "", "", 0, err
			}
			size += int64(n)
			if dirty += n; dirty >= 64<<20 {
				if err := unix.Fdatasync(int(tmp.Fd())); err != nil {
					return "", "", 0, err
				}
				dirty = 0
			}
		}
		if end == io.EOF {
			break
		}
		if end != nil {
			return "", "", 0, &store.Error{Kind: store.KindUnavailable, Op: "keep media", Err: end, Msg: fmt.Sprintf("the source could not be read beyond byte %d", size)}
		}
		if size > store.MaxMediaSize {
			return "", "", 0, store.Invalid("size", "a media file has at most %s", store.Bytes(store.MaxMediaSize))
		}
	}
	if err := tmp.Sync(); err != nil {
		return "", "", 0, err
	}
	return tmp.Name(), hex.EncodeToString(h.Sum(nil)), size, tmp.Close()
}

func (f *Folder) sync() error {
	d, err := os.Open(f.dir)
	if err != nil {
		return fault("keep media", f.dir, err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// Remove removes a file. One that is gone already is no error.
func (f *Folder) Remove(sum string) error {
	path, err := f.path(sum)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault("remove media", sum, err)
	}
	return nil
}

// Open opens a file's bytes.
func (f *Folder) Open(sum string) (*os.File, error) {
	path, err := f.path(sum)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fault("open media", sum, err)
	}
	return file, nil
}

// Inside opens a file that lies inside a disc. It is an io.ReadSeeker, and one
// whose bytes stand together can be sent from the image itself: see Piece.
func (f *Folder) Inside(m store.Media, name string) (fs.File, error) {
	img, err := f.Open(m.SHA256)
	if err != nil {
		return nil, err
	}
	d, err := disc.Open(img, m.Size)
	if err != nil {
		return nil, errors.Join(&fs.PathError{Op: "open", Path: m.Name, Err: err}, img.Close())
	}
	in, err := d.Open(name)
	if err != nil {
		return nil, errors.Join(err, img.Close())
	}
	return &Piece{File: in, img: img}, nil
}

// Piece is a file inside a disc.
type Piece struct {
	fs.File
	img *os.File
}

// Close closes the disc's image too.
func (p *Piece) Close() error { return errors.Join(p.File.Close(), p.img.Close()) }

// Seek is the file's.
func (p *Piece) Seek(off int64, whence int) (int64, error) {
	return p.File.(io.Seeker).Seek(off, whence)
}

// Source returns the disc's image, read from where the file is read now, when
// the file's bytes stand together there.
func (p *Piece) Source() (io.Reader, bool) {
	off, ok := p.File.(interface{ Place() (int64, bool) }).Place()
	if !ok {
		return nil, false
	}
	at, err := p.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, false
	}
	_, err = p.img.Seek(off+at, io.SeekStart)
	return p.img, err == nil
}

// fault says what is wrong with the folder.
func fault(op, subject string, err error) error {
	var known *store.Error
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &store.Error{Kind: store.KindUnavailable, Op: op, Subject: subject, Field: "space", Err: err, Msg: "the file system that holds the media is full; make room and try again"}
	}
	return &store.Error{Kind: store.KindUnavailable, Op: op, Subject: subject, Err: err, Msg: "the folder of media cannot be used"}
}
