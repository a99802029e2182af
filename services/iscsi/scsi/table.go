package scsi

import (
	"context"

	"lunboot/services/iscsi/scsi/sense"
)

// operation is a row of the table of commands.
type operation struct {
	name string
	// usage is the CDB usage data of REPORT SUPPORTED OPERATION CODES (SPC-4
	// §6.35): the operation code, the service action if there is one, and for
	// every other bit whether it is looked at. Its length is the CDB's.
	usage string
	flags opFlags
	// parse reads the CDB and decides everything that needs no data.
	parse func(c *Command) (Plan, error)
	// exec runs the command. nil is GOOD; a *sense.Data or a statusError is what it
	// says. It returns nothing else.
	exec func(ctx context.Context, c *Command) error
}

type opFlags uint16

const (
	anyLUN            opFlags = 1 << iota // is answered on every LUN and in spite of a unit attention condition
	passesReservation                     // is allowed while another nexus holds a reservation (SPC-2)
	serviceAction                         // byte 1 has a service action
	slow                                  // may wait for the disk
	reads                                 // a READ
	writes                                // may change the volume
	looks                                 // tells of the unit or its medium and changes nothing: a write exclusive reservation lets it through
	passesPersistent                      // is allowed whatever another nexus has reserved by PERSISTENT RESERVE OUT (SPC-4 §5.13.1)
	reserves                              // RESERVE and RELEASE
	sanitizes                             // needs the unit's permission
	inPieces                              // a WRITE that may be executed piece by piece
	examines                              // holds a Chunk of the medium while it runs
	neverReserved                         // is not for a unit that anybody reserved by RESERVE (SPC-2)
	mayBeHarmless                         // passes every reservation when its CDB says so
	ofTheTarget                           // tells what commands and functions there are: nothing of the medium, which may be being wiped
)

// persistentOut decides about reservations itself, and may wait for the disk
// that keeps them.
const persistentOut = serviceAction | slow | passesPersistent | neverReserved

// duringWipe is what a unit answers while it is wiped (SBC-4 §4.11.2).
const duringWipe = anyLUN | sanitizes | ofTheTarget

func (o *operation) is(f opFlags) bool { return o.flags&f != 0 }

// length is the CDB's.
func (o *operation) length() int { return len(o.usage) }

func (o *operation) action() byte { return o.usage[1] & 0x1f }

// The control byte's mask is 04h in every row: NACA is looked at, and refused.
var operations = index([]operation{
	{"TEST UNIT READY", "\x00\x00\x00\x00\x00\x04", passesPersistent, parseNothing, execNothing},
	{"REQUEST SENSE", "\x03\x01\x00\x00\xff\x04", anyLUN | passesReservation, parseRequestSense, execRequestSense},
	{"READ(6)", "\x08\x1f\xff\xff\xff\x04", reads, parseRead, execRead},
	{"WRITE(6)", "\x0a\x1f\xff\xff\xff\x04", writes | inPieces, parseWrite, execWrite},
	{"INQUIRY", "\x12\x03\xff\xff\xff\x04", anyLUN | passesReservation, parseInquiry, execInquiry},
	{"MODE SELECT(6)", "\x15\x13\x00\x00\xff\x04", slow, parseModeSelect, execModeSelect},
	{"RESERVE(6)", "\x16\x1f\x00\x00\x00\x04", reserves, parseReserve, execReserve},
	{"RELEASE(6)", "\x17\x1f\x00\x00\x00\x04", passesReservation | reserves, parseReserve, execRelease},
	{"MODE SENSE(6)", "\x1a\x08\xff\xff\xff\x04", looks, parseModeSense, execModeSense},
	{"START STOP UNIT", "\x1b\x00\x00\x00\xf7\x04", slow | mayBeHarmless, parseStartStop, execStartStop},
	{"PREVENT ALLOW MEDIUM REMOVAL", "\x1e\x00\x00\x00\x03\x04", mayBeHarmless, parsePreventAllow, execNothing},
	{"READ CAPACITY(10)", "\x25\x00\x00\x00\x00\x00\x00\x00\x00\x04", passesReservation, parseReadCapacity10, execReadCapacity10},
	{"READ(10)", "\x28\xf8\xff\xff\xff\xff\x00\xff\xff\x04", reads, parseRead, execRead},
	{"WRITE(10)", "\x2a\xf8\xff\xff\xff\xff\x00\xff\xff\x04", writes | inPieces, parseWrite, execWrite},
	{"WRITE AND VERIFY(10)", "\x2e\xf6\xff\xff\xff\xff\x00\xff\xff\x04", writes | slow | examines, parseWriteVerify, execWriteVerify},
	{"VERIFY(10)", "\x2f\xf6\xff\xff\xff\xff\x00\xff\xff\x04", slow | looks | examines, parseVerify, execVerify},
	{"PRE-FETCH(10)", "\x34\x00\xff\xff\xff\xff\x00\xff\xff\x04", looks, parsePrefetch, execNothing},
	{"SYNCHRONIZE CACHE(10)", "\x35\x00\xff\xff\xff\xff\x00\xff\xff\x04", slow, parseSynchronize, execSynchronize},
	{"READ DEFECT DATA(10)", "\x37\x00\x1f\x00\x00\x00\x00\xff\xff\x04", looks, parseReadDefects10, execReadDefects10},
	{"WRITE SAME(10)", "\x41\xf8\xff\xff\xff\xff\x00\xff\xff\x04", writes | slow | examines, parseWriteSame, execWriteSame},
	{"UNMAP", "\x42\x01\x00\x00\x00\x00\x00\xff\xff\x04", writes | slow, parseUnmap, execUnmap},
	{"SANITIZE, OVERWRITE", "\x48\xa1\x00\x00\x00\x00\x00\xff\xff\x04", serviceAction | writes | slow | sanitizes, parseOverwrite, execOverwrite},
	{"SANITIZE, BLOCK ERASE", "\x48\xa2\x00\x00\x00\x00\x00\xff\xff\x04", serviceAction | writes | slow | sanitizes, parseErase, execErase},
	{"SANITIZE, EXIT FAILURE MODE", "\x48\x1f\x00\x00\x00\x00\x00\xff\xff\x04", serviceAction | sanitizes, parseExitFailure, execExitFailure},
	{"LOG SENSE", "\x4d\x01\xff\xff\x00\xff\xff\xff\xff\x04", passesReservation, parseLogSense, execLogSense},
	{"MODE SELECT(10)", "\x55\x13\x00\x00\x00\x00\x00\xff\xff\x04", slow, parseModeSelect, execModeSelect},
	{"RESERVE(10)", "\x56\x1f\x00\x00\x00\x00\x00\xff\xff\x04", reserves, parseReserve, execReserve},
	{"RELEASE(10)", "\x57\x1f\x00\x00\x00\x00\x00\xff\xff\x04", passesReservation | reserves, parseReserve, execRelease},
	{"MODE SENSE(10)", "\x5a\x18\xff\xff\x00\x00\x00\xff\xff\x04", looks, parseModeSense, execModeSense},
	{"PERSISTENT RESERVE IN, READ KEYS", "\x5e\x00\x00\x00\x00\x00\x00\xff\xff\x04", serviceAction | passesPersistent | neverReserved, parsePersistentIn, execReadKeys},
	{"PERSISTENT RESERVE IN, READ RESERVATION", "\x5e\x01\x00\x00\x00\x00\x00\xff\xff\x04", serviceAction | passesPersistent | neverReserved, parsePersistentIn, execReadReservation},
	{"PERSISTENT RESERVE IN, REPORT CAPABILITIES", "\x5e\x02\x00\x00\x00\x00\x00\xff\xff\x04", serviceAction | passesPersistent | neverReserved, parsePersistentIn, execReportCapabilities},
	{"PERSISTENT RESERVE IN, READ FULL STATUS", "\x5e\x03\x00\x00\x00\x00\x00\xff\xff\x04", serviceAction | passesPersistent | neverReserved, parsePersistentIn, execReadFullStatus},
	{"PERSISTENT RESERVE OUT, REGISTER", "\x5f\x00\xff\x00\x00\xff\xff\xff\xff\x04", persistentOut, parsePersistentOut, execPersistentOut},
	{"PERSISTENT RESERVE OUT, RESERVE", "\x5f\x01\xff\x00\x00\xff\xff\xff\xff\x04", persistentOut, parsePersistentOut, execPersistentOut},
	{"PERSISTENT RESERVE OUT, RELEASE", "\x5f\x02\xff\x00\x00\xff\xff\xff\xff\x04", persistentOut, parsePersistentOut, execPersistentOut},
	{"PERSISTENT RESERVE OUT, CLEAR", "\x5f\x03\xff\x00\x00\xff\xff\xff\xff\x04", persistentOut, parsePersistentOut, execPersistentOut},
	{"PERSISTENT RESERVE OUT, PREEMPT", "\x5f\x04\xff\x00\x00\xff\xff\xff\xff\x04", persistentOut, parsePersistentOut, execPersistentOut},
	{"PERSISTENT RESERVE OUT, PREEMPT AND ABORT", "\x5f\x05\xff\x00\x00\xff\xff\xff\xff\x04", persistentOut, parsePersistentOut, execPersistentOut},
	{"PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", "\x5f\x06\xff\x00\x00\xff\xff\xff\xff\x04", persistentOut, parsePersistentOut, execPersistentOut},
	{"PERSISTENT RESERVE OUT, REGISTER AND MOVE", "\x5f\x07\x00\x00\x00\xff\xff\xff\xff\x04", persistentOut, parsePersistentOut, execPersistentOut},
	{"EXTENDED COPY", "\x83\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04", serviceAction | slow | examines, parseExtendedCopy, execExtendedCopy},
	{"RECEIVE COPY RESULTS, COPY STATUS", "\x84\x00\xff\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04", serviceAction | passesPersistent, parseAllocation10, execCopyStatus},
	{"RECEIVE COPY RESULTS, OPERATING PARAMETERS", "\x84\x03\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04", serviceAction | passesPersistent, parseAllocation10, execCopyParameters},
	{"RECEIVE COPY RESULTS, FAILED SEGMENT DETAILS", "\x84\x04\xff\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04", serviceAction | passesPersistent, parseAllocation10, execCopyFailure},
	{"READ(16)", "\x88\xf8\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", reads, parseRead, execRead},
	{"COMPARE AND WRITE", "\x89\xf8\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\xff\x00\x04", writes | slow | examines, parseCompareWrite, execCompareWrite},
	{"WRITE(16)", "\x8a\xf8\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", writes | inPieces, parseWrite, execWrite},
	{"ORWRITE(16)", "\x8b\xf8\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", writes | slow | examines, parseOrWrite, execOrWrite},
	{"WRITE AND VERIFY(16)", "\x8e\xf6\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", writes | slow | examines, parseWriteVerify, execWriteVerify},
	{"VERIFY(16)", "\x8f\xf6\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", slow | looks | examines, parseVerify, execVerify},
	{"PRE-FETCH(16)", "\x90\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", looks, parsePrefetch, execNothing},
	{"SYNCHRONIZE CACHE(16)", "\x91\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", slow, parseSynchronize, execSynchronize},
	{"WRITE SAME(16)", "\x93\xf9\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", writes | slow | examines, parseWriteSame, execWriteSame},
	{"READ CAPACITY(16)", "\x9e\x10\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04", serviceAction | passesReservation, parseAllocation10, execReadCapacity16},
	{"GET LBA STATUS", "\x9e\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", serviceAction | slow | looks, parseGetLBAStatus, execGetLBAStatus},
	{"REPORT LUNS", "\xa0\x00\xff\x00\x00\x00\xff\xff\xff\xff\x00\x04", anyLUN | passesReservation, parseReportLUNs, execReportLUNs},
	{"REPORT TARGET PORT GROUPS", "\xa3\xea\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04", serviceAction | passesReservation, parseReportPortGroups, execReportPortGroups},
	{"REPORT SUPPORTED OPERATION CODES", "\xa3\x0c\x87\xff\xff\xff\xff\xff\xff\xff\x00\x04", serviceAction | looks | ofTheTarget, parseReportOpcodes, execReportOpcodes},
	{"REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", "\xa3\x0d\x80\x00\x00\x00\xff\xff\xff\xff\x00\x04", serviceAction | looks | ofTheTarget, parseReportTMF, execReportTMF},
	{"READ(12)", "\xa8\xf8\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", reads, parseRead, execRead},
	{"WRITE(12)", "\xaa\xf8\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", writes | inPieces, parseWrite, execWrite},
	{"WRITE AND VERIFY(12)", "\xae\xf6\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", writes | slow | examines, parseWriteVerify, execWriteVerify},
	{"VERIFY(12)", "\xaf\xf6\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", slow | looks | examines, parseVerify, execVerify},
	{"READ DEFECT DATA(12)", "\xb7\x1f\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04", looks, parseReadDefects12, execReadDefects12},
})

// index sorts the rows, which rise by operation code, into one slot a code.
func index(rows []operation) (t [256][]operation) {
	for i := 0; i < len(rows); {
		code, j := rows[i].usage[0], i
		for j < len(rows) && rows[j].usage[0] == code {
			j++
		}
		t[code] = rows[i:j]
		i = j
	}
	return t
}

// lookup finds the row of a command: INVALID COMMAND OPERATION CODE, or INVALID
// FIELD IN CDB for a service action that is not there (SPC-4 §4.2.5.2).
func lookup(table *[256][]operation, cdb *[16]byte) (*operation, error) {
	rows := table[cdb[0]]
	if len(rows) == 0 {
		return nil, sense.InvalidOpcode
	}
	if !rows[0].is(serviceAction) {
		return &rows[0], nil
	}
	for i := range rows {
		if rows[i].action() == cdb[1]&0x1f {
			return &rows[i], nil
		}
	}
	return nil, sense.InvalidField(1, 4)
}

// CommandName names a CDB for people: "READ CAPACITY(10)", or "operation code
// A4h" when the table does not have it.
func CommandName(cdb []byte) string {
	var full [16]byte
	copy(full[:], cdb)
	op, err := lookup(&operations, &full)
	if err == nil {
		return op.name
	}
	const digits = "0123456789ABCDEF"
	return "operation code " + string([]byte{digits[full[0]>>4], digits[full[0]&15], 'h'})
}
