package volume

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

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
