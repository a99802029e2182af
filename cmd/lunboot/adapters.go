package main

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"lunboot/services/attempts"
	"lunboot/services/events"
	"lunboot/store"
	"lunboot/store/sqlite"
	"lunboot/store/volume"
)

// addressUse remembers from which addresses initiators hold sessions, or held
// one in the last hour: such an address goes to nobody else. It remembers, too,
// which addresses machines were heard to ask other servers for. It sits before
// the journal and learns from the events that pass.
type addressUse struct {
	*events.Journal
	now func() time.Time

	mu   sync.Mutex
	live map[string]netip.Addr    // session → address
	last map[netip.Addr]time.Time // address → last sign of a session

	heard overheard
}

// holdAddress is how long an address stays in use after its last session.
const holdAddress = time.Hour

func newAddressUse(j *events.Journal, now func() time.Time) *addressUse {
	return &addressUse{Journal: j, now: now, live: map[string]netip.Addr{}, last: map[netip.Addr]time.Time{}}
}

// rememberEvents bounds how far back a start looks for sessions of the last hour.
const rememberEvents = 20000

// remember reads the last hour of the journal, so that a restart forgets no
// machine that is still running.
func (u *addressUse) remember(ctx context.Context, table *sqlite.Journal, lastSeq int64) error {
	for after := max(0, lastSeq-rememberEvents); ; {
		items, err := table.Events(ctx, store.EventFilter{After: after, Limit: 1000})
		if err != nil {
			return err
		}
		if len(items) == 0 {
			clear(u.live) // sessions of the last run ended with it
			return nil
		}
		for _, e := range items {
			if u.now().Sub(e.At) < holdAddress {
				u.learn(&e)
			}
			after = e.Seq
		}
	}
}

// Emit learns from the event and passes it on.
func (u *addressUse) Emit(e store.Event) {
	if e.At.IsZero() {
		e.At = u.now()
	}
	u.learn(&e)
	u.Journal.Emit(e)
}

func (u *addressUse) learn(e *store.Event) {
	if !e.Addr.IsValid() {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch e.Kind {
	case store.EventISCSILogin:
		u.live[e.Detail.Session] = e.Addr
		u.last[e.Addr] = e.At
	case store.EventISCSIClosed, store.EventISCSILogout:
		delete(u.live, e.Detail.Session)
		u.last[e.Addr] = e.At
	case store.EventISCSIIO, store.EventISCSIFirstRead:
		u.last[e.Addr] = e.At
	case store.EventDHCPOtherPick:
		u.heard.note(e.MAC, e.Addr)
	}
}

// AddressInUse reports whether a session is or was there within the hour.
func (u *addressUse) AddressInUse(a netip.Addr) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, addr := range u.live {
		if addr == a {
			return true
		}
	}
	t, ok := u.last[a]
	if ok && u.now().Sub(t) >= holdAddress {
		delete(u.last, a)
		ok = false
	}
	return ok
}

// liveSessions lets the inventory refuse to pull a volume from under a machine.
type liveSessions struct{ a *appliance }

// Sessions lists the target's live sessions.
func (l liveSessions) Sessions() []store.Session {
	if l.a.target == nil {
		return nil
	}
	return l.a.target.Sessions()
}

// contents is the inventory with a look into its volumes.
type contents struct {
	*sqlite.DB
	pool *volume.Pool
}

// Look says what stands on a volume.
func (c contents) Look(ctx context.Context, v store.Volume) (store.Preflight, error) {
	return c.pool.Look(ctx, v)
}

// explainer tells a report's sender what its failure means.
type explainer struct{ runner *attempts.Runner }

// Explain returns the first diagnosis of an attempt.
func (x explainer) Explain(ctx context.Context, id store.AttemptID) (title, cause, fix string, ok bool) {
	a, err := x.runner.Attempt(ctx, id)
	if err != nil || len(a.Diagnoses) == 0 {
		return "", "", "", false
	}
	d := a.Diagnoses[0]
	if len(d.Fixes) > 0 {
		fix = d.Fixes[0].Label
	}
	return d.Title, d.Cause, fix, true
}

// eventLog is the journal as the API reads it: by cursor, filtered.
type eventLog struct{ j *events.Journal }

// After returns the matching events after f.After, and the last sequence number
// that was looked at.
func (l eventLog) After(ctx context.Context, f store.EventFilter) ([]store.Event, int64, error) {
	upto := f.After
	var out []store.Event
	for len(out) < f.Limit {
		items, err := l.j.After(ctx, upto, 500)
		if err != nil || len(items) == 0 {
			return out, upto, err
		}
		for _, e := range items {
			upto = e.Seq
			if f.Machine != 0 && e.Machine != f.Machine || !f.MAC.IsZero() && e.MAC != f.MAC || f.Attempt != 0 && e.Attempt != f.Attempt {
				continue
			}
			e.Detail.Key = "" // who holds it may speak for the machine
			if out = append(out, e); len(out) == f.Limit {
				break
			}
		}
	}
	return out, upto, nil
}

// LastSeq is the newest event's number.
func (l eventLog) LastSeq() int64 { return l.j.LastSeq() }

// Wake is closed when something newer than seq exists.
func (l eventLog) Wake(seq int64) <-chan struct{} { return l.j.Wake(seq) }

// revisions wakes live pages when the inventory changes.
type revisions struct{ db *sqlite.DB }

// Version is the inventory's commit revision.
func (r revisions) Version() int64 { return r.db.Revision() }

// Changed is closed at the next commit.
func (r revisions) Changed(after int64) <-chan struct{} { return r.db.Changed(after) }
