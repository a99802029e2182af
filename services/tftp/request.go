package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Operations that begin a transfer, and the one that ends it (RFC 1350 §5).
const (
	opRead  = 1
	opWrite = 2
	opError = 5
)

// Bounds of a request. RFC 2347 §3 asks for no more than 512 bytes in all.
const (
	maxName    = 450
	maxOptions = 16
)

// Block sizes. RFC 2348 lets a client ask for 8 to 65464 bytes; the library
// grants none below what goes without saying.
const (
	defaultBlksize = 512
	minBlksize     = 8
	maxBlksize     = 65464
	// overhead is what a block's datagram has besides: IP, UDP and TFTP headers.
	overhead = 20 + 8 + 4
)

// request is one read or write request, decoded.
type request struct {
	from    netip.AddrPort
	local   netip.Addr // the address of ours that it came to
	write   bool
	name    string // as it came
	text    bool   // mode netascii
	blksize int    // asked for; 0: not
	size    bool   // asks for the file's size
}

var errNoRequest = errors.New("the packet is no TFTP request")

// parseRequest reads a request (RFC 1350 §5, RFC 2347 §2). Options that nobody
// here knows are passed over, as RFC 2347 §3 asks; so are values that make no
// sense. The last zero byte may be missing.
func parseRequest(b []byte) (request, error) {
	if len(b) < 2 {
		return request{}, errNoRequest
	}
	op := binary.BigEndian.Uint16(b)
	words := bytes.SplitN(b[2:], []byte{0}, 2+2*maxOptions+1)
	if op != opRead && op != opWrite || len(words) < 3 {
		return request{}, errNoRequest
	}
	r := request{write: op == opWrite, name: string(words[0]), text: strings.EqualFold(string(words[1]), "netascii")}
	if len(r.name) > maxName {
		return request{}, fmt.Errorf("a file name of %d bytes", len(r.name))
	}
	for k := 2; k+1 < min(len(words), 2+2*maxOptions); k += 2 {
		switch value := string(words[k+1]); strings.ToLower(string(words[k])) { // RFC 2347 §2: in any case
		case "blksize":
			if n, err := strconv.ParseUint(value, 10, 16); err == nil && n >= minBlksize && n <= maxBlksize {
				r.blksize = int(n)
			}
		case "tsize":
			r.size = true
		}
	}
	return r, nil
}

// packet is the request as the library is given it: with the block size that is
// granted, which may be smaller than what was asked for (RFC 2348), and without
// what it does not know. The library leaves out a size that it is not asked for
// with a zero.
func (r request) packet(blksize int) []byte {
	mode := "octet"
	if r.text {
		mode = "netascii"
	}
	b := append([]byte{0, opRead}, printable(r.name)...)
	b = append(append(append(b, 0), mode...), 0)
	if r.blksize >= defaultBlksize {
		b = append(strconv.AppendInt(append(b, "blksize\x00"...), int64(blksize), 10), 0)
	}
	if r.size {
		b = append(b, "tsize\x000\x00"...)
	}
	return b
}

// grant is the size of the blocks that a client gets: what it asks for, at most
// what fits a packet of its path, and at most limit where that is not 0.
func (r request) grant(mtu, limit int) int {
	if r.blksize < defaultBlksize {
		return defaultBlksize
	}
	n := min(r.blksize, mtu-overhead)
	if limit != 0 {
		n = min(n, limit)
	}
	return max(n, defaultBlksize)
}
