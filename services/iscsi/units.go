package iscsi

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lunboot/services/iscsi/scsi"
	"lunboot/store"
)

// unitKey says which maps' entries are one logical unit.
type unitKey struct {
	volume     store.VolumeID
	generation int64
	uuid       store.UUID
	blockSize  int
}

// units holds one scsi.Unit for each generation of a volume, shared by all
// sessions that map it.
type units struct {
	kept  Reservations // nil: reservations end with the appliance
	wipes Wipes        // nil: so do wipes

	mu       sync.Mutex
	byKey    map[unitKey]*unit
	reserved map[store.UUID]*scsi.Reservations // by volume: they outlive its units
}

type unit struct {
	scsi   *scsi.Unit
	volume *sharedVolume
	users  int
	newest *lease // that has a home here
}

// lease is a Map in use: it is released when its session has let go of it and
// no unit reads through its handles.
type lease struct {
	units   *units
	release func()
	left    atomic.Int64
	homes   []*home // one for each unit
}

func (l *lease) done() {
	if l.left.Add(-1) == 0 && l.release != nil {
		l.release()
	}
}

// open turns a Map into what a nexus takes, and the lease that gives it back.
// On an error the Map is not used.
func (us *units) open(ctx context.Context, m Map) (map[store.LUN]scsi.MapEntry, *lease, error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	us.sweep()
	unfinished := map[unitKey]*store.Wipe{}
	for _, e := range m.LUNs {
		if err := us.recall(ctx, e); err != nil {
			return nil, nil, err
		}
		if k := keyOf(e); e.Wiped && us.wipes != nil && us.byKey[k] == nil {
			w, err := us.wipes.Wipe(ctx, e.VolumeID)
			if err != nil {
				return nil, nil, fmt.Errorf("what volume %s is wiped with: %w", e.Name, err)
			}
			if w, err = us.goOn(ctx, w, e); err != nil {
				return nil, nil, fmt.Errorf("the wipe of volume %s cannot go on: %w", e.Name, err)
			}
			unfinished[k] = w
		}
	}
	entries := make(map[store.LUN]scsi.MapEntry, len(m.LUNs))
	l := &lease{units: us, release: m.Release}
	l.left.Store(1)
	for lun, e := range m.LUNs {
		k := keyOf(e)
		u := us.byKey[k]
		if u == nil {
			v := &sharedVolume{}
			v.size.Store(e.Volume.Size())
			cfg := scsi.UnitConfig{Name: e.Name, UUID: e.UUID, BlockSize: e.BlockSize, Volume: v, Reservations: us.reserved[e.UUID]}
			if us.wipes != nil {
				w := &wipes{kept: us.wipes, volume: e.VolumeID, bytes: e.Bytes}
				if was := unfinished[k]; was != nil {
					w.id.Store(&was.ID)
				}
				cfg.Wipes = w
			}
			u = &unit{volume: v, scsi: scsi.NewUnit(cfg)}
			us.byKey[k] = u
		}
		if u.newest != l { // a volume may be mapped twice
			h := &home{Volume: e.Volume, unit: k, lease: l}
			u.newest = l
			h.refs.Store(1)
			l.left.Add(1)
			l.homes = append(l.homes, h)
			u.users++
			u.volume.add(h)
		}
		if w := unfinished[k]; w != nil {
			u.scsi.Resume(*w)
			delete(unfinished, k) // a volume may be mapped twice
		}
		entries[lun] = scsi.MapEntry{Unit: u.scsi, ReadOnly: e.ReadOnly, Sanitize: e.Sanitize}
	}
	return entries, l, nil
}

// goOn returns what is unfinished of a wipe of a volume as it is now. When the bytes
// that were to be wiped are not there any more, or somebody has changed them while the
// appliance did not run, it has failed: what is there now was not to be wiped.
func (us *units) goOn(ctx context.Context, w *store.Wipe, e Entry) (*store.Wipe, error) {
	if w == nil {
		return nil, nil
	}
	now := *w
	if w.Bytes == "" || w.Bytes != e.Bytes || !w.Left.IsZero() && !w.Left.Equal(e.Changed) {
		now.Failed = true
		return &now, nil
	}
	if now.Left = (time.Time{}); w.Failed || w.Left.IsZero() {
		return &now, nil
	}
	return &now, us.wipes.BeginWipe(ctx, e.VolumeID, now) // it is changed again from now on
}

// wipes keeps what one unit is wiped with. The volume may have another unit by now,
// which is being wiped too: each forgets its own.
type wipes struct {
	kept   Wipes
	volume store.VolumeID
	bytes  string
	id     atomic.Pointer[store.UUID] // of the newest; nil: none
}

func (w *wipes) Begin(ctx context.Context, as store.Wipe) error {
	as.ID, as.Bytes = store.NewUUID(), w.bytes
	if err := w.kept.BeginWipe(ctx, w.volume, as); err != nil {
		return err
	}
	w.id.Store(&as.ID)
	return nil
}

func (w *wipes) Fail(ctx context.Context) error { return w.settle(ctx, w.kept.FailWipe) }
func (w *wipes) End(ctx context.Context) error  { return w.settle(ctx, w.kept.EndWipe) }

func (w *wipes) settle(ctx context.Context, as func(context.Context, store.VolumeID, store.UUID) error) error {
	id := w.id.Load()
	if id == nil {
		return nil
	}
	return as(ctx, w.volume, *id)
}

// sweep forgets units that nobody uses and that have come to rest meanwhile.
func (us *units) sweep() {
	for k, u := range us.byKey {
		if u.users == 0 && !u.scsi.Busy() {
			delete(us.byKey, k)
		}
	}
}

// stop ends what units do by themselves, when there are no sessions any more.
func (us *units) stop() {
	us.mu.Lock()
	all := us.byKey
	us.byKey = make(map[unitKey]*unit)
	us.mu.Unlock()
	for _, u := range all {
		u.scsi.Stop()
	}
}

// recall reads a volume's reservations when it is seen for the first time. They
// must be known before the volume is served: somebody may have been promised
// that nobody else writes.
func (us *units) recall(ctx context.Context, e Entry) error {
	if us.reserved[e.UUID] != nil {
		return nil
	}
	if len(us.reserved) >= maxReserved {
		us.forget()
	}
	if us.kept == nil {
		us.reserved[e.UUID] = scsi.NewReservations(store.Reservations{}, nil)
		return nil
	}
	kept, err := us.kept.Reservations(ctx, e.VolumeID)
	if err != nil {
		return fmt.Errorf("the reservations of volume %s: %w", e.Name, err)
	}
	us.reserved[e.UUID] = scsi.NewReservations(kept, func(ctx context.Context, r store.Reservations) error {
		return us.kept.PutReservations(ctx, e.VolumeID, r)
	})
	return nil
}

func keyOf(e Entry) unitKey {
	return unitKey{volume: e.VolumeID, generation: e.Generation, uuid: e.UUID, blockSize: e.BlockSize}
}

// maxReserved is how many volumes' reservations are looked at before those that
// nobody needs are forgotten.
const maxReserved = 4096

// forget drops what can be read again, or was never there.
func (us *units) forget() {
	used := make(map[store.UUID]bool, len(us.byKey))
	for k := range us.byKey {
		used[k.uuid] = true
	}
	for id, r := range us.reserved {
		if !used[id] && r.Untouched() {
			delete(us.reserved, id)
		}
	}
}

// close gives a lease back.
func (l *lease) close() {
	l.units.mu.Lock()
	for _, h := range l.homes {
		u := l.units.byKey[h.unit]
		u.volume.remove(h)
		if u.newest == l {
			u.newest = nil
		}
		if u.users--; u.users == 0 && !u.scsi.Busy() {
			// The next session opens the volume anew, as another generation.
			delete(l.units.byKey, h.unit)
		}
	}
	l.units.mu.Unlock()
	for _, h := range l.homes {
		h.leave()
	}
	l.done()
}

// home is one handle of a volume. It counts what goes through it.
type home struct {
	scsi.Volume
	unit  unitKey
	lease *lease
	refs  atomic.Int64
}

func (h *home) enter() bool {
	for {
		n := h.refs.Load()
		if n == 0 {
			return false
		}
		if h.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (h *home) leave() {
	if h.refs.Add(-1) == 0 {
		h.lease.done()
	}
}

// sharedVolume is the volume of a unit: any one of the handles that sessions
// hold. When the session that brought the handle ends, the next one's is used.
type sharedVolume struct {
	current atomic.Pointer[home]
	size    atomic.Int64

	mu    sync.Mutex
	homes []*home
}

func (v *sharedVolume) add(h *home) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.homes = append(v.homes, h)
	if len(v.homes) == 1 {
		v.current.Store(h)
	}
}

func (v *sharedVolume) remove(h *home) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, o := range v.homes {
		if o == h {
			v.homes = slices.Delete(v.homes, i, i+1)
			break
		}
	}
	v.size.Store(h.Size())
	if len(v.homes) == 0 {
		v.current.Store(nil)
	} else {
		v.current.Store(v.homes[0])
	}
}

// enter takes a handle for one operation.
func (v *sharedVolume) enter() *home {
	for {
		h := v.current.Load()
		if h == nil || h.enter() {
			return h
		}
	}
}

// errNoHandle is a command for a unit that no session maps: a broken assumption
// of ours, since a session's map outlives its commands.
var errNoHandle = &store.Error{Kind: store.KindInternal, Op: "use volume", Msg: "no session holds it open"}

// Pin holds the bytes for work that outlives the sessions.
func (v *sharedVolume) Pin() (scsi.Volume, func(), error) {
	h := v.enter()
	if h == nil {
		return nil, nil, errNoHandle
	}
	return h.Volume, h.leave, nil
}

func (v *sharedVolume) ReadAt(ctx context.Context, p []byte, off int64) error {
	h := v.enter()
	if h == nil {
		return errNoHandle
	}
	defer h.leave()
	return h.Volume.ReadAt(ctx, p, off)
}

func (v *sharedVolume) WriteAt(ctx context.Context, p []byte, off int64) error {
	h := v.enter()
	if h == nil {
		return errNoHandle
	}
	defer h.leave()
	return h.Volume.WriteAt(ctx, p, off)
}

func (v *sharedVolume) Sync(ctx context.Context) error {
	h := v.enter()
	if h == nil {
		return errNoHandle
	}
	defer h.leave()
	return h.Volume.Sync(ctx)
}

func (v *sharedVolume) Unmap(ctx context.Context, off, n int64) error {
	h := v.enter()
	if h == nil {
		return errNoHandle
	}
	defer h.leave()
	return h.Volume.Unmap(ctx, off, n)
}

// Foresee is for a volume that wants to know what a command erases.
func (v *sharedVolume) Foresee(ctx context.Context, ranges iter.Seq2[int64, int64]) error {
	h := v.enter()
	if h == nil {
		return errNoHandle
	}
	defer h.leave()
	if f, ok := h.Volume.(scsi.Foreseeing); ok {
		return f.Foresee(ctx, ranges)
	}
	return nil
}

func (v *sharedVolume) Zero(ctx context.Context, off, n int64) error {
	h := v.enter()
	if h == nil {
		return errNoHandle
	}
	defer h.leave()
	return h.Volume.Zero(ctx, off, n)
}

func (v *sharedVolume) BlockStatus(ctx context.Context, off, n int64) (mapped bool, run int64, err error) {
	h := v.enter()
	if h == nil {
		return false, 0, errNoHandle
	}
	defer h.leave()
	return h.Volume.BlockStatus(ctx, off, n)
}

func (v *sharedVolume) Size() int64 {
	h := v.enter()
	if h == nil {
		return v.size.Load()
	}
	defer h.leave()
	return h.Volume.Size()
}

// Lend asks the volume itself. The loan holds it open, whichever handle was
// asked.
func (v *sharedVolume) Lend(off, n int64) (fd int, at int64, back interface{ Return() }, ok bool) {
	h := v.enter()
	if h == nil {
		return 0, 0, nil, false
	}
	defer h.leave()
	if l, can := h.Volume.(scsi.Lender); can {
		return l.Lend(off, n)
	}
	return 0, 0, nil, false
}

func (v *sharedVolume) Resident(p []byte, off int64) bool {
	h := v.enter()
	if h == nil {
		return false
	}
	defer h.leave()
	return h.Volume.Resident(p, off)
}
