package message

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"lunboot/store"
)

// Sub-options of option 82. Cisco's are from before the RFCs; IOS sends them
// unless it is told "ip dhcp compatibility suboption … standard".
const (
	agentCircuit     = 1   // RFC 3046 §3.1
	agentRemote      = 2   // RFC 3046 §3.2
	agentLink        = 5   // link selection, RFC 3527 §2
	agentServer      = 11  // server identifier override, RFC 5107 §4
	agentSourcePort  = 19  // RFC 8357 §4.1
	agentCiscoLink   = 150 // as 5
	agentCiscoServer = 152 // as 11
)

// Agent is what a relay agent, or a switch that snoops, says in option 82 (RFC
// 3046).
type Agent struct {
	Link       netip.Addr // an address of the subnet that the client is on; not valid when it names none
	Server     netip.Addr // what the client is to know the server by: the relay itself; not valid when it names none
	SourcePort bool       // the reply goes to the port that the packet came from (RFC 8357)
	Switch     Switch     // where the client is plugged in
}

// decodeAgent reads option 82. What comes after a sub-option that is cut off is
// not read; RFC 3046 §2.0 knows no padding.
func decodeAgent(b []byte) Agent {
	var a Agent
	for len(b) >= 2 {
		code, n := b[0], int(b[1])
		if n > len(b)-2 {
			break
		}
		v := b[2 : 2+n]
		b = b[2+n:]
		switch code {
		case agentCircuit:
			a.Switch.circuit(v)
		case agentRemote:
			a.Switch.Name = remote(v)
		case agentLink, agentCiscoLink:
			if len(v) == 4 {
				a.Link = addrOfBytes(v)
			}
		case agentServer, agentCiscoServer:
			if len(v) == 4 {
				a.Server = addrOfBytes(v)
			}
		case agentSourcePort:
			a.SourcePort = true
		}
	}
	return a
}

func addrOfBytes(b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// Switch says where a client is plugged in, as its switch or relay words it.
type Switch struct {
	Name string // the switch: its MAC or the name that it was given; empty when unsaid
	Port string // the port, at most maxAgentText bytes; empty when unsaid
	VLAN int    // 0 when unsaid
}

// maxAgentText bounds what a switch may say of itself, in bytes.
const maxAgentText = 64

// String words it for people; it is empty when nothing was said.
func (s Switch) String() string {
	var parts []string
	if s.Name != "" {
		parts = append(parts, "switch "+s.Name)
	}
	if s.Port != "" {
		parts = append(parts, "port "+s.Port)
	}
	out := strings.Join(parts, ", ")
	switch {
	case s.VLAN == 0:
	case out == "":
		out = "VLAN " + strconv.Itoa(s.VLAN)
	default:
		out += fmt.Sprintf(" (VLAN %d)", s.VLAN)
	}
	return out
}

// circuit reads sub-option 1. RFC 3046 leaves its form to the vendor:
//   - type 0, length 4, VLAN, module, port: Cisco IOS, and Comware as HPE sells it;
//   - type 1, length, text: Cisco IOS where the operator gave one, and Arista EOS;
//   - two bytes: the port's number, HP ProCurve;
//   - text, where a VLAN may follow a colon: Juniper ("ge-0/0/3.0:120"), Arista
//     ("Ethernet14:120"), Huawei, and dhcrelay, which says its own interface.
func (s *Switch) circuit(v []byte) {
	switch {
	case len(v) == 6 && v[0] == 0 && v[1] == 4:
		s.VLAN = int(binary.BigEndian.Uint16(v[2:]) & 0x0fff)
		s.Port = fmt.Sprintf("%d/%d", v[4], v[5])
		return
	case len(v) == 2 && !printable(v):
		s.Port = strconv.Itoa(int(binary.BigEndian.Uint16(v)))
		return
	}
	s.Port = agentText(v)
	if name, vlan, ok := strings.Cut(s.Port, ":"); ok && name != "" {
		if n, err := strconv.ParseUint(vlan, 10, 12); err == nil && n > 0 {
			s.Port, s.VLAN = name, int(n)
		}
	}
}

// remote reads sub-option 2: type 0, length 6 and the switch's MAC (Cisco IOS,
// Comware), the bare MAC (HP ProCurve), type 1, length and text (Cisco IOS where
// the operator gave one), or text.
func remote(v []byte) string {
	if len(v) == 8 && v[0] == 0 && v[1] == 6 {
		v = v[2:]
	}
	if len(v) == 6 && !printable(v) {
		return store.MAC(v).String()
	}
	s := agentText(v)
	if mac, err := store.ParseMAC(s); err == nil {
		return mac.String()
	}
	return s
}

// agentText is the printable form of a value: its text, without a type and a
// length before it, else hexadecimal.
func agentText(v []byte) string {
	if len(v) > 2 && v[0] <= 1 && int(v[1]) == len(v)-2 && printable(v[2:]) {
		v = v[2:]
	}
	for len(v) > 0 && v[len(v)-1] == 0 { // a C string
		v = v[:len(v)-1]
	}
	if printable(v) {
		return strings.TrimSpace(string(bound(v, maxAgentText)))
	}
	return hex.EncodeToString(bound(v, maxAgentText/2))
}

// printable reports whether a value is text in ASCII.
func printable(v []byte) bool {
	for _, c := range v {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return len(v) > 0
}
