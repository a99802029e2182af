package store

import "time"

// VolumeDetail is everything about one volume that a page or a command shows:
// what it stands on, what was kept of it, and who uses which.
type VolumeDetail struct {
	Volume
	ParentName string           `json:"parent_name,omitempty"`
	Chain      []LayerDetail    `json:"layers"` // bottom to top
	Versions   []VersionDetail  `json:"versions"`
	Snapshots  []SnapshotDetail `json:"snapshots"`
	Clones     []CloneDetail    `json:"clones"`
	Machines   []VolumeUser     `json:"machines"`
	// Stale says that a clone stands on another version of its parent than the
	// current one: at its next boot it moves there, if it begins anew at each.
	Stale bool  `json:"stale,omitempty"`
	Used  int64 `json:"used"` // bytes that its own layers really take; -1: not known
	// Reflinked is how many of these lie in blocks that other volumes or versions
	// hold as well, since they were made without copying; -1: the file system does
	// not tell.
	Reflinked int64 `json:"reflinked"`
}

// Sharing says in a few words how much of what the volume takes is its own; empty
// when the file system does not tell.
func (d VolumeDetail) Sharing() string {
	switch {
	case d.Used <= 0 || d.Reflinked < 0:
		return ""
	case d.Reflinked == 0:
		return "all of it its own"
	}
	return Bytes(d.Reflinked) + " of it shared with other volumes or versions (reflink), " + Bytes(max(d.Used-d.Reflinked, 0)) + " its own"
}

// LayerDetail is a layer and whose it is.
type LayerDetail struct {
	Layer
	Owner string `json:"owner"` // the volume's name
}

// VersionDetail is a version of a golden volume and who stands on it.
type VersionDetail struct {
	VolumeVersion
	Current bool     `json:"current"`
	Size    int64    `json:"size"` // bytes
	UsedBy  []string `json:"used_by"`
}

// SnapshotDetail is a snapshot and the clones that were made of it.
type SnapshotDetail struct {
	Snapshot
	Below  bool     `json:"below"` // what the volume holds now was written on top of it
	UsedBy []string `json:"used_by"`
}

// CloneDetail is a volume that stands on another one.
type CloneDetail struct {
	ID       VolumeID `json:"id"`
	Name     string   `json:"name"`
	Version  int      `json:"version,omitempty"`
	Reset    bool     `json:"reset_at_boot"`
	Machines []string `json:"machines"`
}

// VolumeUser is a machine that has a volume.
type VolumeUser struct {
	Machine  MachineID `json:"machine"`
	Name     string    `json:"name"`
	LUN      LUN       `json:"lun"`
	ReadOnly bool      `json:"read_only"`
	Boot     bool      `json:"boot"`
	Since    time.Time `json:"since,omitzero"` // of its session; zero: it is not logged in
}

// VolumeCheck is what a check of a volume's layers found.
type VolumeCheck struct {
	OK     bool         `json:"ok"`
	Layers []LayerCheck `json:"layers"` // bottom to top
}

// LayerCheck is what a check found in one layer.
type LayerCheck struct {
	Layer  LayerID  `json:"layer"`
	Path   string   `json:"path"`
	Pages  int64    `json:"pages"` // of the map that were read
	Damage []Damage `json:"damage"`
}

// Damage is a part of a volume whose bytes cannot be trusted.
type Damage struct {
	From int64  `json:"from"` // first logical block
	To   int64  `json:"to"`   // last logical block; -1: to the end
	What string `json:"what"` // in one sentence
}
