package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/services/iscsi"
	"lunboot/services/iscsi/scsi"
	"lunboot/store"
	"lunboot/store/sqlite"
	"lunboot/store/volume"
)

// catalog answers the target from the inventory and the volumes. What it reads
// of the inventory it keeps for as long as nothing changes there: a storm of
// logins asks the same questions again and again.
type catalog struct {
	db   *sqlite.DB
	pool *volume.Pool
	// reset lets a volume begin anew; nil where nothing is caused.
	reset func(ctx context.Context, id store.VolumeID, machine string) (store.Volume, error)
	// folder has the volumes' files; empty where nothing is wiped.
	folder string

	mu       sync.Mutex
	revision int64 // of the inventory that known was read at
	known    map[store.IQN]*record
}

// record is what the inventory says of one initiator. It never changes.
type record struct {
	machine  store.Machine
	mappings []store.Mapping
	volumes  map[store.VolumeID]store.Volume
}

// maxKnown bounds the initiators that are remembered.
const maxKnown = 4096

func newCatalog(db *sqlite.DB, pool *volume.Pool) *catalog {
	return &catalog{db: db, pool: pool, known: map[store.IQN]*record{}}
}

// find returns an initiator's record as of now or later: a change that was
// acknowledged before the call is in it. The revision is taken before the rows
// are read, so that rows which change meanwhile are read again by the next call.
func (c *catalog) find(ctx context.Context, initiator store.IQN) (*record, error) {
	revision := c.db.MapRevision()
	c.mu.Lock()
	r, ok := c.known[initiator]
	if c.revision != revision {
		ok = false
	}
	c.mu.Unlock()
	if ok {
		return r, nil
	}
	r, err := c.read(ctx, initiator)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.revision > revision:
		return r, nil // somebody has read newer ones meanwhile
	case c.revision < revision || len(c.known) >= maxKnown:
		c.revision = revision
		clear(c.known)
	}
	c.known[initiator] = r
	return r, nil
}

func (c *catalog) read(ctx context.Context, initiator store.IQN) (_ *record, err error) {
	r := &record{}
	if r.machine, err = c.db.MachineByInitiator(ctx, initiator); err != nil {
		return nil, err
	}
	if r.mappings, err = c.db.MappingsOf(ctx, r.machine.ID); err != nil {
		return nil, err
	}
	r.volumes = make(map[store.VolumeID]store.Volume, len(r.mappings))
	for _, m := range r.mappings {
		if r.volumes[m.Volume], err = c.db.Volume(ctx, m.Volume); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Access says who an initiator is and how it must log in.
func (c *catalog) Access(ctx context.Context, initiator store.IQN) (iscsi.Access, error) {
	r, err := c.find(ctx, initiator)
	if err != nil {
		return iscsi.Access{}, err
	}
	m := &r.machine
	return iscsi.Access{Machine: m.ID, Name: m.Name, Auth: m.Auth, CHAP: m.CHAP, Reverse: m.Reverse}, nil
}

// Open opens every volume that an initiator is mapped to. A volume that cannot
// be opened is left out, so that the others still boot; its fault is told by
// the pool. When none can be opened that is the answer, and not that nothing is
// mapped.
//
// The firmware's first login after its script fires the boot that the script
// armed: sessions of the boot before end, and clones that begin anew at each
// boot do. Only such a login does either, and each once for a script: the next
// login of the same boot, or one whose answer was lost, finds nothing due. A
// volume that is still due is left out of every other login.
func (c *catalog) Open(ctx context.Context, initiator store.IQN, isid [6]byte) (iscsi.Map, error) {
	m, fault, err := c.open(ctx, initiator, iscsi.IsIPXE(isid))
	if err == nil && len(m.LUNs) == 0 && fault != nil {
		return iscsi.Map{}, fault
	}
	return m, err
}

// Refresh is Open for a session that lives already. A volume that cannot be
// opened is never an error here: the session would go on with a volume that was
// taken from it. Those that it has open can be opened.
func (c *catalog) Refresh(ctx context.Context, initiator store.IQN) (iscsi.Map, error) {
	m, _, err := c.open(ctx, initiator, false)
	return m, err
}

// open returns the volumes that can be opened, and why one cannot.
func (c *catalog) open(ctx context.Context, initiator store.IQN, fire bool) (m iscsi.Map, fault, err error) {
	r, err := c.find(ctx, initiator)
	if err != nil {
		return iscsi.Map{}, nil, err
	}
	generation, fired, err := c.db.BootGeneration(ctx, r.machine.ID, fire)
	if err != nil {
		return iscsi.Map{}, nil, err
	}
	volumes := r.volumes
	due, err := c.due(ctx, r)
	if err != nil {
		return iscsi.Map{}, nil, err
	}
	if fire && c.reset != nil && len(due) > 0 {
		if volumes, err = c.begin(ctx, r, due); err != nil {
			return iscsi.Map{}, nil, err
		}
		due, fired = nil, true
	}
	out := iscsi.Map{Generation: generation, Fired: fired, LUNs: make(map[store.LUN]iscsi.Entry, len(r.mappings))}
	handles := make([]*volume.Handle, 0, len(r.mappings))
	out.Release = func() {
		for _, h := range handles {
			h.Close()
		}
	}
	for _, mp := range r.mappings {
		v := volumes[mp.Volume]
		if slices.Contains(due, v.ID) {
			fault = &store.Error{Kind: store.KindUnavailable, Op: "open volume", Subject: v.Name, Cause: store.CauseWaits, Msg: "it is to begin anew first, at the next login of its machine's firmware"}
			continue
		}
		h, err := c.pool.Open(ctx, v)
		if store.KindOf(err) == store.KindConflict { // its layers changed since its row was read
			if v, err = c.db.Volume(ctx, mp.Volume); err == nil {
				h, err = c.pool.Open(ctx, v)
			}
		}
		if err != nil {
			fault = broken(v.Name, err)
			continue
		}
		handles = append(handles, h)
		e := c.entry(v, h)
		e.ReadOnly = mp.ReadOnly || v.ReadOnly
		e.Sanitize = v.Sanitize && !v.Shared && !v.ReadOnly && !mp.ReadOnly
		out.LUNs[mp.LUN] = e
	}
	return out, fault, nil
}

// Volume opens one volume, for nobody.
func (c *catalog) Volume(ctx context.Context, id store.VolumeID) (iscsi.Map, error) {
	v, err := c.db.Volume(ctx, id)
	if err != nil {
		return iscsi.Map{}, err
	}
	h, err := c.pool.Open(ctx, v)
	if err != nil {
		return iscsi.Map{}, err
	}
	return iscsi.Map{LUNs: map[store.LUN]iscsi.Entry{0: c.entry(v, h)}, Release: func() { h.Close() }}, nil
}

var _ scsi.Foreseeing = (*volume.Handle)(nil) // or a command waits for views once a range

// entry is a volume that nobody may write or wipe yet.
func (c *catalog) entry(v store.Volume, h *volume.Handle) iscsi.Entry {
	e := iscsi.Entry{Volume: h, VolumeID: v.ID, Name: v.Name, UUID: v.UUID, BlockSize: v.BlockSize, Generation: h.Generation(), ReadOnly: true, Wiped: v.Sanitize}
	if v.Sanitize {
		e.Bytes, e.Changed = c.bytesOf(v)
	}
	return e
}

// bytesOf says which file or device has a volume's bytes, and when a file was changed
// last: one that was put in its place is another one, also when it has got the number
// of one that is gone.
func (c *catalog) bytesOf(v store.Volume) (string, time.Time) {
	if v.Kind == store.VolumeDevice || c.folder == "" {
		return string(v.Kind) + " " + v.Path, time.Time{}
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, filepath.Join(c.folder, v.Path), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME|unix.STATX_MTIME, &st); err != nil {
		return "", time.Time{} // like none: what was begun there does not go on
	}
	return fmt.Sprintf("file %d of %d.%09d", st.Ino, st.Btime.Sec, st.Btime.Nsec), time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)).UTC()
}

// due returns the machine's volumes that owe it a new beginning. The record does
// not know: a boot is no change of the inventory.
func (c *catalog) due(ctx context.Context, r *record) ([]store.VolumeID, error) {
	for _, v := range r.volumes {
		if v.Reset {
			return c.db.ResetsDue(ctx, r.machine.ID)
		}
	}
	return nil, nil
}

// begin lets the machine's volumes begin anew that are due, and returns all its
// volumes as they are then. What a boot owes stands in the database from the
// moment that it fires until the volume's empty layer is named: a login that is
// refused here, or cut off by a power failure, is followed by one that does the
// rest, and until then nobody gets the volume. A machine that was promised a
// fresh volume never boots from a used one.
func (c *catalog) begin(ctx context.Context, r *record, due []store.VolumeID) (map[store.VolumeID]store.Volume, error) {
	out := maps.Clone(r.volumes)
	for _, id := range due {
		v, err := c.reset(ctx, id, r.machine.Name)
		cause := store.CauseNotAnew
		if err == nil && v.State != store.VolumeReady {
			err, cause = fmt.Errorf("the volume is %s; the login succeeds when that is over", v.State), store.CauseWaits
		}
		if err != nil {
			return nil, &store.Error{Kind: store.KindUnavailable, Op: "begin anew", Subject: r.volumes[id].Name, Cause: cause, Err: err}
		}
		out[id] = v
	}
	return out, nil
}

// broken is why a volume cannot be opened. A file that is gone is not an
// initiator that is not known.
func broken(name string, err error) error {
	kind := store.KindOf(err)
	if kind == store.KindNotFound {
		kind = store.KindUnavailable
	}
	var said *store.Error
	if errors.As(err, &said) && said.Op == "open volume" && said.Kind == kind && said.Cause != "" { // once is enough
		return err
	}
	if said != nil && said.Op == "open volume" && said.Kind == kind {
		known := *said
		known.Cause = store.CauseUnopened
		return &known
	}
	return &store.Error{Kind: kind, Op: "open volume", Subject: name, Cause: store.CauseUnopened, Err: err}
}

// Revision rises when machines, volumes or mappings change.
func (c *catalog) Revision() int64 { return c.db.MapRevision() }

// Changed is closed when Revision passes after.
func (c *catalog) Changed(after int64) <-chan struct{} { return c.db.MapChanged(after) }

// wiping keeps wipes, and takes what a volume held out of the copies that are being
// made of it.
type wiping struct {
	*sqlite.DB
	pool *volume.Pool
}

func (w wiping) BeginWipe(ctx context.Context, v store.VolumeID, as store.Wipe) error {
	if err := w.DB.BeginWipe(ctx, v, as); err != nil {
		return err
	}
	w.pool.GiveUp(v)
	return nil
}
