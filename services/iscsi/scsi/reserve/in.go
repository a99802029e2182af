package reserve

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"lunboot/services/iscsi/scsi/sense"
)

// The service actions of PERSISTENT RESERVE IN (SPC-4 §6.15.1).
const (
	InReadKeys           = 0
	InReadReservation    = 1
	InReportCapabilities = 2
	InReadFullStatus     = 3
)

// Keys is the parameter data of READ KEYS.
func Keys(s State) []byte {
	b := header(s)
	for _, r := range s.Registrations {
		b = binary.BigEndian.AppendUint64(b, r.Key)
	}
	return finish(b)
}

// Reservation is the parameter data of READ RESERVATION.
func Reservation(s State) []byte {
	b := header(s)
	if s.Type == None {
		return finish(b)
	}
	key := uint64(0) // nobody's own, when all registrants hold it
	if at := find(s, s.Holder); !all(s.Type) && at >= 0 {
		key = s.Registrations[at].Key
	}
	b = binary.BigEndian.AppendUint64(b, key)
	return finish(append(b, 0, 0, 0, 0, 0, byte(s.Type), 0, 0))
}

// Capabilities is the parameter data of REPORT CAPABILITIES (SPC-4 §6.15.4).
func Capabilities(s State) []byte {
	const (
		atpC, ptplC = 0x04, 0x01
		tmv, ptplA  = 0x80, 0x01
		// ALLOW COMMANDS 3: TEST UNIT READY passes every type, MODE SENSE and the
		// REPORT SUPPORTED commands, among others, a write exclusive one.
		allow = 0x30
		// PERSISTENT RESERVATION TYPE MASK: all of them.
		typesHigh, typesLow = 0xea, 0x01
	)
	b := []byte{0, 8, atpC | ptplC, tmv | allow, typesHigh, typesLow, 0, 0}
	if s.APTPL {
		b[3] |= ptplA
	}
	return b
}

// FullStatus is the parameter data of READ FULL STATUS (SPC-4 §6.15.5).
func FullStatus(s State) []byte {
	const allTargetPorts, holder = 0x02, 0x01
	b := header(s)
	for _, r := range s.Registrations {
		id := transportID(r.Port)
		d := make([]byte, 24, 24+len(id))
		binary.BigEndian.PutUint64(d, r.Key)
		d[12] = allTargetPorts
		if Holds(s, r.Port) {
			d[12] |= holder
			d[13] = byte(s.Type)
		}
		binary.BigEndian.PutUint16(d[18:], relativePort)
		binary.BigEndian.PutUint32(d[20:], uint32(len(id)))
		b = append(append(b, d...), id...)
	}
	return finish(b)
}

// relativePort is the one target port.
const relativePort = 1

// A TransportID in iSCSI's own form (SPC-4 §7.6.4.6), format 01b: the name, the
// separator and the ISID.
const (
	iscsiPort = 0x45
	separator = ",i,0x"
	maxName   = 223 // RFC 7143 §4.2.7.1
)

func transportID(p Port) []byte {
	name := fmt.Sprintf("%s%s%x", p.Initiator, separator, p.ISID[:])
	n := len(name)/4*4 + 4 // ended by a null, and whole words
	b := make([]byte, 4+n)
	b[0] = iscsiPort
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	copy(b[4:], name)
	return b
}

// parseTransportID reads a TransportID that names an initiator port; a device
// alone is no place for a reservation. at is its octet of the parameter list.
func parseTransportID(b []byte, at int) (p Port, err error) {
	if b[0] != iscsiPort {
		return p, sense.InvalidParameter(at)
	}
	if 4+int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		return p, sense.InvalidParameter(at + 2)
	}
	text, _, _ := strings.Cut(string(b[4:]), "\x00")
	name, isid, _ := strings.Cut(strings.ToLower(text), separator)
	if n := len(isid); n > 0 && n <= 2*len(p.ISID) {
		isid = strings.Repeat("0", 2*len(p.ISID)-n) + isid
	}
	digits, err := hex.DecodeString(isid)
	if err != nil || len(digits) != len(p.ISID) || name == "" || len(name) > maxName {
		return p, sense.InvalidParameter(at + 4)
	}
	p.Initiator = name
	copy(p.ISID[:], digits)
	return p, nil
}

func header(s State) []byte {
	return append(binary.BigEndian.AppendUint32(nil, s.Generation), 0, 0, 0, 0)
}

// finish writes the ADDITIONAL LENGTH.
func finish(b []byte) []byte {
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-8))
	return b
}
