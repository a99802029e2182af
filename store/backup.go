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
	Volumes bool // the bytes of volumes too, each as it is at one moment
	Hash    BackupHash
}

// BackupHash says which of the volumes that are left out are read, so that their
// SHA-256 is in the backup. Those that a machine may be writing to never are.
type BackupHash int

// What is read. Golden volumes, and what others stand on, are read once: they do not
// change.
const (
	HashFrozen BackupHash = iota
	HashAll
	HashNone
)

// BackupProgress is how far a backup has come with reading volumes; zero when none
// is being read.
type BackupProgress struct {
	Volume string `json:"volume" doc:"the volume that is being read; empty: none, or a layer that others stand on"`
	Done   int64  `json:"done" doc:"bytes"`
	Total  int64  `json:"total" doc:"bytes; 0: no volume is being read"`
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
