package image

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// Entries of a VHDX log ([MS-VHDX] §2.3). The log is a ring.
const (
	vhdxLogEntry   = "loge"
	vhdxLogZero    = "zero"
	vhdxLogDesc    = "desc"
	vhdxLogData    = "data"
	vhdxLogSector  = 4 << 10
	vhdxLogHead    = 64 // bytes before an entry's descriptors
	vhdxEntryLen   = 8
	vhdxEntryTail  = 12
	vhdxEntrySeq   = 16
	vhdxEntryDescs = 24
	vhdxEntryGUID  = 32
	vhdxFlushed    = 48 // how long the file was when the entry was written
	vhdxLast       = 56 // how long it has to be

	vhdxMaxLog   = 64 << 20  // bytes; 1 MiB is usual
	vhdxMaxZeros = 256 << 20 // bytes that a log makes zeros
	vhdxMaxGrow  = 1 << 30   // bytes by which a log makes a file longer
)

const notClosed = "start and shut down the machine that it belongs to, or attach it once in Windows, and copy it again"

// vhdxLog reads a log's entries.
type vhdxLog struct {
	file io.ReaderAt
	ring extent
	id   guid
	// work is how many bytes of entries were read. An honest log is read twice at
	// most, a made one could be read for hours.
	work int64
	buf  [vhdxLogSector]byte
}

// vhdxEntry is an entry whose checksum is right.
type vhdxEntry struct {
	at, n, tail   int64 // in the ring
	seq           uint64
	descs         int64
	flushed, last uint64
}

// overlay is a file with changed pages.
type overlay struct {
	file     io.ReaderAt
	fileSize int64 // of the file
	size     int64 // with the changes
	pages    map[int64]page
	ring     extent
	zeroed   int64
}

// page is what 4 KiB of the file have become.
type page struct {
	at    int64 // in the ring, of the sector that has all but the first 8 and last 4 bytes; -1: zeros
	first [8]byte
	last  [4]byte
}

// replayVHDX lays what the log has over the file.
func (i *Image) replayVHDX(id guid, ring extent) error {
	if ring.n > vhdxMaxLog {
		return invalid("the image was not closed, and its log is too long (%d bytes) to be read here; %s", ring.n, notClosed)
	}
	l := &vhdxLog{file: i.file, ring: ring, id: id}
	active, err := l.active()
	if err != nil {
		return err
	}
	head := active[len(active)-1]
	if head.flushed > uint64(i.fileSize) {
		return invalid("the image was not closed and had %d bytes then, and the file ends at %d: it was cut short; copy it again", head.flushed, i.fileSize)
	}
	if head.last > uint64(i.fileSize)+vhdxMaxGrow {
		return invalid("the image was not closed and is to become a file of %d bytes, and has %d; it is damaged, or %s", head.last, i.fileSize, notClosed)
	}
	o := &overlay{file: i.file, fileSize: i.fileSize, size: max(i.fileSize, int64(head.last)), pages: map[int64]page{}, ring: ring}
	for _, e := range active {
		if err := l.apply(e, o); err != nil {
			return err
		}
	}
	i.file, i.fileSize = o, o.size
	return nil
}

// active finds the sequence of entries that is in force: the one with the
// highest number whose last entry names a first one of the same sequence.
func (l *vhdxLog) active() ([]vhdxEntry, error) {
	var best []vhdxEntry
	for at := int64(0); at < l.ring.n; {
		run, err := l.run(at)
		if err != nil {
			return nil, err
		}
		if len(run) == 0 {
			at += vhdxLogSector
			continue
		}
		head := run[len(run)-1]
		for n, e := range run {
			if e.at == head.tail && (best == nil || head.seq > best[len(best)-1].seq) {
				best = run[n:]
				break
			}
		}
		at = run[0].at
		for _, e := range run {
			at += e.n
		}
	}
	if best == nil {
		return nil, invalid("the image was not closed, and its log is damaged; %s", notClosed)
	}
	return best, nil
}

// run reads entries that follow each other, from at on.
func (l *vhdxLog) run(at int64) ([]vhdxEntry, error) {
	var run []vhdxEntry
	for total := int64(0); total < l.ring.n; {
		e, ok, err := l.entry(at)
		if err != nil {
			return nil, err
		}
		if !ok || total+e.n > l.ring.n || len(run) > 0 && e.seq != run[len(run)-1].seq+1 {
			break
		}
		run = append(run, e)
		total += e.n
		at = (at + e.n) % l.ring.n
	}
	return run, nil
}

// entry reads the entry at a place of the ring, when one is there.
func (l *vhdxLog) entry(at int64) (e vhdxEntry, ok bool, err error) {
	le := binary.LittleEndian
	b := l.buf[:]
	if err := l.sector(b, at); err != nil {
		return e, false, err
	}
	e = vhdxEntry{
		at: at, n: int64(le.Uint32(b[vhdxEntryLen:])), tail: int64(le.Uint32(b[vhdxEntryTail:])),
		seq: le.Uint64(b[vhdxEntrySeq:]), descs: int64(le.Uint32(b[vhdxEntryDescs:])),
		flushed: le.Uint64(b[vhdxFlushed:]), last: le.Uint64(b[vhdxLast:]),
	}
	if !bytes.HasPrefix(b, []byte(vhdxLogEntry)) || guid(b[vhdxEntryGUID:]) != l.id ||
		e.n == 0 || e.n%vhdxLogSector != 0 || e.n > l.ring.n || e.tail%vhdxLogSector != 0 || e.tail >= l.ring.n ||
		e.seq == 0 || e.descSectors()*vhdxLogSector > e.n {
		return e, false, nil
	}
	if l.work += e.n; l.work > 4*l.ring.n {
		return e, false, invalid("the image was not closed, and its log is such as no program writes; it is damaged, or made to deceive")
	}
	want := le.Uint32(b[vhdxChecksum:])
	clear(b[vhdxChecksum : vhdxChecksum+4])
	sum := crc32.Update(0, castagnoli, b)
	for done := int64(vhdxLogSector); done < e.n; done += vhdxLogSector {
		if err := l.sector(b, (at+done)%l.ring.n); err != nil {
			return e, false, err
		}
		sum = crc32.Update(sum, castagnoli, b)
	}
	return e, sum == want, nil
}

// descSectors is how many sectors the descriptors take, with the entry's head.
func (e *vhdxEntry) descSectors() int64 {
	return (vhdxLogHead + e.descs*vhdxEntrySize + vhdxLogSector - 1) / vhdxLogSector
}

func (l *vhdxLog) sector(b []byte, at int64) error { return readFull(l.file, b, l.ring.at+at) }

// apply adds an entry's changes.
func (l *vhdxLog) apply(e vhdxEntry, o *overlay) error {
	le := binary.LittleEndian
	wrong := func() error {
		return invalid("the image was not closed, and its log is damaged in entry %d; %s", e.seq, notClosed)
	}
	descs, data := make([]byte, vhdxLogSector), make([]byte, vhdxLogSector)
	next := e.descSectors() // the sector of the next data
	for n := range e.descs {
		in := vhdxLogHead + n*vhdxEntrySize
		if n == 0 || in%vhdxLogSector == 0 {
			if err := l.sector(descs, (e.at+in/vhdxLogSector*vhdxLogSector)%l.ring.n); err != nil {
				return err
			}
		}
		d := descs[in%vhdxLogSector:][:vhdxEntrySize]
		to := le.Uint64(d[16:])
		if le.Uint64(d[24:]) != e.seq || to%vhdxLogSector != 0 || to > uint64(o.size) {
			return wrong()
		}
		switch {
		case bytes.HasPrefix(d, []byte(vhdxLogZero)):
			if n := le.Uint64(d[8:]); n%vhdxLogSector != 0 || n > uint64(o.size)-to {
				return wrong()
			} else if err := o.zero(int64(to), int64(n)); err != nil {
				return err
			}
		case bytes.HasPrefix(d, []byte(vhdxLogDesc)):
			at := (e.at + next*vhdxLogSector) % l.ring.n
			if next++; next*vhdxLogSector > e.n {
				return wrong()
			}
			if err := l.sector(data, at); err != nil {
				return err
			}
			if !bytes.HasPrefix(data, []byte(vhdxLogData)) || uint64(le.Uint32(data[4:]))<<32|uint64(le.Uint32(data[vhdxLogSector-4:])) != e.seq {
				return wrong()
			}
			o.pages[int64(to)/vhdxLogSector] = page{at: at, first: [8]byte(d[8:16]), last: [4]byte(d[4:8])}
		default:
			return wrong()
		}
	}
	return nil
}

func (o *overlay) zero(at, n int64) error {
	if o.zeroed += n; o.zeroed > vhdxMaxZeros {
		return invalid("the image was not closed, and its log has too much in it to be read here; %s", notClosed)
	}
	for p := at / vhdxLogSector; p < (at+n)/vhdxLogSector; p++ {
		o.pages[p] = page{at: -1}
	}
	return nil
}

// ReadAt reads the file as it is with its log (io.ReaderAt).
func (o *overlay) ReadAt(b []byte, off int64) (int, error) {
	if off >= o.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(b)) > o.size-off {
		b, end = b[:o.size-off], io.EOF
	}
	n := max(0, min(int64(len(b)), o.fileSize-off))
	if n > 0 {
		if err := readFull(o.file, b[:n], off); err != nil {
			return 0, err
		}
	}
	clear(b[n:])
	var whole [vhdxLogSector]byte
	for p := off / vhdxLogSector; p*vhdxLogSector < off+int64(len(b)); p++ {
		c, ok := o.pages[p]
		if !ok {
			continue
		}
		clear(whole[:])
		if c.at >= 0 {
			if err := readFull(o.file, whole[:], o.ring.at+c.at); err != nil {
				return 0, err
			}
			copy(whole[:], c.first[:])
			copy(whole[vhdxLogSector-4:], c.last[:])
		}
		from := max(off, p*vhdxLogSector)
		copy(b[from-off:], whole[from-p*vhdxLogSector:])
	}
	return len(b), end
}
