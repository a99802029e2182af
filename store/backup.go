package store

import (
	"context"
	"io"
)

// BackupSpec says what a backup holds besides the inventory, which is always in
// it: machines, mappings, profiles, networks, leases, people, tokens, settings
// and the audit log, with the loaders that the operator supplied.
type BackupSpec struct {
	Journal bool // the events and attempts too
	Volumes bool // the bytes of volumes too, but of those that a machine may be writing to
	Hash    bool // volumes that are left out are read, so that their SHA-256 is known
}

// Backup is one that is ready to be sent. It is closed by who asked for it.
type Backup interface {
	// Name is a file name that tells it from others.
	Name() string
	// Send writes it. What was written before an error is no backup.
	Send(ctx context.Context, w io.Writer) error
	// Close removes what was set aside for it.
	Close() error
}
