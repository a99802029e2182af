package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	_ "embed"

	"lunboot/cmd/netlab/lab/area"
)

// kernelArgs: everything to the serial port, and a kernel that panics ends the
// machine instead of standing there. The host is emulated, so the guest has no
// speculation to mitigate, and its timer may stand still for as long as the host is
// busy, which the kernel's test of it would take for a broken IO-APIC and panic.
const kernelArgs = "console=tty0 console=ttyS0,115200n8 loglevel=5 mitigations=off random.trust_cpu=on no_timer_check panic=1"

// earlyConfig is what GRUB runs: no menu, no wait. The boot disk is found by
// its label, for BIOS and UEFI number disks differently.
const earlyConfig = "search.fs_label " + area.ESPLabel + " root\n" +
	"linux /vmlinuz " + kernelArgs + "\n" +
	"initrd /initrd\n" +
	"boot\n"

// iscsidConfig is the guest's: it waits two minutes for an appliance that
// restarts before it fails any I/O, and asks every five seconds whether the
// connection lives.
const iscsidConfig = `node.startup = automatic
node.session.timeo.replacement_timeout = 120
node.conn[0].timeo.login_timeout = 15
node.conn[0].timeo.logout_timeout = 15
node.conn[0].timeo.noop_out_interval = 5
node.conn[0].timeo.noop_out_timeout = 5
node.session.err_timeo.abort_timeout = 15
node.session.err_timeo.lu_reset_timeout = 30
node.session.err_timeo.tgt_reset_timeout = 30
node.session.cmds_max = 128
node.session.queue_depth = 32
node.session.iscsi.FirstBurstLength = 262144
node.session.iscsi.MaxBurstLength = 16776192
node.conn[0].iscsi.MaxRecvDataSegmentLength = 262144
`

// linuxParts is what a Linux image is made from.
type linuxParts struct {
	unpacked string // packages, unpacked
	kernel   string // vmlinuz
	modules  string // lib/modules/VERSION
	guest    []byte // the guest program
}

// buildLinux makes the disk image at path, with scratch files in dir. No loop
// device, no mount: each file system is made as a file and laid in its place.
func buildLinux(ctx context.Context, dir, path string, p linuxParts) error {
	initrd, err := buildInitrd(p.unpacked, p.modules, p.guest)
	if err != nil {
		return fmt.Errorf("the initial RAM disk: %w", err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("initrd.cpio"), initrd, 0o600), os.WriteFile(at("early.cfg"), []byte(earlyConfig), 0o600)); err != nil {
		return err
	}
	if err := rootTree(at("root"), p); err != nil {
		return fmt.Errorf("the root file system: %w", err)
	}
	steps := []Command{
		{Path: "zstd", Args: []string{"-q", "-10", "-f", at("initrd.cpio"), "-o", at("initrd")}},
		{Path: "grub-mkimage", Args: []string{"-O", "i386-pc", "-d", grubBIOS, "-o", at("core.img"), "-p", "/", "-c", at("early.cfg"),
			"biosdisk", "part_msdos", "fat", "linux", "search", "search_label"}},
		{Path: "grub-mkimage", Args: []string{"-O", "x86_64-efi", "-d", grubEFI, "-o", at("BOOTX64.EFI"), "-p", "/", "-c", at("early.cfg"),
			"part_msdos", "fat", "linux", "search", "search_label", "efi_gop"}},
		{Path: "mformat", Args: []string{"-i", at("esp"), "-C", "-T", fmt.Sprint(area.ESPSize / 512), "-v", area.ESPLabel, "::"}},
		{Path: "mmd", Args: []string{"-i", at("esp"), "::/EFI", "::/EFI/BOOT"}},
		{Path: "mcopy", Args: []string{"-i", at("esp"), at("BOOTX64.EFI"), "::/EFI/BOOT/BOOTX64.EFI"}},
		{Path: "mcopy", Args: []string{"-i", at("esp"), p.kernel, "::/vmlinuz"}},
		{Path: "mcopy", Args: []string{"-i", at("esp"), at("initrd"), "::/initrd"}},
		{Path: "mke2fs", Args: []string{"-q", "-F", "-t", "ext4", "-b", "4096", "-L", area.RootLabel, "-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0",
			"-d", at("root"), at("ext4"), fmt.Sprintf("%dk", area.RootSize>>10)}},
	}
	for _, step := range steps {
		if _, err := Run(ctx, step); err != nil {
			return err
		}
	}
	boot, err := mbr(grubBIOS + "/boot.img")
	if err != nil {
		return err
	}
	core, err := os.ReadFile(at("core.img"))
	if err != nil {
		return err
	}
	if len(core) > area.ESPStart-512 {
		return fmt.Errorf("GRUB's core has %d bytes, the gap before the first partition only %d", len(core), area.ESPStart-512)
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(area.DiskSize); err != nil {
		return err
	}
	if err := lay(out, bytes.NewReader(append(boot, core...)), 0); err != nil {
		return err
	}
	for _, fs := range []struct {
		name string
		off  int64
	}{{"esp", area.ESPStart}, {"ext4", area.RootStart}} {
		in, err := os.Open(at(fs.name))
		if err != nil {
			return err
		}
		err = lay(out, in, fs.off)
		if err := errors.Join(err, in.Close()); err != nil {
			return err
		}
	}
	return out.Sync()
}

// rootTree lays out the guest's root file system.
func rootTree(root string, p linuxParts) error {
	files, err := programs(p.unpacked, "sbin/iscsid")
	if err != nil {
		return err
	}
	files["sbin/guest"] = p.guest
	// iscsid lets only the user named root talk to it, its own child included.
	files["etc/passwd"] = []byte("root:x:0:0:root:/:/bin/false\n")
	files["etc/iscsi/iscsid.conf"] = []byte(iscsidConfig)
	for _, name := range sortedKeys(files) {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, name), files[name], 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "var/lib/iscsi"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// mbr makes sector 0: GRUB's boot code, which loads the core from sector 1, and
// the partition table (an active EFI system partition and a Linux one).
func mbr(bootImage string) ([]byte, error) {
	code, err := os.ReadFile(bootImage)
	if err != nil {
		return nil, err
	}
	if len(code) != 512 {
		return nil, fmt.Errorf("%s has %d bytes, not one sector", bootImage, len(code))
	}
	b := make([]byte, 512)
	copy(b, code[:440])
	copy(b[440:], "LUNB") // the disk's signature
	entry := func(i int, active, kind byte, start, size int64) {
		e := b[446+16*i:]
		e[0], e[4] = active, kind
		// No cylinder fits these sectors: all ones means "see the LBA".
		copy(e[1:4], []byte{0xfe, 0xff, 0xff})
		copy(e[5:8], []byte{0xfe, 0xff, 0xff})
		binary.LittleEndian.PutUint32(e[8:], uint32(start/512))
		binary.LittleEndian.PutUint32(e[12:], uint32(size/512))
	}
	entry(0, 0x80, 0xef, area.ESPStart, area.ESPSize)
	entry(1, 0, 0x83, area.RootStart, area.RootSize)
	b[510], b[511] = 0x55, 0xaa
	return b, nil
}

// lay copies r to offset off and leaves holes where r has zeros: the
// destination is a new, sparse file.
func lay(out io.WriterAt, r io.Reader, off int64) error {
	b := make([]byte, 64<<10)
	zero := make([]byte, len(b))
	for {
		n, err := io.ReadFull(r, b)
		if n > 0 && !bytes.Equal(b[:n], zero[:n]) {
			if _, err := out.WriteAt(b[:n], off); err != nil {
				return err
			}
		}
		off += int64(n)
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil
		default:
			return err
		}
	}
}

// CopyImage makes a private, sparse copy of an image.
func CopyImage(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	err = errors.Join(out.Truncate(info.Size()), lay(out, in, 0), out.Close())
	if err != nil {
		return fmt.Errorf("copying %s: %w", src, err)
	}
	return nil
}

// CheckRoot runs a file system check on a copy of the disk's root file system
// and returns an error when there is damage that its journal does not mend.
func CheckRoot(ctx context.Context, disk io.ReaderAt, dir string) error {
	copied := filepath.Join(dir, "fsck.ext4")
	out, err := os.Create(copied)
	if err != nil {
		return err
	}
	defer os.Remove(copied)
	err = errors.Join(out.Truncate(area.RootSize), lay(out, io.NewSectionReader(disk, area.RootStart, area.RootSize), 0), out.Close())
	if err != nil {
		return err
	}
	_, err = Run(ctx, Command{Path: "e2fsck", Args: []string{"-p", "-f", copied}})
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 { // the journal was replayed
		return nil
	}
	if err != nil {
		return fmt.Errorf("the guest's root file system is damaged: %w", err)
	}
	return nil
}

//go:embed bootsector.bin
var bootSector []byte

// The boot-sector disk: small, and large enough for iPXE. Without a partition
// table to guess from it takes 255 heads and 63 sectors, and a disk below one
// such cylinder (16,065 blocks) has none: its sector 0 cannot be read by INT
// 13h function 02h, and the boot fails with an input/output error.
const (
	sectorDiskSize = 16 << 20
	sectorHostAt   = 512
	sectorAnswerAt = 1024
	sectorAnswer   = "guest wrote "
)

// BuildBootSector writes the boot-sector disk to path, with the host's nonce in
// it. The machine powers off when it is done, or holds and reads once a second.
func BuildBootSector(path string, nonce area.Nonce, mode area.Mode) error {
	disk := make([]byte, sectorAnswerAt)
	copy(disk, bootSector)
	end := byte('P')
	if mode == area.Hold {
		end = 'H'
	}
	copy(disk[sectorHostAt:], append([]byte(nonce.String()), end))
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		return err
	}
	return os.Truncate(path, sectorDiskSize)
}

// CheckBootSector says whether the boot sector's answer is on the disk.
func CheckBootSector(r io.ReaderAt, nonce area.Nonce) error {
	want := make([]byte, 512)
	copy(want, sectorAnswer+nonce.String())
	got := make([]byte, 512)
	if _, err := r.ReadAt(got, sectorAnswerAt); err != nil {
		return fmt.Errorf("reading the boot sector's answer: %w", err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("the boot sector's answer is not on the disk: %q", bytes.TrimRight(got[:64], "\x00"))
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
