package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"lunboot/store"
)

// Compression is how the clusters of a qcow2 file are packed.
type Compression string

const (
	CompressionNone Compression = "none"
	CompressionZlib Compression = "zlib" // every program reads it
	CompressionZstd Compression = "zstd" // faster both ways; QEMU 5.1 and later read it
)

const (
	packBatch   = 32 // clusters that are packed at once: 2 MiB
	maxPackers  = 8  // that work at the same time
	packedShift = 62 - (outBits - 8)
)

// WriteQcow2Compressed writes src to w as a qcow2 file whose clusters are
// packed, zlib or zstd, and returns the file's length. Clusters of zeros are
// left out, those that do not become smaller are stored as they are. w is
// written in no order: it is a file, empty at first, which is worthless after an
// error. progress, when it is not nil, is told how many bytes of data were
// read; Data is their total. The memory that it takes, some MiB, does not depend
// on the disk.
func WriteQcow2Compressed(ctx context.Context, w io.WriterAt, src Source, c Compression, progress func(done int64)) (length int64, err error) {
	size := (src.Size() + 511) / 512 * 512
	if size <= 0 || size > store.MaxVolumeSize {
		return 0, store.Invalid("size", "a disk of %d bytes cannot be written as qcow2", src.Size())
	}
	if c != CompressionZlib && c != CompressionZstd {
		return 0, store.Invalid("compression", "%q is no compression of qcow2; choose %s or %s", string(c), CompressionZlib, CompressionZstd)
	}
	out := newPackedFile(w, size, c)
	batch, err := newBatch(c)
	if err != nil {
		return 0, err
	}
	if err := Walk(ctx, src, func(p []byte, off int64) error { return batch.add(out, p, off) }, progress); err != nil {
		return 0, err
	}
	if err := batch.flush(out); err != nil {
		return 0, err
	}
	return out.finish(size)
}

// batch packs clusters side by side and writes them in their order.
type batch struct {
	plain   []byte
	packed  [packBatch][]byte
	numbers []int64 // of the clusters on the disk
	packers []packer
}

// packer appends the packed bytes of a cluster to dst.
type packer func(dst, plain []byte) ([]byte, error)

func newBatch(c Compression) (*batch, error) {
	b := &batch{plain: make([]byte, packBatch<<outBits), packers: make([]packer, min(maxPackers, runtime.GOMAXPROCS(0)))}
	for i := range b.packers {
		var err error
		if c == CompressionZstd {
			b.packers[i], err = zstdPacker()
		} else {
			b.packers[i], err = zlibPacker()
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

// zlibPacker keeps to the window that the format has, 4 KiB.
func zlibPacker() (packer, error) {
	var out bytes.Buffer
	z, err := flate.NewWriterWindow(&out, qcowWindow)
	if err != nil {
		return nil, err
	}
	return func(dst, plain []byte) ([]byte, error) {
		out.Reset()
		z.Reset(&out)
		if _, err := z.Write(plain); err != nil {
			return nil, err
		}
		err := z.Close()
		return append(dst, out.Bytes()...), err
	}, nil
}

func zstdPacker() (packer, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(outCluster), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	return func(dst, plain []byte) ([]byte, error) { return z.EncodeAll(plain, dst), nil }, nil
}

// add takes bytes of the disk, which come in order.
func (b *batch) add(out *packedFile, p []byte, off int64) error {
	for len(p) > 0 {
		n, in := off>>outBits, off%outCluster
		last := len(b.numbers) - 1
		if last < 0 || b.numbers[last] != n {
			if len(b.numbers) == packBatch {
				if err := b.flush(out); err != nil {
					return err
				}
			}
			b.numbers = append(b.numbers, n)
			last = len(b.numbers) - 1
			clear(b.slot(last))
		}
		done := copy(b.slot(last)[in:], p)
		p, off = p[done:], off+int64(done)
	}
	return nil
}

func (b *batch) slot(i int) []byte { return b.plain[i<<outBits : (i+1)<<outBits] }

// flush packs what was taken and writes it. Its goroutines end before it does.
func (b *batch) flush(out *packedFile) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, len(b.packers))
	for w, pack := range b.packers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(b.numbers) || errs[w] != nil {
					return
				}
				if b.packed[i] = b.packed[i][:0]; !isZero(b.slot(i)) {
					b.packed[i], errs[w] = pack(b.packed[i], b.slot(i))
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return &store.Error{Kind: store.KindInternal, Op: "write a qcow2 image", Err: err, Msg: "a cluster could not be packed"}
	}
	for i, n := range b.numbers {
		if len(b.packed[i]) == 0 {
			continue
		}
		if err := out.put(n, b.slot(i), b.packed[i]); err != nil {
			return err
		}
	}
	b.numbers = b.numbers[:0]
	return nil
}

// isZero compares with itself, shifted: one memory comparison.
func isZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// packedFile is the file that is being written. Clusters are taken one behind
// the other.
type packedFile struct {
	w           io.WriterAt
	compression Compression
	l1          []uint64
	l2          []byte
	l2At        int64              // the index of the second table that is being filled, -1 at first
	next        int64              // the first cluster that is not taken
	at          int64              // where the next packed bytes go, 0: to a new cluster
	counts      map[int64][]uint16 // reference counts that are not written, by their block
	written     int64              // blocks of counts before this are written
	refs        []int64            // where the blocks of counts are, in clusters; 0: nowhere yet
	refTable    int64              // their table, and its length, in clusters
	refTableLen int64
	end         int64 // of what was written, in bytes
}

// newPackedFile gives the first tables their places behind the header: the disk
// bounds their length.
func newPackedFile(w io.WriterAt, size int64, c Compression) *packedFile {
	f := &packedFile{w: w, compression: c, l1: make([]uint64, outTables(size)), counts: map[int64][]uint16{}, l2At: -1}
	f.refTable = 1 + clusters(int64(len(f.l1))*8)
	// No cluster of the disk takes more than one of the file. A hundredth is more
	// than all the tables.
	most := clusters(size) + clusters(size)/100 + 100
	f.refTableLen = clusters((most/outPerRef + 1) * 8)
	f.next = f.refTable + f.refTableLen
	f.count(0, f.next)
	return f
}

// take gives out a cluster.
func (f *packedFile) take() int64 {
	c := f.next
	f.next++
	f.count(c, c+1)
	return c
}

// count adds 1 to the reference count of every cluster from first to end.
func (f *packedFile) count(first, end int64) {
	for c := first; c < end; c++ {
		block := c / outPerRef
		if f.counts[block] == nil {
			f.counts[block] = make([]uint16, outPerRef)
		}
		f.counts[block][c%outPerRef]++
	}
}

// put writes a cluster of the disk: packed, or as it is when that is no shorter.
func (f *packedFile) put(n int64, plain, packed []byte) error {
	if err := f.table(n / outPerL2); err != nil {
		return err
	}
	var entry uint64
	if len(packed) < outCluster {
		at := f.room(int64(len(packed)))
		if err := f.write(packed, at); err != nil {
			return err
		}
		last := at + int64(len(packed)) - 1
		entry = qcowPacked | uint64(last/512-at/512)<<packedShift | uint64(at)
	} else {
		c := f.take()
		if err := f.write(plain, c<<outBits); err != nil {
			return err
		}
		entry = qcowCopied | uint64(c)<<outBits
	}
	binary.BigEndian.PutUint64(f.l2[n%outPerL2*8:], entry)
	return f.flushCounts(f.next)
}

// room finds n bytes for a packed cluster, behind the last one when the next
// cluster of the file is free, and counts it.
func (f *packedFile) room(n int64) int64 {
	free := (outCluster - f.at%outCluster) % outCluster
	if f.at == 0 || free < n && (f.at+free)>>outBits != f.next {
		f.at, free = f.next<<outBits, 0
	}
	at := f.at
	if free < n {
		f.next++
	}
	f.at += n
	f.count(at>>outBits, (at+n-1)>>outBits+1)
	return at
}

// table goes on to another second table.
func (f *packedFile) table(n int64) error {
	if n == f.l2At {
		return nil
	}
	if err := f.flushTable(); err != nil {
		return err
	}
	if f.l2 == nil {
		f.l2 = make([]byte, outCluster)
	}
	clear(f.l2)
	f.l2At = n
	return nil
}

func (f *packedFile) flushTable() error {
	if f.l2At < 0 {
		return nil
	}
	c := f.take()
	f.l1[f.l2At] = qcowCopied | uint64(c)<<outBits
	f.l2At = -1
	return f.write(f.l2, c<<outBits)
}

// flushCounts writes the blocks of counts that cannot change any more: the
// cluster that packed bytes go to is behind them.
func (f *packedFile) flushCounts(before int64) error {
	if f.at != 0 && f.at>>outBits < before-2*outPerRef {
		f.at = 0 // left behind by clusters that do not pack
	}
	if f.at != 0 {
		before = min(before, (f.at-1)>>outBits)
	}
	for ; (f.written+1)*outPerRef <= before; f.written++ {
		if err := f.writeCounts(f.written); err != nil {
			return err
		}
	}
	return nil
}

// writeCounts writes a block of counts, to the place that it has or to a new one.
func (f *packedFile) writeCounts(block int64) error {
	f.place(block)
	b := make([]byte, 0, outCluster)
	for _, n := range f.counts[block] {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	delete(f.counts, block)
	return f.write(b, f.refs[block]<<outBits)
}

func (f *packedFile) place(block int64) {
	for int64(len(f.refs)) <= block {
		f.refs = append(f.refs, 0)
	}
	if f.refs[block] == 0 {
		f.refs[block] = f.take()
	}
}

// finish writes what the header finds, and the header.
func (f *packedFile) finish(size int64) (length int64, err error) {
	if err := f.flushTable(); err != nil {
		return 0, err
	}
	for block := f.written; block*outPerRef < f.next; block++ { // counts are counted too
		f.place(block)
	}
	for ; f.written < int64(len(f.refs)); f.written++ {
		if err := f.writeCounts(f.written); err != nil {
			return 0, err
		}
	}
	refTable := make([]byte, 0, 8*len(f.refs))
	for _, c := range f.refs {
		refTable = binary.BigEndian.AppendUint64(refTable, uint64(c)<<outBits)
	}
	l1 := make([]byte, 0, 8*len(f.l1))
	for _, e := range f.l1 {
		l1 = binary.BigEndian.AppendUint64(l1, e)
	}
	header := qcow2Header(size, outCluster, int64(len(f.l1)), f.refTable<<outBits, f.refTableLen, f.compression)
	// The last cluster is whole, though packed bytes end where they end.
	length = f.next << outBits
	if f.end < length {
		if err := f.write([]byte{0}, length-1); err != nil {
			return 0, err
		}
	}
	return length, errors.Join(f.write(refTable, f.refTable<<outBits), f.write(l1, outCluster), f.write(header, 0))
}

func (f *packedFile) write(b []byte, at int64) error {
	if _, err := f.w.WriteAt(b, at); err != nil {
		return fmt.Errorf("write the image at byte %d: %w", at, err)
	}
	f.end = max(f.end, at+int64(len(b)))
	return nil
}
