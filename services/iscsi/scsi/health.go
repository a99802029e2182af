package scsi

import (
	"context"
	"encoding/binary"

	"lunboot/services/iscsi/scsi/sense"
)

// What initiators ask disks about their health. A volume has no defects of its
// own and predicts no failure: a fault of the storage below it is an error of
// the command that met it.

// Log page codes (SPC-4 §7.3).
const (
	logSupported  = 0x00
	logExceptions = 0x2f // informational exceptions
	allSubpages   = 0xff
)

func parseLogSense(c *Command) (Plan, error) {
	const sp = 0x01
	page, subpage := c.CDB[2]&0x3f, c.CDB[3]
	switch {
	case c.CDB[1]&sp != 0: // nothing is saved
		return Plan{}, sense.InvalidField(1, 0)
	case page != logSupported && page != logExceptions:
		return Plan{}, sense.InvalidField(2, 5)
	case subpage != 0 && (page != logSupported || subpage != allSubpages):
		return Plan{}, sense.InvalidField(3, 7)
	case binary.BigEndian.Uint16(c.CDB[5:]) != 0: // the only parameter code there is
		return Plan{}, sense.InvalidField(5, 7)
	}
	return c.allocation(uint32(binary.BigEndian.Uint16(c.CDB[7:]))), nil
}

func execLogSense(_ context.Context, c *Command) error {
	const subpageFormat = 0x40 // SPF
	page, subpage := c.CDB[2]&0x3f, c.CDB[3]
	b := []byte{page, subpage, 0, 0}
	switch {
	case page == logExceptions:
		const disableSave, binaryList, noTemperature = 0x80, 0x03, 0xff
		b[0] |= disableSave // what SP=1 would ask for
		// One parameter: no exception, and no thermometer.
		b = append(b, 0, 0, binaryList, 4, 0, 0, noTemperature, 0)
	case subpage == allSubpages:
		b[0] |= subpageFormat
		b = append(b, logSupported, 0, logSupported, allSubpages, logExceptions, 0)
	default:
		b = append(b, logSupported, logExceptions)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
	return c.reply(b)
}

// READ DEFECT DATA (SBC-3): the lists are there, and empty.
func parseReadDefects10(c *Command) (Plan, error) {
	c.flags = c.CDB[2] & 0x1f
	return c.allocation(uint32(binary.BigEndian.Uint16(c.CDB[7:]))), nil
}

func parseReadDefects12(c *Command) (Plan, error) {
	c.flags = c.CDB[1] & 0x1f
	return c.allocation(binary.BigEndian.Uint32(c.CDB[6:])), nil
}

func execReadDefects10(_ context.Context, c *Command) error {
	return c.reply([]byte{0, c.flags, 0, 0})
}

func execReadDefects12(_ context.Context, c *Command) error {
	return c.reply([]byte{0, c.flags, 0, 0, 0, 0, 0, 0})
}

// PREVENT ALLOW MEDIUM REMOVAL (SPC-4): the medium stays whatever is asked.
func parsePreventAllow(c *Command) (Plan, error) {
	if c.CDB[4]&0x02 != 0 { // for changers: obsolete
		return Plan{}, sense.InvalidField(4, 1)
	}
	return Plan{}, nil
}

// The one target port and its group, as VPD page 83h names them.
const (
	relativePort = 1
	portGroup    = 1
)

// REPORT TARGET PORT GROUPS (SPC-4 §6.37): one port, which is always the best.
func parseReportPortGroups(c *Command) (Plan, error) {
	if c.CDB[1]>>5 > 1 { // PARAMETER DATA FORMAT
		return Plan{}, sense.InvalidField(1, 7)
	}
	return c.allocation(binary.BigEndian.Uint32(c.CDB[6:])), nil
}

func execReportPortGroups(_ context.Context, c *Command) error {
	const activeOptimized, canBeActive, extendedHeader = 0x00, 0x01, 0x10
	b := make([]byte, 4, 24)
	if c.CDB[1]>>5 == 1 {
		b = append(b, extendedHeader, 0, 0, 0)
	}
	b = append(b, activeOptimized, canBeActive, 0, portGroup, 0, 0, 0, 1)
	b = append(b, 0, 0, 0, relativePort)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return c.reply(b)
}
