package scsi

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"lunboot/services/iscsi/scsi/reserve"
	"lunboot/services/iscsi/scsi/sense"
	"lunboot/services/iscsi/scsi/xcopy"
)

// copies are a nexus's copies by list identifier: those that run, and what
// became of those that ended, until it was asked or the identifier is used
// again.
type copies struct {
	mu     sync.Mutex
	byID   map[byte]xcopy.Status
	why    map[byte]xcopy.Failure // of those that failed, until it was told whole
	active int
}

// errInProgress is OPERATION IN PROGRESS: an identifier names one copy at a time.
var errInProgress = &sense.Data{Key: sense.KeyIllegalRequest, ASC: 0x00, ASCQ: 0x16}

// begin takes an identifier for a copy.
func (s *copies) begin(l xcopy.List) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active >= xcopy.MaxCopies {
		return sense.InvalidParameter(0)
	}
	if l.Named {
		if s.byID[l.ID].Running {
			return errInProgress
		}
		if s.byID == nil {
			s.byID, s.why = map[byte]xcopy.Status{}, map[byte]xcopy.Failure{}
		}
		delete(s.why, l.ID)
		s.byID[l.ID] = xcopy.Status{Running: true}
	}
	s.active++
	return nil
}

func (s *copies) end(l xcopy.List, st xcopy.Status, why xcopy.Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	if l.Named {
		s.byID[l.ID] = st
		if st.Failed {
			s.why[l.ID] = why
		}
	}
}

// status returns what is known of a copy; what has ended is told once.
func (s *copies) status(id byte) (xcopy.Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.byID[id]
	if ok && !st.Running {
		delete(s.byID, id)
	}
	return st, ok
}

func parseExtendedCopy(c *Command) (Plan, error) {
	n := binary.BigEndian.Uint32(c.CDB[10:])
	if n > xcopy.MaxList {
		return Plan{}, sense.ParameterLength
	}
	return c.parameterList(int(n)), nil
}

func execExtendedCopy(ctx context.Context, c *Command) error {
	list, err := c.list()
	if err != nil || len(list) == 0 {
		return err
	}
	l, err := xcopy.Parse(list)
	if err != nil {
		return err
	}
	if err := c.nexus.copies.begin(l); err != nil {
		return err
	}
	var st xcopy.Status
	since := c.nexus.wipes(l)
	for k, s := range l.Segments {
		var n uint64
		n, err = c.copySegment(ctx, l, k, s, since)
		if st.Bytes += n; err != nil {
			break
		}
		st.Segments++
	}
	st.Failed = err != nil
	c.nexus.copies.end(l, st, c.nexus.failure(c.itl, err))
	return err
}

// side is a segment's source or destination: a unit of the same initiator. What
// is not mapped to it does not exist for its copies either.
func (c *Command) side(l xcopy.List, k, index int, a reserve.Access) (*itl, error) {
	if index >= len(l.Targets) {
		return nil, xcopy.Unreachable(k)
	}
	t := l.Targets[index]
	m := c.nexus.luns.Load()
	if m == nil {
		return nil, xcopy.Unreachable(k)
	}
	for _, lun := range m.list {
		i := m.byLUN[lun]
		if !i.unit.named(t) {
			continue
		}
		switch {
		case t.BlockLength != 0 && t.BlockLength != uint32(i.unit.cfg.BlockSize):
			return nil, xcopy.WrongDevice(k)
		case !i.unit.res.allows(c.nexus, a):
			return nil, errReservationConflict
		case a == reserve.Writes:
			return i, i.unit.protected(i)
		}
		return i, nil
	}
	return nil, xcopy.Unreachable(k)
}

// wipes counts the wipes of the units that a list names, now that its copy
// begins: one that comes meanwhile ends the copy.
func (n *Nexus) wipes(l xcopy.List) map[*Unit]uint32 {
	since := map[*Unit]uint32{}
	if m := n.luns.Load(); m != nil {
		for _, i := range m.byLUN {
			if slices.ContainsFunc(l.Targets, i.unit.named) {
				since[i.unit] = i.unit.wipes.Load()
			}
		}
	}
	return since
}

// named says whether the designator is the unit's, as VPD page 83h tells it.
func (u *Unit) named(t xcopy.Target) bool {
	id := u.naa()
	return t.CodeSet == codeSetBinary && t.Association == 0 && t.Kind == designatorNAA && string(t.Designator) == string(id[:])
}

// copySegment copies one segment and returns how many bytes it wrote.
func (c *Command) copySegment(ctx context.Context, l xcopy.List, k int, s xcopy.Segment, since map[*Unit]uint32) (uint64, error) {
	src, err := c.side(l, k, s.Source, reserve.Reads)
	if err != nil {
		return 0, err
	}
	dst, err := c.side(l, k, s.Destination, reserve.Writes)
	if err != nil {
		return 0, err
	}
	from, to := src.unit, dst.unit
	n := s.Blocks << from.shift
	if s.ByDestination {
		n = s.Blocks << to.shift
	}
	switch {
	case n&(1<<from.shift-1) != 0, n&(1<<to.shift-1) != 0:
		return 0, xcopy.Inexact(k)
	case checkRange(from.blocks(), s.From, n>>from.shift) != nil, checkRange(to.blocks(), s.To, n>>to.shift) != nil:
		return 0, xcopy.Aborted(k)
	}
	var done int64
	to.order.RLock()
	if err = from.unwiped(since[from]); err == nil {
		err = to.unwiped(since[to])
	}
	if err == nil {
		done, err = c.move(ctx, from, to, int64(s.From)<<from.shift, int64(s.To)<<to.shift, int64(n))
	}
	to.order.RUnlock()
	if err == nil {
		err = from.unwiped(since[from]) // what was read may be half gone
	}
	if err == nil && to.mode.Load()&modeWCE == 0 {
		if k == len(l.Segments)-1 {
			c.settle()
		}
		err = to.cfg.Volume.Sync(ctx)
	}
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		err = sense.Aborted
	default:
		if e := sense.WriteError(err, s.To).(*sense.Data); e.Key == sense.KeyDataProtect {
			err = e // no room: the initiator can do something about it
		} else {
			err = xcopy.Aborted(k)
		}
	}
	return uint64(done), err
}

// move copies bytes piece by piece, from the end when the source would
// otherwise be overwritten before it is read.
func (c *Command) move(ctx context.Context, from, to *Unit, src, dst, n int64) (done int64, err error) {
	buf := from.buffers.Get().(*[]byte)
	defer from.buffers.Put(buf)
	backward := from == to && src < dst && dst < src+n
	for done < n {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		piece := (*buf)[:min(n-done, Chunk)]
		at := done
		if backward {
			at = n - done - int64(len(piece))
		}
		if err := from.cfg.Volume.ReadAt(ctx, piece, src+at); err != nil {
			return done, err
		}
		if err := to.cfg.Volume.WriteAt(ctx, piece, dst+at); err != nil {
			return done, err
		}
		done += int64(len(piece))
	}
	return done, nil
}

func execCopyStatus(_ context.Context, c *Command) error {
	st, ok := c.nexus.copies.status(c.CDB[2])
	if !ok {
		return sense.InvalidField(2, 7)
	}
	return c.reply(st.Results())
}

// failure is what an error ends a copy with, in the format that the nexus uses.
func (n *Nexus) failure(i *itl, err error) xcopy.Failure {
	switch e := err.(type) {
	case statusError:
		return xcopy.Failure{Status: byte(e)}
	case *sense.Data:
		return xcopy.Failure{Status: StatusCheckCondition, Sense: e.Append(nil, n.descriptorSense(i))}
	}
	return xcopy.Failure{}
}

// execCopyFailure tells why a copy failed. What was told whole, or is asked for
// with no room for it, is forgotten.
func execCopyFailure(_ context.Context, c *Command) error {
	s := &c.nexus.copies
	s.mu.Lock()
	defer s.mu.Unlock()
	why, ok := s.why[c.CDB[2]]
	if !ok {
		return c.reply([]byte{0, 0, 0, 0})
	}
	b := why.Details()
	if c.length == 0 || c.length >= len(b) {
		delete(s.why, c.CDB[2])
	}
	return c.reply(b)
}

func execCopyParameters(_ context.Context, c *Command) error { return c.reply(xcopy.Parameters()) }
