package pdu

import (
	"encoding/binary"
	"hash/crc32"
)

// DigestLength is the length of a header or data digest.
const DigestLength = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// padding is what follows a data segment; the digest covers it too.
var padding [3]byte

// Digest returns the CRC32C of a header or of a data segment with its padding
// (RFC 7143 §13.1). The processor computes it where it can.
func Digest(b []byte) uint32 {
	crc := crc32.Update(0, castagnoli, b)
	if n := Pad(len(b)); n > 0 {
		crc = crc32.Update(crc, castagnoli, padding[:n])
	}
	return crc
}

// DigestMore continues a digest with bytes that follow; the first part's length
// is a multiple of four.
func DigestMore(crc uint32, b []byte) uint32 { return crc32.Update(crc, castagnoli, b) }

// AppendDigest appends a digest in wire order: the lowest byte first, since the
// standard maps the polynomial's highest coefficient to bit 7 of the first byte
// (RFC 7143 §13.1).
func AppendDigest(dst []byte, crc uint32) []byte {
	return binary.LittleEndian.AppendUint32(dst, crc)
}

// ReadDigest reads a digest in wire order.
func ReadDigest(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
