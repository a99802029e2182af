package scsi

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"lunboot/services/iscsi/scsi/sense"
	"lunboot/services/iscsi/scsi/xcopy"
)

// What INQUIRY says about the appliance, padded to the fields' lengths (SPC-4
// §4.3.1). Initiators build device names from them: they never change.
const (
	vendorID  = "LUNBOOT "
	productID = "VOLUME          "
	revision  = "0001"
)

// Device types with their peripheral qualifiers (SPC-4 §6.6.2).
const (
	directAccess = 0x00
	noUnit       = 0x7f // qualifier 011b, type 1Fh: no unit can be here
)

// Vital product data page codes (SPC-4 §7.8, SBC-3 §6).
const (
	vpdSupported    = 0x00
	vpdSerial       = 0x80
	vpdIdentity     = 0x83
	vpdExtended     = 0x86
	vpdThirdParty   = 0x8f
	vpdLimits       = 0xb0
	vpdMedium       = 0xb1
	vpdProvisioning = 0xb2
)

// vpdPages are the pages that there are, rising by code as page 00h lists them.
var vpdPages = []struct {
	code byte
	body func(i *itl) []byte
}{
	{vpdSupported, nil},
	{vpdSerial, serialPage},
	{vpdIdentity, identityPage},
	{vpdExtended, extendedPage},
	{vpdThirdParty, func(*itl) []byte { return xcopy.Page() }},
	{vpdLimits, limitsPage},
	{vpdMedium, mediumPage},
	{vpdProvisioning, provisioningPage},
}

func parseInquiry(c *Command) (Plan, error) {
	evpd := c.CDB[1]&0x01 != 0
	switch {
	case c.CDB[1]&0x02 != 0: // CMDDT is obsolete
		return Plan{}, sense.InvalidField(1, 1)
	case !evpd && c.CDB[2] != 0: // a page code needs EVPD
		return Plan{}, sense.InvalidField(2, 7)
	case evpd && c.itl == nil: // no unit, no pages
		return Plan{}, sense.InvalidField(1, 0)
	}
	return c.allocation(uint32(binary.BigEndian.Uint16(c.CDB[3:]))), nil
}

func execInquiry(_ context.Context, c *Command) error {
	if c.itl == nil {
		return c.reply(standardInquiry(noUnit))
	}
	if c.CDB[1]&0x01 == 0 {
		return c.reply(standardInquiry(directAccess))
	}
	page := []byte{directAccess, c.CDB[2], 0, 0}
	switch found := false; {
	case c.CDB[2] == vpdSupported:
		for _, p := range vpdPages {
			page = append(page, p.code)
		}
	default:
		for _, p := range vpdPages {
			if p.code == c.CDB[2] {
				page = append(page, p.body(c.itl)...)
				found = true
			}
		}
		if !found {
			return sense.InvalidField(2, 7)
		}
	}
	binary.BigEndian.PutUint16(page[2:], uint16(len(page)-4))
	return c.reply(page)
}

// standardInquiry is the standard INQUIRY data (SPC-4 §6.6.2).
func standardInquiry(device byte) []byte {
	b := make([]byte, 96)
	b[0] = device
	b[2] = 0x06 // SPC-4
	b[3] = 0x12 // HISUP, response data format 2
	b[4] = byte(len(b) - 5)
	b[7] = 0x02 // CMDQUE
	copy(b[8:], vendorID)
	copy(b[16:], productID)
	copy(b[32:], revision)
	if device == noUnit {
		return b
	}
	b[5] = 0x18 // TPGS: implicit; 3PC: EXTENDED COPY
	for n, version := range []uint16{
		0x00a0, // SAM-5
		0x0960, // iSCSI
		0x0460, // SPC-4
		0x04c0, // SBC-3
	} {
		binary.BigEndian.PutUint16(b[58+2*n:], version)
	}
	return b
}

// serial is the unit serial number: the volume's UUID without hyphens.
func (u *Unit) serial() string { return fmt.Sprintf("%x", u.cfg.UUID[:]) }

func serialPage(i *itl) []byte { return []byte(i.unit.serial()) }

// Fields of a designation descriptor (SPC-4 §7.8.6).
const (
	codeSetBinary = 0x01
	codeSetASCII  = 0x02
	codeSetUTF8   = 0x03

	designatorVendor   = 0x01 // T10 vendor ID based
	designatorNAA      = 0x03
	designatorPort     = 0x04 // relative target port identifier
	designatorGroup    = 0x05 // target port group
	designatorSCSIName = 0x08

	ofUnit   = 0x00
	ofPort   = 0x10
	ofDevice = 0x20

	protocolValid = 0x80 // PIV
	protocolISCSI = 0x50
)

// naa is NAA 3h, locally assigned (SPC-4 §7.8.6.6): 60 bits of the UUID. The
// other forms need an identifier that the IEEE sells.
func (u *Unit) naa() [8]byte {
	id := u.cfg.UUID
	return [8]byte{0x30 | id[15]&0x0f, id[0], id[1], id[2], id[3], id[4], id[5], id[14]}
}

// identityPage has two names of the unit, then the target port's and the target
// device's (SPC-4 §7.8.6).
func identityPage(i *itl) []byte {
	naa := i.unit.naa()
	b := designator(nil, codeSetASCII, ofUnit|designatorVendor, []byte(vendorID+i.unit.serial()))
	b = designator(b, codeSetBinary, ofUnit|designatorNAA, naa[:])
	b = designator(b, protocolISCSI|codeSetBinary, protocolValid|ofPort|designatorPort, []byte{0, 0, 0, relativePort})
	b = designator(b, protocolISCSI|codeSetBinary, protocolValid|ofPort|designatorGroup, []byte{0, 0, 0, portGroup})
	port := i.nexus.cfg.PortName
	device, _, _ := strings.Cut(port, ",t,")
	b = designator(b, protocolISCSI|codeSetUTF8, protocolValid|ofPort|designatorSCSIName, scsiName(port))
	return designator(b, protocolISCSI|codeSetUTF8, protocolValid|ofDevice|designatorSCSIName, scsiName(device))
}

// designator appends a designation descriptor; one without content, or too long
// for its length field, is left out.
func designator(b []byte, codes, kind byte, content []byte) []byte {
	if len(content) == 0 || len(content) > 255 {
		return b
	}
	return append(append(b, codes, kind, 0, byte(len(content))), content...)
}

// scsiName ends a SCSI name string with a null and fills it up to four bytes
// (SPC-4 §7.8.6).
func scsiName(s string) []byte {
	if s == "" {
		return nil
	}
	b := make([]byte, len(s)/4*4+4)
	copy(b, s)
	return b
}

// extendedPage is Extended INQUIRY Data (SPC-4 §7.8.7): no protection, the
// task attributes that a session keeps, a volatile cache, and a change of the
// LUNs told once.
func extendedPage(*itl) []byte {
	b := make([]byte, 60)
	b[1] = 0x07 // HEADSUP, ORDSUP, SIMPSUP
	b[2] = 0x01 // V_SUP
	b[3] = 0x01 // LUICLR
	return b
}

// physicalExponent is log2 of logical blocks per 4096-byte physical block.
func (u *Unit) physicalExponent() uint { return 12 - min(u.shift, 12) }

// limitsPage is Block Limits (SBC-3 §6).
func limitsPage(i *itl) []byte {
	s := i.unit.shift
	granularity := uint32(1) << i.unit.physicalExponent()
	b := make([]byte, 60)
	b[0] = 0x01 // WSNZ: WRITE SAME of 0 blocks does not mean the rest of the volume
	b[1] = maxCompareWrite
	binary.BigEndian.PutUint16(b[2:], uint16(granularity))
	binary.BigEndian.PutUint32(b[4:], maxTransfer>>s)
	binary.BigEndian.PutUint32(b[8:], optimalTransfer>>s)
	binary.BigEndian.PutUint32(b[16:], maxUnmapBlocks)
	binary.BigEndian.PutUint32(b[20:], maxUnmapRanges)
	binary.BigEndian.PutUint32(b[24:], granularity)
	binary.BigEndian.PutUint32(b[28:], 0x80000000) // UGAVALID, alignment 0
	binary.BigEndian.PutUint64(b[32:], maxWriteSame)
	return b
}

// mediumPage is Block Device Characteristics (SBC-3 §6): nothing rotates.
func mediumPage(i *itl) []byte {
	b := make([]byte, 60)
	b[1] = 0x01
	if i.sanitize.Load() {
		b[3] = 0x40 // WABEREQ: what was erased can be read
	}
	return b
}

// provisioningPage is Logical Block Provisioning (SBC-3 §6): thin, by UNMAP
// and both WRITE SAMEs, and what is unmapped reads zero.
func provisioningPage(*itl) []byte {
	const lbpu, lbpws, lbpws10, lbprz, thin = 0x80, 0x40, 0x20, 0x04, 0x02
	return []byte{0, lbpu | lbpws | lbpws10 | lbprz, thin, 0}
}
