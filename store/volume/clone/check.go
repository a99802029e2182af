package clone

import (
	"context"
	"io"

	"lunboot/store"
)

// Report is what Check found in a layer.
type Report struct {
	Layer     store.UUID `json:"layer"`
	Parent    store.UUID `json:"parent"`
	BlockSize int        `json:"block_size"`
	Pages     int        `json:"pages"`             // that were ever written
	Here      int64      `json:"here"`              // bytes that the layer has
	Zero      int64      `json:"zero"`              // bytes that were unmapped
	Damage    []Range    `json:"damage,omitempty"`  // cannot be read, in order
	Torn      int        `json:"torn,omitempty"`    // pages whose last flush a crash ended
	Stale     int        `json:"stale,omitempty"`   // damaged sectors that nothing depends on
	Headers   int        `json:"headers,omitempty"` // damaged copies of the header
}

// Sound reports whether all of the layer can be read.
func (r *Report) Sound() bool { return len(r.Damage) == 0 }

// Check reads all of the map from the disk and says what is damaged. It may run
// while the layer is used.
func (l *Layer) Check(ctx context.Context) (Report, error) {
	r := Report{Layer: l.id.UUID, Parent: l.id.Parent, BlockSize: l.id.BlockSize}
	header := make([]byte, headerSize)
	n, err := l.file.ReadAt(header, 0)
	if err != nil && err != io.EOF {
		return r, err
	}
	id, headers, err := decodeHeader(header[:n])
	if err != nil {
		return r, err
	}
	if id != l.id {
		return r, &HeaderError{Msg: "its header changed while it was open"}
	}
	r.Headers = headers
	size := l.size.Load()
	end, err := l.file.Size()
	if err != nil {
		return r, err
	}
	for i := 0; i < pagesOf(size) && slotOffset(i, 0) < end; i++ {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		at := slotOffset(i, 0)
		if data, until, err := l.file.Extent(at); err != nil {
			return r, err
		} else if !data && until >= at+pairSize {
			i = max(i, int((until-headerSize)/pairSize)-1)
			continue
		}
		if err := l.checkPage(i, size, &r); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (l *Layer) checkPage(i int, size int64, r *Report) error {
	l.flushMu.Lock() // a slot that is just being written is not torn
	defer l.flushMu.Unlock()
	pair, err := l.readPair(i)
	if err != nil || pair == nil {
		return err
	}
	s := l.decode(i, pair)
	var p page
	p.load(pair, &s)
	r.Pages++
	r.Stale += s.stale
	if s.torn {
		r.Torn++
	}
	for g := 0; g < perPage; {
		bad, end := p.damagedFrom(g)
		off := int64(i)*pageSpan + int64(g)*Granule
		n := min(int64(end-g)*Granule, size-off)
		if bad {
			r.Damage = append(r.Damage, Range{off, n})
		}
		for !bad && g < end {
			next := p.same(g, end)
			n := max(0, min(int64(next-g)*Granule, size-off))
			switch p.at(g) {
			case here:
				r.Here += n
			case zero:
				r.Zero += n
			}
			off, g = off+n, next
		}
		g = end
	}
	return nil
}
