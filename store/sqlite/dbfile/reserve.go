package dbfile

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/mattn/go-sqlite3"
)

// reserve is room on the disk that is given back when the disk is full, so that
// a file system which volumes have filled still takes leases and mappings.
type reserve struct {
	path string
	size int64 // 0: no reserve

	mu    sync.Mutex
	given time.Time // when it was given back, or making it failed; zero while it is held
}

// reserveAgain is how long a reserve that was given back is left to its users.
const reserveAgain = time.Minute

// hold makes the reserve where there is room for it four times over: on a disk
// that is nearly full it would be the very thing that fills it.
func (r *reserve) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.size == 0 {
		return
	}
	r.given = time.Time{}
	if st, err := os.Stat(r.path); err == nil && st.Size() == r.size {
		return
	}
	if err := r.make(); err != nil {
		// Without a reserve the appliance works the same until the disk is
		// full, and then says so.
		r.given = time.Now()
		_ = os.Remove(r.path)
	}
}

func (r *reserve) make() error {
	f, err := os.OpenFile(r.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var disk syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &disk); err != nil {
		return err
	}
	if int64(disk.Bavail)*disk.Bsize < 4*r.size {
		return syscall.ENOSPC
	}
	return errors.Join(syscall.Fallocate(int(f.Fd()), 0, 0, r.size), f.Sync())
}

// give gives the room back.
func (r *reserve) give() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.size > 0 && r.given.IsZero() {
		_ = os.Remove(r.path)
		r.given = time.Now()
	}
}

// renew makes the reserve again some time after it was given back.
func (r *reserve) renew() {
	r.mu.Lock()
	due := !r.given.IsZero() && time.Since(r.given) > reserveAgain
	r.mu.Unlock()
	if due {
		r.hold()
	}
}

// IsFull reports whether err says that the disk is full. The write that finds it
// so gives the reserve back and fails; the next one has room.
func IsFull(err error) bool {
	var lite sqlite3.Error
	if errors.As(err, &lite) {
		return lite.Code == sqlite3.ErrFull || lite.SystemErrno == syscall.ENOSPC || lite.SystemErrno == syscall.EDQUOT
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
