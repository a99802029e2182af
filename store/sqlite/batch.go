package sqlite

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// Bounds of the group commit.
const (
	batchQueue = 1024 // writers that wait before they block
	batchMost  = 512  // writes in one transaction
)

// batcher turns many small writes into few transactions. A synchronous commit
// costs one fsync however many rows it holds, so writers that arrive while one
// commit runs share the next: a rack that boots at once is given its leases at
// the speed of the disk's bandwidth, not of its fsync.
type batcher struct {
	db    *DB
	queue chan *write
	ended chan struct{} // closed when the goroutine is gone

	turn   sync.Mutex     // held while a group is committed
	single chan *write    // a write that is committed past the queue
	alones sync.WaitGroup // the goroutine that commits those
	last   atomic.Int64   // how many writers the last group had

	mu     sync.RWMutex // held while a writer enters the queue, so that close cuts between two writers
	closed bool
}

// write is one caller's part of a transaction.
type write struct {
	ctx   context.Context
	fn    func(*tx) error
	whole bool // fn changes nothing when it refuses
	err   error
	done  chan struct{}
}

func newBatcher(db *DB) *batcher {
	b := &batcher{db: db, queue: make(chan *write, batchQueue), single: make(chan *write, 1), ended: make(chan struct{})}
	go b.run()
	b.alones.Go(func() {
		for w := range b.single {
			b.commit([]*write{w})
			b.turn.Unlock()
		}
	})
	return b
}

// close refuses new writes, finishes those that were accepted and waits.
func (b *batcher) close() {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.queue)
		close(b.single)
	}
	b.mu.Unlock()
	<-b.ended
	b.alones.Wait()
}

// do runs fn as part of a shared transaction, which is on disk when do returns
// nil. When fn fails, only its own changes are undone. When ctx ends first, the
// write may still happen. fn may run on another goroutine, and after do
// returned: it must not write to what the caller reads. It may run
// twice.
func (b *batcher) do(ctx context.Context, op string, fn func(*tx) error) error {
	return b.wait(op, &write{ctx: ctx, fn: fn, done: make(chan struct{})})
}

// doWhole is do for an fn that has changed nothing when it returns an error of
// store's: there is nothing to undo, which saves two statements a write. Any
// other error of it is everybody's.
func (b *batcher) doWhole(ctx context.Context, op string, fn func(*tx) error) error {
	return b.wait(op, &write{ctx: ctx, fn: fn, whole: true, done: make(chan struct{})})
}

func (b *batcher) wait(op string, w *write) error {
	if !b.alone(w) {
		if err := b.enter(w); err != nil {
			return dbfile.Explain(op, err)
		}
	}
	select {
	case <-w.done:
		return dbfile.Explain(op, w.err)
	case <-w.ctx.Done():
		return dbfile.Explain(op, w.ctx.Err())
	}
}

// alone commits a write at once, past the queue, when the last one had no company
// either and nobody else is at it: there is no group to gather. It reports whether
// it does. The commit has a goroutine of its own, so that a disk that hangs keeps no
// caller longer than his context.
func (b *batcher) alone(w *write) bool {
	b.mu.RLock() // close waits for it
	defer b.mu.RUnlock()
	if b.closed || b.last.Load() > 1 || len(b.queue) > 0 || !b.turn.TryLock() {
		return false
	}
	b.single <- w // there is room: the turn is ours
	return true
}

func (b *batcher) enter(w *write) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed {
		return &store.Error{Kind: store.KindUnavailable, Msg: "the inventory is closed"}
	}
	select {
	case b.queue <- w:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

func (b *batcher) run() {
	defer close(b.ended)
	last := 1
	for first := range b.queue {
		group := b.gather(append(make([]*write, 0, 2*last), first), last)
		last = len(group)
		b.last.Store(int64(last))
		b.turn.Lock()
		b.commit(group)
		b.turn.Unlock()
	}
}

// turns is how often a group lets its writers run before it is closed.
const turns = 3

// gather adds the writers that wait. The last commit woke as many as it held,
// and those that go on writing are still on their way here: they are given a few
// turns of the scheduler, which cost nothing when nobody else can run, since
// every commit that they miss costs an fsync. Who writes alone waits for nobody.
func (b *batcher) gather(group []*write, last int) []*write {
	for turn := 0; len(group) < batchMost; {
		select {
		case w, ok := <-b.queue:
			if !ok {
				return group
			}
			group = append(group, w)
			continue
		default:
		}
		if turn++; turn > turns || len(group) >= last {
			return group
		}
		runtime.Gosched()
	}
	return group
}

// commit runs a group in one transaction, each write in a savepoint of its own.
func (b *batcher) commit(group []*write) {
	err := b.try(group)
	if dbfile.IsFull(err) {
		err = b.try(group) // the reserve has made room
	}
	for _, w := range group {
		if w.err == nil {
			w.err = err
		}
		close(w.done)
	}
}

func (b *batcher) try(group []*write) error {
	// No writer's context may end the others' transaction.
	return b.db.commit(context.Background(), func(t *tx) error {
		for _, w := range group {
			if w.err = w.ctx.Err(); w.err != nil {
				continue
			}
			if err := b.one(t, w); err != nil {
				return err
			}
		}
		return nil
	})
}

// one runs a write in a savepoint. An error of the write itself goes to its
// caller; an error of the transaction is returned and goes to all.
func (b *batcher) one(t *tx, w *write) error {
	moved := t.moved
	if w.whole {
		var refused *store.Error
		if w.err = w.fn(t); w.err == nil || errors.As(w.err, &refused) {
			return nil
		}
		return w.err
	}
	if _, err := t.Run("SAVEPOINT one"); err != nil {
		return err
	}
	if w.err = w.fn(t); w.err != nil {
		t.moved = moved
		// A full disk is everybody's: the group is tried again with the
		// reserve given back.
		if dbfile.IsFull(w.err) {
			return w.err
		}
		if _, err := t.Run("ROLLBACK TO one"); err != nil {
			return errors.Join(w.err, err)
		}
	}
	_, err := t.Run("RELEASE one")
	return err
}
