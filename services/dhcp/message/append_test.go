package message

import (
	"net"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

// Whatever a message holds, it is on the wire what the library writes.
func TestAMessageIsWrittenAsTheLibraryWritesIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ip := func(name string) net.IP {
			if rapid.Bool().Draw(t, name+" given") {
				return net.IP(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, name))
			}
			return nil
		}
		p := &dhcpv4.DHCPv4{
			OpCode: dhcpv4.OpcodeBootReply, HWType: iana.HWTypeEthernet, HopCount: rapid.Byte().Draw(t, "hops"),
			TransactionID: dhcpv4.TransactionID(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "xid")), NumSeconds: rapid.Uint16().Draw(t, "secs"), Flags: rapid.Uint16().Draw(t, "flags"),
			ClientIPAddr: ip("ciaddr"), YourIPAddr: ip("yiaddr"), ServerIPAddr: ip("siaddr"), GatewayIPAddr: ip("giaddr"),
			ClientHWAddr:   rapid.SliceOfN(rapid.Byte(), 0, 16).Draw(t, "chaddr"),
			ServerHostName: rapid.StringN(0, 80, 80).Draw(t, "sname"), BootFileName: rapid.StringN(0, 140, 140).Draw(t, "file"),
			Options: rapid.MapOfN(rapid.Byte(), rapid.SliceOfN(rapid.Byte(), 0, 600), 0, 40).Draw(t, "options"),
		}
		before := []byte("before")
		assert.Equal(t, append([]byte("before"), p.ToBytes()...), Append(before, p))
	})
}

func TestWritingAMessageMakesNothing(t *testing.T) {
	p, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 1}, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient")))
	assert.NoError(t, err)
	buf := make([]byte, 0, 1500)
	assert.Zero(t, testing.AllocsPerRun(100, func() { buf = Append(buf[:0], p) }))
}
