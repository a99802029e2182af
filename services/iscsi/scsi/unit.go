package scsi

import (
	"context"
	"sync"
	"sync/atomic"

	"lunboot/services/iscsi/scsi/sense"
	"lunboot/store"
)

// Mode parameters that an initiator may change, as bits of Unit.mode. They are
// shared by all nexuses and not saved.
const (
	modeWCE    uint32 = 1 << iota // Caching page, WCE
	modeDSense                    // Control page, D_SENSE
	modeSWP                       // Control page, SWP
)

const defaultMode = modeWCE

// MaxAtDisk bounds the commands of all nexuses together that wait for one unit's
// disk: more than any disk works at at a time, and few enough that those of a disk
// that hangs leave goroutines for the others. OwnAtDisk of them need nothing that
// units share: however many disks hang, there is something for each of the others.
const (
	MaxAtDisk = 256
	OwnAtDisk = 2
)

// Places are what a command takes before it waits for a disk, by sending to, and
// gives back by receiving from: one of All, and one of Own or of what units share.
type Places struct{ All, Own chan struct{} }

// Unit is a logical unit: a volume as every initiator that has it mapped sees
// it. It is safe for concurrent use.
type Unit struct {
	cfg   UnitConfig
	shift uint // log2 of the block size

	capacity atomic.Uint64 // blocks, as last told to initiators
	mode     atomic.Uint32
	res      *Reservations
	wiping   atomic.Pointer[wipe] // a SANITIZE that runs, or failed
	wipes    atomic.Uint32        // how many were begun

	wipers    sync.WaitGroup // what the unit does by itself
	wiperCtx  context.Context
	wiperStop context.CancelFunc

	// atomics is set by the first COMPARE AND WRITE or ORWRITE. From then on
	// writes and reads wait in order for those, away from the connection's
	// goroutine.
	atomics atomic.Bool
	order   sync.RWMutex // read: a write, and a read then; write: an atomic read-modify-write

	buffers sync.Pool // *[]byte of Chunk bytes, for reads that are not sent
	places  Places

	mu   sync.Mutex
	itls map[*itl]struct{} // the nexuses that have the unit mapped
}

// NewUnit returns the unit of a volume. There is one unit for each generation of
// a volume, shared by all nexuses.
func NewUnit(cfg UnitConfig) *Unit {
	u := &Unit{cfg: cfg, res: cfg.Reservations, itls: make(map[*itl]struct{}), places: Places{All: make(chan struct{}, MaxAtDisk), Own: make(chan struct{}, OwnAtDisk)}}
	u.wiperCtx, u.wiperStop = context.WithCancel(context.Background())
	if u.res == nil {
		u.res = NewReservations(store.Reservations{}, nil)
	}
	for cfg.BlockSize>>u.shift > 1 {
		u.shift++
	}
	u.buffers.New = func() any { b := make([]byte, Chunk); return &b }
	u.mode.Store(defaultMode)
	u.capacity.Store(u.blocks())
	return u
}

// Name returns the volume's name.
func (u *Unit) Name() string { return u.cfg.Name }

// blocks returns the volume's capacity now.
func (u *Unit) blocks() uint64 { return uint64(max(u.cfg.Volume.Size(), 0)) >> u.shift }

// refresh returns the capacity and, when it has changed since it was last
// looked at, tells every nexus.
func (u *Unit) refresh() uint64 {
	now := u.blocks()
	if was := u.capacity.Load(); was != now && u.capacity.CompareAndSwap(was, now) {
		u.attention(uaCapacity, nil)
	}
	return now
}

// attention establishes a unit attention condition for every nexus but one.
func (u *Unit) attention(ua uint32, but *Nexus) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range u.itls {
		if i.nexus != but {
			i.establish(ua)
		}
	}
}

func (u *Unit) attach(i *itl) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.itls[i] = struct{}{}
}

func (u *Unit) detach(i *itl) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.itls, i)
}

// reset is a logical unit reset (SAM-5 §6.3.3): a reservation by RESERVE ends, mode
// parameters return to their defaults, every nexus gets a unit attention
// condition, the one that asked too, and the others abort their tasks. rest is
// called when those have come to rest.
func (u *Unit) reset(by *Nexus, ua uint32, rest func()) {
	u.res.legacy.Store(nil)
	u.mode.Store(defaultMode)
	u.mu.Lock()
	var others []*itl
	for i := range u.itls {
		i.establish(ua)
		if i.nexus != by {
			others = append(others, i)
		}
	}
	u.mu.Unlock()
	abort(others, func(*itl) {}, rest)
}

// clear is CLEAR TASK SET (SAM-5 §7.3): the tasks of the other nexuses end, too,
// and those that had any are told.
func (u *Unit) clear(by *Nexus, rest func()) {
	u.mu.Lock()
	var others []*itl
	for i := range u.itls {
		if i.nexus != by {
			others = append(others, i)
		}
	}
	u.mu.Unlock()
	abort(others, func(i *itl) { i.establish(uaCleared) }, rest)
}

// abort ends the tasks of other nexuses; had is called for each that had some,
// and rest when all have come to rest. They are asked at the same time: one that
// has to be waited for must not add to the wait for the next.
func abort(others []*itl, had func(*itl), rest func()) {
	var left atomic.Int64
	left.Store(1)
	arrive := func() {
		if left.Add(-1) == 0 {
			rest()
		}
	}
	var asked sync.WaitGroup
	for _, i := range others {
		if i.nexus.cfg.Abort == nil {
			continue
		}
		left.Add(1)
		asked.Go(func() {
			if i.nexus.cfg.Abort(i.lun, arrive) > 0 {
				had(i)
			}
		})
	}
	asked.Wait()
	arrive()
}

// writable says whether the nexus was given the unit to write.
func (i *itl) writable() bool { return !i.unit.cfg.ReadOnly && !i.readOnly.Load() }

// protected says why the unit may not be written, nil when it may.
func (u *Unit) protected(i *itl) error {
	if !i.writable() {
		return sense.WriteProtected
	}
	if u.mode.Load()&modeSWP != 0 {
		return sense.SoftwareProtected
	}
	return nil
}
