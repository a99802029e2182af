// Package memory shares what the data of commands may occupy among sessions: it
// counts bytes and holds none. A session has some of its own, whatever others
// do; the rest is a pool from which it takes, or waits for its turn.
//
// An Account is used with its session's lock held; the pool's own lock is taken
// inside of that, never the other way round.
package memory

import (
	"slices"
	"sync"
	"time"
)

// Limits bound what all sessions together may have: Pool, and Own for each.
type Limits struct {
	// Own is what each session may always have, so that no other can keep it
	// from going on: at least the largest command that initiators send by
	// themselves, the OPTIMAL TRANSFER LENGTH of VPD page B0h.
	Own int
	// Pool is what all share for the rest. It holds the largest command there
	// is, 8 MiB.
	Pool int
	// Initiator is how much of Pool the sessions of one initiator may have.
	Initiator int
	// Patience is how long a session waits for memory before those are ended
	// that keep some of Pool because their initiators neither take nor send
	// the data.
	Patience time.Duration
}

// Default are the appliance's limits: 512 MiB, and 1 MiB for each session.
func Default() Limits {
	return Limits{Own: 1 << 20, Pool: 512 << 20, Initiator: 128 << 20, Patience: 10 * time.Second}
}

// Pool is what sessions share.
type Pool struct {
	Limits
	mu      sync.Mutex
	free    int
	used    map[string]int // by initiator; entries are above zero
	queue   []*Account     // those that wait, in the order of their coming
	holders map[*Account]struct{}
	reviews *time.Timer // nil while nobody waits
}

// NewPool returns a pool of which nothing is taken.
func NewPool(l Limits) *Pool {
	return &Pool{Limits: l, free: l.Pool, used: make(map[string]int), holders: make(map[*Account]struct{})}
}

// Free says how much of the pool is left.
func (p *Pool) Free() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.free
}

// Session is what a pool asks of a session. None of it may wait for the
// session's lock.
type Session struct {
	Initiator string
	// Resume says that what the session waited for is there; it takes it, and
	// then calls Refund.
	Resume func()
	// KeepsSince says whether the session has had memory since before a time
	// only because of its initiator.
	KeepsSince func(time.Time) bool
	// Close ends the session for a reason.
	Close func(reason string)
}

// Account is what one session has.
type Account struct {
	pool    *Pool
	session Session
	held    int // of its own and of the pool

	// Guarded by the pool's lock.
	pooled  int  // of the pool, granted included
	queued  bool // it waits for need
	need    int
	since   time.Time // of the wait, or of the grant
	granted int       // came after a wait, and is not used yet
}

// Open returns the account of a session that begins. It takes nothing.
func (p *Pool) Open(s Session) *Account { return &Account{pool: p, session: s} }

// Take gives the session n bytes more. Of the pool it gives when there is enough
// for the initiator's part and for those that have less and wait; otherwise,
// when wait is set, Resume is called once when the session's turn has come.
// pooled says that some of it is the pool's.
func (a *Account) Take(n int, wait bool) (pooled, ok bool) {
	over := a.over(n)
	if over > 0 {
		a.pool.mu.Lock()
		defer a.pool.mu.Unlock()
		if !a.pool.take(a, over, wait) {
			return true, false
		}
	}
	a.held += n
	return over > 0, true
}

// Give takes n bytes back.
func (a *Account) Give(n int) {
	a.held -= n
	if over := a.over(n); over > 0 {
		a.pool.mu.Lock()
		defer a.pool.mu.Unlock()
		a.pool.give(a, over)
	}
}

// Held says what the session has: of the pool, and in all.
func (a *Account) Held() (pooled, all int) {
	a.pool.mu.Lock()
	defer a.pool.mu.Unlock()
	return a.pooled, a.held
}

// Large says whether the session has more than its own.
func (a *Account) Large() bool { return a.held > a.pool.Own }

// over is how much of n bytes more than the session has would be the pool's.
func (a *Account) over(n int) int {
	return max(0, a.held+n-a.pool.Own) - max(0, a.held-a.pool.Own)
}

// Refund gives back what came after a wait and is not needed any more.
func (a *Account) Refund() {
	a.pool.mu.Lock()
	defer a.pool.mu.Unlock()
	a.pool.refund(a)
}

// Leave ends the session's wait: Resume is not called any more.
func (a *Account) Leave() {
	a.pool.mu.Lock()
	defer a.pool.mu.Unlock()
	a.pool.forget(a)
}

// Close takes back all that the session has of the pool, whatever became of its
// commands.
func (a *Account) Close() {
	a.pool.mu.Lock()
	defer a.pool.mu.Unlock()
	a.granted = 0
	a.pool.give(a, a.pooled)
}

// From here on, the pool's lock is held.

// may says whether the initiator's part of the pool has room for n bytes. One
// command may have more than the part, if it is alone.
func (p *Pool) may(a *Account, n int) bool {
	u := p.used[a.session.Initiator]
	return u == 0 || u+n <= p.Initiator
}

// take gives a session n bytes of the pool.
func (p *Pool) take(a *Account, n int, wait bool) bool {
	if a.granted >= n {
		a.granted -= n
		return true
	}
	if a.queued {
		return false // an older task of the session comes first
	}
	p.refund(a)
	if p.may(a, n) && p.free >= n && !slices.ContainsFunc(p.queue, func(o *Account) bool {
		return p.may(o, o.need) && p.used[o.session.Initiator] <= p.used[a.session.Initiator]
	}) {
		p.move(a, n)
		return true
	}
	if wait {
		a.queued, a.need, a.since = true, n, time.Now()
		p.queue = append(p.queue, a)
		if p.reviews == nil {
			p.reviews = time.AfterFunc(p.Patience/8, p.review)
		}
	}
	return false
}

// move changes what a session has of the pool by n bytes.
func (p *Pool) move(a *Account, n int) {
	i := a.session.Initiator
	p.free -= n
	if p.used[i] += n; p.used[i] == 0 {
		delete(p.used, i)
	}
	if a.pooled += n; a.pooled == 0 {
		delete(p.holders, a)
	} else {
		p.holders[a] = struct{}{}
	}
}

// give takes n bytes back and hands them on: to the initiator that has least,
// so that one that asks for much waits for its own.
func (p *Pool) give(a *Account, n int) {
	if n == 0 {
		return
	}
	p.move(a, -n)
	for len(p.queue) > 0 {
		var next *Account
		for _, o := range p.queue {
			if p.may(o, o.need) && (next == nil || p.used[o.session.Initiator] < p.used[next.session.Initiator]) {
				next = o
			}
		}
		if next == nil || p.free < next.need {
			return
		}
		p.forget(next)
		p.move(next, next.need)
		next.granted, next.since = next.need, time.Now()
		next.session.Resume()
	}
}

func (p *Pool) forget(a *Account) {
	if a.queued {
		a.queued = false
		p.queue = slices.DeleteFunc(p.queue, func(o *Account) bool { return o == a })
	}
}

func (p *Pool) refund(a *Account) {
	n := a.granted
	a.granted = 0
	p.give(a, n)
}

// review runs, without the lock, while sessions wait. When one has waited for
// long, those are ended that have kept memory as long without need: of all
// initiators, or of its own when that has its part of the pool already.
func (p *Pool) review() {
	p.mu.Lock()
	if len(p.queue) == 0 {
		p.reviews = nil
		p.mu.Unlock()
		return
	}
	p.reviews.Reset(p.Patience / 8)
	before := time.Now().Add(-p.Patience)
	everybody := false
	var crowded []string
	for _, a := range p.queue {
		if a.since.Before(before) {
			if p.may(a, a.need) {
				everybody = true
			} else {
				crowded = append(crowded, a.session.Initiator)
			}
		}
	}
	var ended []*Account
	for a := range p.holders {
		if !everybody && !slices.Contains(crowded, a.session.Initiator) {
			continue
		}
		if a.granted > 0 && a.since.Before(before) || a.session.KeepsSince(before) {
			ended = append(ended, a)
		}
	}
	p.mu.Unlock()
	for _, a := range ended {
		a.session.Close("its initiator left data lying, and others had to wait for the memory")
	}
}
