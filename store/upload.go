package store

import (
	"encoding/hex"
	"strings"
	"time"
	"unicode"
)

// Bounds of uploads.
const (
	// MaxUploads is how many images may be on their way at a time.
	MaxUploads = 16
	// UploadAge is how long one that nothing was added to is kept.
	UploadAge = 24 * time.Hour
)

// Upload is an image that is being sent, piece by piece. What has arrived
// survives lost connections and a restart of the appliance.
type Upload struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`             // of the volume that it will be
	File      string    `json:"file,omitempty"`   // what the sender calls it
	Size      int64     `json:"size"`             // bytes of the file that is sent
	Offset    int64     `json:"offset"`           // bytes that have arrived: the next one is sent from here
	SHA256    string    `json:"sha256,omitempty"` // in hexadecimal, as announced; of what arrived once all has
	Format    string    `json:"format,omitempty"` // what it is, as for ImportSpec
	BlockSize int       `json:"block_size"`       // of the volume: 512, 4096, or 0 for what the image says
	ReadOnly  bool      `json:"read_only"`
	Shared    bool      `json:"shared"`
	By        Actor     `json:"by"`
	Created   time.Time `json:"created"`
	Touched   time.Time `json:"touched"` // when the last piece came
	Problem   string    `json:"problem,omitempty"`
}

// Whole reports whether every byte has arrived.
func (u *Upload) Whole() bool { return u.Offset == u.Size }

// Expires is when it is removed if nothing is added.
func (u *Upload) Expires() time.Time { return u.Touched.Add(UploadAge) }

// Validate checks what the sender says of it.
func (u *Upload) Validate() error {
	errs := []error{ValidateName("name", u.Name)}
	if u.Size <= 0 || u.Size > MaxVolumeSize {
		errs = append(errs, Invalid("size", "an image has between 1 byte and %s, not %d bytes", Bytes(MaxVolumeSize), u.Size))
	}
	if u.BlockSize != 0 && u.BlockSize != 512 && u.BlockSize != 4096 {
		errs = append(errs, Invalid("block_size", "a block has 512 or 4096 bytes, not %d", u.BlockSize))
	}
	if b, err := hex.DecodeString(u.SHA256); err != nil || len(b) != 0 && len(b) != 32 {
		errs = append(errs, Invalid("sha256", "a SHA-256 has 64 hexadecimal digits"))
	}
	if len(u.File) > 255 || strings.ContainsFunc(u.File, unicode.IsControl) {
		errs = append(errs, Invalid("file", "a file's name has at most 255 characters that print"))
	}
	return joinFields(errs...)
}

// ImageFile is a file in a folder for images, which may be a disk image.
type ImageFile struct {
	Path    string    `json:"path"`
	Name    string    `json:"name"` // inside of its folder
	Size    int64     `json:"size"` // bytes
	Changed time.Time `json:"changed"`
}
