package preflight

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/diskfs/go-diskfs/partition/mbr"

	"lunboot/store"
)

// golden is what a real tool wrote; testdata/README.md says which.
func golden(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// first puts boot code into the first block, beside the table that stands there.
func (i *image) first(code string) *image {
	return i.put(0, code+strings.Repeat("\x00", 440-len(code))).put(510, "\x55\xaa")
}

// dos is code with the words of Microsoft's: its bytes are not ours to keep here.
const dos = "\xfa\x33\xc0Invalid partition table\x00Error loading operating system\x00Missing operating system\x00"

func linux(start uint32, active bool) *mbr.Partition {
	return &mbr.Partition{Index: 1, Bootable: active, Type: mbr.Linux, Start: start, Size: 20 * 2048}
}

// bootSector is one of an operating system's.
var bootSector = "\xeb\x58\x90SYSTEM  " + strings.Repeat("x", 499) + "\x55\xaa"

func TestCodeThatOnlyLeadsOnIsWorthWhatItLeadsTo(t *testing.T) {
	const none, bare, nowhere = "and no partition is active", "and that has no boot sector", "nothing where the second should be"
	start := func(code string, parts ...*mbr.Partition) *image {
		return newImage(t, 64*mib).mbr(parts...).first(golden(t, code))
	}
	on := func(code string, boots uint64) *image {
		p := linuxRoot(2048, 4095)
		p.Attributes = boots
		return newImage(t, 64*mib).gpt(512, p).first(golden(t, code))
	}
	for what, c := range map[string]struct {
		disk *image
		why  string // empty: it starts
	}{
		"a table of libparted alone":             {start("libparted.bin"), none},
		"partitions, and none is active":         {start("libparted.bin", linux(2048, false)), none},
		"an active one that is empty":            {start("libparted.bin", linux(2048, true)), bare},
		"an active one with a file system":       {start("libparted.bin", linux(2048, true)).ext4(mib), bare},
		"an active one that mkfs.fat made":       {start("libparted.bin", linux(2048, true)).put(mib, golden(t, "mkfs.fat.bin")), bare},
		"an active one that boots":               {start("libparted.bin", linux(2048, true)).put(mib, bootSector), ""},
		"an active one, and boot code elsewhere": {start("libparted.bin", linux(4096, true)).put(mib, bootSector), bare},
		"Syslinux, none active":                  {start("syslinux.bin", linux(2048, false)), none},
		"Syslinux, which finds extlinux":         {start("syslinux.bin", linux(2048, true)).put(mib, bootSector), ""},
		"Syslinux, which finds it in XFS":        {start("syslinux.bin", linux(2048, true)).put(mib, "XFSB").put(mib+4*512, bootSector), ""},
		"Syslinux, XFS alone":                    {start("syslinux.bin", linux(2048, true)).put(mib, "XFSB"), bare},
		"Syslinux for a numbered partition":      {start("syslinux-alt.bin", linux(2048, false)), ""},
		"Syslinux on a GPT, none marked":         {on("syslinux-gpt.bin", 0), none},
		"Syslinux on a GPT":                      {on("syslinux-gpt.bin", legacyBoot).put(mib, bootSector), ""},
		"Windows, none active":                   {newImage(t, 64*mib).mbr(linux(2048, false)).first(dos), none},
		"Windows":                                {newImage(t, 64*mib).mbr(linux(2048, true)).first(dos).put(mib, bootSector), ""},
		"GRUB":                                   {start("grub.bin", linux(2048, false)).put(512, "core"), ""},
		"GRUB without its second part":           {start("grub.bin", linux(2048, false)), nowhere},
		"GRUB that leads behind the end":         {start("grub.bin", linux(2048, false)).put(0x5c, "\x00\x00\x00\x10"), nowhere},
		"GRUB of long ago":                       {start("grub.bin", linux(2048, false)).put(0, "\xeb\x48").put(0x44, "\x01\x00\x00\x00").put(512, "stage"), ""},
		"a file system of mkfs.fat's":            {newImage(t, 64*mib).put(0, golden(t, "mkfs.fat.bin")), "says that nothing boots from it"},
	} {
		p := c.disk.look(512)
		if p.BIOS.OK != (c.why == "") || !strings.Contains(p.BIOS.Why, c.why) || (p.BIOS.Chain != "") != p.BIOS.OK {
			t.Errorf("%s: %+v", what, p.BIOS)
		}
	}
}

// What a boot loader's installation changes makes another chain, and what
// partitioning, formatting and a run of the system change does not.
func TestAChainIsWhatTheFirmwareRuns(t *testing.T) {
	bios := func(p store.Preflight) string { return p.BIOS.Chain }
	uefi := func(p store.Preflight) string { return p.UEFI.Chain }
	grub := func() *image {
		return newImage(t, 64*mib).mbr(linux(2048, true)).first(golden(t, "grub.bin")).put(512, "core of GRUB")
	}
	own := func(start uint32) *image {
		return newImage(t, 64*mib).mbr(linux(start, false)).first("\xfa\x31\xc0").put(512, "more")
	}
	biosBoot := func(start uint64) *image {
		return newImage(t, 64*mib).gpt(512, &gpt.Partition{Index: 1, Start: start, End: start + 2047, Type: gpt.BIOSBoot}).first("\xfa\x31\xc0").put(int64(start)*512, "loader")
	}
	dosDisk := func() *image {
		return newImage(t, 64*mib).mbr(linux(2048, true)).first(dos).put(mib, bootSector)
	}
	esp := func(files ...string) *image {
		return newImage(t, 64*mib).fat(32, 0, 64*mib, files...)
	}
	for what, c := range map[string]struct {
		disk   *image
		chain  func(store.Preflight) string
		change func(*image)
		same   bool
	}{
		"GRUB, nothing":                      {grub(), bios, func(*image) {}, true},
		"GRUB, its second part":              {grub(), bios, func(i *image) { i.put(600, "other") }, false},
		"GRUB, the disk's signature":         {grub(), bios, func(i *image) { i.put(440, "abcdef") }, true},
		"GRUB, other partitions":             {grub(), bios, func(i *image) { i.mbr(linux(63, true)).put(510, "\x55\xaa") }, true},
		"GRUB, a file system":                {grub(), bios, func(i *image) { i.ext4(mib) }, true},
		"GRUB, a boot sector besides":        {grub(), bios, func(i *image) { i.put(mib, bootSector) }, true},
		"GRUB, other code":                   {grub(), bios, func(i *image) { i.first("\xfa\x31\xc0") }, false},
		"its own, the track behind it":       {own(2048), bios, func(i *image) { i.put(30<<10, "other") }, false},
		"its own, behind that":               {own(2048), bios, func(i *image) { i.put(64<<10, "other") }, true},
		"its own, the partition elsewhere":   {own(63), bios, func(i *image) { i.mbr(linux(2048, false)).put(510, "\x55\xaa").put(63*512, "a file system") }, true},
		"its own, a file system on block 16": {own(16), bios, func(i *image) { i.put(16*512, "a file system") }, true},
		"BIOS boot partition, its bytes":     {biosBoot(2048), bios, func(i *image) { i.put(mib+1000, "other") }, false},
		"BIOS boot partition, behind it":     {biosBoot(2048), bios, func(i *image) { i.put(2*mib, "other") }, true},
		"the active partition's boot sector": {dosDisk(), bios, func(i *image) { i.put(mib+100, "other") }, false},
		"behind that boot sector":            {dosDisk(), bios, func(i *image) { i.put(mib+512, "other") }, true},
		"a disc, its date":                   {disc(t, "\x00", "\xef"), bios, func(i *image) { i.put(16*2048+813, "2026113021") }, false},
		"a disc, its date, for UEFI":         {disc(t, "\x00", "\xef"), uefi, func(i *image) { i.put(16*2048+813, "2026113021") }, false},
		"an EFI loader, nothing":             {esp(fallbackBoot), uefi, func(*image) {}, true},
		"an EFI loader, a system's folder":   {esp(fallbackBoot, "/EFI/debian/grub.cfg"), uefi, func(i *image) { i.swap("GRUB    CFG", "OTHER   CFG") }, true},
		"an EFI loader, its bytes":           {esp(fallbackBoot), uefi, func(i *image) { i.swap("MZ", "ZM") }, false},
		"an EFI loader, its time":            {esp(fallbackBoot), uefi, func(i *image) { i.at("BOOTX64 EFI", 22, "\x01\x02\x03\x04") }, false},
		"an EFI loader, what is beside it":   {esp(fallbackBoot, "/EFI/BOOT/GRUBX64.EFI"), uefi, func(i *image) { i.at("GRUBX64 EFI", 22, "\x01\x02\x03\x04") }, false},
		"an EFI loader, made anew":           {esp(fallbackBoot), uefi, func(i *image) { i.put(67, "anew") }, false},
	} {
		before := c.chain(c.disk.look(512))
		c.change(c.disk)
		after := c.chain(c.disk.look(512))
		if before == "" || after == "" || (before == after) != c.same {
			t.Errorf("%s: before %q, after %q", what, before, after)
		}
	}
}

// find returns where bytes stand on the disk.
func (i *image) find(s string) int64 {
	i.t.Helper()
	b := make([]byte, i.size)
	if _, err := i.f.ReadAt(b, 0); err != nil {
		i.t.Fatal(err)
	}
	at := strings.Index(string(b), s)
	if at < 0 {
		i.t.Fatalf("%q is not on the disk", s)
	}
	return int64(at)
}

// at puts bytes behind others that are on the disk.
func (i *image) at(s string, off int64, bytes string) *image { return i.put(i.find(s)+off, bytes) }

// swap puts bytes in the place of others.
func (i *image) swap(s, other string) *image { return i.put(i.find(s), other) }

func TestAChainOfOneFirmwareSaysNothingOfTheOther(t *testing.T) {
	p := newImage(t, 64*mib).fat(32, 0, 64*mib, fallbackBoot).look(512)
	if p.UEFI.Chain == "" || p.UEFI.Chain == p.BIOS.Chain {
		t.Errorf("BIOS %+v, UEFI %+v", p.BIOS, p.UEFI)
	}
}
