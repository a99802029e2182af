// Package events is the journal of everything that the services see: Emit takes
// a fact and returns at once, one goroutine writes the facts to the log in
// batches, and readers follow by sequence number, each at its own pace.
//
// It knows no kind of event but one: whether it is a sample, which may be
// dropped under load, or a state, which may not. It knows no reader: a reader
// asks for what came after a number and waits on Wake, so a slow one costs
// nothing and loses nothing.
package events

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lunboot/store"
)

// Bounds of the journal.
const (
	// ringSize is how many unwritten events are kept before samples are
	// dropped.
	ringSize = 65536
	// overflowSize is how many more states are kept than that: ten seconds of
	// fifty thousand each lie in both, should the log not be written at all. It
	// is reached only when that lasts longer.
	overflowSize = 524288 - ringSize
	// keepWritten is how many written events stay in memory, so that readers
	// that follow closely never touch the table.
	keepWritten = 4096
	// batchSize and batchWait bound a batch: what comes first ends it.
	batchSize = 512
	batchWait = 50 * time.Millisecond
	// retryFirst and retryMost bound the pause after a write that failed.
	retryFirst = 100 * time.Millisecond
	retryMost  = 3 * time.Second
	// drainTime bounds the last writes at the end of Serve.
	drainTime = 5 * time.Second
)

// Log is the table that outlives the process.
type Log interface {
	AppendEvents(ctx context.Context, batch []store.Event) error
	LastSeq(ctx context.Context) (int64, error)
	Events(ctx context.Context, f store.EventFilter) ([]store.Event, error)
}

// Journal gives events their numbers, holds the newest in memory and writes
// them to the log.
type Journal struct {
	log    Log
	logger *slog.Logger
	now    func() time.Time
	limits limits

	mu      sync.Mutex
	queue   queue         // events first..last, without holes
	last    int64         // the last number given
	written int64         // every event up to here is in the log
	dropped int64         // not yet told by an EventDropped
	lost    int64         // states among them
	missing int64         // dropped since New
	wake    chan struct{} // closed at the next Emit; nil while nobody waits
	kick    chan struct{} // one token: there is something to write
}

// limits are the bounds above, smaller in tests.
type limits struct{ ring, overflow, keep int }

// New opens a journal that goes on where the log ends.
func New(log Log, logger *slog.Logger, now func() time.Time) (*Journal, error) {
	last, err := log.LastSeq(context.Background())
	if err != nil {
		return nil, fmt.Errorf("read the end of the event log: %w", err)
	}
	return &Journal{
		log: log, logger: logger, now: now,
		limits: limits{ring: ringSize, overflow: overflowSize, keep: keepWritten},
		queue:  queue{first: last + 1},
		last:   last, written: last,
		kick: make(chan struct{}, 1),
	}, nil
}

// String names the service.
func (j *Journal) String() string { return "event journal" }

// Listen binds nothing.
func (j *Journal) Listen() error { return nil }

// Emit takes e, gives it the next number and, when it has none, the time. It
// never waits for the disk. A sample is dropped when the writer has fallen far
// behind; a state only when memory for half a million of them is used up.
// Either is counted, and told by an EventDropped as soon as there is room.
func (j *Journal) Emit(e store.Event) {
	if e.At.IsZero() {
		e.At = j.now()
	}
	j.mu.Lock()
	backlog := int(j.last - j.written)
	switch {
	case backlog >= j.limits.ring+j.limits.overflow:
		j.dropped++
		j.missing++
		if !e.Kind.Sample() {
			j.lost++
		}
		j.mu.Unlock()
		return
	case backlog >= j.limits.ring && e.Kind.Sample():
		j.dropped++
		j.missing++
		j.mu.Unlock()
		return
	}
	if j.dropped > 0 && backlog < j.limits.ring {
		told := j.droppedEvent(e.At)
		j.append(&told)
	}
	j.append(&e)
	wake := j.wake
	j.wake = nil
	j.mu.Unlock()

	if wake != nil {
		close(wake)
	}
	select {
	case j.kick <- struct{}{}:
	default:
	}
}

// append numbers e; j.mu is held.
func (j *Journal) append(e *store.Event) {
	j.last++
	e.Seq = j.last
	j.queue.push(e)
}

// droppedEvent tells what was dropped since the last one; j.mu is held.
func (j *Journal) droppedEvent(at time.Time) store.Event {
	d := store.Detail{Bytes: j.dropped, Reason: "samples of bytes moved were left out, because the event log could not be written fast enough"}
	if j.lost > 0 {
		d.Reason = fmt.Sprintf("%d states and %d samples were left out, because the event log could not be written for a long time", j.lost, j.dropped-j.lost)
	}
	j.dropped, j.lost = 0, 0
	return store.Event{At: at, Kind: store.EventDropped, Detail: d}
}

// LastSeq returns the number of the newest event.
func (j *Journal) LastSeq() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}

// After returns up to limit events with larger numbers than seq, rising: from
// memory when it reaches back far enough, from the log otherwise. They are for
// reading only, since memory is shared.
func (j *Journal) After(ctx context.Context, seq int64, limit int) ([]store.Event, error) {
	if limit <= 0 || limit > keepWritten {
		limit = keepWritten
	}
	j.mu.Lock()
	if seq+1 >= j.queue.first {
		out := j.queue.after(seq, limit)
		j.mu.Unlock()
		return out, nil
	}
	first := j.queue.first
	j.mu.Unlock()

	out, err := j.log.Events(ctx, store.EventFilter{After: seq, Limit: limit})
	if err != nil {
		return nil, fmt.Errorf("read events after %d: %w", seq, err)
	}
	if len(out) > 0 {
		return out, nil
	}
	// The log was pruned up to where memory begins.
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.queue.after(max(seq, first-1), limit), nil
}

// Wake returns a channel that is closed when there is an event with a larger
// number than seq; at once when there is one already.
func (j *Journal) Wake(seq int64) <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.last > seq {
		c := make(chan struct{})
		close(c)
		return c
	}
	if j.wake == nil {
		j.wake = make(chan struct{})
	}
	return j.wake
}

// Serve writes batches until ctx ends, and then everything that is left. Events
// that a failed write left behind are tried again after a growing pause.
func (j *Journal) Serve(ctx context.Context) error {
	var pause time.Duration
	for {
		if pause == 0 && j.backlog() == 0 {
			select {
			case <-ctx.Done():
				return j.drain()
			case <-j.kick:
			}
		}
		gather := max(pause, batchWait)
		if pause == 0 && j.backlog() >= batchSize {
			gather = 0
		}
		timer := time.NewTimer(gather)
		select {
		case <-ctx.Done():
			timer.Stop()
			return j.drain()
		case <-timer.C:
		}
		// A batch that is being written is finished when ctx ends.
		err := j.flush(context.WithoutCancel(ctx))
		if err == nil {
			pause = 0
			continue
		}
		pause = min(max(2*pause, retryFirst), retryMost)
		j.logger.Error("the event log could not be written; trying again", "err", err, "waiting", j.backlog(), "pause", pause)
	}
}

// Counts returns how many events wait to be written, and how many were dropped
// since New.
func (j *Journal) Counts() (waiting, dropped int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last - j.written, j.missing
}

func (j *Journal) backlog() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return int(j.last - j.written)
}

// drain writes what is left, within drainTime.
func (j *Journal) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	for {
		err := j.flush(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the last %d events could not be written: %w", j.backlog(), err)
		case <-time.After(retryFirst):
		}
	}
}

// flush writes batches until nothing is left, or one fails.
func (j *Journal) flush(ctx context.Context) error {
	for {
		j.mu.Lock()
		batch := j.queue.run(j.written, batchSize)
		j.mu.Unlock()
		if len(batch) == 0 {
			return nil
		}
		if err := j.log.AppendEvents(ctx, batch); err != nil {
			// The commit may have happened although the answer says
			// otherwise; writing the same numbers again would then fail
			// for ever.
			last, lerr := j.log.LastSeq(ctx)
			if lerr != nil || last < batch[0].Seq {
				return err
			}
			j.wrote(min(last, batch[len(batch)-1].Seq))
			continue
		}
		j.wrote(batch[len(batch)-1].Seq)
	}
}

// wrote forgets the written events that no close follower needs.
func (j *Journal) wrote(seq int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.written = max(j.written, seq)
	j.queue.dropBefore(j.written - int64(j.limits.keep) + 1)
}
