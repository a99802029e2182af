package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"lunboot/store"
)

// Adopt makes a new volume of a file of the appliance by moving it into the
// folder: an image that was received whole is not copied again. The file's size
// is the volume's, or falls short of it by less than a block. As with Import,
// the volume's file appears whole and durable or not at all; the other one is
// gone in both cases, except that a file on another file system stays where it
// is and errors.ErrUnsupported is returned.
func (p *Pool) Adopt(ctx context.Context, v store.Volume, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if v.Kind != store.VolumeRaw {
		return store.Invalid("kind", "a volume of kind %q cannot be imported", v.Kind)
	}
	if err := checkName(v.Path); err != nil {
		return fault("import volume", v.Name, err)
	}
	from, ok := p.files.(interface{ Take(path, name string) error })
	if !ok {
		return errors.ErrUnsupported
	}
	name := "." + v.Path + importSuffix
	if err := p.discard(name); err != nil {
		return fault("import volume", v.Name, err)
	}
	if err := from.Take(path, name); err != nil {
		if errors.Is(err, unix.EXDEV) {
			return errors.ErrUnsupported
		}
		return fault("import volume", v.Name, err)
	}
	err := p.fit(name, v)
	if err == nil {
		err = p.absent(v.Path)
	}
	if err == nil {
		if err = p.files.Rename(name, v.Path); err == nil {
			name = v.Path
			err = p.files.Sync()
		}
	}
	if err == nil {
		return nil
	}
	return fault("import volume", v.Name, errors.Join(err, p.discard(name)))
}

// fit gives a file the volume's size and makes it durable.
func (p *Pool) fit(name string, v store.Volume) error {
	f, err := p.files.Open(name, true)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err == nil && (size > v.Size || v.Size-size >= int64(max(v.BlockSize, 512))) {
		err = store.Invalid("source", "the source has %d bytes, %d were announced", size, v.Size)
	}
	if err == nil {
		err = errors.Join(f.Truncate(v.Size), f.Sync())
	}
	return errors.Join(err, f.Close())
}

// Take moves a file from elsewhere on the same file system into the folder.
func (d *folder) Take(path, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return os.Rename(path, filepath.Join(d.path, name))
}
