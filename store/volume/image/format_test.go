package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"lunboot/store"
)

// at puts magic bytes into a file of 4 KiB.
func at(magic string, off int) []byte {
	b := make([]byte, 4096)
	copy(b[off:], magic)
	return b
}

func TestWhatIsNotReadIsRefusedWithTheWayOut(t *testing.T) {
	for name, c := range map[string]struct {
		head  []byte
		words []string
	}{
		"qcow1":             {at("QFI\xfb\x00\x00\x00\x01", 0), []string{"qcow image of version 1", "qemu-img convert"}},
		"QED":               {at("QED\x00", 0), []string{"QED", "qemu-img convert"}},
		"VDI":               {at("\x7f\x10\xda\xbe", 0x40), []string{"VDI", "qemu-img convert"}},
		"COWD":              {at("COWD", 0), []string{"VMDK", "qemu-img convert"}},
		"VMDK descriptor":   {at("# Disk DescriptorFile\n", 0), []string{"only the description", "qemu-img convert"}},
		"Parallels":         {at("WithoutFreeSpace", 0), []string{"Parallels", "qemu-img convert"}},
		"new Parallels":     {at("WithouFreSpacExt", 0), []string{"Parallels", "qemu-img convert"}},
		"DMG":               {at("koly\x00\x00\x00\x04", 4096-512), []string{"macOS", "qemu-img convert"}},
		"WIM":               {at("MSWIM\x00\x00\x00", 0), []string{"WIM"}},
		"bzip2":             {at("BZh91AY", 0), []string{"bzip2", "unpack"}},
		"zip":               {at("PK\x03\x04", 0), []string{"zip", "unpack"}},
		"7z":                {at("7z\xbc\xaf\x27\x1c", 0), []string{"7z", "unpack"}},
		"RAR":               {at("Rar!\x1a\x07", 0), []string{"RAR", "unpack"}},
		"lz4":               {at("\x04\x22\x4d\x18", 0), []string{"lz4", "unpack"}},
		"OVA":               {at("ustar", 257), []string{"OVA", "unpack"}},
		"an error's page":   {at("<!DOCTYPE html>", 0), []string{"web page", "download"}},
		"an error's page 2": {at("<html>", 0), []string{"web page", "download"}},
		"nothing":           {nil, []string{"empty"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Detect(bytes.NewReader(c.head), int64(len(c.head)))
			requireRefused(t, err, c.words...)
			_, err = Open(bytes.NewReader(c.head), int64(len(c.head)))
			requireRefused(t, err, c.words...)
		})
	}
}

func TestFormatsAreToldByContent(t *testing.T) {
	iso := make([]byte, 40<<10)
	copy(iso[32769:], "CD001")
	hybrid := append([]byte(nil), iso...)
	copy(hybrid[510:], "\x55\xaa")
	for name, c := range map[string]struct {
		b    []byte
		want Format
	}{
		"one byte":              {[]byte{1}, FormatRaw},
		"a boot sector":         {at("\x55\xaa", 510), FormatRaw},
		"ISO":                   {iso, FormatRaw},
		"a hybrid ISO":          {hybrid, FormatRaw},
		"qcow2":                 {at("QFI\xfb\x00\x00\x00\x02", 0), FormatQcow2},
		"qcow3":                 {at("QFI\xfb\x00\x00\x00\x03", 0), FormatQcow2},
		"gzip":                  {at("\x1f\x8b\x08", 0), FormatGzip},
		"xz":                    {at("\xfd7zXZ\x00", 0), FormatXZ},
		"zstd":                  {at("\x28\xb5\x2f\xfd", 0), FormatZstd},
		"zstd, something first": {at("\x5e\x2a\x4d\x18", 0), FormatZstd},
	} {
		f, err := Detect(bytes.NewReader(c.b), int64(len(c.b)))
		require.NoErrorf(t, err, name)
		require.Equalf(t, c.want, f, name)
	}
}

func TestACompressedFileIsNoDiskAtRandomAccess(t *testing.T) {
	b := at("\x1f\x8b\x08", 0)
	_, err := Open(bytes.NewReader(b), int64(len(b)))
	requireRefused(t, err, "gzip", "from its beginning")
}

func TestRawIsReadAsItIs(t *testing.T) {
	want := disk(33, 300<<10+77)
	i, err := Open(bytes.NewReader(want), int64(len(want)))
	require.NoError(t, err)
	require.Equal(t, FormatRaw, i.Format())
	requireDisk(t, want, i)
	_, err = i.ReadAt(make([]byte, 1), -1)
	requireRefused(t, err)
	_, err = i.ReadAt(make([]byte, 1), i.Size())
	require.ErrorIs(t, err, io.EOF)
	_, _, err = i.Extent(i.Size())
	requireRefused(t, err)
}

func TestHolesOfARawFileStayHoles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(path)
	require.NoError(t, err)
	want := make([]byte, 8<<20)
	for _, at := range []int{1 << 20, 5 << 20} {
		copy(want[at:], disk(1, 128<<10))
		_, err = f.WriteAt(want[at:at+128<<10], int64(at))
		require.NoError(t, err)
	}
	require.NoError(t, f.Truncate(8<<20))
	require.NoError(t, f.Close())
	i := open(t, path)
	data, err := i.Data(context.Background())
	require.NoError(t, err)
	if data == 8<<20 {
		t.Skip("the file system does not tell its holes")
	}
	require.EqualValues(t, 256<<10, data)
	requireDisk(t, want, i)
}

// broke reads as a disk with a bad sector does.
type broke struct{ *bytes.Reader }

var errMedium = errors.New("input/output error")

func (b broke) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > 2000 {
		return 0, errMedium
	}
	return b.Reader.ReadAt(p, off)
}

func TestAMediumThatFailsIsNotCalledADamagedImage(t *testing.T) {
	i, err := Open(broke{bytes.NewReader(make([]byte, 2000))}, 2000)
	require.NoError(t, err)
	i.fileSize, i.size = 4000, 4000
	_, err = i.ReadAt(make([]byte, 4000), 0)
	require.ErrorIs(t, err, errMedium)
	require.Equal(t, store.KindUnavailable, store.KindOf(err))
	require.Contains(t, err.Error(), "could not be read at byte")
}

func TestDataEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	i, err := Open(bytes.NewReader(make([]byte, 2000)), 2000)
	require.NoError(t, err)
	_, err = i.Data(ctx)
	require.ErrorIs(t, err, context.Canceled)
}
