package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"lunboot/store"
)

// Format is what the bytes of a file are.
type Format string

// The formats that can be read. The first five are disks at random access, for
// Open; the others are raw bytes of a disk in a compressed stream, for
// OpenStream.
const (
	FormatRaw   Format = "raw"
	FormatQcow2 Format = "qcow2"
	FormatVHDX  Format = "vhdx"
	FormatVHD   Format = "vhd"
	FormatVMDK  Format = "vmdk"
	FormatGzip  Format = "gzip"
	FormatXZ    Format = "xz"
	FormatZstd  Format = "zstd"
)

// Compressed reports whether f is read by OpenStream only.
func (f Format) Compressed() bool { return f == FormatGzip || f == FormatXZ || f == FormatZstd }

// HeadSize is how many of its first bytes tell a format.
const HeadSize = 512

// beginnings are the first bytes of what is no raw disk. None of them begins a
// boot sector. An empty format is refused: the image is what, do how.
var beginnings = []struct {
	magic  string
	at     int
	format Format
	what   string
	how    string
}{
	{"QFI\xfb\x00\x00\x00\x01", 0, "", "a qcow image of version 1", convert},
	{"QFI\xfb", 0, FormatQcow2, "", ""},
	{vhdxMagic, 0, FormatVHDX, "", ""},
	{vhdCookie, 0, FormatVHD, "", ""},
	{vmdkMagic, 0, FormatVMDK, "", ""},
	{"\x1f\x8b\x08", 0, FormatGzip, "", ""},
	{xzMagic, 0, FormatXZ, "", ""},
	{"\x28\xb5\x2f\xfd", 0, FormatZstd, "", ""},
	{"QED\x00", 0, "", "a QED image", convert},
	{"COWD", 0, "", "a VMDK image of an old ESX", convert},
	{"# Disk DescriptorFile", 0, "", "only the description of a VMDK image whose bytes are in other files", "with all of them in one folder, make one file, with: " + convertCommand},
	{"\x7f\x10\xda\xbe", 0x40, "", "a VDI image of VirtualBox", convert},
	{"WithoutFreeSpace", 0, "", "an image of Parallels", convert},
	{"WithouFreSpacExt", 0, "", "an image of Parallels", convert},
	{"MSWIM\x00\x00\x00", 0, "", "a Windows image (WIM), which holds files and no disk", "install it on a disk"},
	{"BZh", 0, "", "compressed with bzip2", unpack},
	{"PK\x03\x04", 0, "", "a zip archive", unpack},
	{"7z\xbc\xaf\x27\x1c", 0, "", "a 7z archive", unpack},
	{"Rar!\x1a\x07", 0, "", "a RAR archive", unpack},
	{"\x04\x22\x4d\x18", 0, "", "compressed with lz4", unpack},
	{"ustar", 257, "", "a tar or OVA archive", "unpack it and import the disk image that is in it"},
	{"<!DOCTYPE ", 0, "", "a web page", "download the image again and look at what comes"},
	{"<!doctype ", 0, "", "a web page", "download the image again and look at what comes"},
	{"<html", 0, "", "a web page", "download the image again and look at what comes"},
}

const (
	convertCommand = "qemu-img convert -O qcow2 IMAGE NEW.qcow2"
	convert        = "convert it first, with: " + convertCommand
	unpack         = "unpack it first"
)

// DetectHead tells a format by the first HeadSize bytes, fewer when there are no
// more. What it calls raw can still be a fixed VHD, which is raw but for its
// last 512 bytes; Detect and OpenStream look there too.
func DetectHead(head []byte) (Format, error) {
	for _, b := range beginnings {
		if len(head) < b.at || !bytes.HasPrefix(head[b.at:], []byte(b.magic)) {
			continue
		}
		if b.format == "" {
			return "", invalid("the image is %s; %s", b.what, b.how)
		}
		return b.format, nil
	}
	// A skippable frame may come first (RFC 8878 §3.1.2).
	if len(head) >= 4 && binary.LittleEndian.Uint32(head)&^0xf == 0x184d2a50 {
		return FormatZstd, nil
	}
	return FormatRaw, nil
}

// Detect tells the format of the size bytes that r reads.
func Detect(r io.ReaderAt, size int64) (Format, error) {
	if size <= 0 {
		return "", invalid("the image is empty")
	}
	head, err := readUpTo(r, 0, min(size, HeadSize))
	if err != nil {
		return "", err
	}
	f, err := DetectHead(head)
	if err != nil || f != FormatRaw || size < footSize {
		return f, err
	}
	foot, err := readUpTo(r, size-footSize, footSize)
	if err != nil {
		return "", err
	}
	return detectFoot(foot)
}

const vhdCookie = "conectix"

// footSize is how much of a file's end tells what its beginning does not.
const footSize = 512

// detectFoot tells by its last bytes what begins as a raw disk does.
func detectFoot(foot []byte) (Format, error) {
	switch {
	case bytes.HasPrefix(foot, []byte(vhdCookie)), bytes.HasPrefix(foot[1:], []byte(vhdCookie)):
		return FormatVHD, nil
	case bytes.HasPrefix(foot, []byte("koly\x00\x00\x00\x04")):
		return "", invalid("the image is a disk image of macOS (DMG); convert it first, with: qemu-img convert -f dmg -O qcow2 IMAGE NEW.qcow2")
	}
	return FormatRaw, nil
}

// invalid is an error about the image, in words for the operator.
func invalid(format string, args ...any) error { return store.Invalid("source", format, args...) }

// cut is the error of bytes that the file does not have.
func cut(what string, end, size int64) error {
	return invalid("%s reaches to byte %d and the file ends at %d: the image was cut short, or is damaged; copy it again", what, end, size)
}

// unreadable is an error of the medium, not of the content.
func unreadable(off int64, err error) error {
	var known *store.Error
	if errors.As(err, &known) {
		return err
	}
	return &store.Error{Kind: store.KindUnavailable, Op: "read image", Field: "source", Err: err, Msg: fmt.Sprintf("the image could not be read at byte %d", off)}
}

// readUpTo reads n bytes, or up to where the file ends.
func readUpTo(r io.ReaderAt, off, n int64) ([]byte, error) {
	b := make([]byte, n)
	got, err := r.ReadAt(b, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, unreadable(off, err)
	}
	return b[:got], nil
}

// readFull reads n bytes, which the caller has checked against the file's size.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	got, err := r.ReadAt(b, off)
	switch {
	case got == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return unreadable(off+int64(got), io.ErrUnexpectedEOF)
	}
	return unreadable(off, err)
}
