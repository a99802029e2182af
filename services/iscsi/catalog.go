package iscsi

import (
	"context"
	"net/netip"
	"time"

	"lunboot/services/iscsi/scsi"
	"lunboot/store"
)

// Access says who an initiator is and how it must prove itself.
type Access struct {
	Machine store.MachineID
	Name    string // the machine's name
	Auth    store.AuthMode
	CHAP    store.Credential // the initiator's
	Reverse store.Credential // the target's, for mutual
}

// Map is what one session sees: volumes as LUNs.
type Map struct {
	// Generation rises when an armed reset at boot has fired for the machine,
	// and with nothing else. Sessions of an older generation are ended.
	Generation int64
	// Fired says that this login is the first of a new boot: what the initiator
	// reserved in the boot before has nobody left.
	Fired bool
	LUNs  map[store.LUN]Entry
	// Release lets go of the volumes. It is called exactly once, when no
	// session and no task uses this map any more. It may be nil.
	Release func()
}

// Entry is one volume of a map.
type Entry struct {
	VolumeID store.VolumeID
	// Generation tells states of one volume apart that are not the same disk:
	// it rises when the bytes are replaced, and with nothing else.
	Generation int64
	Name       string
	UUID       store.UUID
	BlockSize  int
	ReadOnly   bool // this initiator may not write
	Sanitize   bool // it may wipe the volume
	Wiped      bool // a wipe of the volume may be unfinished: somebody may wipe it
	// Bytes says which file or device has the bytes. A wipe that was begun on another
	// one does not go on.
	Bytes string
	// Changed is when the file was changed last; zero when that is not known.
	Changed time.Time
	Volume  scsi.Volume
}

// Catalog is what the target asks about machines, volumes and mappings.
type Catalog interface {
	// Access looks an initiator up, at each login. store.KindNotFound means
	// that nobody enrolled it.
	Access(ctx context.Context, initiator store.IQN) (Access, error)
	// Open returns the map for a session that logs in now. What the login
	// causes, such as an armed reset, is durable when it returns.
	Open(ctx context.Context, initiator store.IQN, isid [6]byte) (Map, error)
	// Refresh returns the map for a session that lives, and causes nothing.
	// store.KindNotFound means that the machine was removed.
	Refresh(ctx context.Context, initiator store.IQN) (Map, error)
	// Volume returns the map with one volume and no machine, at LUN 0, and causes
	// nothing.
	Volume(ctx context.Context, id store.VolumeID) (Map, error)
	// Revision rises with each change of the inventory; the channel is closed
	// once it is larger than after.
	Revision() int64
	Changed(after int64) <-chan struct{}
}

// Holder is the machine that an address belongs to.
type Holder struct {
	Machine store.MachineID
	Name    string
	By      string // what shows it: "its lease"
}

// Holders knows whose the addresses are that logins come from.
type Holders interface {
	// Other returns the machine that addr belongs to when it is certainly
	// another one than the machine that the login names.
	Other(ctx context.Context, addr netip.Addr, machine store.MachineID) (Holder, bool)
}

// Reservations keeps what initiators want to survive a power loss.
type Reservations interface {
	Reservations(context.Context, store.VolumeID) (store.Reservations, error)
	// PutReservations is durable when it returns nil.
	PutReservations(context.Context, store.VolumeID, store.Reservations) error
}

// Wipes keeps what initiators are wiping their volumes with: a restart goes on with it.
type Wipes interface {
	// Wipe returns nil when nothing is unfinished.
	Wipe(context.Context, store.VolumeID) (*store.Wipe, error)
	// UnfinishedWipes lists the volumes with wipes that have neither ended nor failed.
	UnfinishedWipes(context.Context) ([]store.VolumeID, error)
	// What the others did is durable when they return nil. FailWipe and EndWipe change
	// nothing when the volume's wipe is not that one any more.
	BeginWipe(context.Context, store.VolumeID, store.Wipe) error
	FailWipe(context.Context, store.VolumeID, store.UUID) error
	EndWipe(context.Context, store.VolumeID, store.UUID) error
}

// Emitter takes events. It never blocks.
type Emitter interface {
	Emit(store.Event)
}
