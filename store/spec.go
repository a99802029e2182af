package store

import "net/netip"

// MachineSpec is what an operator says of a machine to add. Empty fields get
// defaults: a generated initiator name, mutual CHAP with generated secrets, the
// default profile.
type MachineSpec struct {
	Name      string
	MACs      []MAC
	UUID      UUID
	Serial    string
	AssetTag  string
	Initiator IQN
	Auth      AuthMode
	CHAP      Credential
	Reverse   Credential
	Address   netip.Addr
	Profile   string
	Loader    string
	Tags      []string
	Notes     string
	Quirks    []Quirk
	BMC       BMC
}

// MachinePatch changes the fields that are not nil. Revision, when not zero,
// must be the machine's present one.
type MachinePatch struct {
	Revision    int64
	Name        *string
	MACs        *[]MAC
	UUID        *UUID
	Serial      *string
	AssetTag    *string
	Initiator   *IQN
	Auth        *AuthMode
	CHAP        *Credential
	Reverse     *Credential
	Address     *netip.Addr
	Profile     *string
	OnceProfile *string
	Loader      *string
	Tags        *[]string
	Notes       *string
	Quirks      *[]Quirk
	// BMC replaces the machine's. Without a secret it keeps the one that is there.
	BMC *BMC
}

// VolumeSpec is what an operator says of a volume to create.
type VolumeSpec struct {
	Name      string
	Size      int64 // bytes
	BlockSize int   // 0 means 512
	ReadOnly  bool
	Shared    bool
}

// ImportSpec is what an operator says of a volume that is made of an image. Its
// size is the image's.
type ImportSpec struct {
	VolumeSpec
	// Format is what the image is: empty or "auto" is told by its content, "raw"
	// takes its bytes as they are, another word must be true.
	Format string
	// SHA256 is what the image's file must have, in hexadecimal, or empty.
	SHA256 string
	// Anywhere lets the image lie outside of the folders for images: whoever asks
	// could read the appliance's files anyway.
	Anywhere bool
}

// DeviceSpec is what an operator says of a block device that becomes a volume
// as it is.
type DeviceSpec struct {
	Name      string
	Path      string // below /dev
	BlockSize int    // 0 means the device's own
	ReadOnly  bool
	Shared    bool
	Direct    bool // past the page cache
}

// VolumePatch changes the fields that are not nil.
type VolumePatch struct {
	Revision int64
	Name     *string
	ReadOnly *bool
	Shared   *bool
	Sanitize *bool
	Reset    *bool
	Volatile *bool // from the next boot on
}

// CloneSpec is what an operator says of a clone to make.
type CloneSpec struct {
	Parent   VolumeID
	Snapshot string // of the parent; empty: the current version of a golden one
	Name     string // empty: made of the parent's name and the machine's, where there is one
	Reset    bool   // it begins anew at each boot of its machine
	Volatile bool   // with Reset: it may be gone after a crash of the appliance's machine
}

// MappingSpec is what an operator says of a mapping to add. A nil LUN is the
// lowest free one; a nil Boot is true when the machine boots nothing yet.
type MappingSpec struct {
	Machine  MachineID
	Volume   VolumeID
	LUN      *LUN
	Boot     *bool
	ReadOnly bool
}

// MappingPatch changes the fields that are not nil.
type MappingPatch struct {
	Revision int64
	LUN      *LUN
	Boot     *bool
	ReadOnly *bool
}
