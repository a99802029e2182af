package store

import (
	"fmt"
	"strings"
	"time"
)

// LayerID identifies a layer for good.
type LayerID int64

// LayerKind says how a layer keeps its bytes.
type LayerKind string

// The kinds of layers.
const (
	LayerRaw     LayerKind = "raw"     // a sparse file that holds everything
	LayerDevice  LayerKind = "device"  // a block device of the appliance
	LayerOverlay LayerKind = "overlay" // a sparse file, with a map of what it holds over the layer below
)

// A read that finds nothing above looks through all layers that a volume's bytes
// lie in. When there are more than LongChain, some of them are merged behind the
// machines' backs until there are MergedChain; more than MaxLayers are refused,
// which only an appliance that cannot merge, or not as fast, comes to.
const (
	MergedChain = 4
	LongChain   = 5
	MaxLayers   = 16
)

// Layer is one piece of a volume's bytes. A machine writes to the top layer of a
// volume; every layer below another one is frozen and never changes. A layer
// belongs to one volume, which it goes with, and layers of other volumes may
// stand on it.
type Layer struct {
	ID     LayerID   `json:"id"`
	UUID   UUID      `json:"uuid"`   // stands in the map of the layer above, which refuses any other
	Volume VolumeID  `json:"volume"` // whose it is
	Kind   LayerKind `json:"kind"`
	Path   string    `json:"path"`            // a file name in the volume folder, an overlay's map is beside it as Path.map; or a device's path
	Below  LayerID   `json:"below,omitempty"` // 0: it stands on nothing
	Size   int64     `json:"size"`            // bytes; a layer above may be larger, and reads zero beyond
	Frozen bool      `json:"frozen"`          // never written again
	// Volatile: it may be gone after a crash of the appliance's machine, since
	// nobody waits for its bytes to be on the disk.
	Volatile bool      `json:"volatile,omitempty"`
	Created  time.Time `json:"created"`
}

// LayerNaming counts what names a layer, and keeps it that way.
type LayerNaming struct {
	Tops   int // volumes whose top it is
	Others int // snapshots, versions, and layers right upon it
}

// NewLayer is a layer that is about to be made for a volume: an overlay over
// below, or a raw file when below is 0. Its file is named after the volume as it
// is called at that time, for people who look into the folder.
func NewLayer(v Volume, below LayerID) Layer {
	l := Layer{UUID: NewUUID(), Volume: v.ID, Kind: LayerRaw, Below: below, Size: v.Size}
	suffix := "raw"
	if below != 0 {
		l.Volatile = v.Volatile
		l.Kind, suffix = LayerOverlay, "layer"
	}
	l.Path = fmt.Sprintf("%s-%s.%s", v.Name, l.UUID.String()[:8], suffix)
	return l
}

// Validate checks everything about l that needs no look at other nouns.
func (l *Layer) Validate() error {
	var errs []error
	switch l.Kind {
	case LayerRaw, LayerDevice:
		if l.Below != 0 {
			errs = append(errs, Invalid("below", "a layer of kind %s stands on nothing", l.Kind))
		}
	case LayerOverlay:
		if l.Below == 0 {
			errs = append(errs, Invalid("below", "an overlay needs a layer to stand on"))
		}
	default:
		errs = append(errs, Invalid("kind", "%q is not a kind of layer", l.Kind))
	}
	if l.Volatile && (l.Kind != LayerOverlay || l.Frozen) {
		errs = append(errs, Invalid("volatile", "a layer that others stand on, or that stands on nothing, cannot be volatile"))
	}
	if l.Path == "" {
		errs = append(errs, Invalid("path", "a layer needs a file or a device"))
	} else if l.Kind != LayerDevice && (strings.Contains(l.Path, "/") || strings.HasPrefix(l.Path, ".")) {
		errs = append(errs, Invalid("path", "%q is not the name of a file in the volume folder", l.Path))
	}
	if l.Size <= 0 || l.Size > MaxVolumeSize {
		errs = append(errs, Invalid("size", "a layer of %d bytes", l.Size))
	}
	return joinFields(errs...)
}

// Snapshot is a state of a volume that was kept: everything up to one layer.
type Snapshot struct {
	ID      int64     `json:"id"`
	Volume  VolumeID  `json:"volume"`
	Name    string    `json:"name"`
	Layer   LayerID   `json:"layer"` // the newest layer that belongs to it
	Note    string    `json:"note,omitempty"`
	Created time.Time `json:"created"`
}

// Validate checks the snapshot's own fields.
func (s *Snapshot) Validate() error {
	return joinFields(ValidateName("name", s.Name), validateText("note", s.Note, maxNote))
}

// VolumeVersion is one version of a golden volume: what clones of it are made
// of. Versions are counted from 1; the volume says which is the current one.
type VolumeVersion struct {
	Volume  VolumeID  `json:"volume"` // the golden one
	Number  int       `json:"number"`
	Layer   LayerID   `json:"layer"`
	Note    string    `json:"note,omitempty"`
	Created time.Time `json:"created"`
}

// Validate checks the version's own fields.
func (v *VolumeVersion) Validate() error { return validateText("note", v.Note, maxNote) }

// maxNote bounds what people write about a version or a snapshot, in bytes.
const maxNote = 1024

// TopLayer is the layer that machines write to, the zero Layer when the volume
// has none.
func (v *Volume) TopLayer() Layer {
	if len(v.Layers) == 0 {
		return Layer{}
	}
	return v.Layers[len(v.Layers)-1]
}

// Base is the layer of another volume that v stands on, the zero Layer when all
// its layers are its own.
func (v *Volume) Base() Layer {
	for i := len(v.Layers) - 1; i >= 0; i-- {
		if v.Layers[i].Volume != v.ID {
			return v.Layers[i]
		}
	}
	return Layer{}
}
