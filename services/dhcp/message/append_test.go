package message

import (
	"net"
	"slices"
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

func TestWhatAMessageIsLongIsKnownBeforeItIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &dhcpv4.DHCPv4{Options: rapid.MapOfN(rapid.Byte(), rapid.SliceOfN(rapid.Byte(), 0, 600), 0, 40).Draw(t, "options")}
		assert.Equal(t, len(Append(nil, p)), max(length(p), leastLen))
	})
}

// RFC 2131 §2: who says nothing takes 576 bytes with IP's and UDP's headers.
func TestTheRoomOfAClient(t *testing.T) {
	for _, c := range []struct{ says, mtu, want int }{
		{0, 1500, 548}, {100, 1500, 548}, {576, 1500, 548}, {1472, 1500, 1444}, {65280, 1500, 1472}, {1472, 1400, 1372}, {65280, 0, 1472}, {65280, 9000, 8972},
	} {
		assert.Equal(t, c.want, Request{MaxSize: c.says}.Room(c.mtu), "%+v", c)
	}
}

func TestWhatDoesNotFitIsLeftOutLeastNeededFirst(t *testing.T) {
	full := func() *dhcpv4.DHCPv4 {
		p := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, Options: dhcpv4.Options{}}
		for _, code := range []uint8{1, 3, 6, 12, 15, 26, 28, 42, 43, 51, 53, 54, 58, 59, 60, 61, 66, 67, 82, 97, 119, 175} {
			p.Options[code] = make([]byte, 40)
		}
		return p
	}
	left := func(most int) (gone []uint8, dns int) {
		p, all := full(), full()
		Fit(p, most)
		for code := range all.Options {
			if !p.Options.Has(dhcpv4.GenericOptionCode(code)) {
				gone = append(gone, code)
			}
		}
		slices.Sort(gone)
		return gone, len(p.Options[6])
	}
	size := length(full())
	for most, want := range map[int][]uint8{size: nil, size - 1: {119}, size - 42: {119}, size - 43: {42, 119}, size - 85: {15, 42, 119}, size - 127: {15, 28, 42, 119}} {
		gone, dns := left(most)
		assert.Equal(t, want, gone, most)
		assert.Equal(t, 40, dns, most)
	}
	for _, most := range []int{size - 169, 0} {
		gone, dns := left(most)
		assert.Equal(t, []uint8{15, 28, 42, 119}, gone, "what booting needs stays, whether or not it fits")
		assert.Equal(t, 4, dns, "one server's address is enough")
	}
}

func TestWritingAMessageMakesNothing(t *testing.T) {
	p, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 1}, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient")))
	assert.NoError(t, err)
	buf := make([]byte, 0, 1500)
	assert.Zero(t, testing.AllocsPerRun(100, func() { buf = Append(buf[:0], p) }))
}
