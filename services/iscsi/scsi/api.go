package scsi

import (
	"context"
	"fmt"
	"iter"

	"lunboot/services/iscsi/scsi/sense"
	"lunboot/store"
)

// Volume is what a unit needs of its bytes. Offsets and lengths are in bytes and
// lie within Size when they were checked; a volume that shrank meanwhile
// returns an error. Every method is safe for concurrent use. An error's
// store.Kind chooses the sense data (package sense).
type Volume interface {
	// ReadAt fills p or returns an error.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// WriteAt writes all of p or returns an error.
	WriteAt(ctx context.Context, p []byte, off int64) error
	// Sync makes every write that returned before it durable.
	Sync(ctx context.Context) error
	// Unmap gives the range back; it reads zero afterwards.
	Unmap(ctx context.Context, off, n int64) error
	// Zero makes the range read zero.
	Zero(ctx context.Context, off, n int64) error
	// BlockStatus says whether the bytes at off are mapped, and for how many
	// bytes, at most n, that answer holds.
	BlockStatus(ctx context.Context, off, n int64) (mapped bool, run int64, err error)
	// Size is the capacity in bytes. It may grow.
	Size() int64
	// Resident fills p from memory without blocking, or promises nothing and
	// returns false.
	Resident(p []byte, off int64) bool
}

// Lender is a Volume that may have its bytes in a file, from which they can be
// sent without being copied.
type Lender interface {
	// Lend returns where a file holds all of a range in memory. The descriptor
	// is valid until back.Return, which the caller owes when ok is true.
	Lend(off, n int64) (fd int, at int64, back interface{ Return() }, ok bool)
}

// Foreseeing is a Volume that wants to know all that a command is about to erase before
// it erases the first of it.
type Foreseeing interface {
	// Foresee is told of the ranges, by their offsets and lengths.
	Foresee(ctx context.Context, ranges iter.Seq2[int64, int64]) error
}

// UnitConfig describes a logical unit.
type UnitConfig struct {
	Name      string     // the volume's name, for people
	UUID      store.UUID // the volume's identity: VPD pages 80h and 83h are made from it
	BlockSize int        // logical block length: 512 or 4096
	ReadOnly  bool       // no nexus may write
	Volume    Volume
	// Reservations are the volume's; its own, kept nowhere, when nil.
	Reservations *Reservations
	// Wipes keeps what the unit is wiped with; nowhere when nil.
	Wipes Wipes
}

// Wipes keeps what one unit is being wiped with, for Unit.Resume after a restart.
// What it did is durable when it returns nil.
type Wipes interface {
	Begin(context.Context, store.Wipe) error
	Fail(context.Context) error // of the one that was begun
	End(context.Context) error
}

// MapEntry is what an initiator sees at one LUN.
type MapEntry struct {
	Unit     *Unit
	ReadOnly bool // this initiator may not write
	Sanitize bool // it may wipe the unit
}

// NexusConfig describes an I_T nexus: one session.
type NexusConfig struct {
	Initiator string  // the initiator's iSCSI name
	ISID      [6]byte // with Initiator, the initiator port (RFC 7143 §4.2.7)
	// PortName is the target port's name, "<target name>,t,0x<tag>" (RFC 7143
	// §4.2.7); VPD page 83h shows it.
	PortName string
	// DescriptorSense makes all sense data descriptor format whatever D_SENSE
	// says. iPXE loses the key of fixed format sense data.
	DescriptorSense bool
	// OnNoLUN is told of each command that was refused because its LUN is not
	// mapped. It is called by Begin and must not block.
	OnNoLUN func(lun [8]byte, cdb []byte)
	// Abort is told that another nexus ended this one's tasks at lun: by a
	// reset, CLEAR TASK SET or PREEMPT AND ABORT (SAM-5 §6.3.3, §7.3). It
	// returns how many there were, without waiting, and calls rest when none of
	// them can change the volume any more, which may be before it returns. It is
	// called for several nexuses at the same time.
	Abort func(lun store.LUN, rest func()) int
}

// Dir says which way a command's data goes.
type Dir uint8

// The directions, as the initiator sees them.
const (
	DirNone Dir = iota
	DirIn       // to the initiator
	DirOut      // from the initiator
)

func (d Dir) String() string {
	switch d {
	case DirNone:
		return "none"
	case DirIn:
		return "in"
	case DirOut:
		return "out"
	}
	return "unknown"
}

// Status codes (SAM-5 §5.3.1).
const (
	StatusGood                byte = 0x00
	StatusCheckCondition      byte = 0x02
	StatusConditionMet        byte = 0x04
	StatusBusy                byte = 0x08
	StatusReservationConflict byte = 0x18
	StatusTaskSetFull         byte = 0x28
	StatusTaskAborted         byte = 0x40
)

// statusError ends a command with a status that has no sense data.
type statusError byte

func (s statusError) Error() string { return fmt.Sprintf("status %02Xh", byte(s)) }

const errReservationConflict = statusError(StatusReservationConflict)

// Command is one SCSI command and its result. A session fills the first group,
// calls Begin, provides Out or In as the Plan says, and calls Execute. The
// result group is valid after Execute, or after Begin when the Plan is Done.
// Commands may be reused for the next task; Begin resets the result.
type Command struct {
	LUN      [8]byte
	CDB      [16]byte
	CDBExt   []byte // bytes of the CDB beyond 16 (RFC 7143 §11.2.2.3)
	Attr     uint8  // task attribute, as the initiator sent it
	Expected int    // the initiator's Expected Data Transfer Length

	Out []byte // DirOut: the bytes received, in order, at most Plan.Len are used
	// Ahead is how many bytes of a WRITE, at its beginning, WritePiece has written:
	// Execute writes the rest of Out.
	Ahead int
	// In is given as buf[:0]; with a capacity of Plan.Len Execute allocates
	// nothing. It returns all that the command sends, which may be more than
	// Expected: len(In)-Expected is the residual count.
	In []byte
	// Lent is how many bytes a READ sends from its volume's file: Nexus.Lend
	// says where they are. In is empty then.
	Lent int

	// Settled, when it is set, is told by Execute that the command has changed all
	// of its volume that it will, before a flush that may take long. A command
	// without such a flush does not call it.
	Settled func()

	Status byte
	Sense  []byte // sense data of a CHECK CONDITION; an array inside Command

	nexus    *Nexus
	itl      *itl       // nil when the LUN is not mapped
	op       *operation // nil until Begin found it
	answered bool       // Status is final

	// What the CDB said, for exec.
	lba    uint64
	blocks uint64
	length int // bytes to move: allocation, parameter list or data length
	fua    bool
	field  byte   // command specific: page code, BYTCHK, format …
	flags  byte   // command specific
	wipes  uint32 // of the unit, when the command was begun

	written   bool // a WRITE has been done: only its flush is left
	unflushed bool // it is not to be flushed now

	senseData [sense.MaxLength]byte
}

// Plan is what a session must know before it executes a command.
type Plan struct {
	Dir Dir
	// Len is the number of bytes that the CDB moves: an upper bound for DirIn,
	// the data or parameter list length for DirOut.
	Len int
	// Slow commands may wait for the disk and do not belong on the goroutine
	// that reads the connection.
	Slow bool
	// Done says that the command is answered already; Execute does nothing.
	Done bool
}
