// Package inventory is every act of the operator: adding and enrolling
// machines, making, importing, cloning, growing and removing volumes, keeping
// snapshots and versions of them, mapping them, editing profiles and subnets.
//
// It is the one room that changes rows and files together, in an order that a
// power cut cannot turn into a lie: a row says that a file is being made before
// the file is, and a file goes before its row does. Recover finishes or undoes
// at start what the last run left half-done. Everything that can be refused is
// refused before anything changes. The audit line of an act is written by the
// database in the transaction of the act.
//
// It knows no HTTP, no iSCSI and no SQL: who may act is decided before it is
// called, and live sessions learn of changes from the database's revision.
package inventory

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"lunboot/store"
	"lunboot/store/volume"
	"lunboot/store/volume/image"
)

// DB is what is durable besides the volumes' bytes. Its methods check what
// only a transaction can: unique names, one writer, one boot mapping.
type DB interface {
	MachineRows
	UnknownRows
	VolumeRows
	LayerRows
	MappingRows
	NetworkRows
	JobRows
	RoomRows
	PutProfile(context.Context, store.Actor, store.Profile) (store.Profile, error)
	DeleteProfile(ctx context.Context, by store.Actor, name string) error
	Profile(ctx context.Context, name string) (store.Profile, error)
	Setting(ctx context.Context, key string) (value string, set bool, err error)
	PutSetting(ctx context.Context, by store.Actor, key, value string) error
}

// MachineRows are the machines.
type MachineRows interface {
	Machine(context.Context, store.MachineID) (store.Machine, error)
	MachineByName(context.Context, string) (store.Machine, error)
	MachineByMAC(context.Context, store.MAC) (store.Machine, error)
	MachineByUUID(context.Context, store.UUID) (store.Machine, error)
	Machines(context.Context, store.MachineFilter) ([]store.Machine, int, error)
	MachineChanges
}

// MachineChanges changes machines.
type MachineChanges interface {
	CreateMachine(context.Context, store.Actor, store.Machine) (store.Machine, error)
	UpdateMachine(context.Context, store.Actor, store.Machine) (store.Machine, error)
	DeleteMachine(context.Context, store.Actor, store.MachineID) error
	// PutMachines adds those without an ID and changes the others: all or none.
	PutMachines(context.Context, store.Actor, []store.Machine) ([]store.Machine, error)
}

// UnknownRows are the machines that asked and are not enrolled.
type UnknownRows interface {
	UnknownMachine(context.Context, store.MAC) (store.UnknownMachine, error)
	UnknownMachines(ctx context.Context, includeIgnored bool) ([]store.UnknownMachine, error)
	IgnoreUnknown(ctx context.Context, by store.Actor, mac store.MAC, ignored bool) error
}

// VolumeRows are the volumes.
type VolumeRows interface {
	Volume(context.Context, store.VolumeID) (store.Volume, error)
	VolumeByName(context.Context, string) (store.Volume, error)
	Volumes(context.Context) ([]store.Volume, error)
	// Wipe returns nil when no wipe of the volume is unfinished.
	Wipe(context.Context, store.VolumeID) (*store.Wipe, error)
	VolumeChanges
}

// VolumeChanges changes volumes.
type VolumeChanges interface {
	CreateVolume(context.Context, store.Actor, store.Volume) (store.Volume, error)
	UpdateVolume(context.Context, store.Actor, store.Volume) (store.Volume, error)
	DeleteVolume(context.Context, store.Actor, store.VolumeID) error
}

// MappingRows are the mappings.
type MappingRows interface {
	MappingsOf(context.Context, store.MachineID) ([]store.Mapping, error)
	MappingsOfVolume(context.Context, store.VolumeID) ([]store.Mapping, error)
	CreateMapping(context.Context, store.Actor, store.Mapping) (store.Mapping, error)
	UpdateMapping(context.Context, store.Actor, store.Mapping) (store.Mapping, error)
	DeleteMapping(context.Context, store.Actor, store.MachineID, store.LUN) error
}

// NetworkRows are the subnets, and the leases that a reserved address must
// respect.
type NetworkRows interface {
	Subnets(context.Context) ([]store.Subnet, error)
	PutSubnet(context.Context, store.Actor, store.Subnet) (store.Subnet, error)
	DeleteSubnet(ctx context.Context, by store.Actor, id int64) error
	LeaseByAddress(context.Context, netip.Addr) (store.Lease, error)
	DropLease(context.Context, store.Actor, netip.Addr) error
	DropLeaseIf(ctx context.Context, by store.Actor, a netip.Addr, may func(store.Lease) error) error
	MoveLease(ctx context.Context, by store.Actor, from, to store.MAC) error
}

// JobRows are the jobs.
type JobRows interface {
	CreateJob(context.Context, store.Job) (store.Job, error)
	UpdateJob(context.Context, store.Job) error
	Jobs(context.Context) ([]store.Job, error)
	Job(ctx context.Context, id int64) (store.Job, error)
}

// RoomRows are looks at the room for volumes.
type RoomRows interface {
	RoomSamples(context.Context) ([]store.RoomSample, error)
	KeepRoomSample(ctx context.Context, s store.RoomSample, since time.Time) error
}

// Volumes are the volumes' bytes: a volume.Pool.
type Volumes interface {
	Create(context.Context, store.Volume) error
	Remove(context.Context, store.Volume) error
	Resize(ctx context.Context, v store.Volume, size int64, commit func() error) error
	Update(store.Volume)
	Look(context.Context, store.Volume) (store.Preflight, error)
	Imports
	Devices
}

// Imports are how bytes come in from outside.
type Imports interface {
	Import(ctx context.Context, v store.Volume, r io.Reader, progress func(done int64)) (sum string, err error)
	ImportDisk(ctx context.Context, v store.Volume, d image.Source, progress func(done int64)) error
	ImportStream(ctx context.Context, v store.Volume, r io.Reader, progress func(done int64)) (size int64, err error)
	// Remains is a view, also of a volume whose flush has failed.
	Remains(context.Context, store.Volume) (*volume.View, error)
	OpenSource(path string, inside []string) (*volume.Source, error)
	Adopt(ctx context.Context, v store.Volume, path string) error
	Free() (int64, error)
}

// Renderer checks that a profile makes a script.
type Renderer interface {
	Check(context.Context, store.Profile) error
}

// Sessions lists the live iSCSI sessions.
type Sessions interface {
	Sessions() []store.Session
}

// Loaders says whether a machine of a firmware and architecture, which may not
// be known, can be given a loader or chain by name.
type Loaders interface {
	Fits(name, firmware, arch string) error
}

// Emitter takes events. It never blocks.
type Emitter interface {
	Emit(store.Event)
}

// Config is what an Inventory stands on. Layers, Renderer, Sessions, Loaders and
// Emit may be nil.
type Config struct {
	DB       DB
	Volumes  Volumes
	Layers   Layers
	Shelf    Shelf
	Renderer Renderer
	Sessions Sessions
	Loaders  Loaders
	Emit     Emitter
	Log      *slog.Logger
	Now      func() time.Time
	// InitiatorPrefix begins the names of generated initiators;
	// "iqn.2026-11.lunboot" when empty.
	InitiatorPrefix string
	// Own lists the appliance's addresses, which no machine may reserve; the
	// host's when nil.
	Own func() []netip.Addr
	// Serve puts a subnet that a fix changed, where flags and other DHCP servers
	// have a say; PutSubnet when nil.
	Serve func(context.Context, store.Actor, store.Subnet) (store.Subnet, error)
	// Images are the folders from which everybody who may add volumes may import.
	Images []string
	// Scratch is a folder for files that are made on the way; the system's when
	// empty.
	Scratch string
	// Check looks whether causes outside the appliance are gone; nil: nothing is
	// checked.
	Check Checker
}

// Inventory carries out the operator's acts.
type Inventory struct {
	db       DB
	volumes  Volumes
	layers   Layers
	shelf    Shelf
	renderer Renderer
	sessions Sessions
	loaders  Loaders
	emit     Emitter
	log      *slog.Logger
	now      func() time.Time
	prefix   string
	own      func() []netip.Addr
	check    Checker
	images   []string
	scratch  string
	serve    func(context.Context, store.Actor, store.Subnet) (store.Subnet, error)

	// acts makes the checks of one act and its changes one step: a volume
	// that is not mapped when its removal is decided is not mapped when its
	// file goes.
	acts    sync.Mutex
	jobs    jobs
	work    layerWork
	merges  merges
	sharing sharing
}

const defaultPrefix = "iqn.2026-11.lunboot"

// New makes an Inventory. Call Recover before the first act.
func New(c Config) (*Inventory, error) {
	if c.InitiatorPrefix == "" {
		c.InitiatorPrefix = defaultPrefix
	}
	if _, err := store.ParseIQN(c.InitiatorPrefix + ":name"); err != nil {
		return nil, err
	}
	if c.Own == nil {
		c.Own = HostAddresses
	}
	i := &Inventory{
		db: c.DB, volumes: c.Volumes, layers: c.Layers, shelf: c.Shelf, renderer: c.Renderer, sessions: c.Sessions, loaders: c.Loaders, emit: c.Emit,
		log: c.Log, now: c.Now, prefix: c.InitiatorPrefix, own: c.Own, check: c.Check, images: c.Images, scratch: c.Scratch, serve: c.Serve,
	}
	if i.serve == nil {
		i.serve = i.PutSubnet
	}
	i.jobs.init()
	i.merges.wake = make(chan struct{}, 1)
	i.sharing = sharing{turn: make(chan struct{}, 1), said: map[store.VolumeID]sharedBytes{}}
	return i, nil
}

// HostAddresses lists the host's addresses; one that cannot be read is not
// known to be ours.
func HostAddresses() []netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// removed is what became of a machine that is no more.
const removed = "removed"

// changed tells the journal of a machine that was enrolled, changed or
// removed, after the commit.
func (i *Inventory) changed(m store.Machine, what string) {
	if i.emit == nil {
		return
	}
	e := store.Event{At: i.now(), Kind: store.EventMachineChanged, Machine: m.ID, Detail: store.Detail{Hostname: m.Name, Reason: what}}
	if what == removed {
		e.Detail.Cause = store.CauseRemoved
	}
	if len(m.MACs) > 0 {
		e.MAC = m.MACs[0]
	}
	i.emit.Emit(e)
}

// sentence is what an error says to the operator, in a row or a job.
func sentence(err error) string {
	var e *store.Error
	if errors.As(err, &e) && e.Msg != "" {
		return e.Msg
	}
	return err.Error()
}
