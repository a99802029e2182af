package preflight

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"

	"lunboot/store"
)

// chain digests what a firmware runs one after the other, so that two looks can be
// compared: a boot loader that was installed between them makes another chain, and
// a table of partitions that was written makes none.
type chain struct{ hash.Hash }

func newChain() chain { return chain{sha256.New()} }

// add takes one link: what it is, and its bytes.
func (c chain) add(what string, b []byte) {
	fmt.Fprintf(c, "%s %d\n", what, len(b))
	c.Write(b)
}

func (c chain) String() string { return hex.EncodeToString(c.Sum(nil)) }

// code is what stands where a BIOS begins, in the first block.
type code int

const (
	noCode     code = iota
	ownCode         // a boot loader's, as far as is known
	activeCode      // it starts the active partition, and is nothing without one
	grubCode        // GRUB's first part, which names the block where it goes on
)

// Bounds of what is read of a chain.
const (
	codeBytes  = 440      // of the first block, before the disk's signature and the table
	gapBlocks  = 63       // the track that boot loaders may have to themselves before the first partition
	maxLoaders = 4        // partitions that boot loaders have to themselves; others are left out
	maxLoader  = 1 << 20  // of each of them
	headBytes  = 4 << 10  // of each EFI loader
	grubBytes  = 63 * 512 // of GRUB's second part, whose own length stands in it
)

// libparted is the digest of the boot code that libparted writes into each table
// that it makes on a disk without code: parted, partman and Anaconda by it.
const libparted = "0d0087a55200f3b6b52f32bcb39c0a267c014c4f50e90fcb95ea0039373c9d59"

// starters are the words of code that starts the active partition: of DOS, Windows
// and FreeBSD, and of Syslinux's mbr.bin and gptmbr.bin. Syslinux's altmbr.bin,
// which starts the partition whose number it was given, lacks them.
var starters = [][]string{{"Invalid partition table", "Missing operating system"}, {"Multiple active partitions"}}

// noDisk is what mkfs.fat and mkntfs write in place of boot code.
const noDisk = "not a bootable disk"

// firstCode tells the code of the first block. With GRUB's, at is the block where that
// goes on.
func firstCode(b []byte) (kind code, at uint64) {
	b = b[:codeBytes]
	sum := sha256.Sum256(b)
	switch {
	case zero(b):
		return noCode, 0
	case hex.EncodeToString(sum[:]) == libparted, slices.ContainsFunc(starters, func(words []string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !bytes.Contains(b, []byte(w)) })
	}):
		return activeCode, 0
	case !bytes.Contains(b, []byte("GRUB \x00")):
		return ownCode, 0
	case b[0] == 0xeb && b[1] == 0x63: // GRUB 2, GRUB_BOOT_MACHINE_KERNEL_SECTOR
		return grubCode, binary.LittleEndian.Uint64(b[0x5c:])
	case b[0] == 0xeb && b[1] == 0x48: // GRUB 0.9x, STAGE1_STAGE2_SECTOR
		return grubCode, uint64(binary.LittleEndian.Uint32(b[0x44:]))
	}
	return ownCode, 0
}

// starts reads what the first block leads to.
func (d *disk) starts() (err error) {
	if d.first[510] != 0x55 || d.first[511] != 0xaa {
		return nil
	}
	at := uint64(0)
	d.code, at = firstCode(d.first)
	if d.code == grubCode && at > 0 && at < uint64(d.size)/512 {
		if d.second, err = d.read(int64(at)*512, grubBytes); err != nil {
			return err
		}
	}
	i := slices.IndexFunc(d.found.Partitions, func(p store.Partition) bool { return p.Active })
	if i < 0 {
		return nil
	}
	start := d.found.Partitions[i].Start
	if d.active, err = d.read(start, 512); err == nil && bytes.HasPrefix(d.active, []byte("XFSB")) {
		d.active, err = d.read(start+4*512, 512) // XFS leaves no room for a boot sector before itself
	}
	if err == nil {
		d.lacks, err = d.lacking(start)
	}
	return err
}

// startsActive reports whether the active partition has a boot sector of its own.
func (d *disk) startsActive() bool {
	b := d.active
	return len(b) == 512 && b[510] == 0x55 && b[511] == 0xaa && !zero(b[:510]) && !bytes.Contains(b, []byte(noDisk))
}

// biosChain digests what a BIOS runs of a volume that it starts. What partitioning
// and formatting change is no part of it: the table, and what lies behind its first
// partition, wherever that begins.
func (d *disk) biosChain() (string, error) {
	c := newChain()
	if slices.Contains(d.found.Loaders, discBIOS) {
		c.add("disc", d.catalogue)
		return c.String(), nil
	}
	c.add("code", d.first[:codeBytes])
	switch {
	case d.code == activeCode:
		c.add("active", d.active)
	case d.code == grubCode:
		c.add("grub", d.second)
	case d.found.Table == tableMBR:
		end := int64(gapBlocks * 512)
		for _, p := range d.found.Partitions {
			end = min(end, p.Start)
		}
		b, err := d.read(512, int(max(end-512, 0)))
		if err != nil {
			return "", err
		}
		c.add("gap", b)
	case d.found.Table == tableGPT:
		for _, p := range d.loaderParts {
			b, err := d.read(p.start, int(min(p.size, maxLoader)))
			if err != nil {
				return "", err
			}
			c.add("partition", b)
		}
	}
	return c.String(), nil
}

// efiLink adds a file system with loaders to what UEFI would run: each file beside
// them as its directory tells it, and how each loader begins.
func (d *disk) efiLink(v *fat, entries []entry) error {
	d.efi.add("file system", v.id)
	for _, e := range entries {
		d.efi.add("file", fmt.Appendf(nil, "%s %t %d %d %x", e.name, e.dir, e.size, e.first, e.changed))
		if efiNames[e.name] == "" || e.dir {
			continue
		}
		b, err := v.head(e, headBytes)
		if err != nil {
			return err
		}
		d.efi.add("loader", b)
	}
	return nil
}

// chains fills in the digests of what starts.
func (d *disk) chains() (err error) {
	if d.found.BIOS.OK {
		if d.found.BIOS.Chain, err = d.biosChain(); err != nil {
			return err
		}
	}
	if d.found.UEFI.OK {
		if slices.Contains(d.found.Loaders, discEFI) {
			d.efi.add("disc", d.catalogue)
		}
		d.found.UEFI.Chain = d.efi.String()
	}
	return nil
}
