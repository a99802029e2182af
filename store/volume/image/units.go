package image

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"lunboot/store"
)

// maxUnpackers is how many units of one image are unpacked at the same time.
// Each takes memory for one unit as it is and packed, at most 6 MiB, and for a
// window of zstd, at most 8 MiB.
const maxUnpackers = 4

// unpacker fills the unit that begins at off of the disk from its packed bytes,
// which others may follow.
type unpacker func(unit, packed []byte, off int64) error

// worker unpacks one unit after the other.
type worker struct {
	unpack unpacker
	buf    []byte
}

// unit is a packed unit and where it goes.
type unit struct {
	span span
	off  int64 // of its first byte on the disk
	to   []byte
}

// worker returns the n-th worker; each is used by one goroutine at a time.
func (i *Image) worker(n int) *worker {
	for len(i.workers) <= n {
		i.workers = append(i.workers, &worker{unpack: i.layout.unpacker()})
	}
	return i.workers[n]
}

// unpackUnit reads a unit and unpacks it.
func (i *Image) unpackUnit(w *worker, u unit) error {
	if int64(cap(w.buf)) < u.span.n {
		w.buf = make([]byte, u.span.n)
	}
	b := w.buf[:u.span.n]
	if err := readFull(i.file, b, u.span.at); err != nil {
		return err
	}
	err := w.unpack(u.to, b, u.off)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return invalid("what the disk has at byte %d needs more than %s of memory to unpack; %s", u.off, store.Bytes(zstdWindow), convert)
	}
	return &store.Error{Kind: store.KindInvalid, Op: "read image", Field: "source", Err: err,
		Msg: fmt.Sprintf("what the disk has at byte %d cannot be unpacked; the image is damaged, copy it again", u.off)}
}

// load unpacks the unit that holds off, for reads of parts of it.
func (i *Image) load(s span, off int64) error {
	size := int64(i.layout.unitSize())
	from := off / size * size
	if i.unitAt == from {
		return nil
	}
	if i.unit == nil {
		i.unit = make([]byte, size)
	}
	i.unitAt = -1
	if err := i.unpackUnit(i.worker(0), unit{s, from, i.unit}); err != nil {
		return err
	}
	i.unitAt = from
	return nil
}

// readUnits unpacks the whole units from off on that p has room for, side by
// side. The first is held as s says. Its goroutines end before it does.
func (i *Image) readUnits(p []byte, off int64, s span) (int, error) {
	size := i.layout.unitSize()
	units := i.units[:0]
	for {
		units = append(units, unit{s, off, p[len(units)*size:][:size]})
		if off += int64(size); len(p) < (len(units)+1)*size {
			break
		}
		next, err := i.span(off)
		if err != nil || next.held != packed {
			break // the next read meets it
		}
		s = next
	}
	i.units = units
	workers := min(len(units), maxUnpackers, runtime.GOMAXPROCS(0))
	i.worker(workers - 1)
	errs := make([]error, len(units))
	var next atomic.Int64
	work := func(w *worker) {
		for n := int(next.Add(1)) - 1; n < len(units); n = int(next.Add(1)) - 1 {
			errs[n] = i.unpackUnit(w, units[n])
		}
	}
	var wg sync.WaitGroup
	for _, w := range i.workers[1:workers] {
		wg.Go(func() { work(w) })
	}
	work(i.workers[0])
	wg.Wait()
	for n, err := range errs {
		if err != nil {
			return n * size, err
		}
	}
	return len(units) * size, nil
}
