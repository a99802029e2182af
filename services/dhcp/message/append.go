package message

import (
	"net"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Lengths of a BOOTP message (RFC 951 §3).
const (
	headerLen = 236
	leastLen  = 300
	snameLen  = 64
	fileLen   = 128
	chaddrLen = 16
)

// Append writes a message behind dst, as the library's ToBytes does: options by
// rising code, what a relay put in last (RFC 3046 §2.1), one of more than 255
// bytes in pieces (RFC 3396). It makes no buffers of its own, which for one answer
// would be ten.
func Append(dst []byte, p *dhcpv4.DHCPv4) []byte {
	at := len(dst)
	dst = append(dst, byte(p.OpCode), byte(p.HWType), byte(len(p.ClientHWAddr)), p.HopCount)
	dst = append(dst, p.TransactionID[:]...)
	dst = append(dst, byte(p.NumSeconds>>8), byte(p.NumSeconds), byte(p.Flags>>8), byte(p.Flags))
	for _, ip := range [...]net.IP{p.ClientIPAddr, p.YourIPAddr, p.ServerIPAddr, p.GatewayIPAddr} {
		if v4 := ip.To4(); v4 != nil {
			dst = append(dst, v4...)
		} else {
			dst = append(dst, 0, 0, 0, 0)
		}
	}
	var zeros [fileLen]byte
	field := func(v string, n, most int) {
		v = v[:min(len(v), most)]
		dst = append(dst, v...)
		dst = append(dst, zeros[:n-len(v)]...)
	}
	hw := p.ClientHWAddr[:min(len(p.ClientHWAddr), chaddrLen)]
	dst = append(dst, hw...)
	dst = append(dst, zeros[:chaddrLen-len(hw)]...)
	field(p.ServerHostName, snameLen, snameLen-1) // which ends with a zero
	field(p.BootFileName, fileLen, fileLen-1)
	dst = append(dst, 99, 130, 83, 99) // RFC 2131 §3
	var room [64]byte
	codes := room[:0]
	for code := range p.Options {
		if code != 0 && code != 255 {
			codes = append(codes, code)
		}
	}
	slices.SortFunc(codes, func(a, b byte) int { return int(last(a)) - int(last(b)) })
	for _, code := range codes {
		v := p.Options[code]
		for first := true; first || len(v) > 0; first = false {
			n := min(len(v), 255)
			dst = append(dst, code, byte(n))
			dst = append(dst, v[:n]...)
			v = v[n:]
		}
	}
	dst = append(dst, 255)
	if short := leastLen - (len(dst) - at); short > 0 {
		dst = append(dst, zeros[:short]...)
	}
	return dst
}

// last orders what a relay put in behind everything else.
func last(code byte) byte {
	if code == dhcpv4.OptionRelayAgentInformation.Code() {
		return 255
	}
	return code
}
