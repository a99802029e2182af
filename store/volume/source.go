package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"lunboot/store"
	"lunboot/store/volume/image"
)

// ImportDisk fills a new volume with a disk, which is as large, or smaller by
// less than a block. What it does not hold, and runs of zeros, become holes.
// progress is told of the bytes that the disk holds. As with Import, the file
// appears whole and durable or not at all.
func (p *Pool) ImportDisk(ctx context.Context, v store.Volume, d image.Source, progress func(done int64)) error {
	size := d.Size()
	if size > v.Size || v.Size-size >= int64(max(v.BlockSize, 512)) {
		return store.Invalid("size", "the disk has %d bytes, the volume %d", size, v.Size)
	}
	return p.bring(ctx, v, func(f file) error {
		w := &filler{pool: p, f: f, v: v}
		return image.Walk(ctx, d, w.write, progress)
	})
}

// ImportStream is Import of a source whose length only its end tells. It returns
// the volume's size: the source's in whole blocks.
func (p *Pool) ImportStream(ctx context.Context, v store.Volume, r io.Reader, progress func(done int64)) (size int64, err error) {
	v.Size = 0
	err = p.bring(ctx, v, func(f file) error {
		v.Size = store.MaxVolumeSize
		done, err := p.fill(ctx, f, v, r, progress)
		if err != nil {
			return err
		}
		block := int64(max(v.BlockSize, 512))
		size = (done + block - 1) / block * block
		return f.Truncate(size)
	})
	if err != nil {
		return 0, err
	}
	return size, nil
}

// Source is a file of the appliance that is to be imported.
type Source struct {
	*os.File
	Size int64 // bytes
}

// OpenSource opens a file to import and refuses what cannot become a volume:
// a folder, an empty file, anything that is neither a file nor a block device,
// and a file that needs more room than there is. When inside is not nil, the file
// lies in one of these folders, through symbolic links too; a plain name is
// looked for in them. It changes nothing.
func (p *Pool) OpenSource(path string, inside []string) (*Source, error) {
	f, err := OpenInside(path, inside)
	var known *store.Error
	if errors.As(err, &known) {
		return nil, err
	}
	if err != nil {
		return nil, &store.Error{Kind: store.KindInvalid, Op: "import", Subject: path, Field: "source", Err: err,
			Msg: "the file cannot be opened by the appliance"}
	}
	s, err := p.checkSource(f, path)
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

// sourceFlags open without waiting for the writer of a named pipe.
const sourceFlags = os.O_RDONLY | unix.O_NONBLOCK

// OpenInside opens a file for reading by its full path. When inside is not nil,
// the file lies in one of these folders, through symbolic links too; a plain name
// is looked for in them.
func OpenInside(path string, inside []string) (*os.File, error) {
	if inside == nil {
		if !filepath.IsAbs(path) {
			return nil, store.Invalid("source", "%q is not a full path; name the file from / on", path)
		}
		return os.OpenFile(path, sourceFlags, 0)
	}
	var missing error
	for _, dir := range inside {
		name := path
		if filepath.IsAbs(path) {
			var err error
			if name, err = filepath.Rel(dir, filepath.Clean(path)); err != nil {
				continue
			}
		}
		if !filepath.IsLocal(name) {
			continue
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			missing = err
			continue
		}
		f, err := root.OpenFile(name, sourceFlags, 0)
		root.Close()
		if err == nil {
			return f, nil
		}
		missing = err
	}
	if missing != nil {
		return nil, missing
	}
	return nil, store.Invalid("source", "%s is not in a folder for images; put it below %s, or name it at the appliance itself, to the command lunboot", path, strings.Join(inside, " or "))
}

func (p *Pool) checkSource(f *os.File, path string) (*Source, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, fault("import", path, err)
	}
	size, mode := fi.Size(), fi.Mode()
	need := size
	switch {
	case mode.IsDir():
		return nil, store.Invalid("source", "%s is a folder; name the file to import", path)
	case mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0:
		if size, err = f.Seek(0, io.SeekEnd); err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
		if err != nil {
			return nil, fault("import", path, err)
		}
		need = size
	case !mode.IsRegular():
		return nil, store.Invalid("source", "%s is neither a file nor a block device", path)
	}
	if size == 0 {
		return nil, store.Invalid("source", "%s is empty", path)
	}
	// Holes of the source stay holes.
	var st unix.Stat_t
	if mode.IsRegular() && unix.Fstat(int(f.Fd()), &st) == nil {
		need = min(need, st.Blocks*512)
	}
	free, err := p.Free()
	if err != nil {
		return nil, fault("import", path, err)
	}
	if need > free {
		return nil, &store.Error{Kind: store.KindUnavailable, Op: "import", Subject: path, Field: SpaceField,
			Msg: fmt.Sprintf("%s holds %s, and %s are free for volumes; make room and try again", path, store.Bytes(need), store.Bytes(free))}
	}
	return &Source{File: f, Size: size}, nil
}
