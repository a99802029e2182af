package preflight

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/filesystem/fat12"
	"github.com/diskfs/go-diskfs/filesystem/fat16"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/diskfs/go-diskfs/partition/mbr"

	"lunboot/store"
)

const mib = 1 << 20

// image is a disk that a test makes.
type image struct {
	t    *testing.T
	f    *os.File
	size int64
}

func newImage(t *testing.T, size int64) *image {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return &image{t, f, size}
}

func (i *image) put(off int64, s string) *image {
	i.t.Helper()
	if _, err := i.f.WriteAt([]byte(s), off); err != nil {
		i.t.Fatal(err)
	}
	return i
}

// code makes the first block a boot sector, as boot loaders install themselves.
func (i *image) code() *image { return i.put(0, "\xfa\x31\xc0").put(510, "\x55\xaa") }

func (i *image) gpt(block int, parts ...*gpt.Partition) *image {
	i.t.Helper()
	table := &gpt.Table{LogicalSectorSize: block, PhysicalSectorSize: block, ProtectiveMBR: true, Partitions: parts}
	if err := table.Write(i.f, i.size); err != nil {
		i.t.Fatal(err)
	}
	return i
}

func (i *image) mbr(parts ...*mbr.Partition) *image {
	i.t.Helper()
	table := &mbr.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, Partitions: parts}
	if err := table.Write(i.f, i.size); err != nil {
		i.t.Fatal(err)
	}
	return i
}

// fat makes a FAT file system with these files, each a path.
func (i *image) fat(bits int, start, size int64, files ...string) *image {
	i.t.Helper()
	b := file.New(i.f, false)
	var fs filesystem.FileSystem
	var err error
	switch bits {
	case 12:
		fs, err = fat12.Create(b, size, start, 512, "ESP", true)
	case 16:
		fs, err = fat16.Create(b, size, start, 512, "ESP", true)
	default:
		fs, err = fat32.Create(b, size, start, 512, "ESP", true)
	}
	if err != nil {
		i.t.Fatal(err)
	}
	for _, path := range files {
		if err := fs.Mkdir(filepath.Dir(path)); err != nil {
			i.t.Fatal(err)
		}
		w, err := fs.OpenFile(path, os.O_CREATE|os.O_RDWR)
		if err != nil {
			i.t.Fatal(err)
		}
		if _, err := w.Write([]byte("MZ")); err != nil {
			i.t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			i.t.Fatal(err)
		}
	}
	return i
}

func (i *image) look(block int) store.Preflight {
	i.t.Helper()
	p, err := Look(i.f, i.size, block)
	if err != nil {
		i.t.Fatal(err)
	}
	return p
}

func esp(start, end uint64) *gpt.Partition {
	return &gpt.Partition{Index: 1, Start: start, End: end, Type: gpt.EFISystemPartition, Name: "EFI"}
}

func basic(start, end uint64) *gpt.Partition {
	return &gpt.Partition{Index: 2, Start: start, End: end, Type: gpt.MicrosoftBasicData}
}

func linuxRoot(start, end uint64) *gpt.Partition {
	return &gpt.Partition{Index: 2, Start: start, End: end, Type: gpt.LinuxFilesystem}
}

// ext4 puts the superblock that names an ext4 file system.
func (i *image) ext4(start int64) *image {
	return i.put(start+0x438, "\x53\xef").put(start+0x400+0x60, "\x40")
}

const windowsBoot, fallbackBoot = "/EFI/Microsoft/Boot/bootmgfw.efi", "/EFI/BOOT/BOOTX64.EFI"

func TestWhatFirmwareWouldFind(t *testing.T) {
	for _, tc := range []struct {
		name       string
		make       func(t *testing.T) *image
		block      int
		summary    string
		os         store.OS
		bios, uefi string // why not; empty when it starts
	}{
		{"an empty volume", func(t *testing.T) *image { return newImage(t, mib) }, 512, "empty", "", "is empty", "is empty"},
		{"a volume of 67 blocks", func(t *testing.T) *image { return newImage(t, 67*512).code() }, 512, "boot sector", "",
			"has 67 blocks, and iPXE hooks no disk with fewer than 68", "has 67 blocks, and iPXE hooks no disk with fewer than 68"},
		{"Windows for UEFI", func(t *testing.T) *image {
			return newImage(t, 128*mib).gpt(512, esp(2048, 2048+40*2048-1), basic(100*2048, 120*2048)).
				fat(32, mib, 40*mib, windowsBoot, fallbackBoot).put(100*mib+3, "NTFS    ")
		}, 512, "GPT, ESP, NTFS: Windows", store.OSWindows, "is partitioned for UEFI (GPT) and has no boot code for a BIOS in its first block", ""},
		{"Debian for UEFI, without the path that network disks need", func(t *testing.T) *image {
			return newImage(t, 128*mib).gpt(512, esp(2048, 2048+40*2048-1), linuxRoot(100*2048, 120*2048)).
				fat(32, mib, 40*mib, "/EFI/debian/grubx64.efi").ext4(100 * mib)
		}, 512, "GPT, ESP, ext4: Linux", store.OSLinux, "is partitioned for UEFI (GPT) and has no boot code for a BIOS in its first block",
			`has no \EFI\BOOT\BOOTX64.EFI: UEFI starts nothing else from a network disk`},
		{"GPT with boot code for both", func(t *testing.T) *image {
			return newImage(t, 128*mib).gpt(512, esp(2048, 2048+40*2048-1)).fat(32, mib, 40*mib, fallbackBoot).code()
		}, 512, "GPT, ESP", "", "", ""},
		{"a small FAT16 ESP in an MBR", func(t *testing.T) *image {
			return newImage(t, 64*mib).mbr(&mbr.Partition{Index: 1, Type: mbr.EFISystem, Start: 2048, Size: 20 * 2048}).fat(16, mib, 20*mib, fallbackBoot).code()
		}, 512, "MBR, ESP", "", "", ""},
		{"Windows 7 for BIOS", func(t *testing.T) *image {
			return newImage(t, 64*mib).mbr(&mbr.Partition{Index: 1, Bootable: true, Type: mbr.NTFS, Start: 2048, Size: 20 * 2048}).put(mib+3, "NTFS    ").code()
		}, 512, "MBR, NTFS: Windows", store.OSWindows, "", "has no EFI system partition"},
		{"MBR without code", func(t *testing.T) *image {
			return newImage(t, 64*mib).mbr(&mbr.Partition{Index: 1, Type: mbr.Linux, Start: 2048, Size: 20 * 2048}).ext4(mib)
		}, 512, "MBR, ext4: Linux", store.OSLinux, "has no boot code in its first block", "has no EFI system partition"},
		{"a boot sector alone", func(t *testing.T) *image { return newImage(t, 16*mib).code() }, 512, "boot sector", "", "", "has no EFI system partition"},
		{"a boot sector on less than a cylinder", func(t *testing.T) *image { return newImage(t, 7*mib).code() }, 512, "boot sector", "",
			"has no partitions and only 14336 blocks: a BIOS makes its geometry from 16065 at least", "has no EFI system partition"},
		{"4096-byte blocks", func(t *testing.T) *image {
			return newImage(t, 512*mib).gpt(4096, esp(256, 256+80*256-1)).code()
		}, 4096, "GPT, ESP", "", "has blocks of 4096 bytes, and a BIOS reads blocks of 512", `has no \EFI\BOOT\BOOTX64.EFI: UEFI starts nothing else from a network disk`},
		{"a FAT file system without a table", func(t *testing.T) *image { return newImage(t, 40*mib).fat(32, 0, 40*mib, fallbackBoot) }, 512, "FAT32", "", "", ""},
		{"a floppy", func(t *testing.T) *image { return newImage(t, 2*mib).fat(12, 0, 1440<<10, fallbackBoot) }, 512, "FAT12", "",
			"has no partitions and only 4096 blocks: a BIOS makes its geometry from 16065 at least", ""},
		{"ESXi by its partitions", func(t *testing.T) *image {
			return newImage(t, 64*mib).gpt(512, &gpt.Partition{Index: 1, Start: 2048, End: 4095, Type: typeVMFS})
		}, 512, "GPT: VMware ESXi", store.OSESXi, "is partitioned for UEFI (GPT) and has no boot code for a BIOS in its first block", "has no EFI system partition"},
		{"a disc that boots both", func(t *testing.T) *image { return disc(t, "\x00", "\xef") }, 512, "disc image “DEBIAN 12”", "", "", ""},
		{"a disc for BIOS", func(t *testing.T) *image { return disc(t, "\x00", "") }, 512, "disc image “DEBIAN 12”", "", "", "has no EFI system partition"},
		{"a LUKS container", func(t *testing.T) *image { return newImage(t, mib).put(0, "LUKS\xba\xbe") }, 512, "LUKS: Linux", store.OSLinux, "has no boot code in its first block", "has no EFI system partition"},
		{"noise", func(t *testing.T) *image { return newImage(t, mib).put(100, "hello") }, 512, "data of no known kind", "", "has no boot code in its first block", "has no EFI system partition"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := tc.make(t).look(tc.block)
			if p.Summary != tc.summary || p.OS != tc.os {
				t.Errorf("found %q, %q; want %q, %q (%+v)", p.Summary, p.OS, tc.summary, tc.os, p)
			}
			for _, b := range []struct {
				kind string
				got  store.Bootable
				want string
			}{{"BIOS", p.BIOS, tc.bios}, {"UEFI", p.UEFI, tc.uefi}} {
				if b.got.Why != b.want || b.got.OK != (b.want == "") {
					t.Errorf("%s: %+v, want %q", b.kind, b.got, b.want)
				}
			}
		})
	}
}

// disc makes the beginning of an ISO 9660 image with an El Torito catalogue for
// these platforms.
func disc(t *testing.T, platforms ...string) *image {
	const sector = 2048
	i := newImage(t, 32*mib).put(16*sector, "\x01CD001\x01").put(16*sector+40, "DEBIAN 12                       ")
	i.put(17*sector, "\x00CD001\x01EL TORITO SPECIFICATION").put(17*sector+0x47, "\x13")
	cat := make([]byte, 0, sector)
	cat = append(cat, 1)
	cat = append(cat, platforms[0]...)
	cat = append(cat, make([]byte, 28)...)
	cat = append(cat, 0x55, 0xaa, 0x88)
	cat = append(cat, make([]byte, 31)...)
	if platforms[1] != "" {
		cat = append(cat, 0x91)
		cat = append(cat, platforms[1]...)
		cat = append(cat, make([]byte, 30)...)
		cat = append(cat, 0x88)
	}
	return i.put(0x13*sector, string(cat))
}

func TestPartitionsAreToldWithTheirPlace(t *testing.T) {
	p := newImage(t, 128*mib).gpt(512, esp(2048, 2048+40*2048-1), linuxRoot(100*2048, 120*2048-1)).fat(32, mib, 40*mib, fallbackBoot).ext4(100 * mib).look(512)
	want := []store.Partition{
		{Number: 1, Start: mib, Size: 40 * mib, ESP: true, FileSystem: "FAT32", Name: "EFI"},
		{Number: 2, Start: 100 * mib, Size: 20 * mib, FileSystem: "ext4"},
	}
	if !slices.Equal(p.Partitions, want) {
		t.Errorf("%+v, want %+v", p.Partitions, want)
	}
	if !slices.Equal(p.Loaders, []string{"x64"}) {
		t.Errorf("loaders %v", p.Loaders)
	}
}

func TestALoaderIsFoundByItsLongName(t *testing.T) {
	p := newImage(t, 64*mib).fat(32, 0, 64*mib, "/EFI/BOOT/BOOTRISCV64.EFI", "/EFI/BOOT/bootaa64.efi").look(512)
	if !slices.Equal(p.Loaders, []string{"aa64", "riscv64"}) {
		t.Errorf("loaders %v", p.Loaders)
	}
}

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errors.New("the disk is gone") }

func TestAFaultOfTheDiskIsNoFinding(t *testing.T) {
	if _, err := Look(broken{}, mib, 512); err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Error(err)
	}
	if _, err := Look(bytes.NewReader(nil), -1, 512); err == nil {
		t.Error("a negative size is no volume")
	}
}

// counting counts what is read.
type counting struct {
	io.ReaderAt
	n int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.n += int64(len(p))
	return c.ReaderAt.ReadAt(p, off)
}

func TestAnEndlessDirectoryEnds(t *testing.T) {
	i := newImage(t, 64*mib).fat(32, 0, 64*mib, fallbackBoot)
	// The root's first cluster is its own successor, and full of deleted names.
	b := make([]byte, 512)
	if _, err := i.f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	table := int64(le.Uint16(b[14:])) * 512
	i.put(table+2*4, "\x02\x00\x00\x00")
	data := table + int64(b[16])*int64(le.Uint32(b[36:]))*512
	i.put(data, strings.Repeat("\xe5"+strings.Repeat("x", 31), int(b[13])*512/32))
	c := &counting{ReaderAt: i.f}
	if _, err := Look(c, i.size, 512); err != nil {
		t.Fatal(err)
	}
	if c.n > 8*mib {
		t.Errorf("%d bytes were read", c.n)
	}
}

// What a look takes is bounded by us, and not by what a machine wrote: a table that
// says it has millions of entries, a name of a million parts, many boot partitions.
func TestALookTakesNoMoreMemoryThanItNeeds(t *testing.T) {
	entries := newImage(t, 8*mib).gpt(512, esp(64, 8191))
	for _, lba := range []int64{1, 8*mib/512 - 1} {
		b := make([]byte, 92)
		if _, err := entries.f.ReadAt(b, lba*512); err != nil {
			t.Fatal(err)
		}
		binary.LittleEndian.PutUint32(b[80:], 1<<21)
		clear(b[16:20])
		binary.LittleEndian.PutUint32(b[16:], crc32.ChecksumIEEE(b))
		entries.put(lba*512, string(b))
	}
	name := newImage(t, 64*mib).fat(32, 0, 64*mib, fallbackBoot)
	long := "\x41E\x00F\x00I\x00E\x00F\x00\x0f\x00\x00I\x00E\x00F\x00I\x00E\x00F\x00\x00\x00I\x00E\x00"
	v, err := (&disk{r: name.f, size: name.size}).openFAT(0, name.size)
	if err != nil {
		t.Fatal(err)
	}
	name.put(v.data+int64(v.rootAtN-2)*int64(v.cluster), strings.Repeat(long, v.cluster/32))
	for _, at := range []int64{0, 1} { // the root's cluster is followed by itself
		name.put(v.table+at*(v.rootAt-v.table)/2+int64(v.rootAtN)*4, string(binary.LittleEndian.AppendUint32(nil, v.rootAtN)))
	}
	var parts []*gpt.Partition
	for n := range uint64(60) {
		parts = append(parts, &gpt.Partition{Index: int(n) + 1, Start: 64 + n*4096, End: 64 + n*4096 + 4095, Type: gpt.BIOSBoot})
	}
	boots := newImage(t, 256*mib).gpt(512, parts...).put(0, "\xfa\x31\xc0")
	for what, i := range map[string]*image{"entries": entries, "a name": name, "boot partitions": boots} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		i.look(512)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 32*mib {
			t.Errorf("%s: a look took %d MiB", what, took/mib)
		}
	}
}

// Whatever stands on a volume, looking at it ends, without a panic and without
// reading much.
func FuzzLook(f *testing.F) {
	f.Add([]byte("\xfa\x31\xc0"), uint16(0), false)
	f.Add([]byte("EFI PART"), uint16(512), false)
	f.Add([]byte("\x55\xaa"), uint16(510), true)
	f.Add([]byte("\xeb\x63"+strings.Repeat("x", 90)+"\x01\x00\x00\x00\x00\x00\x00\x80GRUB \x00"), uint16(0), false)
	f.Add([]byte("Multiple active partitions"), uint16(100), false)
	f.Add([]byte("\xeb\x58\x90MSDOS5.0\x00\x02\x01\x20\x00\x02\x00\x00\x00\x00\xf8\x00\x00?\x00\xff\x00\x00\x00\x00\x00"), uint16(0), false)
	f.Fuzz(func(t *testing.T, data []byte, at uint16, large bool) {
		disk := make([]byte, 128<<10)
		disk[510], disk[511] = 0x55, 0xaa
		copy(disk[82:], "FAT32   ")
		copy(disk[at:], data)
		block := 512
		if large {
			block = 4096
		}
		c := &counting{ReaderAt: bytes.NewReader(disk)}
		p, err := Look(c, int64(len(disk)), block)
		if err != nil {
			t.Fatal(err)
		}
		if c.n > 64*mib || p.Summary == "" || len(p.Partitions) > store.MaxPartitions {
			t.Errorf("%d bytes read: %+v", c.n, p)
		}
		for _, b := range []store.Bootable{p.BIOS, p.UEFI} {
			if b.OK != (b.Chain != "") || b.OK != (b.Why == "") {
				t.Errorf("it starts, or not: %+v", b)
			}
		}
		for _, q := range p.Partitions {
			if q.Start < 0 || q.Size <= 0 || q.Start+q.Size > int64(len(disk)) {
				t.Errorf("partition %+v of %d bytes", q, len(disk))
			}
		}
	})
}
