// Package media keeps discs, kernels and other files that machines fetch while
// they boot, and tells by their bytes what they are.
//
// A file lies in the folder under its SHA-256; what it is called is a row of the
// inventory. What lies inside a disc is read in place.
package media

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"lunboot/store"
	"lunboot/store/media/disc"
)

// Detect says what a file is.
func Detect(r io.ReaderAt, size int64) (store.MediaKind, store.MediaContents) {
	var c store.MediaContents
	d, err := disc.Open(r, size)
	if err == nil {
		inside(d, &c)
		return store.MediaISO, c
	}
	if !errors.Is(err, disc.ErrNoDisc) {
		c.Note = sentence("It is the image of a disc that cannot be read: " + err.Error())
		return store.MediaISO, c
	}
	head := make([]byte, min(size, 64<<10))
	if n, err := r.ReadAt(head, 0); n < len(head) {
		c.Note = sentence("It could not be read: " + err.Error())
		return store.MediaFile, c
	}
	if kind, ok := kernel(r, head, &c); ok {
		return kind, c
	}
	if bytes.HasPrefix(head, []byte("MSWIM\x00\x00\x00")) {
		c.OS = store.MediaWindows
		return store.MediaWIM, c
	}
	if cpio(io.NewSectionReader(r, 0, size)) {
		return store.MediaInitrd, c
	}
	return store.MediaFile, c
}

func sentence(s string) string { return clean(s, 300) + "." }

// clean makes a text from a disc fit for tables and pages.
func clean(s string, most int) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// kernel recognises what iPXE can start as a kernel: Linux on x86 (its boot
// protocol, Documentation/arch/x86/boot.rst) and arm64 (booting.rst), a program for
// UEFI, and Windows' loader wimboot.
func kernel(r io.ReaderAt, head []byte, c *store.MediaContents) (store.MediaKind, bool) {
	if wimboot(head, c) {
		return store.MediaWimboot, true
	}
	if len(head) >= 0x238 && string(head[0x202:0x206]) == "HdrS" {
		c.Arch = "x86"
		if x := binary.LittleEndian.Uint16(head[0x236:]); binary.LittleEndian.Uint16(head[0x206:]) >= 0x20c && x&1 != 0 {
			c.Arch = "x86-64"
		}
		version := make([]byte, 80)
		if at := binary.LittleEndian.Uint16(head[0x20e:]); at != 0 {
			n, _ := r.ReadAt(version, int64(at)+0x200)
			text, _, _ := bytes.Cut(version[:n], []byte{0})
			c.Title = clean(string(text), 80)
		}
		if c.Title != "" {
			c.Title = "Linux " + strings.Fields(c.Title)[0]
		}
		return store.MediaKernel, true
	}
	if len(head) >= 64 && string(head[56:60]) == "ARM\x64" {
		c.Arch = "arm64"
		return store.MediaKernel, true
	}
	if arch, ok := program(head); ok {
		c.Arch, c.Title = arch, "a program for UEFI"
		return store.MediaKernel, true
	}
	return "", false
}

// wimboot recognises iPXE's loader of Windows images. Each is a program for UEFI, and
// those for x86 are kernels by Linux' boot protocol too, whose header has a version
// and no name (v2.9.0); the line that they print first has both.
func wimboot(head []byte, c *store.MediaContents) bool {
	arch, ok := program(head)
	end := bytes.Index(head, []byte(" -- Windows Imaging Format bootloader"))
	if !ok || end < 0 {
		return false
	}
	line := head[max(0, end-40):end]
	at := bytes.LastIndex(line, []byte("wimboot "))
	if at < 0 {
		return false
	}
	c.Arch, c.Title = arch, clean(string(line[at:]), 80)
	return true
}

// program reads the machine of a PE file (UEFI 2.10 §2.1.1).
func program(head []byte) (arch string, ok bool) {
	if len(head) < 64 || string(head[:2]) != "MZ" {
		return "", false
	}
	at := int64(binary.LittleEndian.Uint32(head[60:]))
	if at > int64(len(head)-6) || string(head[at:at+4]) != "PE\x00\x00" {
		return "", false
	}
	switch binary.LittleEndian.Uint16(head[at+4:]) {
	case 0x14c:
		return "x86", true
	case 0x8664:
		return "x86-64", true
	case 0xaa64:
		return "arm64", true
	}
	return "", true
}

// cpio reports whether a stream, packed or not, begins as an initial RAM disk
// does (Documentation/driver-api/early-userspace/buffer-format.rst).
func cpio(r io.Reader) bool {
	b := bufio.NewReader(r)
	head, err := b.Peek(6)
	if err != nil {
		return false
	}
	var in io.Reader = b
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		in, err = gzip.NewReader(b)
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		in, err = xz.ReaderConfig{DictCap: 64 << 20}.NewReader(b)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var z *zstd.Decoder
		if z, err = zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20)); err == nil {
			defer z.Close()
			in = z
		}
	}
	if err != nil {
		return false
	}
	magic := make([]byte, 6)
	if _, err := io.ReadFull(in, magic); err != nil {
		return false
	}
	return string(magic) == "070701" || string(magic) == "070702"
}

// pair is where a system's discs have their kernel and RAM disk.
type pair struct{ kernel, initrd string }

// inside tells a system by what lies on its disc.
func inside(d *disc.Disc, c *store.MediaContents) {
	c.Label, c.System = clean(d.Label, 128), d.System
	info := text(d, ".disk/info")
	switch {
	case d.Exists("sources/boot.wim"):
		windows(d, c)
	case strings.Contains(info, "Ubuntu") || d.Exists("casper/vmlinuz"):
		c.OS, c.Title = store.MediaUbuntu, info
		take(d, c, pair{"casper/vmlinuz", "casper/initrd"}, pair{"casper/vmlinuz", "casper/initrd.gz"}, pair{"casper/vmlinuz", "casper/initrd.lz"},
			pair{"linux", "initrd.gz"}, pair{"install/vmlinuz", "install/initrd.gz"})
	case strings.HasPrefix(info, "Debian") || strings.HasPrefix(d.Label, "Debian"):
		c.OS, c.Title = store.MediaDebian, info
		debian(d, c)
	case d.Exists(".alpine-release") || strings.HasPrefix(strings.ToLower(d.Label), "alpine"):
		c.OS, c.Title = store.MediaAlpine, text(d, ".alpine-release")
		alpine(d, c)
	case d.Exists(".treeinfo"):
		fedora(d, c)
	case d.Exists("linux") && d.Exists("initrd.gz"):
		// Debian's own network installer has no name on its disc but this.
		c.OS = store.MediaDebian
		take(d, c, pair{"linux", "initrd.gz"})
	default:
		take(d, c, pair{"images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"}, pair{"boot/x86_64/loader/linux", "boot/x86_64/loader/initrd"},
			pair{"arch/boot/x86_64/vmlinuz-linux", "arch/boot/x86_64/initramfs-linux.img"}, pair{"live/vmlinuz", "live/initrd.img"}, pair{"boot/vmlinuz", "boot/initrd.img"})
		if c.Kernel == "" {
			c.Note = "No system that is known lies on it; name the kernel and RAM disk in the profile."
		}
	}
	if c.Kernel != "" && c.Arch == "" {
		c.Arch = archOf(d, c.Kernel)
	}
}

func text(d *disc.Disc, name string) string {
	b, err := d.ReadFile(name)
	if err != nil {
		return ""
	}
	return clean(string(b), 200)
}

// take notes the first pair that is there whole.
func take(d *disc.Disc, c *store.MediaContents, pairs ...pair) bool {
	for _, p := range pairs {
		if d.Exists(p.kernel) && d.Exists(p.initrd) {
			c.Kernel, c.Initrds = p.kernel, []string{p.initrd}
			return true
		}
	}
	return false
}

func archOf(d *disc.Disc, name string) string {
	f, err := d.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 64<<10)
	r, ok := f.(io.ReaderAt)
	if !ok {
		return ""
	}
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return ""
	}
	var c store.MediaContents
	kernel(r, head[:n], &c)
	return c.Arch
}

func debian(d *disc.Disc, c *store.MediaContents) {
	if take(d, c, pair{"linux", "initrd.gz"}) {
		return
	}
	if take(d, c, pair{"install.amd/vmlinuz", "install.amd/initrd.gz"}, pair{"install.a64/vmlinuz", "install.a64/initrd.gz"}, pair{"install.386/vmlinuz", "install.386/initrd.gz"}, pair{"install/vmlinuz", "install/initrd.gz"}) {
		c.Note = "The installer on this disc looks for the disc in the machine. For a network installation add the kernel and initrd of Debian’s netboot archive, or its mini.iso; this disc can be their mirror."
		return
	}
	if take(d, c, pair{"live/vmlinuz", "live/initrd.img"}) {
		return
	}
	if dir, err := d.ReadDir("live"); err == nil {
		for _, e := range dir {
			if v, ok := strings.CutPrefix(e.Name(), "vmlinuz-"); ok && take(d, c, pair{"live/" + e.Name(), "live/initrd.img-" + v}) {
				return
			}
		}
	}
}

// alpine has kernels of several flavours; the most general one goes first.
func alpine(d *disc.Disc, c *store.MediaContents) {
	for _, flavour := range []string{"lts", "virt", "vanilla", "rpi"} {
		if take(d, c, pair{"boot/vmlinuz-" + flavour, "boot/initramfs-" + flavour}) {
			if m := "boot/modloop-" + flavour; d.Exists(m) {
				c.Modloop = m
			}
			return
		}
	}
}

// fedora reads the description that Anaconda's discs carry
// (https://release-engineering.github.io/productmd/treeinfo-1.0.html).
func fedora(d *disc.Disc, c *store.MediaContents) {
	b, err := d.ReadFile(".treeinfo")
	if err != nil {
		return
	}
	section := ""
	values := map[string]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		if k, v, ok := strings.Cut(line, "="); ok && len(values) < 1000 {
			values[section+" "+strings.TrimSpace(k)] = strings.TrimSpace(v)
		}
	}
	family, arch := values["general family"], values["general arch"]
	c.OS = store.MediaRHEL
	if strings.HasPrefix(family, "Fedora") {
		c.OS = store.MediaFedora
	}
	c.Title = clean(family+" "+values["general version"], 200)
	switch arch {
	case "x86_64":
		c.Arch = "x86-64"
	case "aarch64":
		c.Arch = "arm64"
	}
	images := "images-" + arch + " "
	if !take(d, c, pair{clean(values[images+"kernel"], 512), clean(values[images+"initrd"], 512)}) {
		take(d, c, pair{"images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"})
	}
}

// windows has three files that its boot loader is started with.
func windows(d *disc.Disc, c *store.MediaContents) {
	c.OS = store.MediaWindows
	for _, f := range []struct {
		at    *string
		names []string
	}{{&c.BCD, []string{"boot/bcd"}}, {&c.SDI, []string{"boot/boot.sdi"}}, {&c.WIM, []string{"sources/boot.wim"}}} {
		if i := slices.IndexFunc(f.names, d.Exists); i >= 0 {
			*f.at = f.names[i]
		}
	}
	switch {
	case d.Exists("efi/boot/bootx64.efi"):
		c.Arch = "x86-64"
	case d.Exists("efi/boot/bootaa64.efi"):
		c.Arch = "arm64"
	case d.Exists("bootmgr"):
		c.Arch = "x86"
	}
	c.Title = "Windows setup"
	if c.BCD == "" || c.SDI == "" {
		c.Note = "The disc lacks " + path.Join("boot", "bcd") + " or boot.sdi, without which Windows setup cannot be started."
	}
}
