package message

import "net/netip"

// Sub-options of option 82.
const (
	agentLink   = 5  // link selection, RFC 3527 §2
	agentServer = 11 // server identifier override, RFC 5107 §4
)

// Agent is what a relay agent says in option 82 (RFC 3046).
type Agent struct {
	Link   netip.Addr // an address of the subnet that the client is on; not valid when it names none
	Server netip.Addr // what the client is to know the server by: the relay itself; not valid when it names none
}

// decodeAgent reads option 82. What comes after a sub-option that is cut off is
// not read; RFC 3046 §2.0 gives them no padding.
func decodeAgent(b []byte) Agent {
	var a Agent
	for len(b) >= 2 {
		code, n := b[0], int(b[1])
		if n > len(b)-2 {
			break
		}
		v := b[2 : 2+n]
		b = b[2+n:]
		switch {
		case code == agentLink && len(v) == 4:
			a.Link = AddrOf(v)
		case code == agentServer && len(v) == 4:
			a.Server = AddrOf(v)
		}
	}
	return a
}
