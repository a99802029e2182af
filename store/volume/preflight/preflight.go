package preflight

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"lunboot/store"
)

// wholeCylinders is what a BIOS boot of a disk without partitions needs: iPXE
// makes up a geometry of 255 heads and 63 sectors for it, and refuses a disk
// that has no whole cylinder.
const wholeCylinders = 255 * 63

// disk is a volume while it is looked at.
type disk struct {
	r     io.ReaderAt
	size  int64
	block int
	first []byte // the first 4096 bytes, zeros where the volume is shorter
	found store.Preflight

	code        code    // of the first block
	active      []byte  // the active partition's boot sector; nil: none is active
	lacks       string  // the file that its boot code looks for in vain
	second      []byte  // where GRUB goes on
	loaderParts []place // partitions of a GPT that the boot loaders of a BIOS have to themselves
	catalogue   []byte  // a disc's description and boot catalogue
	efi         chain   // what UEFI would start
}

// place is a part of the volume, in bytes.
type place struct{ start, size int64 }

// Look reads what stands at the beginning of a volume of size bytes. An error
// is one of reading; strange contents are findings.
func Look(r io.ReaderAt, size int64, blockSize int) (store.Preflight, error) {
	if size < 0 || blockSize != 512 && blockSize != 4096 {
		return store.Preflight{}, fmt.Errorf("look at a volume of %d bytes in blocks of %d: that is no volume", size, blockSize)
	}
	d := &disk{r: io.NewSectionReader(r, 0, size), size: size, block: blockSize, efi: newChain()}
	var err error
	if d.first, err = d.read(0, 4096); err != nil {
		return store.Preflight{}, fmt.Errorf("look at the first blocks: %w", err)
	}
	for _, step := range []func() error{d.table, d.fileSystems, d.disc, d.loaders, d.starts} {
		if err := step(); err != nil {
			return store.Preflight{}, err
		}
	}
	if d.found.Blank, err = d.blank(); err != nil {
		return store.Preflight{}, err
	}
	d.found.OS = d.system()
	d.found.BIOS = d.bios()
	d.found.UEFI = d.uefi()
	if err := d.chains(); err != nil {
		return store.Preflight{}, err
	}
	d.found.Summary = d.summary()
	return d.found, nil
}

// read returns n bytes at off; what lies behind the end reads zero.
func (d *disk) read(off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	if off < 0 || off >= d.size {
		return b, nil
	}
	if _, err := d.r.ReadAt(b[:min(int64(n), d.size-off)], off); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, off, err)
	}
	return b, nil
}

// blankBytes is how much of the beginning must be zero before a volume is
// called blank.
const blankBytes = 1 << 20

func (d *disk) blank() (bool, error) {
	if d.found.Table != "" || d.found.FileSystem != "" || d.found.Disc != "" {
		return false, nil
	}
	b, err := d.read(0, blankBytes)
	return err == nil && zero(b), err
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// bootCode says whether the first block looks like a boot sector: the signature
// at its end, and code where code begins.
func (d *disk) bootCode() bool { return d.code != noCode }

// bios says what a BIOS makes of it: it loads the first 512 bytes and jumps, or
// follows El Torito on a disc. Code that only leads on is worth what it leads to.
func (d *disk) bios() store.Bootable {
	p := &d.found
	switch blocks := d.size / int64(d.block); {
	case blocks < store.MinBootBlocks:
		return no("has %d blocks, and iPXE hooks no disk with fewer than %d", blocks, store.MinBootBlocks)
	case p.Blank:
		return no("is empty")
	case d.block != 512:
		return no("has blocks of %d bytes, and a BIOS reads blocks of 512", d.block)
	case slices.Contains(p.Loaders, discBIOS):
		return store.Bootable{OK: true}
	case !d.bootCode() && p.Table == tableGPT:
		return no("is partitioned for UEFI (GPT) and has no boot code for a BIOS in its first block")
	case !d.bootCode():
		return no("has no boot code in its first block")
	case len(p.Partitions) == 0 && blocks < wholeCylinders:
		return no("has no partitions and only %d blocks: a BIOS makes its geometry from %d at least", blocks, wholeCylinders)
	case d.code == activeCode && d.active == nil:
		return no("has boot code that starts the active partition, and no partition is active")
	case d.code == activeCode && !d.startsActive():
		return no("has boot code that starts the active partition, and that has no boot sector")
	case d.code == activeCode && d.lacks != "":
		return no("has boot code that starts %s in its active partition, and that file is not there", d.lacks)
	case d.code == grubCode && zero(d.second):
		return no("has the first part of GRUB in its first block, and nothing where the second should be")
	case p.Table == "" && bytes.Contains(d.first[:512], []byte(noDisk)):
		return no("has a file system whose first block says that nothing boots from it")
	}
	return store.Bootable{OK: true}
}

// uefi says what UEFI makes of it: it starts \EFI\BOOT\BOOT….EFI from a FAT
// file system; no boot entry of the machine's NVRAM leads to a network disk.
func (d *disk) uefi() store.Bootable {
	p := &d.found
	esp := slices.ContainsFunc(p.Partitions, func(q store.Partition) bool { return q.ESP })
	fat := strings.HasPrefix(p.FileSystem, "FAT") || slices.ContainsFunc(p.Partitions, func(q store.Partition) bool { return strings.HasPrefix(q.FileSystem, "FAT") })
	switch blocks := d.size / int64(d.block); {
	case blocks < store.MinBootBlocks:
		return no("has %d blocks, and iPXE hooks no disk with fewer than %d", blocks, store.MinBootBlocks)
	case p.Blank:
		return no("is empty")
	case len(efiLoaders(p.Loaders)) > 0:
		return store.Bootable{OK: true}
	case esp || fat:
		return no(`has no \EFI\BOOT\BOOTX64.EFI: UEFI starts nothing else from a network disk`)
	}
	return no("has no EFI system partition")
}

func no(format string, args ...any) store.Bootable {
	return store.Bootable{Why: fmt.Sprintf(format, args...)}
}

// summary is one line: what it is, a colon, and whose it is.
func (d *disk) summary() string {
	p := &d.found
	if p.Blank {
		return "empty"
	}
	var parts []string
	add := func(s string) {
		if s != "" && !slices.Contains(parts, s) {
			parts = append(parts, s)
		}
	}
	if p.Disc != "" {
		add("disc image “" + p.Disc + "”")
	}
	add(strings.ToUpper(p.Table))
	for _, q := range p.Partitions {
		if q.ESP {
			add("ESP")
		} else {
			add(q.FileSystem)
		}
	}
	add(p.FileSystem)
	if len(parts) == 0 && d.bootCode() {
		add("boot sector")
	}
	if len(parts) == 0 {
		add("data of no known kind")
	}
	if name := p.OS.String(); name != "" {
		return strings.Join(parts, ", ") + ": " + name
	}
	return strings.Join(parts, ", ")
}
