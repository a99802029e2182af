package media

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"lunboot/store"
)

// linux is the beginning of a kernel for x86 as Linux's boot protocol has it.
func linux(version string, wide bool) []byte {
	b := make([]byte, 0x400)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x20f)
	binary.LittleEndian.PutUint16(b[0x20e:], 0x100)
	if wide {
		b[0x236] = 1
	}
	copy(b[0x300:], version+" (somebody@debian.org)\x00")
	return b
}

func uefi(machine uint16) []byte {
	b := make([]byte, 0x200)
	copy(b, "MZ")
	b[60] = 0x80
	copy(b[0x80:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[0x84:], machine)
	return b
}

// wimbootOf is the beginning of a wimboot for a machine of PE's numbers: for x86 it
// is a kernel too, whose header has the bare version.
func wimbootOf(machine uint16, version string) []byte {
	b := append(uefi(machine), make([]byte, 0x9000)...)
	if machine != 0xaa64 {
		copy(b[0x1fe:], "\x55\xaa\xeb\x35HdrS\x03\x02")
		binary.LittleEndian.PutUint16(b[0x20e:], 0x30)
		copy(b[0x230:], version+"\x00")
	}
	copy(b[0x8000:], "\n\nwimboot "+version+" -- Windows Imaging Format bootloader -- https://ipxe.org/wimboot\n\n")
	return b
}

func packed(b string) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	io.WriteString(w, b)
	w.Close()
	return out.Bytes()
}

// iso makes a disc of files.
func iso(t *testing.T, label string, files map[string]string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("genisoimage"); err != nil && os.Getenv("CI") != "true" {
		t.Skip("genisoimage is missing")
	}
	dir := t.TempDir()
	for name, text := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(t.TempDir(), "disc.iso")
	if b, err := exec.Command("genisoimage", append(args, "-quiet", "-V", label, "-o", out, dir)...).CombinedOutput(); err != nil {
		t.Fatalf("genisoimage: %v\n%s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatAFileIsIsToldByItsBytes(t *testing.T) {
	x64 := string(linux("6.1.0-18-amd64", true))
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		kind store.MediaKind
		want store.MediaContents
	}{
		"Debian's own disc": {iso(t, "Debian 12.5.0 amd64 n", map[string]string{".disk/info": "Debian GNU/Linux 12.5.0 \"Bookworm\"\n", "install.amd/vmlinuz": x64, "install.amd/initrd.gz": "r"}, "-R"), store.MediaISO,
			store.MediaContents{OS: store.MediaDebian, Title: `Debian GNU/Linux 12.5.0 "Bookworm"`, Arch: "x86-64", Label: "Debian 12.5.0 amd64 n", System: "ISO 9660", Kernel: "install.amd/vmlinuz", Initrds: []string{"install.amd/initrd.gz"},
				Note: "The installer on this disc looks for the disc in the machine. For a network installation add the kernel and initrd of Debian’s netboot archive, or its mini.iso; this disc can be their mirror."}},
		"Debian's network installer": {iso(t, "ISOIMAGE", map[string]string{"linux": x64, "initrd.gz": "r"}), store.MediaISO,
			store.MediaContents{OS: store.MediaDebian, Arch: "x86-64", Label: "ISOIMAGE", System: "ISO 9660", Kernel: "linux", Initrds: []string{"initrd.gz"}}},
		"Ubuntu": {iso(t, "Ubuntu-Server 24.04", map[string]string{".disk/info": "Ubuntu-Server 24.04 LTS \"Noble Numbat\"", "casper/vmlinuz": x64, "casper/initrd": "r"}, "-R"), store.MediaISO,
			store.MediaContents{OS: store.MediaUbuntu, Title: `Ubuntu-Server 24.04 LTS "Noble Numbat"`, Arch: "x86-64", Label: "Ubuntu-Server 24.04", System: "ISO 9660", Kernel: "casper/vmlinuz", Initrds: []string{"casper/initrd"}}},
		"Fedora": {iso(t, "Fedora-S-dvd", map[string]string{".treeinfo": "[general]\nfamily = Fedora\nversion = 41\narch = aarch64\n[images-aarch64]\nkernel = images/pxeboot/vmlinuz\ninitrd = images/pxeboot/initrd.img\n", "images/pxeboot/vmlinuz": "k", "images/pxeboot/initrd.img": "r"}, "-R"), store.MediaISO,
			store.MediaContents{OS: store.MediaFedora, Title: "Fedora 41", Arch: "arm64", Label: "Fedora-S-dvd", System: "ISO 9660", Kernel: "images/pxeboot/vmlinuz", Initrds: []string{"images/pxeboot/initrd.img"}}},
		"one made of Red Hat's sources": {iso(t, "Rocky-9", map[string]string{".treeinfo": "[general]\nfamily = Rocky Linux\nversion = 9.3\narch = x86_64\n", "images/pxeboot/vmlinuz": x64, "images/pxeboot/initrd.img": "r"}, "-J"), store.MediaISO,
			store.MediaContents{OS: store.MediaRHEL, Title: "Rocky Linux 9.3", Arch: "x86-64", Label: "Rocky-9", System: "ISO 9660", Kernel: "images/pxeboot/vmlinuz", Initrds: []string{"images/pxeboot/initrd.img"}}},
		"Alpine": {iso(t, "alpine-std 3.20", map[string]string{".alpine-release": "alpine-std 3.20.0", "boot/vmlinuz-lts": x64, "boot/initramfs-lts": "r", "boot/modloop-lts": "m"}, "-R"), store.MediaISO,
			store.MediaContents{OS: store.MediaAlpine, Title: "alpine-std 3.20.0", Arch: "x86-64", Label: "alpine-std 3.20", System: "ISO 9660", Kernel: "boot/vmlinuz-lts", Initrds: []string{"boot/initramfs-lts"}, Modloop: "boot/modloop-lts"}},
		"Windows": {iso(t, "CCCOMA_X64FRE", map[string]string{"sources/boot.wim": "MSWIM", "boot/bcd": "b", "boot/boot.sdi": "s", "efi/boot/bootx64.efi": "e", "bootmgr": "b"}, "-udf"), store.MediaISO,
			store.MediaContents{OS: store.MediaWindows, Title: "Windows setup", Arch: "x86-64", Label: "CCCOMA_X64FRE", System: "UDF", BCD: "boot/bcd", SDI: "boot/boot.sdi", WIM: "sources/boot.wim"}},
		"a disc of nothing known": {iso(t, "DATA", map[string]string{"a.txt": "a"}), store.MediaISO,
			store.MediaContents{Label: "DATA", System: "ISO 9660", Note: "No system that is known lies on it; name the kernel and RAM disk in the profile."}},
		"a kernel":               {linux("6.1.0-18-amd64", true), store.MediaKernel, store.MediaContents{Arch: "x86-64", Title: "Linux 6.1.0-18-amd64"}},
		"an old kernel":          {linux("2.6.32", false), store.MediaKernel, store.MediaContents{Arch: "x86", Title: "Linux 2.6.32"}},
		"a program for UEFI":     {uefi(0xaa64), store.MediaKernel, store.MediaContents{Arch: "arm64", Title: "a program for UEFI"}},
		"wimboot":                {wimbootOf(0x8664, "v2.9.0"), store.MediaWimboot, store.MediaContents{Arch: "x86-64", Title: "wimboot v2.9.0"}},
		"wimboot for 32 bits":    {wimbootOf(0x14c, "v2.6.0"), store.MediaWimboot, store.MediaContents{Arch: "x86", Title: "wimboot v2.6.0"}},
		"wimboot for arm64":      {wimbootOf(0xaa64, "v2.9.0"), store.MediaWimboot, store.MediaContents{Arch: "arm64", Title: "wimboot v2.9.0"}},
		"what speaks of wimboot": {[]byte("wimboot v2.9.0 -- Windows Imaging Format bootloader -- https://ipxe.org/wimboot"), store.MediaFile, store.MediaContents{}},
		"a kernel of version 2":  {linux("v2.9.0", true), store.MediaKernel, store.MediaContents{Arch: "x86-64", Title: "Linux v2.9.0"}},
		"an image of Windows":    {append([]byte("MSWIM\x00\x00\x00"), make([]byte, 100)...), store.MediaWIM, store.MediaContents{OS: store.MediaWindows}},
		"a RAM disk":             {[]byte("0707010000"), store.MediaInitrd, store.MediaContents{}},
		"a RAM disk, gzip":       {packed("070701" + strings.Repeat("0", 200)), store.MediaInitrd, store.MediaContents{}},
		"a RAM disk, zstd":       {z.EncodeAll([]byte("070701"+strings.Repeat("0", 200)), nil), store.MediaInitrd, store.MediaContents{}},
		"something packed":       {packed("tar and such"), store.MediaFile, store.MediaContents{}},
		"a text":                 {[]byte("d-i mirror/country string manual\n"), store.MediaFile, store.MediaContents{}},
		"one byte":               {[]byte("x"), store.MediaFile, store.MediaContents{}},
		"a kernel that is short": {linux("x", true)[:0x206], store.MediaFile, store.MediaContents{}},
	} {
		kind, got := Detect(bytes.NewReader(c.data), int64(len(c.data)))
		if d := cmp.Diff(c.want, got); kind != c.kind || d != "" {
			t.Errorf("%s is %s (-want +got):\n%s", name, kind, d)
		}
		m := store.Media{Name: "x", Kind: kind, Size: 1, SHA256: strings.Repeat("0", 64), Contents: got}
		if err := m.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFolderKeepsFilesUnderTheirHash(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "media")
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	data := iso(t, "X", map[string]string{"boot/vmlinuz": strings.Repeat("kernel", 1000)}, "-R")
	tmp, sum, size, err := f.Copy(t.Context(), bytes.NewReader(data))
	want := sha256.Sum256(data)
	if err == nil {
		err = f.Adopt(tmp, sum)
	}
	if err != nil || size != int64(len(data)) || sum != hex.EncodeToString(want[:]) {
		t.Fatalf("%s, %d, %v", sum, size, err)
	}
	in, err := f.Inside(store.Media{SHA256: sum, Size: size}, "boot/vmlinuz")
	if err != nil {
		t.Fatal(err)
	}
	p := in.(*Piece)
	if _, err := p.Seek(6, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	src, ok := p.Source()
	if !ok {
		t.Fatal("the file cannot be read from the image")
	}
	b := make([]byte, 6)
	if _, err := io.ReadFull(src, b); err != nil || string(b) != "kernel" {
		t.Errorf("at its place stands %q, %v", b, err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Inside(store.Media{SHA256: sum, Size: size}, "boot/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	for _, bad := range []string{"", "../../etc/passwd", strings.Repeat("G", 64), sum[:63]} {
		if _, err := f.Open(bad); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%q is opened: %v", bad, err)
		}
	}
	if _, _, _, err := f.Copy(t.Context(), io.MultiReader(strings.NewReader("part"), broken{})); err == nil {
		t.Error("a source that breaks is kept")
	}
	// What is left of a request whose sender is gone.
	for _, cut := range []io.Reader{
		io.MultiReader(strings.NewReader("part"), iotest.ErrReader(io.ErrUnexpectedEOF)),
		iotest.DataErrReader(io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), iotest.ErrReader(io.ErrUnexpectedEOF))),
	} {
		if _, _, _, err := f.Copy(t.Context(), cut); store.KindOf(err) != store.KindUnavailable {
			t.Errorf("a source that is cut off: %v", err)
		}
	}
	if tmp, _, size, err := f.Copy(t.Context(), iotest.OneByteReader(strings.NewReader("whole"))); err != nil || size != 5 {
		t.Errorf("a slow source: %d bytes, %v", size, err)
	} else if err := os.Remove(tmp); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "new-123"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if gone, err := f.Sweep([]store.Media{{SHA256: sum}}); err != nil || len(gone) != 1 {
		t.Errorf("swept %q, %v", gone, err)
	}
	if all, _ := os.ReadDir(dir); len(all) != 1 || all[0].Name() != sum {
		t.Errorf("the folder holds %v", all)
	}
	if err := errors.Join(f.Remove(sum), f.Remove(sum)); err != nil {
		t.Error(err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

// FuzzDetect is given what operators may upload.
func FuzzDetect(f *testing.F) {
	f.Add(linux("6.1.0", true))
	f.Add(uefi(0x8664))
	f.Add(packed("070701"))
	f.Add([]byte("MSWIM\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, c := Detect(bytes.NewReader(b), int64(len(b)))
		m := store.Media{Name: "x", Kind: kind, Size: 1, SHA256: strings.Repeat("0", 64), Contents: c}
		if err := m.Validate(); err != nil {
			t.Error(err)
		}
	})
}
