package volume

import (
	"context"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"lunboot/store"
)

// OpenDisk is a volume that is read as a disk: to be exported, say.
type OpenDisk struct {
	ctx    context.Context
	h      *Handle
	writes uint64 // that were begun before
}

// Disk opens a volume to be read until ctx ends.
func (p *Pool) Disk(ctx context.Context, v store.Volume) (*OpenDisk, error) {
	h, err := p.Open(ctx, v)
	if err != nil {
		return nil, err
	}
	h.s.still.Lock() // until those under way have returned
	defer h.s.still.Unlock()
	return &OpenDisk{ctx, h, h.s.writes.Load()}, nil
}

// Changed reports whether anybody began to write to the volume since it was
// opened: what was read may then be a mixture of old and new.
func (d *OpenDisk) Changed() bool { return d.h.s.writes.Load() != d.writes }

// Size is the volume's size in bytes.
func (d *OpenDisk) Size() int64 { return d.h.Size() }

// ReadAt reads as io.ReaderAt does.
func (d *OpenDisk) ReadAt(p []byte, off int64) (int, error) {
	var end error
	if left := d.h.Size() - off; int64(len(p)) > left {
		p, end = p[:max(left, 0)], io.EOF
	}
	if len(p) == 0 {
		return 0, end
	}
	if err := d.h.ReadAt(d.ctx, p, off); err != nil {
		return 0, err
	}
	return len(p), end
}

// Extent reports whether the volume holds bytes at off, and the end of the run
// that begins there; what it does not hold reads as zeros.
func (d *OpenDisk) Extent(off int64) (data bool, end int64, err error) {
	data, n, err := d.h.BlockStatus(d.ctx, off, d.h.Size()-off)
	return data, off + n, err
}

// Close lets go of the volume.
func (d *OpenDisk) Close() error { return d.h.Close() }

// Room is the size of the file system that holds the volumes, and what is free
// in it, in bytes. The size is 0 when it is not known.
func (p *Pool) Room() (size, free int64, err error) {
	if free, err = p.files.Free(); err != nil {
		return 0, 0, err
	}
	if d, ok := p.files.(interface{ Size() (int64, error) }); ok {
		size, err = d.Size()
	}
	return size, free, err
}

// Size is the size of the file system, in bytes.
func (d *folder) Size() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.path, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: d.path, Err: err}
	}
	return int64(st.Blocks) * st.Bsize, nil
}
