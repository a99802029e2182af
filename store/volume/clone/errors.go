package clone

import (
	"errors"
	"fmt"
	"strings"

	"lunboot/store"
)

// Range is a part of a layer.
type Range struct {
	Off int64 `json:"offset"` // bytes
	Len int64 `json:"length"` // bytes
}

// DamageError says what of a layer cannot be read, since the map that speaks of
// it is damaged. The layer takes no writes.
type DamageError struct {
	Range
	BlockSize int
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("the map of blocks %d to %d is damaged", e.Off/int64(e.BlockSize), (e.Off+e.Len-1)/int64(e.BlockSize))
}

// HeaderError says why a file is not a map that can be used.
type HeaderError struct{ Msg string }

func (e *HeaderError) Error() string { return "the map cannot be used: " + e.Msg }

// ParentError says that a layer was to be opened over bytes that it was not
// made for, or as another layer than it is.
type ParentError struct {
	What      string // "parent" or "layer"
	Have      store.UUID
	Want      store.UUID // what the map says
	HaveBytes int64
	WantBytes int64
}

func (e *ParentError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the map belongs to %s %s", e.What, e.Want)
	if e.What == "parent" {
		fmt.Fprintf(&b, " of %d bytes", e.WantBytes)
	}
	fmt.Fprintf(&b, ", not to %s", e.Have)
	if e.What == "parent" {
		fmt.Fprintf(&b, " of %d bytes", e.HaveBytes)
	}
	b.WriteString("; reading through it would mix two disks")
	return b.String()
}

// CutError says that a file is shorter than what it holds.
type CutError struct {
	What       string // "data file", "parent"
	Have, Want int64  // bytes
}

func (e *CutError) Error() string {
	return fmt.Sprintf("the %s has %d bytes, and %d are needed; something cut it", e.What, e.Have, e.Want)
}

var (
	errReadOnly = errors.New("the layer is open for reading only")
	errShrink   = errors.New("a layer can only grow")
)
