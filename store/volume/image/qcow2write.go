package image

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"lunboot/store"
)

// What is written is version 3 with clusters of 64 KiB and reference counts of
// 16 bits, QEMU's own defaults, so that every program reads it.
const (
	outBits    = 16
	outCluster = 1 << outBits
	outPerL2   = outCluster / 8 // clusters that one second table finds
	outPerRef  = outCluster / 2 // counts in one cluster of them
)

// Qcow2Plan is the layout of a qcow2 file that is not compressed, made before
// its first byte is written. Every table's place follows from which clusters
// there are, so the file can be written from its beginning to its end, and its
// length is known.
type Qcow2Plan struct {
	src    Source
	tables []*outTable // by the index of the second table; nil: all of it is a hole
	data   int64       // clusters of data
	head   outHead
}

// outTable says which clusters of one second table there are. It is nil in all,
// so that a disk without holes needs next to no memory.
type outTable struct {
	bits  []uint64 // nil: all
	count int64
}

func (t *outTable) has(n int64) bool { return t.bits == nil || t.bits[n/64]>>(n%64)&1 == 1 }

// outHead is where the first tables are, in clusters.
type outHead struct {
	size                    int64
	l1Len, l1, refTable     int64
	refTableLen, refs, body int64
	total                   int64
}

// PlanQcow2 walks the extents of src. A volume that is written while it is
// planned or copied becomes a mixture of old and new, but always a sound file: a
// cluster of the plan that has become a hole is written as zeros, and a hole
// that has become data stays a hole. The plan takes 1 KiB for each 512 MiB of
// the disk that have both, holes and data.
func PlanQcow2(ctx context.Context, src Source) (*Qcow2Plan, error) {
	size := (src.Size() + 511) / 512 * 512
	if size <= 0 || size > store.MaxVolumeSize {
		return nil, store.Invalid("size", "a disk of %d bytes cannot be written as qcow2", src.Size())
	}
	p := &Qcow2Plan{src: src, tables: make([]*outTable, (size+outPerL2*outCluster-1)/(outPerL2*outCluster))}
	err := eachRun(ctx, src, func(off, end int64) error {
		for c, last := off>>outBits, (end-1)>>outBits; c <= last; c++ {
			p.add(c)
			if t := p.tables[c/outPerL2]; t.bits == nil {
				c |= outPerL2 - 1 // the rest of the table is there
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	var used int64
	for _, t := range p.tables {
		if t != nil {
			used++
			p.data += t.count
		}
	}
	p.head = planHead(size, used+p.data)
	return p, nil
}

// add marks a cluster of the disk.
func (p *Qcow2Plan) add(c int64) {
	t := p.tables[c/outPerL2]
	if t == nil {
		t = &outTable{bits: make([]uint64, outPerL2/64)}
		p.tables[c/outPerL2] = t
	}
	n := c % outPerL2
	if t.has(n) {
		return
	}
	t.bits[n/64] |= 1 << (n % 64)
	if t.count++; t.count == outPerL2 {
		t.bits = nil
	}
}

// planHead finds room for the tables before a body of so many clusters.
func planHead(size, body int64) outHead {
	h := outHead{size: size, l1Len: outTables(size)}
	h.l1 = 1
	h.refTable = h.l1 + clusters(h.l1Len*8)
	for refs := int64(1); ; refs++ { // the counts count themselves
		h.refTableLen = clusters(refs * 8)
		h.refs = h.refTable + h.refTableLen
		h.body = h.refs + refs
		h.total = h.body + body
		need := (h.total + outPerRef - 1) / outPerRef
		if need <= refs {
			return h
		}
		refs = need - 1
	}
}

// outTables is how many second tables a disk has.
func outTables(size int64) int64 { return (size + outPerL2*outCluster - 1) / (outPerL2 * outCluster) }

func clusters(n int64) int64 { return (n + outCluster - 1) >> outBits }

// Length is the length of the file in bytes.
func (p *Qcow2Plan) Length() int64 { return p.head.total << outBits }

// Data is how many bytes of the disk are copied, in whole clusters of 64 KiB:
// the total of Write's progress.
func (p *Qcow2Plan) Data() int64 { return p.data << outBits }

// Write writes the file to w. It ends at the first error, with ctx's error when
// ctx ended. progress, when it is not nil, is told how many bytes of the disk
// were written.
func (p *Qcow2Plan) Write(ctx context.Context, w io.Writer, progress func(done int64)) error {
	out := &sequence{w: w}
	out.write(qcow2Header(p.head.size, p.head.l1<<outBits, p.head.l1Len, p.head.refTable<<outBits, p.head.refTableLen, CompressionNone))
	p.writeTables(out)
	if out.err != nil {
		return out.err
	}
	buf := make([]byte, walkChunk)
	table := make([]byte, outCluster)
	var done int64
	for i, t := range p.tables {
		if t == nil {
			continue
		}
		clear(table)
		at := out.at>>outBits + 1
		for n := range int64(outPerL2) {
			if t.has(n) {
				binary.BigEndian.PutUint64(table[8*n:], qcowCopied|uint64(at)<<outBits)
				at++
			}
		}
		out.write(table)
		for n := int64(0); n < outPerL2; {
			if !t.has(n) {
				n++
				continue
			}
			end := n + 1
			for end < outPerL2 && end-n < walkChunk>>outBits && t.has(end) {
				end++
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			b := buf[:(end-n)<<outBits]
			if err := p.read(b, (int64(i)*outPerL2+n)<<outBits); err != nil {
				return err
			}
			out.write(b)
			if out.err != nil {
				return out.err
			}
			n, done = end, done+int64(len(b))
			if progress != nil {
				progress(done)
			}
		}
	}
	if out.err == nil && out.at != p.Length() {
		return &store.Error{Kind: store.KindInternal, Op: "write a qcow2 image", Msg: fmt.Sprintf("%d bytes were written and %d planned", out.at, p.Length())}
	}
	return out.err
}

// writeTables writes the first table and the counts, which are 1 for every
// cluster of the file.
func (p *Qcow2Plan) writeTables(out *sequence) {
	b := make([]byte, 0, outCluster)
	at := p.head.body
	for _, t := range p.tables {
		var e uint64
		if t != nil {
			e = qcowCopied | uint64(at)<<outBits
			at += 1 + t.count
		}
		if b = binary.BigEndian.AppendUint64(b, e); len(b) == outCluster {
			out.write(b)
			b = b[:0]
		}
	}
	out.write(b)
	out.pad()
	b = b[:0]
	for r := p.head.refs; r < p.head.body; r++ {
		if b = binary.BigEndian.AppendUint64(b, uint64(r)<<outBits); len(b) == outCluster {
			out.write(b)
			b = b[:0]
		}
	}
	out.write(b)
	out.pad()
	for left := p.head.total; left > 0; left -= outPerRef {
		b = b[:0]
		for range min(outPerRef, left) {
			b = binary.BigEndian.AppendUint16(b, 1)
		}
		out.write(b)
		out.pad()
	}
}

// read fills whole clusters; behind the disk's end there are zeros.
func (p *Qcow2Plan) read(b []byte, off int64) error {
	n := min(int64(len(b)), p.src.Size()-off)
	clear(b[n:])
	return readDisk(p.src, b[:n], off)
}

// qcow2Header is the first cluster of a file that is written.
func qcow2Header(size, l1, l1Len, refTable, refTableLen int64, c Compression) []byte {
	b := make([]byte, outCluster)
	be := binary.BigEndian
	copy(b, "QFI\xfb")
	be.PutUint32(b[qcowVersion:], 3)
	be.PutUint32(b[qcowClusterBits:], outBits)
	be.PutUint64(b[qcowSize:], uint64(size))
	be.PutUint32(b[qcowL1Size:], uint32(l1Len))
	be.PutUint64(b[qcowL1At:], uint64(l1))
	be.PutUint64(b[qcowRefcountAt:], uint64(refTable))
	be.PutUint32(b[qcowRefcountLen:], uint32(refTableLen))
	be.PutUint32(b[qcowRefcountOrder:], 4)
	be.PutUint32(b[qcowHeaderLength:], qcowHeaderV3)
	if c == CompressionZstd { // which older programs refuse, as they must
		be.PutUint32(b[qcowHeaderLength:], qcowHeaderV3+8)
		be.PutUint64(b[qcowIncompatible:], qcowOtherPacker)
		b[qcowCompression] = 1
	}
	return b
}

// sequence writes from a file's beginning to its end, until the first error.
type sequence struct {
	w   io.Writer
	at  int64
	err error
}

func (s *sequence) write(b []byte) {
	if s.err != nil || len(b) == 0 {
		return
	}
	n, err := s.w.Write(b)
	s.at += int64(n)
	if err != nil {
		s.err = fmt.Errorf("write the image at byte %d: %w", s.at, err)
	}
}

// pad fills the cluster.
func (s *sequence) pad() {
	if over := s.at % outCluster; over != 0 {
		s.write(make([]byte, outCluster-over))
	}
}
