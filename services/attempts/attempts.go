// Package attempts runs the fold of boot/attempt over the journal: it sorts
// events by machine, notices silence, keeps a cache of the outcome and has the
// failed boots explained.
//
// It reads the journal by a cursor and the inventory by lookups, and tells the
// services nothing: whoever shows attempts asks it.
package attempts

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"lunboot/services/boot"
	"lunboot/services/boot/attempt"
	"lunboot/store"
)

// Bounds of the runner.
const (
	// maxUnknown is how many machines that nobody enrolled are followed; the
	// one that was not heard of for longest goes first.
	maxUnknown = store.MaxUnknownMachines
	// maxEvents is how many events one attempt keeps for its diagnosis.
	maxEvents = 256
	// maxNames bounds the memory of which MAC is which machine.
	maxNames = 16384
	// maxHeld bounds the attempts that wait for a cache that cannot be
	// written.
	maxHeld = 4 * maxUnknown
	// batch is how many events are read at a time, and round the least time
	// between two readings that nobody waits for.
	batch = 512
	round = 20 * time.Millisecond
	// catchUp bounds how long a caller waits for the journal to be read.
	catchUp = 500 * time.Millisecond
	// saveEvery and saveCounts are the pauses between two writes of the cache,
	// for a change of state and for one of bytes alone.
	saveEvery  = 500 * time.Millisecond
	saveCounts = 10 * time.Second
	// saveMost is how many are written at a time: the journal of events waits for
	// its turn meanwhile.
	saveMost = 256
	// history is how many earlier boots say what is usual.
	history = 10
)

// Events is the journal by cursor.
type Events interface {
	After(ctx context.Context, seq int64, limit int) ([]store.Event, error)
	Wake(seq int64) <-chan struct{}
	LastSeq() int64
}

// Cache keeps attempts for listings, and across restarts.
type Cache interface {
	// PutAttempts writes all of them or none.
	PutAttempts(ctx context.Context, attempts []store.Attempt) error
	Attempt(ctx context.Context, id store.AttemptID) (store.Attempt, error)
	Attempts(ctx context.Context, f store.AttemptFilter) ([]store.Attempt, int, error)
	EveryAttempt(context.Context, store.AttemptFilter) (store.Parts[store.Attempt], error)
	LastAttemptID(ctx context.Context) (store.AttemptID, error)
}

// Inventory says who a machine is and what is mapped to it.
type Inventory interface {
	Machine(ctx context.Context, id store.MachineID) (store.Machine, error)
	MachineByMAC(ctx context.Context, mac store.MAC) (store.Machine, error)
	MappingsOf(ctx context.Context, id store.MachineID) ([]store.Mapping, error)
	Volume(ctx context.Context, id store.VolumeID) (store.Volume, error)
	Volumes(context.Context) ([]store.Volume, error)
	Mappings(context.Context) ([]store.Mapping, error)
	Profiles(context.Context) ([]store.Profile, error)
	Machines(ctx context.Context, f store.MachineFilter) ([]store.Machine, int, error)
	// Look says what stands on a volume.
	Look(ctx context.Context, v store.Volume) (store.Preflight, error)
}

// Ladder remembers how loaders did, and says which one a machine is given next.
type Ladder interface {
	// Learn is durable when it returns nil.
	Learn(ctx context.Context, h boot.Hardware, l boot.Loader, v boot.Verdict, at time.Time) error
	// Next chooses for hardware; own is the machine's own choice, or empty.
	Next(h boot.Hardware, own string) boot.Pick
	// Unsigned reports whether a loader is one that Secure Boot refuses.
	Unsigned(l boot.Loader) bool
}

// key is what events are sorted by: the machine when it is known, else the MAC,
// else the address.
type key struct {
	machine store.MachineID
	mac     store.MAC
	addr    netip.Addr
}

// live is an attempt that events may still come for.
type live struct {
	*attempt.State
	key    key
	events []store.Event
	usual  attempt.Usual
	from   int64 // events with smaller numbers are no news

	fresh   bool // its name and what is usual are not looked up yet
	explain bool // something happened that may need another diagnosis
	dirty   bool // the cache is behind
	counts  bool // the cache is behind by bytes alone
	gone    bool // another attempt followed
	kept    bool // the cache has it, if not as it is now

	told store.Outcome // what OnEnd was told last, or was in the cache at the start
}

// Runner follows every machine's boot.
type Runner struct {
	// AdminURL is where people manage the appliance, for the diagnoses. It is
	// set before Serve.
	AdminURL string
	// Own lists the addresses of the appliance's machine, for the diagnoses; nil:
	// they are not known. It is set before Serve.
	Own func() []netip.Addr
	// Ladder is told how loaders did; nil: nobody is. It is set before Serve.
	Ladder Ladder
	// OnEnd is told of each attempt that came up or failed, with its diagnoses,
	// once it is in the cache; again when it ends otherwise after all. What
	// ended before a restart is not told again. It must not block; nil: nobody
	// is told. It is set before Serve.
	OnEnd func(store.Attempt)

	events Events
	cache  Cache
	inv    Inventory
	log    *slog.Logger
	now    func() time.Time

	save    sync.Mutex // held while the cache is written; taken before mu
	looking sync.Mutex // held while the inventory is asked; taken before mu

	neverSeen   []neverSeen // with looking held, as the next
	neverSeenAt time.Time

	mu      sync.Mutex
	ready   bool
	cursor  int64
	lastID  store.AttemptID
	current map[key]*live
	byID    map[store.AttemptID]*live
	addrs   map[netip.Addr]key
	macs    map[store.MAC]store.MachineID // what a lookup said; 0 for nobody
	unknown int                           // keys in current without a machine
	version int64
	changed chan struct{} // closed at the next change; nil while nobody waits
	savedAt time.Time     // of counts
}

// New makes a Runner. It reads nothing before Serve, or before the first call.
func New(events Events, cache Cache, inv Inventory, log *slog.Logger, now func() time.Time) *Runner {
	return &Runner{
		events: events, cache: cache, inv: inv, log: log, now: now,
		current: map[key]*live{}, byID: map[store.AttemptID]*live{}, addrs: map[netip.Addr]key{}, macs: map[store.MAC]store.MachineID{},
	}
}

// String names the service.
func (r *Runner) String() string { return "boot attempts" }

// Listen binds nothing.
func (r *Runner) Listen() error { return nil }

// Serve follows the journal until ctx ends.
func (r *Runner) Serve(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		begun := time.Now()
		if err := r.advance(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("follow the boots: %w", err)
		}
		r.expire()
		r.settle(ctx)
		if err := r.flush(ctx, false); err != nil && ctx.Err() == nil {
			r.log.Error("boot attempts could not be kept; trying again", "err", err)
		}
		r.mu.Lock()
		wake := r.events.Wake(r.cursor)
		wait := r.nextWait()
		r.mu.Unlock()
		ended := time.Now()
		took := ended.Sub(begun)
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			// What the last events said is kept as well.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			_ = r.advance(last)
			r.settle(last)
			if err := r.flush(last, true); err != nil {
				return fmt.Errorf("keep the last boot attempts: %w", err)
			}
			return nil
		case <-wake:
			// Events come in bursts; the rest of this one is awaited, or ctx. A look
			// at thousands of boots takes its time: a twentieth of it all is enough.
			// What was quiet since the last look counts, so that somebody who
			// watches a page sees the first event of a boot at once.
			timer.Reset(max(round, min(19*took, saveEvery)-time.Since(ended)))
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		case <-timer.C:
		}
	}
}

// nextWait is how long nothing happens unless an event comes; mu is held.
func (r *Runner) nextWait() time.Duration {
	wait := time.Minute
	now := r.now()
	for _, l := range r.byID {
		if l.dirty {
			wait = min(wait, saveEvery)
		}
		if l.counts {
			wait = min(wait, max(saveCounts-now.Sub(r.savedAt), saveEvery))
		}
		if at, ok := l.Deadline(l.usual); ok && !l.gone {
			wait = min(wait, max(at.Sub(now), time.Millisecond))
		}
	}
	return wait
}

// advance reads the journal to its end.
func (r *Runner) advance(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ready {
		if err := r.rebuild(ctx); err != nil {
			return err
		}
		r.ready = true
	}
	return r.read(ctx)
}

// read folds everything after the cursor; mu is held.
func (r *Runner) read(ctx context.Context) error {
	for {
		all, err := r.events.After(ctx, r.cursor, batch)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return nil
		}
		for _, e := range all {
			r.take(ctx, e)
			r.cursor = e.Seq
		}
	}
}

// take sorts one event to its attempt, which it may begin; mu is held.
func (r *Runner) take(ctx context.Context, e store.Event) {
	switch e.Kind {
	case store.EventMachineChanged:
		r.forgetNames(e)
	case store.EventDropped, store.EventReportStray, store.EventSpace:
		return
	}
	l, k, ok := r.find(ctx, e)
	if !ok {
		return
	}
	if e.Kind == store.EventMachineChanged && e.Detail.Cause == store.CauseRemoved {
		defer r.release(l)
	}
	if e.Addr.IsValid() && (e.Kind == store.EventDHCPAck || e.Kind == store.EventDHCPOffer || !e.MAC.IsZero()) && !e.Addr.IsUnspecified() {
		r.remember(e.Addr, k)
	}
	if l != nil && e.Seq < l.from {
		return
	}
	if (l == nil || e.Attempt == 0) && attempt.Begins(stateOf(l), e) {
		if l != nil {
			l.StartsOver(e)
		}
		l = r.begin(k, e.At, l)
	}
	if l == nil {
		return
	}
	if e.Kind == store.EventScriptSent {
		l.fresh = true // it may say that it is another board than the enrolled one
	}
	if l.Fold(e) {
		l.dirty = true
		l.explain = l.explain || l.Trouble() || len(l.Diagnoses) > 0
		l.MarkSlow(l.usual)
		r.touch()
	} else {
		l.counts = true
	}
	l.keep(e)
}

func stateOf(l *live) *attempt.State {
	if l == nil {
		return nil
	}
	return l.State
}

// find returns the current attempt that an event may belong to, and the key
// that it is sorted by; mu is held.
func (r *Runner) find(ctx context.Context, e store.Event) (*live, key, bool) {
	if e.Attempt != 0 {
		if l := r.byID[e.Attempt]; l != nil {
			return l, l.key, true
		}
	}
	k := key{machine: e.Machine}
	if k.machine == 0 && !e.MAC.IsZero() {
		k = r.keyOf(ctx, e.MAC)
	}
	if k == (key{}) && e.Addr.IsValid() {
		known, ok := r.addrs[e.Addr]
		if !ok && !attempt.IPXEISID(e.Detail.ISID) {
			return nil, key{}, false
		}
		if k = known; !ok {
			k = key{addr: e.Addr}
		}
	}
	if k == (key{}) {
		return nil, key{}, false
	}
	if k.machine != 0 && !e.MAC.IsZero() {
		r.adopt(k, key{mac: e.MAC})
	}
	return r.current[k], k, true
}

// keyOf looks up whose MAC it is, and remembers the answer; mu is held.
func (r *Runner) keyOf(ctx context.Context, mac store.MAC) key {
	id, known := r.macs[mac]
	if !known {
		m, err := r.inv.MachineByMAC(ctx, mac)
		if err != nil && !store.IsNotFound(err) {
			r.log.Warn("a MAC could not be looked up", "mac", mac, "err", err)
			return key{mac: mac}
		}
		if len(r.macs) >= maxNames {
			clear(r.macs)
		}
		id = m.ID
		r.macs[mac] = id
	}
	if id != 0 {
		return key{machine: id}
	}
	return key{mac: mac}
}

// forgetNames makes the next events look their machine up anew; mu is held.
func (r *Runner) forgetNames(e store.Event) {
	clear(r.macs)
	for _, l := range r.byID {
		if e.Machine == 0 || l.Machine == e.Machine || l.MAC == e.MAC && !e.MAC.IsZero() {
			l.fresh = true
			l.explain = l.explain || len(l.Diagnoses) > 0 && l.Outcome == store.OutcomeRunning
		}
	}
}

// adopt gives the attempt of a MAC to the machine that it belongs to now: it
// was enrolled while it waited; mu is held.
func (r *Runner) adopt(machine, mac key) {
	l := r.current[mac]
	if l == nil {
		return
	}
	if old := r.current[machine]; old != nil {
		if old.Updated.After(l.Updated) {
			return
		}
		r.retire(old, l.Started)
	}
	delete(r.current, mac)
	r.unknown--
	l.key, l.Machine, l.fresh, l.dirty = machine, machine.machine, true, true
	r.current[machine] = l
}

// release gives the attempt of a machine that was removed back to its MAC: what is
// heard of it from now on comes under that, or from its address; mu is held.
func (r *Runner) release(l *live) {
	if l == nil || l.key.machine == 0 || l.MAC.IsZero() || r.current[l.key] != l || r.current[key{mac: l.MAC}] != nil {
		return
	}
	was := l.key
	delete(r.current, was)
	l.key = key{mac: l.MAC}
	r.install(l)
	for a, k := range r.addrs {
		if k == was {
			r.addrs[a] = l.key
		}
	}
}

// remember notes who has an address; mu is held.
func (r *Runner) remember(a netip.Addr, k key) {
	if len(r.addrs) >= maxNames {
		clear(r.addrs)
	}
	r.addrs[a] = k
}

// begin starts an attempt, which ends the one before it; mu is held.
func (r *Runner) begin(k key, at time.Time, before *live) *live {
	if before != nil {
		r.retire(before, at)
	}
	r.lastID++
	l := &live{State: attempt.New(r.lastID, newKey(), at), key: k, fresh: true}
	l.Machine, l.MAC = k.machine, k.mac
	r.install(l)
	return l
}

// install makes l the current attempt of its key; mu is held.
func (r *Runner) install(l *live) {
	if r.current[l.key] == nil && l.key.machine == 0 {
		r.unknown++
	}
	r.current[l.key], r.byID[l.ID] = l, l
	if r.unknown > maxUnknown {
		r.evict(l)
	}
}

// evict forgets the unknown machine that was not heard of for longest; mu is
// held.
func (r *Runner) evict(not *live) {
	var oldest *live
	for k, l := range r.current {
		if k.machine == 0 && l != not && (oldest == nil || l.Updated.Before(oldest.Updated)) {
			oldest = l
		}
	}
	if oldest == nil {
		return
	}
	r.retire(oldest, oldest.Updated)
}

// retire takes an attempt off its key. It stays known until the cache has it;
// mu is held.
func (r *Runner) retire(l *live, at time.Time) {
	if r.current[l.key] == l {
		delete(r.current, l.key)
		if l.key.machine == 0 {
			r.unknown--
		}
	}
	if l.FirstSeq == 0 {
		delete(r.byID, l.ID) // its script was never written out
		return
	}
	if l.Outcome == store.OutcomeRunning {
		l.Ended(at)
		l.explain = true
	}
	l.gone, l.dirty = true, true
	r.touch()
}

// keep holds an event for the diagnosis. Of samples only the newest of a
// session or transfer is worth its room.
func (l *live) keep(e store.Event) {
	if e.Kind.Sample() {
		for i := len(l.events) - 1; i >= 0; i-- {
			if old := l.events[i]; old.Kind == e.Kind && old.Detail.Session == e.Detail.Session && old.Detail.File == e.Detail.File {
				l.events = append(l.events[:i], l.events[i+1:]...)
				break
			}
		}
	}
	if len(l.events) >= maxEvents {
		// The beginning says who it is, the end what went wrong.
		l.events = append(l.events[:maxEvents/4], l.events[maxEvents/4+1:]...)
	}
	// The script's text is in the attempt.
	e.Detail.Script = ""
	l.events = append(l.events, e)
}

// touch tells those who wait that something changed; mu is held.
func (r *Runner) touch() {
	r.version++
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// expire applies silence.
func (r *Runner) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	for _, l := range r.byID {
		if l.gone {
			continue
		}
		if l.FirstSeq == 0 {
			// Nothing came of it: the script was never written out.
			if now.Sub(l.Started) > time.Minute {
				r.retire(l, now)
			}
			continue
		}
		if l.Expire(now, l.usual) {
			l.dirty, l.explain = true, true
			r.touch()
		}
	}
}

// newKey is what a report of this attempt must carry.
func newKey() string {
	var b [12]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Begin returns the attempt that a script asked for now belongs to, and the key
// that reports of it must carry. It reads the journal first, so that the
// DISCOVER that came just before is known.
func (r *Runner) Begin(ctx context.Context, mac store.MAC, machine store.MachineID) (store.AttemptID, string, error) {
	soon, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	if err := r.advance(soon); err != nil {
		r.log.Warn("the journal could not be read in time", "err", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ready {
		return 0, "", &store.Error{Kind: store.KindUnavailable, Op: "begin a boot attempt", Msg: "the boots of before are still being read"}
	}
	k := key{machine: machine}
	switch {
	case machine == 0 && mac.IsZero():
		return 0, "", store.Invalid("mac", "a machine without MAC and name has no boot attempt")
	case machine == 0:
		k = r.keyOf(soon, mac)
	case !mac.IsZero():
		r.macs[mac] = machine
		r.adopt(k, key{mac: mac})
	}
	l := r.current[k]
	if !attempt.OpenForScript(stateOf(l)) {
		l = r.begin(k, r.now(), l)
		l.MAC = mac
	}
	return l.ID, l.Key, nil
}

// Check reports whether a report's key is its attempt's.
func (r *Runner) Check(id store.AttemptID, key string) bool {
	r.mu.Lock()
	l := r.byID[id]
	want := ""
	if l != nil {
		want = l.Key
	}
	r.mu.Unlock()
	if l == nil && id > 0 && key != "" {
		ctx, cancel := context.WithTimeout(context.Background(), catchUp)
		defer cancel()
		a, err := r.cache.Attempt(ctx, id)
		if err != nil {
			return false
		}
		want = a.Key
	}
	return want != "" && subtle.ConstantTimeCompare([]byte(want), []byte(key)) == 1
}
