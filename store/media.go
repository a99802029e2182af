package store

import (
	"strings"
	"time"
	"unicode"
)

// MediaKind says what a media file is, as its bytes tell.
type MediaKind string

// The kinds of media.
const (
	MediaISO     MediaKind = "iso"     // the image of a disc; what lies inside it is served too
	MediaKernel  MediaKind = "kernel"  // a kernel that iPXE can start
	MediaInitrd  MediaKind = "initrd"  // an initial RAM disk
	MediaWIM     MediaKind = "wim"     // an image of Windows
	MediaWimboot MediaKind = "wimboot" // the loader of Windows images
	MediaFile    MediaKind = "file"    // anything else
)

// MediaOS is the operating system that a disc installs or starts.
type MediaOS string

// The systems that are recognised.
const (
	MediaDebian  MediaOS = "debian"
	MediaUbuntu  MediaOS = "ubuntu"
	MediaFedora  MediaOS = "fedora"
	MediaRHEL    MediaOS = "rhel" // Red Hat's, and those made from its sources
	MediaAlpine  MediaOS = "alpine"
	MediaWindows MediaOS = "windows"
)

// Media is a file that machines fetch while they boot: the image of a disc, a
// kernel. Its bytes lie in the data folder under their hash; no name ever
// reaches the file system.
type Media struct {
	Revision int64         `json:"revision"`
	Name     string        `json:"name"` // the first word of its path below /files/
	Kind     MediaKind     `json:"kind"`
	Size     int64         `json:"size"` // bytes
	SHA256   string        `json:"sha256"`
	File     string        `json:"file,omitempty"` // what it was called where it came from
	Contents MediaContents `json:"contents"`
	Created  time.Time     `json:"created"`
}

// MediaContents is what was found in a media file. Paths are those inside a
// disc, without a slash before them.
type MediaContents struct {
	OS      MediaOS  `json:"os,omitempty"`
	Title   string   `json:"title,omitempty"`  // "Debian GNU/Linux 12.5.0"
	Arch    string   `json:"arch,omitempty"`   // "x86-64", "arm64", "x86"
	Label   string   `json:"label,omitempty"`  // of the disc's file system
	System  string   `json:"system,omitempty"` // "ISO 9660", "UDF"
	Kernel  string   `json:"kernel,omitempty"`
	Initrds []string `json:"initrds,omitempty"`
	Modloop string   `json:"modloop,omitempty"` // Alpine's modules
	BCD     string   `json:"bcd,omitempty"`     // Windows setup
	SDI     string   `json:"sdi,omitempty"`
	WIM     string   `json:"wim,omitempty"`
	Note    string   `json:"note,omitempty"` // what stands in the way of starting it over the network
}

// Bounds of media.
const (
	MaxMedia     = 256      // how many are kept
	MaxMediaSize = 64 << 30 // bytes of one
)

// AnswerRoot is the first word of the paths of answer files, which no media
// may have for a name.
const AnswerRoot = "answer"

// ValidateMediaName checks a media file's name.
func ValidateMediaName(name string) error {
	if err := ValidateName("name", name); err != nil {
		return err
	}
	if name == AnswerRoot {
		return Invalid("name", "%q is where machines find their answer files; choose another name", name)
	}
	return nil
}

// MediaName makes a name of what a file is called: "Debian 12.iso" becomes
// "debian-12.iso".
func MediaName(file string) string {
	file = strings.ToLower(file[strings.LastIndexAny(file, `/\`)+1:])
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '-':
			return r
		case r < 0x80:
			return '-'
		}
		return -1
	}, file)
	return strings.Trim(name[:min(len(name), 63)], "-.")
}

// Validate checks everything about m that needs no look at other nouns.
func (m *Media) Validate() error {
	errs := []error{ValidateMediaName(m.Name)}
	switch m.Kind {
	case MediaISO, MediaKernel, MediaInitrd, MediaWIM, MediaWimboot, MediaFile:
	default:
		errs = append(errs, Invalid("kind", "%q is not a kind of media", m.Kind))
	}
	if m.Size <= 0 || m.Size > MaxMediaSize {
		errs = append(errs, Invalid("size", "a media file has between 1 byte and %s, not %d bytes", Bytes(MaxMediaSize), m.Size))
	}
	if len(m.SHA256) != 64 || strings.Trim(m.SHA256, "0123456789abcdef") != "" {
		errs = append(errs, Invalid("sha256", "%q is no SHA-256 sum in hexadecimal", m.SHA256))
	}
	if len(m.File) > 255 || strings.ContainsFunc(m.File, unicode.IsControl) {
		errs = append(errs, Invalid("file", "a file's name has at most 255 characters that print"))
	}
	c := &m.Contents
	for _, s := range append([]string{c.Title, c.Label, c.Kernel, c.Modloop, c.BCD, c.SDI, c.WIM, c.Note}, c.Initrds...) {
		errs = append(errs, validateText("contents", s, 1024))
	}
	return joinFields(errs...)
}
