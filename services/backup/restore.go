package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"lunboot/store"
	"lunboot/store/archive"
)

// stageName is the folder below the data folder in which a backup is unpacked
// and looked at before anything is put in its place.
const stageName = ".restore"

// Restore puts a backup into an empty data folder. Until every byte of it was
// checked, and inspect has looked at the folder where it is unpacked, nothing is
// in its place.
func Restore(ctx context.Context, r io.Reader, dir string, inspect func(stage string) error) (m archive.Manifest, err error) {
	if err := emptyFolder(dir); err != nil {
		return m, err
	}
	stage := filepath.Join(dir, stageName)
	if err := os.Mkdir(stage, 0o700); err != nil {
		return m, fmt.Errorf("make a folder for the restore: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	if m, err = archive.Unpack(ctx, r, stage); err != nil {
		return m, err
	}
	if err := inspect(stage); err != nil {
		return m, err
	}
	if err := place(stage, dir); err != nil {
		return m, fmt.Errorf("put the files in their place: %w; empty %s and try again", err, dir)
	}
	return m, nil
}

// emptyFolder makes the data folder, or refuses one that something is in.
func emptyFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("data folder %s: %w", dir, err)
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("data folder %s: %w", dir, err)
	}
	var names []string
	for _, e := range there {
		if e.Name() != "lost+found" { // of a file system that is mounted there
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return nil
	}
	more := ""
	if len(names) > 5 {
		names, more = names[:5], fmt.Sprintf(" and %d more", len(names)-5)
	}
	return store.InUse("a backup is restored into an empty data folder only, and in %s there is: %s%s; name another with --data, or move these away", dir, strings.Join(names, ", "), more)
}

// place moves what was unpacked into the data folder. The inventory goes last:
// without it nothing starts from half of a restore. Root gives the files to whom
// the data folder belongs to.
func place(stage, dir string) error {
	files, err := os.ReadDir(stage)
	if err != nil {
		return err
	}
	if err := giveTo(stage, dir); err != nil {
		return err
	}
	slices.SortStableFunc(files, func(x, y fs.DirEntry) int {
		last := func(e fs.DirEntry) int {
			if e.Name() == "inventory.db" {
				return 1
			}
			return 0
		}
		return last(x) - last(y)
	})
	for _, f := range files {
		if err := os.Rename(filepath.Join(stage, f.Name()), filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func giveTo(stage, dir string) error {
	st, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	uid, gid := ownerOf(st)
	return filepath.WalkDir(stage, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}

// ownerOf is whose a file is.
func ownerOf(st os.FileInfo) (uid, gid int) {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid), int(s.Gid)
	}
	return os.Geteuid(), os.Getegid()
}
