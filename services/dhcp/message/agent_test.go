package message

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSwitchPortIsReadInEachVendorsForm(t *testing.T) {
	for name, c := range map[string]struct {
		option string // option 82 in hexadecimal, text in quotes
		want   string
	}{
		"Cisco IOS":                        {"01 06 0004 000c 00 03 02 08 0006 001122334455", "switch 00:11:22:33:44:55, port 0/3 (VLAN 12)"},
		"Cisco IOS with a text":            {"01 09 0107 'Gi1/0/3' 02 0a 0108 'closet-2'", "switch closet-2, port Gi1/0/3"},
		"HP ProCurve":                      {"01 02 0017 02 06 001b3f0a0b0c", "switch 00:1b:3f:0a:0b:0c, port 23"},
		"Juniper":                          {"01 0e 'ge-0/0/3.0:120' 02 11 '00:11:22:33:44:55'", "switch 00:11:22:33:44:55, port ge-0/0/3.0 (VLAN 120)"},
		"Juniper with the VLAN's name":     {"01 0f 'ge-0/0/3.0:boot'", "port ge-0/0/3.0:boot"},
		"Arista":                           {"01 0e 'Ethernet14:120' 02 0e '001b.3f0a.0b0c'", "switch 00:1b:3f:0a:0b:0c, port Ethernet14 (VLAN 120)"},
		"dhcrelay":                         {"01 04 'eth1'", "port eth1"},
		"a C string":                       {"01 05 'eth1' 00", "port eth1"},
		"a form that nobody knows":         {"01 05 8001020304", "port 8001020304"},
		"only the switch":                  {"02 03 'tor'", "switch tor"},
		"only the VLAN":                    {"01 06 0004 000c 00 00", "port 0/0 (VLAN 12)"},
		"nothing":                          {"", ""},
		"an empty circuit":                 {"01 00 02 00", ""},
		"cut off":                          {"02 03 'tor' 01 09 'eth'", "switch tor"},
		"sub-options that nobody reads":    {"97 02 ffff 01 04 'eth1' 0c 01 01", "port eth1"},
		"a VLAN that there cannot be":      {"01 0a 'eth1:99999'", "port eth1:99999"},
		"text with a control character":    {"01 05 'eth' 1b 31", "port 6574681b31"},
		"no more than a page has room for": {"01 c8 " + strings.Repeat("61", 200), "port " + strings.Repeat("a", 64)},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, decodeAgent(bytesOf(t, c.option)).Switch.String()) })
	}
}

// bytesOf reads hexadecimal with text in single quotes between.
func bytesOf(t *testing.T, s string) []byte {
	t.Helper()
	var out []byte
	for i, part := range strings.Split(s, "'") {
		if i%2 == 1 {
			out = append(out, part...)
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(part, " ", ""))
		require.NoError(t, err)
		out = append(out, b...)
	}
	return out
}

func TestRelaySaysWhereAndHowToAnswer(t *testing.T) {
	link, server := netip.MustParseAddr("10.88.0.0"), netip.MustParseAddr("10.88.0.1")
	for option, want := range map[string]Agent{
		"05 04 0a580000":                {Link: link},
		"96 04 0a580000":                {Link: link},
		"0b 04 0a580001":                {Server: server},
		"98 04 0a580001":                {Server: server},
		"13 00":                         {SourcePort: true},
		"05 04 0a580000 0b 04 0a580001": {Link: link, Server: server},
		"05 03 0a5800":                  {},
		"05 04 00000000":                {},
		"05":                            {},
		"":                              {},
	} {
		assert.Equal(t, want, decodeAgent(bytesOf(t, option)), option)
	}
}

func FuzzAgent(f *testing.F) {
	f.Add([]byte{1, 6, 0, 4, 0, 12, 0, 3, 2, 8, 0, 6, 0, 0x11, 0x22, 0x33, 0x44, 0x55})
	f.Add([]byte("\x01\x0ege-0/0/3.0:120\x02\x03tor\x05\x04\x0a\x58\x00\x00\x13\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := decodeAgent(b)
		for _, s := range []string{a.Switch.Name, a.Switch.Port} {
			if len(s) > maxAgentText || s != "" && !printable([]byte(s)) {
				t.Fatalf("%q is shown to people", s)
			}
		}
		if a.Switch.VLAN < 0 || a.Switch.VLAN > 4095 {
			t.Fatalf("VLAN %d", a.Switch.VLAN)
		}
	})
}

func TestGatewayThatNobodyCanHaveIsRefused(t *testing.T) {
	for giaddr, ok := range map[string]bool{
		"0.0.0.0": true, "10.88.0.1": true, "127.5.0.1": true,
		"224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false, "0.0.0.7": false,
	} {
		p, err := dhcpv4.NewDiscovery([]byte{2, 0, 0, 0, 0, 1})
		require.NoError(t, err)
		a := netip.MustParseAddr(giaddr)
		p.GatewayIPAddr = a.AsSlice()
		_, err = Decode(p)
		assert.Equal(t, ok, err == nil, giaddr)
	}
}
