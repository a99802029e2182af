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

// Sizes of IP datagrams.
const (
	leastSize  = 576  // that every client takes (RFC 2131 §2)
	plainMTU   = 1500 // of a wire of which nothing else is known
	headersLen = 28   // of IP and UDP
)

// Room is the longest message that a client takes (option 57, RFC 2132 §9.10, which
// counts the IP and UDP headers) on a wire of that MTU; 0 when that is not known.
func (r Request) Room(mtu int) int {
	if mtu <= 0 {
		mtu = plainMTU
	}
	return min(max(leastSize, r.MaxSize), mtu) - headersLen
}

// spare are the options that a machine boots without, least needed first.
var spare = [...]dhcpv4.OptionCode{
	dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionNTPServers, dhcpv4.OptionDomainName, dhcpv4.OptionBroadcastAddress,
}

// Fit takes out of a message that is longer than most bytes what a machine can do
// without, until it fits: a longer one is dropped by firmware, with all that is in
// it. All that booting needs stays, also when it does not fit.
func Fit(p *dhcpv4.DHCPv4, most int) {
	size := length(p)
	for _, code := range spare {
		if size <= most {
			return
		}
		size -= optionLen(p.Options.Get(code))
		p.Options.Del(code)
	}
	if dns := p.Options.Get(dhcpv4.OptionDomainNameServer); size > most && len(dns) > net.IPv4len {
		p.Options.Update(dhcpv4.OptGeneric(dhcpv4.OptionDomainNameServer, dns[:net.IPv4len]))
	}
}

// length is that of what Append writes, without what fills it up.
func length(p *dhcpv4.DHCPv4) int {
	n := headerLen + 4 + 1 // the options' cookie and end
	for code, v := range p.Options {
		if code != 0 && code != 255 {
			n += max(optionLen(v), 2)
		}
	}
	return n
}

// optionLen is how long an option is in a message, 0 for one that is not there.
func optionLen(v []byte) int {
	if v == nil {
		return 0
	}
	return len(v) + 2*max((len(v)+254)/255, 1)
}
