package store

// Preflight is what the first look at a volume found: whether anything could
// boot from it, and in which way. It says what stands on the disk, not that it
// works.
type Preflight struct {
	Blank      bool        `json:"blank"`                 // nothing but zeros where a disk begins
	Table      string      `json:"table"`                 // "gpt", "mbr" or empty
	Partitions []Partition `json:"partitions"`            // at most MaxPartitions, by their place in the table
	FileSystem string      `json:"file_system,omitempty"` // of a disk without a table
	Disc       string      `json:"disc,omitempty"`        // the name of an ISO 9660 volume
	OS         OS          `json:"os,omitempty"`
	Loaders    []string    `json:"loaders,omitempty"` // architectures whose \EFI\BOOT\BOOT….EFI is there: "x64", "ia32", "aa64"
	BIOS       Bootable    `json:"bios"`
	UEFI       Bootable    `json:"uefi"`
	Summary    string      `json:"summary"` // one line for people: "GPT, ESP, NTFS: Windows"
}

// MaxPartitions bounds how many partitions a Preflight tells.
const MaxPartitions = 32

// Partition is one of a volume's.
type Partition struct {
	Number     int    `json:"number"`
	Start      int64  `json:"start"` // bytes
	Size       int64  `json:"size"`  // bytes
	ESP        bool   `json:"esp"`   // its type says: EFI system partition
	Active     bool   `json:"active,omitempty"`
	FileSystem string `json:"file_system,omitempty"`
	Name       string `json:"name,omitempty"`
}

// Bootable says whether a kind of firmware finds something to start, and if
// not, why, as a sentence without its subject: "has no EFI system partition".
type Bootable struct {
	OK  bool   `json:"ok"`
	Why string `json:"why,omitempty"`
	// Chain is a digest of what that firmware would run, of the volume's boot code and
	// boot loaders; empty when there is nothing to start. It stays when a volume is
	// partitioned, and changes when a boot loader is installed.
	Chain string `json:"-"`
}

// OS is the operating system that a volume's contents point at.
type OS string

// The systems that are told apart.
const (
	OSWindows OS = "windows"
	OSLinux   OS = "linux"
	OSESXi    OS = "esxi"
	OSFreeBSD OS = "freebsd"
)

func (o OS) String() string {
	switch o {
	case OSWindows:
		return "Windows"
	case OSLinux:
		return "Linux"
	case OSESXi:
		return "VMware ESXi"
	case OSFreeBSD:
		return "FreeBSD"
	}
	return ""
}
