package scsi

import (
	"bytes"
	"context"
	"encoding/binary"

	"lunboot/services/iscsi/scsi/sense"
)

// Mode page codes (SPC-4 §7.5, SBC-3 §6).
const (
	pageRecovery   = 0x01
	pageCaching    = 0x08
	pageControl    = 0x0a
	pageExceptions = 0x1c
	pageAll        = 0x3f

	subpageNone = 0x00
	subpageAll  = 0xff
)

// The page control field: which values are asked for.
const (
	valuesCurrent = iota
	valuesChangeable
	valuesDefault
	valuesSaved
)

// Where the parameters that can be changed stand in their pages.
const (
	cachingFlags = 2
	wceBit       = 0x04
	controlFlags = 2
	dSenseBit    = 0x04
	controlSWP   = 4
	swpBit       = 0x08
)

// modePages rise by code. fixed is the whole page with every changeable bit 0.
var modePages = []struct {
	code    byte
	fixed   string
	changes []modeChange
}{
	{pageRecovery, "\x01\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", nil},
	{pageCaching, "\x08\x12\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		[]modeChange{{cachingFlags, wceBit, modeWCE}}},
	// TST=000b: there is one task set, and CLEAR TASK SET, resets and PREEMPT AND
	// ABORT end the tasks of all nexuses in it. Only the ORDERED attribute stays
	// within its nexus: see package session. GLTSD=1: nothing is saved; QUEUE ALGORITHM MODIFIER 1: commands may be
	// reordered; BUSY TIMEOUT PERIOD unlimited (SPC-4 §7.5).
	{pageControl, "\x0a\x0a\x02\x10\x00\x00\x00\x00\xff\xff\x00\x00",
		[]modeChange{{controlFlags, dSenseBit, modeDSense}, {controlSWP, swpBit, modeSWP}}},
	// DEXCPT=1: informational exceptions are off (SPC-4 §7.5).
	{pageExceptions, "\x1c\x0a\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00", nil},
}

// modeChange ties a bit of a page to a bit of Unit.mode.
type modeChange struct {
	octet int
	bit   byte
	mode  uint32
}

// Bits of the device-specific parameter (SBC-3 §6).
const (
	modeWP     = 0x80
	modeDPOFUA = 0x10
)

// isSix tells the 6-byte from the 10-byte MODE commands.
func (c *Command) isSix() bool { return c.CDB[0]>>5 == 0 }

func parseModeSense(c *Command) (Plan, error) {
	if c.isSix() {
		return c.allocation(uint32(c.CDB[4])), nil
	}
	return c.allocation(uint32(binary.BigEndian.Uint16(c.CDB[7:]))), nil
}

func execModeSense(_ context.Context, c *Command) error {
	const dbd, llbaa = 0x08, 0x10
	control, code, subpage := c.CDB[2]>>6, c.CDB[2]&0x3f, c.CDB[3]
	if control == valuesSaved {
		return sense.SavingParameters
	}
	if subpage != subpageNone && subpage != subpageAll {
		return sense.InvalidField(3, 7)
	}
	long := !c.isSix() && c.CDB[1]&llbaa != 0
	var blocks []byte
	if c.CDB[1]&dbd == 0 {
		blocks = c.itl.unit.blockDescriptor(long)
	}
	var device byte = modeDPOFUA
	if c.itl.unit.protected(c.itl) != nil {
		device |= modeWP
	}
	b := make([]byte, 0, 128)
	if c.isSix() {
		b = append(b, 0, 0, device, byte(len(blocks)))
	} else {
		b = append(b, 0, 0, 0, device, 0, 0, 0, byte(len(blocks)))
		if long {
			b[4] = 0x01
		}
	}
	b = append(b, blocks...)
	start := len(b)
	for _, p := range modePages {
		if code == p.code || code == pageAll {
			b = c.itl.appendPage(b, p.fixed, p.changes, control)
		}
	}
	// Page 0 asks for the header (SPC-4 §6.11.1).
	if len(b) == start && (code != 0 || control != valuesCurrent || subpage != subpageNone) {
		return sense.InvalidField(2, 5)
	}
	if c.isSix() {
		b[0] = byte(len(b) - 1)
	} else {
		binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	}
	return c.reply(b)
}

func (i *itl) appendPage(b []byte, fixed string, changes []modeChange, control byte) []byte {
	start := len(b)
	b = append(b, fixed...)
	mode := i.effectiveMode()
	switch control {
	case valuesChangeable:
		clear(b[start+2:])
		if mode = 0; i.writable() {
			mode = ^mode
		}
	case valuesDefault:
		mode = defaultMode
	}
	for _, c := range changes {
		if mode&c.mode != 0 {
			b[start+c.octet] |= c.bit
		}
	}
	return b
}

// effectiveMode is the unit's mode as the nexus meets it.
func (i *itl) effectiveMode() uint32 {
	mode := i.unit.mode.Load()
	if i.nexus.cfg.DescriptorSense {
		mode |= modeDSense
	}
	return mode
}

// blockDescriptor is the short or long LBA mode
// parameter block descriptor.
func (u *Unit) blockDescriptor(long bool) []byte {
	blocks := u.blocks()
	if long {
		b := make([]byte, 16)
		binary.BigEndian.PutUint64(b, blocks)
		binary.BigEndian.PutUint32(b[12:], uint32(u.cfg.BlockSize))
		return b
	}
	b := make([]byte, 8)
	binary.BigEndian.PutUint32(b, uint32(min(blocks, 0xffffffff)))
	b[5], b[6], b[7] = byte(u.cfg.BlockSize>>16), byte(u.cfg.BlockSize>>8), byte(u.cfg.BlockSize)
	return b
}

func parseModeSelect(c *Command) (Plan, error) {
	const pf, rtd, sp = 0x10, 0x02, 0x01
	switch {
	case c.CDB[1]&pf == 0: // pages of the vendor's own
		return Plan{}, sense.InvalidField(1, 4)
	case c.CDB[1]&(rtd|sp) != 0: // nothing is saved
		return Plan{}, sense.InvalidField(1, 1)
	}
	if c.isSix() {
		return c.parameterList(int(c.CDB[4])), nil
	}
	return c.parameterList(int(binary.BigEndian.Uint16(c.CDB[7:]))), nil
}

// execModeSelect checks the whole list before it changes anything. The mode is
// everybody's, so an initiator that may not write the volume may not change it
// either.
func execModeSelect(ctx context.Context, c *Command) error {
	list, err := c.list()
	if err != nil || len(list) == 0 {
		return err
	}
	u := c.itl.unit
	u.mu.Lock()
	was := u.mode.Load()
	mode, err := c.itl.selected(list, c.isSix(), was)
	if err == nil && mode != was && !c.itl.writable() {
		err = sense.WriteProtected
	}
	if err == nil {
		u.mode.Store(mode)
	}
	u.mu.Unlock()
	if err != nil || mode == was {
		return err
	}
	// What was acknowledged with the write cache on is made durable when it goes
	// off: nobody will ask for it any more. SWP=1 protects after the cache was
	// written (SPC-4 §7.5.8).
	if was&^mode&modeWCE|mode&^was&modeSWP != 0 {
		c.settle()
		if err := u.cfg.Volume.Sync(ctx); err != nil {
			u.mode.CompareAndSwap(mode, was)
			return sense.WriteError(err, 0)
		}
	}
	u.attention(uaMode, c.nexus)
	return nil
}

// selected reads a mode parameter list (SPC-4 §7.5) and returns the
// mode that it asks for.
func (i *itl) selected(list []byte, six bool, mode uint32) (uint32, error) {
	header, blocks, long := 8, 0, false
	if six {
		header = 4
	}
	if len(list) < header {
		return 0, sense.ParameterLength
	}
	if six {
		blocks = int(list[3])
	} else {
		blocks, long = int(binary.BigEndian.Uint16(list[6:])), list[4]&0x01 != 0
	}
	if len(list) < header+blocks {
		return 0, sense.ParameterLength
	}
	if err := i.unit.keepsFormat(list[header:header+blocks], header, long); err != nil {
		return 0, err
	}
	for at := header + blocks; at < len(list); {
		n, err := i.selectPage(list[at:], at, &mode)
		if err != nil {
			return 0, err
		}
		at += n
	}
	return mode, nil
}

// keepsFormat checks that a block descriptor asks for the format that there is.
func (u *Unit) keepsFormat(b []byte, at int, long bool) error {
	var count, size, whole uint64
	blocks := u.blocks()
	switch {
	case len(b) == 0:
		return nil
	case len(b) == 16 && long:
		count, size, whole = binary.BigEndian.Uint64(b), uint64(binary.BigEndian.Uint32(b[12:])), ^uint64(0)
	case len(b) == 8 && !long:
		count, size, whole = uint64(binary.BigEndian.Uint32(b)), uint64(b[5])<<16|uint64(b[6])<<8|uint64(b[7]), 0xffffffff
	default:
		return sense.InvalidParameter(at - 1)
	}
	if count != 0 && count != whole && count != blocks || size != uint64(u.cfg.BlockSize) {
		return sense.InvalidParameter(at)
	}
	return nil
}

// selectPage reads the page at the start of b, which is at that octet of the
// list, into mode and returns its length.
func (i *itl) selectPage(b []byte, at int, mode *uint32) (int, error) {
	for _, p := range modePages {
		if b[0] != p.code { // SPF and the reserved PS bit are 0 in all of ours
			continue
		}
		n := len(p.fixed)
		if len(b) > 1 && b[1] != p.fixed[1] { // PAGE LENGTH
			return 0, sense.InvalidParameter(at + 1)
		}
		if len(b) < n {
			return 0, sense.ParameterLength
		}
		rest := bytes.Clone(b[:n])
		for _, c := range p.changes {
			// A nexus that is told of descriptor sense whatever D_SENSE says
			// sends back what it was told; that is no wish.
			if c.mode == modeDSense && i.nexus.cfg.DescriptorSense {
				rest[c.octet] &^= c.bit
				continue
			}
			*mode &^= c.mode
			if rest[c.octet]&c.bit != 0 {
				*mode |= c.mode
			}
			rest[c.octet] &^= c.bit
		}
		for k := range rest {
			if rest[k] != p.fixed[k] {
				return 0, sense.InvalidParameter(at + k)
			}
		}
		return n, nil
	}
	return 0, sense.InvalidParameter(at)
}
