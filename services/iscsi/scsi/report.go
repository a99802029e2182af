package scsi

import (
	"context"
	"encoding/binary"

	"lunboot/services/iscsi/scsi/sense"
	"lunboot/store"
)

// SELECT REPORT of REPORT LUNS (SPC-4 §6.33).
const (
	reportUnits     = 0x00 // those with LUNs that can be mapped
	reportWellKnown = 0x01 // the well known ones: there are none
	reportBoth      = 0x02
)

func parseReportLUNs(c *Command) (Plan, error) {
	if c.CDB[2] > reportBoth {
		return Plan{}, sense.InvalidField(2, 7)
	}
	return c.allocation(binary.BigEndian.Uint32(c.CDB[6:])), nil
}

// execReportLUNs gives the true list, on whatever LUN it is asked, and ends
// REPORTED LUNS DATA HAS CHANGED everywhere on the nexus (SAM-5 §5.14).
func execReportLUNs(_ context.Context, c *Command) error {
	c.nexus.clear(uaLUNs)
	var luns []store.LUN
	if m := c.nexus.luns.Load(); m != nil {
		luns = m.list
	}
	if c.CDB[2] == reportWellKnown {
		luns = nil
	}
	b := make([]byte, 8, 8+8*len(luns))
	for _, l := range luns {
		w := l.Wire()
		b = append(b, w[:]...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-8))
	return c.reply(b)
}

func parseRequestSense(c *Command) (Plan, error) {
	return c.allocation(uint32(c.CDB[4])), nil
}

// execRequestSense returns as data what other commands end with (SPC-4 §6.39):
// that there is no unit, or a pending unit attention condition, which it ends.
func execRequestSense(_ context.Context, c *Command) error {
	s := sense.NoLUN
	if c.itl != nil {
		if s = c.itl.attention(uaAll); s == nil {
			s = sense.None
			if w := c.itl.unit.wiping.Load(); w != nil {
				s = w.sense()
			}
		}
	}
	return c.reply(s.Append(nil, c.CDB[1]&0x01 != 0))
}

func parseReadCapacity10(c *Command) (Plan, error) { return c.allocation(8), nil }

// lastLBA is what READ CAPACITY returns. An empty volume has none, and 0 would
// claim a block.
func (u *Unit) lastLBA() (uint64, error) {
	blocks := u.blocks()
	if blocks == 0 {
		return 0, sense.NoMedium
	}
	return blocks - 1, nil
}

// execReadCapacity10 answers FFFFFFFFh when only READ CAPACITY(16) can tell
// (SBC-3, READ CAPACITY(10)).
func execReadCapacity10(_ context.Context, c *Command) error {
	last, err := c.itl.unit.lastLBA()
	if err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(min(last, 0xffffffff)))
	return c.reply(binary.BigEndian.AppendUint32(b, uint32(c.itl.unit.cfg.BlockSize)))
}

// execReadCapacity16 adds the physical block size and thin provisioning (SBC-3,
// READ CAPACITY(16)).
func execReadCapacity16(_ context.Context, c *Command) error {
	const lbpme, lbprz = 0x80, 0x40
	u := c.itl.unit
	last, err := u.lastLBA()
	if err != nil {
		return err
	}
	b := make([]byte, 32)
	binary.BigEndian.PutUint64(b, last)
	binary.BigEndian.PutUint32(b[8:], uint32(u.cfg.BlockSize))
	b[13] = byte(u.physicalExponent())
	b[14] = lbpme | lbprz
	return c.reply(b)
}

// START STOP UNIT (SBC-3). A stopped unit would refuse the next boot of
// its machine, which cannot start it: a stop flushes the cache and the unit
// stays ready, as an array's do.
func parseStartStop(c *Command) (Plan, error) {
	const powerCondition, loej = 0xf0, 0x02
	switch {
	case c.CDB[4]&powerCondition != 0: // there are no power conditions
		return Plan{}, sense.InvalidField(4, 7)
	case c.CDB[4]&loej != 0: // nothing can be ejected
		return Plan{}, sense.InvalidField(4, 1)
	}
	return Plan{}, nil
}

func execStartStop(ctx context.Context, c *Command) error {
	const noFlush, start = 0x04, 0x01
	if c.CDB[4]&(noFlush|start) != 0 {
		return nil
	}
	return execSynchronize(ctx, c)
}

// REPORTING OPTIONS of REPORT SUPPORTED OPERATION CODES (SPC-4 §6.35).
const (
	reportAll       = 0
	reportCode      = 1 // an operation code without service actions
	reportAction    = 2 // an operation code with one
	reportEither    = 3
	returnTimeouts  = 0x80 // RCTD
	timeoutsPresent = 0x80 // CTDP of the one_command format
)

func parseReportOpcodes(c *Command) (Plan, error) {
	c.field, c.flags = c.CDB[2]&0x07, c.CDB[2]&returnTimeouts
	rows := c.nexus.table[c.CDB[3]]
	if len(rows) > 0 && rows[0].is(sanitizes) && !c.itl.sanitize.Load() {
		rows = nil
	}
	hasActions := len(rows) > 0 && rows[0].is(serviceAction)
	switch {
	case c.field > reportEither:
		return Plan{}, sense.InvalidField(2, 2)
	case c.field == reportCode && hasActions, c.field == reportAction && len(rows) > 0 && !hasActions:
		return Plan{}, sense.InvalidField(2, 2)
	}
	return c.allocation(binary.BigEndian.Uint32(c.CDB[6:])), nil
}

func execReportOpcodes(_ context.Context, c *Command) error {
	if c.field != reportAll {
		return c.reply(c.nexus.oneCommand(c))
	}
	const servactv, ctdp = 0x01, 0x02
	b := make([]byte, 4, 1024)
	for code := range c.nexus.table {
		for k := range c.nexus.table[code] {
			op := &c.nexus.table[code][k]
			if op.is(sanitizes) && !c.itl.sanitize.Load() {
				continue
			}
			var action, flags byte
			if op.is(serviceAction) {
				action, flags = op.action(), servactv
			}
			if c.flags != 0 {
				flags |= ctdp
			}
			b = append(b, byte(code), 0, 0, action, 0, flags, 0, byte(op.length()))
			if c.flags != 0 {
				b = op.appendTimeouts(b)
			}
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return c.reply(b)
}

// oneCommand is the one_command parameter data (SPC-4 §6.35).
func (n *Nexus) oneCommand(c *Command) []byte {
	const notSupported, standard = 0x01, 0x03
	action := binary.BigEndian.Uint16(c.CDB[4:])
	for k := range n.table[c.CDB[3]] {
		op := &n.table[c.CDB[3]][k]
		if op.is(sanitizes) && !c.itl.sanitize.Load() {
			break
		}
		// An operation code without service actions is meant only with 0.
		if has := op.is(serviceAction); has && uint16(op.action()) != action || !has && c.field == reportEither && action != 0 {
			continue
		}
		b := append([]byte{0, standard, 0, byte(op.length())}, op.usage...)
		if c.flags != 0 {
			b[1] |= timeoutsPresent
			b = op.appendTimeouts(b)
		}
		return b
	}
	return []byte{0, notSupported, 0, 0}
}

// appendTimeouts appends a command timeouts descriptor (SPC-4 §6.35). The
// nominal time is not specified; the recommended one is what an initiator
// should wait before it calls the command lost, and none can be said of a wipe.
func (o *operation) appendTimeouts(b []byte) []byte {
	recommended := uint32(30)
	switch {
	case o.is(sanitizes) && o.is(writes):
		recommended = 0
	case o.is(slow | writes):
		recommended = 120
	}
	b = append(b, 0, 0x0a, 0, 0, 0, 0, 0, 0)
	return binary.BigEndian.AppendUint32(b, recommended)
}

func parseReportTMF(c *Command) (Plan, error) {
	n := binary.BigEndian.Uint32(c.CDB[6:])
	if n < 4 { // SPC-4 §6.36
		return Plan{}, sense.InvalidField(6, 7)
	}
	return c.allocation(n), nil
}

// execReportTMF lists the task management functions that a session passes on
// (RFC 7143 §11.5.1).
func execReportTMF(_ context.Context, c *Command) error {
	const ats, atss, ctss, lurs, trs, repd = 0x80, 0x40, 0x10, 0x08, 0x02, 0x80
	b := []byte{ats | atss | ctss | lurs | trs, 0, 0, 0}
	if c.CDB[2]&repd != 0 { // the extended format, without time-outs
		b = append(b, make([]byte, 12)...)
		b[3] = 12
	}
	return c.reply(b)
}
