package store

import (
	"context"
	"io"
)

// ExportSpec is how a volume goes out.
type ExportSpec struct {
	Format   string // "raw" or "qcow2"
	Compress bool   // qcow2 only: smaller, and slower to make
}

// Validate checks an ExportSpec.
func (s ExportSpec) Validate() error {
	switch {
	case s.Format != "raw" && s.Format != "qcow2":
		return Invalid("format", "a volume is exported as raw or qcow2, not %q", s.Format)
	case s.Compress && s.Format != "qcow2":
		return Invalid("compress", "only qcow2 is compressed; pack a raw file afterwards, or choose qcow2")
	}
	return nil
}

// Export is a volume that is ready to be sent. It is closed by who asked for it.
type Export interface {
	// Name is what the file may be called.
	Name() string
	// Length is the file's size in bytes, -1 when only its end tells.
	Length() int64
	// Part is the file at random access, or nil when it is made as it goes.
	Part() io.ReadSeeker
	// Send writes all of it. What was written before an error is no disk image.
	Send(ctx context.Context, w io.Writer) error
	// Close ends it. failed is why it was not sent whole, or nil.
	Close(failed error)
}
