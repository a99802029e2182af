package preflight

import (
	"bytes"
	"slices"
	"strings"

	"lunboot/store"
)

// magics are what file systems, and what stands in their place, are known by.
var magics = []struct {
	at    int64
	bytes string
	name  string
}{
	{3, "NTFS    ", "NTFS"},
	{3, "-FVE-FS-", "BitLocker"},
	{3, "EXFAT   ", "exFAT"},
	{3, "ReFS\x00", "ReFS"},
	{82, "FAT32   ", "FAT32"},
	{54, "FAT16   ", "FAT16"},
	{54, "FAT12   ", "FAT12"},
	{0, "XFSB", "XFS"},
	{0, "LUKS\xba\xbe", "LUKS"},
	{0, "hsqs", "squashfs"},
	{32, "NXSB", "APFS"},
	{512, "LABELONE", "LVM"},
	{0x438, "\x53\xef", "ext"},
	{0xff6, "SWAPSPACE2", "swap"},
	{0x8001, "CD001", "ISO 9660"},
	{0x10040, "_BHRfS_M", "btrfs"},
	{0x1055c, "\x19\x01\x54\x19", "UFS"},
}

// linuxOnly are file systems that Linux makes and nobody else boots from.
var linuxOnly = []string{"ext2", "ext3", "ext4", "XFS", "btrfs", "LVM", "LUKS", "swap", "squashfs"}

// fileSystems names what each partition holds, or the whole volume when there
// is no table.
func (d *disk) fileSystems() (err error) {
	for i := range d.found.Partitions {
		p := &d.found.Partitions[i]
		if p.FileSystem, err = d.fileSystem(p.Start, p.Size); err != nil {
			return err
		}
	}
	if d.found.Table == "" {
		d.found.FileSystem, err = d.fileSystem(0, d.size)
	}
	return err
}

func (d *disk) fileSystem(start, size int64) (string, error) {
	for _, m := range magics {
		n := int64(len(m.bytes))
		if m.at+n > size {
			continue
		}
		b, err := d.read(start+m.at, len(m.bytes))
		if err != nil {
			return "", err
		}
		if string(b) != m.bytes {
			continue
		}
		if m.name == "ext" {
			return d.ext(start)
		}
		return m.name, nil
	}
	return "", nil
}

// ext tells ext4 from its ancestors by feature flags of the superblock.
func (d *disk) ext(start int64) (string, error) {
	const journal, extents = 0x04, 0x40
	b, err := d.read(start+0x400+0x5c, 8)
	switch {
	case err != nil:
		return "", err
	case b[4]&extents != 0:
		return "ext4", nil
	case b[0]&journal != 0:
		return "ext3", nil
	}
	return "ext2", nil
}

// system guesses the operating system: what a partition's type said, a vendor's
// folder on the EFI system partition, or a file system that only one has.
func (d *disk) system() store.OS {
	p := &d.found
	if p.OS != "" {
		return p.OS
	}
	var kinds []string
	for _, q := range p.Partitions {
		kinds = append(kinds, q.FileSystem)
	}
	kinds = append(kinds, p.FileSystem)
	for _, k := range kinds {
		switch {
		case slices.Contains(linuxOnly, k):
			return store.OSLinux
		case k == "UFS":
			return store.OSFreeBSD
		}
	}
	if slices.Contains(kinds, "NTFS") && (d.bootCode() || len(p.Loaders) > 0) || slices.Contains(kinds, "BitLocker") {
		return store.OSWindows
	}
	return ""
}

// vendors are folders below \EFI and whose they are.
var vendors = map[string]store.OS{
	"MICROSOFT": store.OSWindows, "DEBIAN": store.OSLinux, "UBUNTU": store.OSLinux, "FEDORA": store.OSLinux, "REDHAT": store.OSLinux,
	"CENTOS": store.OSLinux, "ROCKY": store.OSLinux, "ALMALINUX": store.OSLinux, "OPENSUSE": store.OSLinux, "SLES": store.OSLinux,
	"ARCH": store.OSLinux, "SYSTEMD": store.OSLinux, "FREEBSD": store.OSFreeBSD, "VMWARE": store.OSESXi,
}

// efiNames are the files that UEFI starts (UEFI §3.5.1.1), by architecture.
var efiNames = map[string]string{"BOOTX64.EFI": "x64", "BOOTIA32.EFI": "ia32", "BOOTAA64.EFI": "aa64", "BOOTARM.EFI": "arm", "BOOTRISCV64.EFI": "riscv64"}

// Names of El Torito's boot images in Preflight.Loaders.
const (
	discBIOS = "disc-bios"
	discEFI  = "disc-efi"
)

// efiLoaders leaves out what only a BIOS starts.
func efiLoaders(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == discBIOS })
}

// loaders looks on every FAT file system for what UEFI would start.
func (d *disk) loaders() error {
	var fats []place
	for _, p := range d.found.Partitions {
		if strings.HasPrefix(p.FileSystem, "FAT") {
			fats = append(fats, place{p.Start, p.Size})
		}
	}
	if strings.HasPrefix(d.found.FileSystem, "FAT") {
		fats = append(fats, place{0, d.size})
	}
	for _, f := range fats {
		v, err := d.openFAT(f.start, f.size)
		if err != nil {
			return err
		}
		if v == nil {
			continue
		}
		if err := d.lookIn(v); err != nil {
			return err
		}
	}
	return nil
}

// lookIn reads \EFI and \EFI\BOOT.
func (d *disk) lookIn(v *fat) error {
	efi, ok, err := v.find(v.root(), "EFI")
	if err != nil || !ok {
		return err
	}
	entries, err := v.list(efi)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if os := vendors[e.name]; os != "" && d.found.OS == "" {
			d.found.OS = os
		}
	}
	boot, ok, err := v.find(efi, "BOOT")
	if err != nil || !ok {
		return err
	}
	if entries, err = v.list(boot); err != nil {
		return err
	}
	for _, e := range entries {
		if arch := efiNames[e.name]; arch != "" && !e.dir && e.size > 0 && !slices.Contains(d.found.Loaders, arch) {
			d.found.Loaders = append(d.found.Loaders, arch)
		}
	}
	slices.Sort(d.found.Loaders)
	return d.efiLink(v, entries)
}

// disc looks for an ISO 9660 volume (ECMA-119 §8.4) and its El Torito boot
// catalogue.
func (d *disk) disc() error {
	const sector = 2048
	b, err := d.read(16*sector, 2*sector)
	if err != nil || !bytes.HasPrefix(b, []byte("\x01CD001")) {
		return err
	}
	d.found.Disc = strings.TrimRight(string(b[40:72]), " \x00")
	if d.found.Disc == "" {
		d.found.Disc = "without a name"
	}
	if d.found.FileSystem == "ISO 9660" {
		d.found.FileSystem = ""
	}
	d.catalogue = slices.Clone(b[:sector]) // when it was made is told there
	const record = "\x00CD001\x01EL TORITO SPECIFICATION"
	if !bytes.HasPrefix(b[sector:], []byte(record)) {
		return nil
	}
	at := int64(b[sector+0x47]) | int64(b[sector+0x48])<<8 | int64(b[sector+0x49])<<16 | int64(b[sector+0x4a])<<24
	if b, err = d.read(at*sector, sector); err != nil {
		return err
	}
	d.catalogue = append(d.catalogue, b...)
	d.found.Loaders = append(d.found.Loaders, catalogue(b)...)
	return nil
}

// catalogue reads a boot catalogue (El Torito §2): a validation entry, the
// default entry, then sections by platform.
func catalogue(b []byte) (found []string) {
	const bootable, sectionMore, sectionLast, biosPlatform, efiPlatform = 0x88, 0x90, 0x91, 0x00, 0xef
	if b[0] != 1 || b[30] != 0x55 || b[31] != 0xaa {
		return nil
	}
	platform := b[1]
	for at := 32; at+32 <= len(b); at += 32 {
		switch e := b[at : at+32]; {
		case e[0] == sectionMore, e[0] == sectionLast:
			platform = e[1]
		case e[0] == bootable && platform == biosPlatform && !slices.Contains(found, discBIOS):
			found = append(found, discBIOS)
		case e[0] == bootable && platform == efiPlatform && !slices.Contains(found, discEFI):
			found = append(found, discEFI)
		}
	}
	return found
}
