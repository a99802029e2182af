package main

import (
	"context"

	"lunboot/services/attempts"
	"lunboot/services/events"
	"lunboot/store"
	"lunboot/store/sqlite"
	"lunboot/store/volume"
)

// liveSessions lets the inventory refuse to pull a volume from under a machine,
// and people look at who has one.
type liveSessions struct{ a *appliance }

// Sessions lists the target's live sessions.
func (l liveSessions) Sessions() []store.Session {
	if l.a.target == nil {
		return nil
	}
	return l.a.target.Sessions()
}

// DropSession ends a session on an operator's word.
func (l liveSessions) DropSession(ctx context.Context, by store.Actor, id string) error {
	detail := ""
	for _, s := range l.Sessions() {
		if s.ID == id {
			detail = string(s.Initiator) + " from " + s.Addr
		}
	}
	if l.a.target == nil {
		return store.NotFound("session", id)
	}
	if err := l.a.target.Drop(ctx, id); err != nil {
		return err
	}
	return l.a.db.Record(context.WithoutCancel(ctx), by, "session.drop", id, detail)
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

// looker is a look into a volume as it is now: a machine that restarts may be back
// before a look of a few seconds ago is old.
type looker struct{ pool *volume.Pool }

// Look says what stands on a volume.
func (l looker) Look(ctx context.Context, v store.Volume) (store.Preflight, error) {
	return l.pool.LookAnew(ctx, v)
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

// eventLog is the journal as the API reads it: by cursor, filtered, and the table
// behind it, where what is looked for is found.
type eventLog struct {
	j *events.Journal
	*sqlite.Journal
}

// farBehind is how many events somebody lacks who looks for few of them, from
// where on the table is asked: it finds a machine's by an index, and reads none of
// the others.
const farBehind = 2000

// After returns the matching events after f.After, and the last sequence number
// that was looked at.
func (l eventLog) After(ctx context.Context, f store.EventFilter) ([]store.Event, int64, error) {
	upto := f.After
	var out []store.Event
	if f.Narrowed() && l.j.LastSeq()-upto > farBehind {
		last, err := l.Journal.LastSeq(ctx)
		if err != nil {
			return nil, upto, err
		}
		if out, err = l.Events(ctx, f); err != nil {
			return nil, upto, err
		}
		for i := range out {
			out[i].Detail.Key = ""
		}
		switch n := len(out); {
		case n == f.Limit:
			upto = out[n-1].Seq
		case n > 0: // some may have been written since the table's end was asked for
			upto = max(upto, last, out[n-1].Seq)
		default:
			upto = max(upto, last)
		}
	}
	for len(out) < f.Limit {
		items, err := l.j.After(ctx, upto, 500)
		if err != nil || len(items) == 0 {
			return out, upto, err
		}
		for _, e := range items {
			upto = e.Seq
			if !f.Fits(&e) {
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
