package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"lunboot/store"
)

// qcow2 is a disk in clusters that a table of tables finds (QEMU
// docs/interop/qcow2.rst, of which the names are). Only the active state is
// read; internal snapshots are not.
type qcow2 struct {
	size        int64
	clusterBits uint
	extended    bool // 32 subclusters, each with its own state
	version3    bool
	zstd        bool
	l1At        int64
	l1, l2      *window
}

// The header's fields, big-endian, by their offset in bytes.
const (
	qcowVersion       = 4
	qcowBackingAt     = 8
	qcowBackingSize   = 16
	qcowClusterBits   = 20
	qcowSize          = 24
	qcowCrypt         = 32
	qcowL1Size        = 36
	qcowL1At          = 40
	qcowRefcountAt    = 48
	qcowRefcountLen   = 56
	qcowIncompatible  = 72
	qcowRefcountOrder = 96
	qcowHeaderLength  = 100
	qcowCompression   = 104
	qcowHeaderV2      = 72
	qcowHeaderV3      = 104
)

// Bits of the incompatible features.
const (
	qcowDirty       = 1 << 0 // the reference counts are stale; reading does not need them
	qcowCorrupt     = 1 << 1
	qcowDataFile    = 1 << 2
	qcowOtherPacker = 1 << 3
	qcowExtendedL2  = 1 << 4
	qcowKnown       = 1<<5 - 1
)

const (
	qcowMaxL1   = 32 << 20 // bytes; QEMU's own limit
	qcowOffset  = 0x00fffffffffffe00
	qcowPacked  = 1 << 62
	qcowCopied  = 1 << 63
	qcowZero    = 1
	qcowWindow  = 4 << 10 // of deflate, bytes
	maxUnit     = 2 << 20 // the largest cluster and the largest packed unit
	subclusters = 32      // of a cluster with an extended entry
	zstdWindow  = 8 << 20 // what zstd -19 asks for; a cluster needs no more than it has bytes
)

const wholeQcow2 = "make it whole, with: " + convertCommand

// openQcow2 reads the header. Everything that makes an image need another file
// is refused here, before any table is read.
func (i *Image) openQcow2() error {
	h, err := readUpTo(i.file, 0, min(i.fileSize, 112))
	if err != nil {
		return err
	}
	be := binary.BigEndian
	if len(h) < qcowHeaderV2 {
		return cut("the header", qcowHeaderV2, i.fileSize)
	}
	version := be.Uint32(h[qcowVersion:])
	if version != 2 && version != 3 {
		return invalid("the image is qcow of version %d, and versions 2 and 3 are known; %s", version, convert)
	}
	if at := be.Uint64(h[qcowBackingAt:]); at != 0 {
		return invalid("the image holds only the difference to another file%s; %s", i.backingName(at, be.Uint32(h[qcowBackingSize:])), wholeQcow2)
	}
	if be.Uint32(h[qcowCrypt:]) != 0 {
		return invalid("the image is encrypted; decrypt it first, with qemu-img convert and its key")
	}
	q := &qcow2{version3: version == 3, clusterBits: uint(be.Uint32(h[qcowClusterBits:])), l1At: int64(be.Uint64(h[qcowL1At:]))}
	if q.clusterBits < 9 || q.clusterBits > 21 {
		return invalid("the image says that its clusters have 2^%d bytes, and 512 bytes to 2 MiB are possible; it is damaged", q.clusterBits)
	}
	if q.version3 {
		if err := q.openV3(h, i.fileSize); err != nil {
			return err
		}
	}
	size := be.Uint64(h[qcowSize:])
	if size > uint64(store.MaxVolumeSize) {
		return invalid("the image says that its disk has %d bytes, and a volume has at most %s", size, store.Bytes(store.MaxVolumeSize))
	}
	i.size, q.size = int64(size), int64(size)
	if err := q.checkTables(h, i.fileSize); err != nil {
		return err
	}
	i.tables = []extent{
		{0, 1 << q.clusterBits, "its head"},
		{q.l1At, int64(be.Uint32(h[qcowL1Size:])) * 8, "its first table"},
		{int64(be.Uint64(h[qcowRefcountAt:])), int64(be.Uint32(h[qcowRefcountLen:])) << q.clusterBits, "its table of reference counts"},
	}
	q.l1, q.l2 = newWindow(i.file, i.fileSize), newWindow(i.file, i.fileSize)
	i.layout = q
	return nil
}

// backingName is the name that the image gives, for the refusal only.
func (i *Image) backingName(at uint64, n uint32) string {
	if n == 0 || n > 1023 || at > uint64(i.fileSize) {
		return ""
	}
	name, err := readUpTo(i.file, int64(at), int64(n))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (%q)", name)
}

func (q *qcow2) openV3(h []byte, fileSize int64) error {
	be := binary.BigEndian
	if len(h) < qcowHeaderV3 {
		return cut("the header", qcowHeaderV3, fileSize)
	}
	features := be.Uint64(h[qcowIncompatible:])
	switch {
	case features&qcowDataFile != 0:
		return invalid("the image keeps its bytes in another file; %s", wholeQcow2)
	case features&qcowCorrupt != 0:
		return invalid("the image is marked as damaged by the program that wrote it; repair it first, with: qemu-img check -r all IMAGE")
	case features&^qcowKnown != 0:
		return invalid("the image uses features that are not known (bits %#x); %s", features&^qcowKnown, convert)
	}
	length := be.Uint32(h[qcowHeaderLength:])
	if length < qcowHeaderV3 || length%8 != 0 || int64(length) > 1<<q.clusterBits {
		return invalid("the image says that its header has %d bytes; it is damaged", length)
	}
	if order := be.Uint32(h[qcowRefcountOrder:]); order > 6 {
		return invalid("the image says that its reference counts have 2^%d bits, and 64 bits are the most; it is damaged", order)
	}
	var packer byte
	if length > qcowHeaderV3 && len(h) > qcowCompression {
		packer = h[qcowCompression]
	}
	if packer > 1 || (packer != 0) != (features&qcowOtherPacker != 0) {
		return invalid("the image's clusters are compressed in a way that is not known (%d); %s", packer, convert)
	}
	q.zstd = packer == 1
	if q.extended = features&qcowExtendedL2 != 0; q.extended && q.clusterBits < 14 {
		return invalid("the image has subclusters in clusters of %d bytes, which are too small for them; it is damaged", 1<<q.clusterBits)
	}
	return nil
}

// checkTables checks where the first tables are said to be. The reference
// counts are not used; when they cannot be right, nor can the rest.
func (q *qcow2) checkTables(h []byte, fileSize int64) error {
	be := binary.BigEndian
	cluster := int64(1) << q.clusterBits
	entries := int64(be.Uint32(h[qcowL1Size:]))
	covered := cluster * q.perTable()
	need := (q.size + covered - 1) / covered
	switch {
	case entries < need:
		return invalid("the image's first table has %d entries, and a disk of %d bytes needs %d; it is damaged", entries, q.size, need)
	case entries*8 > qcowMaxL1:
		return invalid("the image's first table has %d entries, more than any program reads; convert it to larger clusters, with: qemu-img convert -O qcow2 -o cluster_size=64k IMAGE NEW.qcow2", entries)
	case q.l1At < 0 || q.l1At%cluster != 0 || entries > 0 && q.l1At == 0:
		return invalid("the image's first table is said to be at byte %d, where no cluster begins; it is damaged", uint64(q.l1At))
	case q.l1At > fileSize || entries*8 > fileSize-q.l1At:
		return cut("the image's first table", q.l1At+entries*8, fileSize)
	}
	at, n := be.Uint64(h[qcowRefcountAt:]), int64(be.Uint32(h[qcowRefcountLen:]))
	if at%uint64(cluster) != 0 || at > uint64(fileSize) || n*cluster > fileSize {
		return invalid("the image's table of reference counts is said to be at byte %d, with %d clusters, and the file has %d bytes; it is cut short, or damaged", at, n, fileSize)
	}
	return nil
}

// perTable is the number of clusters that one second table finds.
func (q *qcow2) perTable() int64 {
	if q.extended {
		return 1 << q.clusterBits / 16
	}
	return 1 << q.clusterBits / 8
}

func (q *qcow2) span(off int64) (span, error) {
	be := binary.BigEndian
	cluster := int64(1) << q.clusterBits
	n := off >> q.clusterBits
	first, second := n/q.perTable(), n%q.perTable()
	e, err := q.l1.entry(q.l1At+first*8, 8, "first table", off)
	if err != nil {
		return span{}, err
	}
	table := int64(be.Uint64(e) & qcowOffset)
	if table == 0 {
		return span{held: hole, end: (first + 1) * q.perTable() * cluster}, nil
	}
	if table%cluster != 0 {
		return span{}, q.damaged(off, "a table", table)
	}
	width := int(cluster / q.perTable())
	e, err = q.l2.entry(table+second*int64(width), width, "second table", off)
	if err != nil {
		return span{}, err
	}
	if isZero(e) {
		more := q.l2.same(table+second*int64(width), width, q.perTable()-1-second)
		return span{held: hole, end: (n + 1 + more) * cluster, index: first, table: table, tableLen: cluster}, nil
	}
	s, err := q.entrySpan(off, e)
	s.index, s.table, s.tableLen = first, table, cluster
	return s, err
}

// entrySpan reads the entry of a second table.
func (q *qcow2) entrySpan(off int64, e []byte) (span, error) {
	cluster := int64(1) << q.clusterBits
	entry, end := binary.BigEndian.Uint64(e), off/cluster*cluster+cluster
	switch {
	case entry&qcowPacked != 0:
		return q.packedSpan(entry, end), nil
	case q.extended:
		return q.subclusterSpan(off, entry, binary.BigEndian.Uint64(e[8:]))
	case entry&qcowZero != 0 && !q.version3:
		return span{}, invalid("the image is of version 2 and has a cluster of version 3, for byte %d of the disk; it is damaged", off)
	case entry&qcowZero != 0 || entry&qcowOffset == 0:
		return span{held: hole, end: end}, nil
	}
	at := int64(entry & qcowOffset)
	if at%cluster != 0 {
		return span{}, q.damaged(off, "a cluster", at)
	}
	return span{held: stored, at: at + off%cluster, end: end}, nil
}

func (q *qcow2) damaged(off int64, what string, at int64) error {
	return invalid("the image has %s for byte %d of the disk at byte %d of the file, where no cluster begins; it is damaged", what, off, at)
}

// packedSpan reads an entry that counts in sectors of 512 bytes: the last one
// may hold the next unit's beginning too.
func (q *qcow2) packedSpan(entry uint64, end int64) span {
	x := 62 - (q.clusterBits - 8)
	at := int64(entry & (1<<x - 1))
	sectors := int64(entry&^(qcowPacked|qcowCopied)>>x) + 1
	return span{held: packed, at: at, n: sectors*512 - at%512, end: end}
}

func (q *qcow2) subclusterSpan(off int64, entry, state uint64) (span, error) {
	cluster := int64(1) << q.clusterBits
	sub := cluster / subclusters
	at := int64(entry & qcowOffset)
	held := uint32(state)
	zero := uint32(state >> 32)
	switch {
	case entry&qcowZero != 0 || held&zero != 0:
		return span{}, invalid("the image has contradictory states for byte %d of the disk; it is damaged", off)
	case held != 0 && at == 0 || at%cluster != 0:
		return span{}, q.damaged(off, "a cluster", at)
	}
	first := off % cluster / sub
	last := first + 1
	for last < subclusters && held>>last&1 == held>>first&1 {
		last++
	}
	end := off/cluster*cluster + last*sub
	if held>>first&1 == 0 {
		return span{held: hole, end: end}, nil
	}
	return span{held: stored, at: at + off%cluster, end: end}, nil
}

func (q *qcow2) unitSize() int { return 1 << q.clusterBits }

// unpacker reads a cluster. What follows it in the last sector belongs to others.
func (q *qcow2) unpacker() unpacker {
	next := inflater()
	if q.zstd {
		next = unzstd()
	}
	return func(unit, b []byte, _ int64) error {
		r, err := next(bytes.NewReader(b))
		if err != nil {
			return err
		}
		_, err = io.ReadFull(r, unit)
		return noEOF(err)
	}
}

// inflater and unzstd return functions that begin anew in the same memory.
func inflater() func(io.Reader) (io.Reader, error) {
	var z io.ReadCloser
	return func(r io.Reader) (io.Reader, error) {
		if z == nil {
			z = flate.NewReader(r)
			return z, nil
		}
		return z, z.(flate.Resetter).Reset(r, nil)
	}
}

func unzstd() func(io.Reader) (io.Reader, error) {
	var z *zstd.Decoder
	return func(r io.Reader) (io.Reader, error) {
		if z == nil {
			var err error
			z, err = zstd.NewReader(r, zstdOptions(zstdWindow)...)
			return z, err
		}
		return z, z.Reset(r)
	}
}
