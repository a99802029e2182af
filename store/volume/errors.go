package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"lunboot/store"
	"lunboot/store/volume/clone"
)

// SpaceField is the Field of every error that says that there is no room: the
// SCSI side answers SPACE ALLOCATION FAILED WRITE PROTECT for it, and pages
// show a banner. The condition passes when the operator makes room.
const SpaceField = "space"

// noSpace reports an error that room on the file system would cure.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// fault turns an error of the file system into one that names the volume and
// the way out. Errors that have a kind already keep it.
func fault(op, name string, err error) error {
	var known *store.Error
	var damage *clone.DamageError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.As(err, &damage):
		return damageError(name, damage)
	case noSpace(err):
		return &store.Error{Kind: store.KindUnavailable, Op: op, Subject: name, Field: SpaceField, Cause: store.CauseFull, Err: err,
			Msg: "the file system that holds the volumes is full; nothing was lost, make room and try again"}
	case errors.Is(err, syscall.EFBIG):
		return &store.Error{Kind: store.KindInvalid, Op: op, Subject: name, Field: "size", Err: err,
			Msg: "the file system cannot hold a file of this size"}
	case errors.Is(err, fs.ErrNotExist):
		return &store.Error{Kind: store.KindNotFound, Op: op, Subject: name, Err: err,
			Msg: "the volume's file is missing; is the file system that holds it mounted?"}
	case errors.Is(err, syscall.EISDIR):
		return &store.Error{Kind: store.KindCorrupt, Op: op, Subject: name, Err: err,
			Msg: "a folder stands where the volume's file should be"}
	case errors.Is(err, fs.ErrExist):
		return &store.Error{Kind: store.KindConflict, Op: op, Subject: name, Err: err,
			Msg: "a file with the volume's file name exists already"}
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return &store.Error{Kind: store.KindDenied, Op: op, Subject: name, Err: err,
			Msg: "the appliance may not use the volume's file; check its owner and mode, and whether the file system is mounted read-only"}
	case errors.Is(err, syscall.EBUSY):
		return &store.Error{Kind: store.KindInUse, Op: op, Subject: name, Cause: store.CauseHeld, Err: err,
			Msg: "the device is mounted or held by another program"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &store.Error{Kind: store.KindCorrupt, Op: op, Subject: name, Err: err,
			Msg: "the volume's file ends before the volume does; something cut it"}
	case errors.Is(err, syscall.EIO):
		return &store.Error{Kind: store.KindCorrupt, Op: op, Subject: name, Err: err,
			Msg: "the disk that holds the volume reports an error; look at the appliance's kernel log and replace the disk"}
	}
	return &store.Error{Kind: store.KindInternal, Op: op, Subject: name, Err: err}
}

func closedError(name string) error {
	return &store.Error{Kind: store.KindUnavailable, Op: "use volume", Subject: name, Msg: "the volume was closed"}
}

// fencedError is what handles get whose layers were taken from the volume: what
// they would write belongs to nothing any more.
func fencedError(name string) error {
	return &store.Error{Kind: store.KindConflict, Op: "use volume", Subject: name,
		Msg: "the volume begins anew, and this session is of before; log in again"}
}

// staleError is what a row gets that is older than the volume's layers.
func staleError(name string) error {
	return &store.Error{Kind: store.KindConflict, Op: "open volume", Subject: name, Msg: "the volume changed meanwhile; try again"}
}

// damageError says which blocks of a volume are lost with a damaged map.
func damageError(name string, d *clone.DamageError) *store.Error {
	first := d.Off / int64(d.BlockSize)
	return &store.Error{Kind: store.KindCorrupt, Op: "use volume", Subject: name, Err: d,
		Msg: fmt.Sprintf("the map of its blocks %d to %d is damaged, so that nobody knows what they hold; the volume is read-only: copy what can be read, then roll back to a snapshot or make a new clone", first, (d.Off+d.Len-1)/int64(d.BlockSize))}
}

func boundsError(name string, off, n, size int64) error {
	return &store.Error{Kind: store.KindInvalid, Op: "use volume", Subject: name,
		Msg: fmt.Sprintf("%d bytes at %d are outside of the volume's %d bytes", n, off, size)}
}

func readOnlyError(name string) error {
	return &store.Error{Kind: store.KindDenied, Op: "write volume", Subject: name, Msg: "the volume is read-only"}
}

// lostError is what every flush gets after one failed: bytes that a machine
// believed safe are lost.
func lostError(name string, cause error) *store.Error {
	return &store.Error{Kind: store.KindCorrupt, Op: "flush volume", Subject: name, Err: cause,
		Msg: "writing to disk failed, so the volume is read-only until lunboot starts again: some of what machines wrote may be in memory alone and is gone then, so export the volume first, and check the disk and the file system"}
}

// lostWriteError is what writes get after a flush failed.
func lostWriteError(lost *store.Error) *store.Error {
	return &store.Error{Kind: store.KindDenied, Op: "write volume", Subject: lost.Subject, Msg: lost.Msg, Err: lost.Err}
}
