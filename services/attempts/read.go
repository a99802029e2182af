package attempts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/services/boot/diagnose"
	"lunboot/store"
)

// rebuild takes up where the last run of the appliance ended: finished attempts
// from the cache, unfinished ones by folding their events anew; mu is held.
func (r *Runner) rebuild(ctx context.Context) error {
	last, err := r.cache.LastAttemptID(ctx)
	if err != nil {
		return fmt.Errorf("read the last attempt's number: %w", err)
	}
	rows, _, err := r.cache.Attempts(ctx, store.AttemptFilter{Page: store.Page{Limit: maxUnknown + 4096}})
	if err != nil {
		return fmt.Errorf("read the attempts of before: %w", err)
	}
	r.lastID = last
	end := r.events.LastSeq()
	now := r.now()
	// Everything was kept up to about the newest row's last event.
	from := int64(0)
	kept := map[store.AttemptID]store.Attempt{}
	for _, a := range rows {
		from = max(from, min(a.LastSeq, end))
	}
	// Newest first: the first row of a key is its current attempt.
	for _, a := range rows {
		k := key{machine: a.Machine}
		if k.machine == 0 {
			if k.mac = a.MAC; k.mac.IsZero() {
				continue
			}
		}
		if r.current[k] != nil || k.machine == 0 && r.unknown >= maxUnknown {
			continue
		}
		a.LastSeq = min(a.LastSeq, end)
		l := &live{State: attempt.Restore(a), key: k, from: a.LastSeq + 1}
		if a.Outcome != store.OutcomeUp && a.FirstSeq > 0 && a.FirstSeq <= end && now.Sub(a.Updated) < time.Hour {
			l.State = attempt.New(a.ID, a.Key, a.Started)
			l.Machine, l.MAC, l.Name = a.Machine, a.MAC, a.Name
			l.from, l.fresh = a.FirstSeq, true
			kept[a.ID] = a
			from = min(from, a.FirstSeq-1)
		}
		l.told, l.kept = a.Outcome, true
		r.install(l)
		if addr, err := netip.ParseAddr(a.Address); err == nil {
			if _, known := r.addrs[addr]; !known { // rows come newest first
				r.remember(addr, k)
			}
		}
	}
	r.cursor = max(from, end-maxReplay)
	if err := r.replay(ctx, end); err != nil {
		return err
	}
	for _, l := range r.current {
		if row, ok := kept[l.ID]; ok && row.LastSeq == l.LastSeq && row.Outcome != store.OutcomeRunning {
			// Nothing came after it had failed; that silence said so is in
			// the row alone.
			l.Attempt, l.explain, l.dirty = row, false, false
		}
		l.Resume(now)
	}
	return nil
}

// maxReplay bounds the events that are folded anew at the start.
const maxReplay = 100000

// replay folds what the journal holds up to end. The attempts that it is for
// exist already, so their first event must not begin another; mu is held.
func (r *Runner) replay(ctx context.Context, end int64) error {
	for r.cursor < end {
		all, err := r.events.After(ctx, r.cursor, batch)
		if err != nil {
			return fmt.Errorf("read the events of before: %w", err)
		}
		if len(all) == 0 {
			return nil
		}
		for _, e := range all {
			if e.Attempt > r.lastID {
				r.lastID = e.Attempt
			}
			if l, _, ok := r.find(ctx, e); ok && l != nil && l.FirstSeq == 0 && e.Seq == l.from {
				l.Fold(e)
				l.keep(e)
				l.dirty = true
			} else {
				r.take(ctx, e)
			}
			r.cursor = e.Seq
		}
	}
	return nil
}

// settle looks up what the fold cannot know: names, what is usual, and why
// boots failed. The lookups are made without the lock.
func (r *Runner) settle(ctx context.Context, only ...store.AttemptID) {
	type job struct {
		l       *live
		fresh   bool
		explain bool
		a       store.Attempt
		events  []store.Event
		tried   diagnose.Loader
		asked   bool // the machine said what hardware it is
	}
	var jobs []job
	behind := map[store.MachineID][]store.Attempt{}
	// One at a time: who comes second finds the first one's answers.
	r.looking.Lock()
	defer r.looking.Unlock()
	r.teach(ctx)
	r.mu.Lock()
	for id, l := range r.byID {
		if l.gone && l.dirty && l.Machine != 0 {
			behind[l.Machine] = append(behind[l.Machine], l.Snapshot())
		}
		if !l.fresh && !l.explain || l.FirstSeq == 0 || len(only) > 0 && !slices.Contains(only, id) {
			continue
		}
		j := job{l: l, fresh: l.fresh, explain: l.explain, a: l.Snapshot()}
		j.tried.Hardware, j.tried.Loader, j.asked = l.Tried()
		j.events = slices.Clone(l.events)
		l.fresh, l.explain = false, false
		jobs = append(jobs, j)
	}
	r.mu.Unlock()
	now := r.now()
	own := func() []netip.Addr { return nil }
	if r.Own != nil {
		own = sync.OnceValue(r.Own) // many boots may fail at once
	}
	for _, j := range jobs {
		facts, err := r.facts(ctx, j.a, own)
		if err != nil {
			r.log.Warn("the inventory could not be asked about a boot", "attempt", j.a.ID, "err", err)
		}
		if j.asked && r.Ladder != nil {
			j.tried.Next, j.tried.Unsigned = r.Ladder.Next(j.tried.Hardware, facts.OwnLoader), r.Ladder.Unsigned(j.tried.Loader)
			facts.Loader = &j.tried
		}
		if j.a.Machine != 0 {
			facts.Earlier = r.earlier(ctx, j.a, behind[j.a.Machine])
			facts.Usual = attempt.UsualOf(facts.Earlier)
			n, _ := diagnose.Looping(j.a, facts.Earlier)
			_, _, other := diagnose.OtherBoard(j.events, facts.UUID)
			j.explain = j.explain || n > 0 || other || diagnose.Installing(j.a, facts.Earlier, facts.Installers) != nil
		}
		var found []store.Diagnosis
		if j.explain {
			found = diagnose.Explain(j.a, j.events, facts, now)
		}
		r.mu.Lock()
		if facts.Name != "" && j.l.Name != facts.Name {
			j.l.Name = facts.Name
			j.l.dirty = true
		}
		if j.fresh && j.a.Machine != 0 {
			j.l.usual, j.l.UsualMillis = facts.Usual, facts.Usual.Total.Milliseconds()
		}
		if j.explain && !slices.EqualFunc(found, j.l.Diagnoses, sameDiagnosis) {
			j.l.Diagnoses = found
			j.l.dirty = true
		}
		r.touch()
		r.mu.Unlock()
	}
}

// earlier returns the machine's boots before a, the newest first: as the cache
// has them, and behind, which it does not have yet.
func (r *Runner) earlier(ctx context.Context, a store.Attempt, behind []store.Attempt) []store.Attempt {
	past, _, err := r.cache.Attempts(ctx, store.AttemptFilter{Machine: a.Machine, Page: store.Page{Limit: history + 1}})
	if err != nil {
		r.log.Warn("the earlier boots of a machine could not be read", "attempt", a.ID, "err", err)
		return nil
	}
	for _, b := range behind {
		if i := slices.IndexFunc(past, func(p store.Attempt) bool { return p.ID == b.ID }); i >= 0 {
			past[i] = b
		} else {
			past = append(past, b)
		}
	}
	past = slices.DeleteFunc(past, func(p store.Attempt) bool { return p.ID >= a.ID })
	slices.SortFunc(past, func(a, b store.Attempt) int { return int(b.ID - a.ID) })
	return past[:min(len(past), history)]
}

// teach passes on what the boots said of their loaders. It is called without
// the lock, one at a time.
func (r *Runner) teach(ctx context.Context) {
	var news []attempt.Trial
	r.mu.Lock()
	for _, l := range r.byID {
		news = append(news, l.Trials()...)
	}
	r.mu.Unlock()
	slices.SortStableFunc(news, func(a, b attempt.Trial) int { return a.At.Compare(b.At) })
	for _, t := range news {
		if r.Ladder == nil {
			return
		}
		if err := r.Ladder.Learn(ctx, t.Hardware, t.Loader, t.Verdict, t.At); err != nil {
			r.log.Error("how a loader did could not be kept", "loader", t.Loader, "verdict", t.Verdict, "mac", t.Hardware.MAC, "err", err)
		}
	}
}

func sameDiagnosis(a, b store.Diagnosis) bool {
	return a.Code == b.Code && a.Title == b.Title && a.Cause == b.Cause && a.Confidence == b.Confidence &&
		slices.Equal(a.Fixes, b.Fixes) && slices.Equal(a.Evidence, b.Evidence)
}

// facts asks the inventory what it knows of an attempt's machine. own lists the
// addresses of the appliance's machine.
func (r *Runner) facts(ctx context.Context, a store.Attempt, own func() []netip.Addr) (diagnose.Facts, error) {
	f := diagnose.Facts{AdminURL: r.AdminURL}
	if a.Outcome == store.OutcomeFailed || store.BootStateOf(a, true) == store.BootLost {
		f.Own = own()
	}
	var m store.Machine
	var err error
	switch {
	case a.Machine != 0:
		m, err = r.inv.Machine(ctx, a.Machine)
	case !a.MAC.IsZero():
		m, err = r.inv.MachineByMAC(ctx, a.MAC)
	default:
		return f, nil
	}
	if store.IsNotFound(err) {
		if a.Machine == 0 && a.Stage == store.StageScript {
			f.Alike = r.alike(ctx, a.MAC)
		}
		return f, nil
	}
	if err != nil {
		return f, err
	}
	f.Name, f.Initiator, f.Auth, f.Profile, f.UUID, f.MACs = m.Name, m.Initiator, m.Auth, m.Profile, m.UUID, m.MACs
	f.OwnLoader, f.Once = m.Loader, m.OnceProfile
	profiles, err := r.inv.Profiles(ctx)
	if err != nil {
		return f, err
	}
	for _, p := range profiles {
		if p.Kind.Installs() {
			f.Installers = append(f.Installers, p.Name)
		}
	}
	all, err := r.inv.MappingsOf(ctx, m.ID)
	if err != nil {
		return f, err
	}
	slices.SortFunc(all, func(a, b store.Mapping) int { return int(a.LUN) - int(b.LUN) })
	for _, one := range all {
		v, err := r.inv.Volume(ctx, one.Volume)
		if err != nil {
			return f, err
		}
		m := diagnose.Mapping{LUN: one.LUN, Volume: v.Name, Boot: one.Boot, BlockSize: v.BlockSize, Size: v.Size, State: v.State, Reason: v.Reason, ReadOnly: one.ReadOnly, Frozen: v.ReadOnly}
		if one.Boot || len(all) == 1 {
			// A volume that cannot be read is the business of other rules.
			if found, err := r.inv.Look(ctx, v); err == nil {
				m.Contents = &found
			}
		}
		f.Mappings = append(f.Mappings, m)
	}
	if len(all) == 0 {
		f.Free, f.Goldens, err = r.free(ctx, m.Name)
	}
	return f, err
}

// neverSeen is a machine that was enrolled and never heard of.
type neverSeen struct {
	name string
	mac  store.MAC
}

// Bounds of the machines that were never heard of: how many are compared, and how
// long what the inventory said of them is kept, since unknown machines ask every
// few seconds.
const (
	maxNeverSeen  = 4096
	neverSeenLife = 10 * time.Second
)

// alike lists machines that were never heard of and whose MAC is nearly this one:
// somebody mistyped it. looking is held.
func (r *Runner) alike(ctx context.Context, mac store.MAC) []string {
	if now := r.now(); r.neverSeenAt.IsZero() || now.Sub(r.neverSeenAt) >= neverSeenLife || now.Before(r.neverSeenAt) {
		r.neverSeenAt, r.neverSeen = now, nil
		all, _, err := r.inv.Machines(ctx, store.MachineFilter{Page: store.Page{Limit: maxNeverSeen}})
		if err != nil {
			r.log.Warn("the machines that were never heard of could not be listed", "err", err)
			return nil
		}
		for _, m := range all {
			for _, own := range m.MACs {
				if m.LastSeen.IsZero() {
					r.neverSeen = append(r.neverSeen, neverSeen{m.Name, own})
				}
			}
		}
	}
	var out []string
	for _, n := range r.neverSeen {
		if len(out) < maxFree && mistyped(n.mac, mac) {
			out = append(out, n.name+" ("+n.mac.String()+")")
		}
	}
	return out
}

// mistyped reports whether two MACs differ in one hexadecimal digit, or in two
// neighbours that changed places.
func mistyped(a, b store.MAC) bool {
	x, y := a.Hex12(), b.Hex12()
	var at []int
	for i := range len(x) {
		if x[i] != y[i] {
			at = append(at, i)
		}
	}
	return len(at) == 1 || len(at) == 2 && at[1] == at[0]+1 && x[at[0]] == y[at[1]] && x[at[1]] == y[at[0]]
}

// maxFree bounds the volumes that a diagnosis offers.
const maxFree = 3

// free lists volumes that nobody has and that firmware could boot, those that are
// called after the machine first, and the golden ones, of which anybody can have a
// clone.
func (r *Runner) free(ctx context.Context, machine string) (free, goldens []string, err error) {
	all, err := r.inv.Volumes(ctx)
	if err != nil {
		return nil, nil, err
	}
	maps, err := r.inv.Mappings(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, v := range all {
		taken := slices.ContainsFunc(maps, func(m store.Mapping) bool { return m.Volume == v.ID })
		switch {
		case v.State != store.VolumeReady || v.BlockSize != 512 || v.Blocks() < store.MinBootBlocks:
		case v.Golden && len(goldens) < maxFree:
			goldens = append(goldens, v.Name)
		case !v.Golden && !taken:
			free = append(free, v.Name)
		}
	}
	another := func(volume string) int {
		if volume == machine || strings.HasPrefix(volume, machine+"-") {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(free, func(a, b string) int { return another(a) - another(b) })
	return free[:min(len(free), maxFree)], goldens, nil
}

// flush writes what changed to the cache. Changes of bytes alone wait longer,
// unless all is asked for.
func (r *Runner) flush(ctx context.Context, all bool) error {
	var ended []store.Attempt
	defer func() { // after the locks are free
		for _, a := range ended {
			r.OnEnd(a)
		}
	}()
	r.save.Lock()
	defer r.save.Unlock()
	var rows []store.Attempt
	r.mu.Lock()
	now := r.now()
	counts := all || now.Sub(r.savedAt) >= saveCounts
	for _, l := range r.byID {
		if l.FirstSeq != 0 && (l.dirty || counts && l.counts) {
			rows = append(rows, l.Snapshot())
			l.dirty, l.counts = false, false
		}
	}
	if counts {
		r.savedAt = now
	}
	r.mu.Unlock()
	// Rising numbers, so that the cache's own order is that of time.
	slices.SortFunc(rows, func(a, b store.Attempt) int { return int(a.ID - b.ID) })
	put := map[store.AttemptID]bool{}
	var errs []error
	for some := range slices.Chunk(rows, saveMost) {
		err := r.cache.PutAttempts(ctx, some)
		for _, a := range some {
			put[a.ID] = err == nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("keep attempts %d to %d: %w", some[0].ID, some[len(some)-1].ID, err))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, done := range put {
		if l := r.byID[id]; l != nil {
			l.dirty, l.kept = l.dirty || !done, l.kept || done
		}
	}
	if r.OnEnd != nil {
		ended = r.endings()
	}
	for id, l := range r.byID {
		// The cache has its last word, or there is no end to waiting for it.
		if l.gone && (!l.dirty && !l.explain || len(r.byID) > maxHeld) {
			delete(r.byID, id)
		}
	}
	return errors.Join(errs...)
}

// endings returns the attempts whose outcome nobody was told of, in the order of
// their numbers; mu is held.
func (r *Runner) endings() []store.Attempt {
	var out []store.Attempt
	for _, l := range r.byID {
		if l.FirstSeq != 0 && !l.dirty && !l.explain && l.Outcome != store.OutcomeRunning && l.Outcome != l.told {
			l.told = l.Outcome
			out = append(out, l.Snapshot())
		}
	}
	slices.SortFunc(out, func(a, b store.Attempt) int { return int(a.ID - b.ID) })
	return out
}

// catchUp brings everything up to the journal's end, for a caller that waits.
func (r *Runner) catchUp(ctx context.Context, only ...store.AttemptID) {
	soon, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	if err := r.advance(soon); err != nil {
		r.log.Warn("the journal could not be read in time", "err", err)
		return
	}
	r.settle(soon, only...)
}

// Attempt returns one attempt: as it is now, or as it was kept.
func (r *Runner) Attempt(ctx context.Context, id store.AttemptID) (store.Attempt, error) {
	r.catchUp(ctx, id)
	r.mu.Lock()
	l := r.byID[id]
	if l != nil && l.FirstSeq != 0 {
		defer r.mu.Unlock()
		return l.Snapshot(), nil
	}
	r.mu.Unlock()
	return r.cache.Attempt(ctx, id)
}

// Attempts lists attempts, newest first, and how many there are. While the cache
// cannot be written, as on a full disk, those that it does not have are listed all
// the same, before the others in whatever order.
func (r *Runner) Attempts(ctx context.Context, f store.AttemptFilter) ([]store.Attempt, int, error) {
	r.catchUp(ctx)
	if r.flush(ctx, false) == nil { // else Serve says what is wrong
		rows, total, err := r.cache.Attempts(ctx, f)
		r.renew(rows)
		return rows, total, err
	}
	held := r.held(&f)
	from, to := min(max(f.Offset, 0), len(held)), len(held)
	if f.Limit > 0 {
		to = min(from+f.Limit, to)
	}
	rest := f
	rest.Offset = max(f.Offset-len(held), 0)
	rest.Limit = max(f.Limit-(to-from), min(f.Limit, 1)) // 0 would be all of them
	rows, total, err := r.cache.Attempts(ctx, rest)
	if err != nil {
		return nil, 0, err
	}
	r.renew(rows)
	if f.Limit > 0 {
		rows = rows[:min(len(rows), f.Limit-(to-from))]
	}
	return slices.Concat(held[from:to], rows), len(held) + total, nil
}

// held lists the attempts that match and that the cache does not have, the newest
// first.
func (r *Runner) held(f *store.AttemptFilter) []store.Attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []store.Attempt
	for _, l := range r.byID {
		if !l.kept && l.FirstSeq != 0 && f.Matches(&l.Attempt) {
			out = append(out, l.Snapshot())
		}
	}
	slices.SortFunc(out, func(a, b store.Attempt) int { return cmp.Compare(b.ID, a.ID) })
	return out
}

// EveryAttempt lists all attempts that match a part at a time, each once, in the
// order in which they were when it was asked; as for Attempts, those first that the
// cache does not have because it cannot be written.
func (r *Runner) EveryAttempt(ctx context.Context, f store.AttemptFilter) (store.Parts[store.Attempt], error) {
	r.catchUp(ctx)
	var held []store.Attempt
	if r.flush(ctx, false) != nil { // else Serve says what is wrong
		held = r.held(&f)
	}
	next, err := r.cache.EveryAttempt(ctx, f)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]store.Attempt, error) {
		if part := held; len(part) > 0 {
			held = nil
			return part, nil
		}
		rows, err := next(ctx)
		r.renew(rows)
		return rows, err
	}, nil
}

// renew puts what is known of attempts that go on in the place of what the cache had.
func (r *Runner) renew(rows []store.Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, a := range rows {
		if l := r.byID[a.ID]; l != nil {
			rows[i] = l.Snapshot()
		}
	}
}

// Latest returns the newest attempt of a machine, or of a MAC that nobody
// enrolled. It answers from memory.
func (r *Runner) Latest(machine store.MachineID, mac store.MAC) (store.Attempt, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := key{machine: machine}
	if machine == 0 {
		if k.mac = mac; mac.IsZero() {
			return store.Attempt{}, false
		}
		if id := r.macs[mac]; id != 0 {
			k = key{machine: id}
		}
	}
	l := r.current[k]
	if l == nil || l.FirstSeq == 0 {
		return store.Attempt{}, false
	}
	return l.Snapshot(), true
}

// Version rises with every change that a page would show.
func (r *Runner) Version() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.version
}

// Changed returns a channel that is closed when Version is larger than after;
// at once when it is already.
func (r *Runner) Changed(after int64) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.version > after {
		c := make(chan struct{})
		close(c)
		return c
	}
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}
