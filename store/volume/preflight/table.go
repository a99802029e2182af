package preflight

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/diskfs/go-diskfs/partition"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/diskfs/go-diskfs/partition/mbr"

	"lunboot/store"
)

const (
	tableGPT = "gpt"
	tableMBR = "mbr"
)

// legacyBoot is the attribute of a GPT's partition that a BIOS is to start (UEFI
// §5.3.3, bit 2).
const legacyBoot = 1 << 2

// section is the volume as the library of partition tables wants it.
type section struct {
	*io.SectionReader
	block int
}

// maxEntries bounds the entries of a GPT, in bytes. Every known maker writes 16 KiB.
const maxEntries = 1 << 20

var errEntries = errors.New("the table says that it has more entries than any has")

// ReadAt refuses the header of a GPT that says it has very many entries: the library
// makes room for all of them before it reads the first, and no recover helps against
// want of memory.
func (f section) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.SectionReader.ReadAt(p, off)
	for _, at := range [...]int{0, f.block} { // alone, or behind the first block
		if len(p) < at+88 || !bytes.HasPrefix(p[at:], []byte("EFI PART")) {
			continue
		}
		if count, size := binary.LittleEndian.Uint32(p[at+80:]), binary.LittleEndian.Uint32(p[at+84:]); uint64(count)*uint64(size) > maxEntries {
			return 0, errEntries
		}
	}
	return n, err
}

func (f section) Close() error               { return nil }
func (f section) Stat() (fs.FileInfo, error) { return f, nil }
func (f section) Name() string               { return "volume" }
func (f section) Mode() fs.FileMode          { return 0o400 }
func (f section) ModTime() time.Time         { return time.Time{} }
func (f section) IsDir() bool                { return false }
func (f section) Sys() any                   { return nil }

// table reads the partition table, if there is one.
func (d *disk) table() error {
	if d.first[510] != 0x55 || d.first[511] != 0xaa {
		return nil // neither a table nor GPT's protective one (UEFI §5.2.3)
	}
	// A file system without a table has its boot sector there, and code where
	// a table would stand.
	if name, err := d.fileSystem(0, d.size); err != nil {
		return err
	} else if strings.HasPrefix(name, "FAT") || name == "NTFS" || name == "exFAT" {
		return nil
	}
	t := d.parsed()
	switch t := t.(type) {
	case *gpt.Table:
		d.found.Table = tableGPT
		for _, p := range t.Partitions {
			// The library computes the size; an end before the start wraps.
			if p.Type == gpt.Unused || p.End < p.Start || p.End >= uint64(d.size)/uint64(d.block) {
				continue
			}
			d.add(store.Partition{
				Number: p.Index, Start: int64(p.Start) * int64(d.block), Size: int64(p.End-p.Start+1) * int64(d.block),
				ESP: p.Type == gpt.EFISystemPartition, Active: p.Attributes&legacyBoot != 0, Name: strings.TrimRight(p.Name, "\x00"),
			})
			if len(d.loaderParts) < maxLoaders && (strings.EqualFold(string(p.Type), string(gpt.BIOSBoot)) || strings.EqualFold(string(p.Type), string(gpt.FreeBSDBoot))) {
				d.loaderParts = append(d.loaderParts, place{int64(p.Start) * int64(d.block), int64(p.End-p.Start+1) * int64(d.block)})
			}
			d.hint(string(p.Type))
		}
	case *mbr.Table:
		for _, p := range t.Partitions {
			start, size := int64(p.Start)*int64(d.block), int64(p.Size)*int64(d.block)
			if p.Type == mbr.Empty || size == 0 || p.Start == 0 || start >= d.size {
				continue
			}
			d.found.Table = tableMBR
			d.add(store.Partition{Number: p.Index, Start: start, Size: min(size, d.size-start), ESP: p.Type == mbr.EFISystem, Active: p.Bootable})
		}
	}
	return nil
}

// parsed asks the library. What it makes of nonsense, a panic among it, is no
// table.
func (d *disk) parsed() (t partition.Table) {
	defer func() {
		if recover() != nil {
			t = nil
		}
	}()
	t, err := partition.Read(section{io.NewSectionReader(d.r, 0, d.size), d.block}, d.block, d.block)
	if err != nil {
		return nil
	}
	return t
}

func (d *disk) add(p store.Partition) {
	if len(d.found.Partitions) < store.MaxPartitions {
		d.found.Partitions = append(d.found.Partitions, p)
	}
}

// hint learns the operating system from a GPT partition type.
func (d *disk) hint(kind string) {
	switch {
	case strings.EqualFold(kind, string(gpt.FreeBSDUFS)), strings.EqualFold(kind, string(gpt.FreeBSDZFS)), strings.EqualFold(kind, string(gpt.FreeBSDBoot)):
		d.found.OS = store.OSFreeBSD
	case strings.EqualFold(kind, typeVMFS), strings.EqualFold(kind, typeESXi), strings.EqualFold(kind, typeVMKCore):
		d.found.OS = store.OSESXi
	}
}

// VMware's partition types.
const (
	typeVMFS    = "AA31E02A-400F-11DB-9590-000C2911D1B8"
	typeESXi    = "9198EFFC-31C0-11DB-8F78-000C2911D1B8"
	typeVMKCore = "9D275380-40AD-11DB-BF97-000C2911D1B8"
)
