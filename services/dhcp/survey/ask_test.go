package survey

import (
	"bufio"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/store"
)

var card = store.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56}

// captured reads what real clients sent.
func captured(t *testing.T, name string) *dhcpv4.DHCPv4 {
	t.Helper()
	f, err := os.Open("../message/testdata/requests.txt")
	require.NoError(t, err)
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		n, text, _ := strings.Cut(sc.Text(), " ")
		if n != name {
			continue
		}
		b, err := hex.DecodeString(text)
		require.NoError(t, err)
		p, err := dhcpv4.FromBytes(b)
		require.NoError(t, err)
		return p
	}
	t.Fatal("no capture " + name)
	return nil
}

func TestASurveySendsWhatTheRealClientsSend(t *testing.T) {
	id := identityOf(card)
	for kind, capture := range map[store.ClientKind]string{store.ClientUEFI: "ovmf-pxe-discover", store.ClientHTTP: "ovmf-http-discover", store.ClientIPXE: "snponly-discover"} {
		got, err := discover(kind, id)
		require.NoError(t, err)
		want := captured(t, capture)
		// Whose it is differs, what it says does not.
		own := map[uint8]bool{61: true, 97: true}
		for code, value := range want.Options {
			if own[code] {
				assert.True(t, got.Options.Has(dhcpv4.GenericOptionCode(code)), "%s lacks option %d", kind, code)
			} else {
				assert.Equal(t, value, got.Options.Get(dhcpv4.GenericOptionCode(code)), "%s, option %d", kind, code)
			}
		}
		assert.Len(t, got.Options, len(want.Options), "%s", kind)
	}
	bios, err := discover(store.ClientBIOS, id)
	require.NoError(t, err)
	assert.False(t, bios.Options.Has(dhcpv4.GenericOptionCode(175)), "firmware is no iPXE")
	plain, err := discover(store.ClientPlain, id)
	require.NoError(t, err)
	assert.False(t, plain.Options.Has(dhcpv4.OptionClientSystemArchitectureType), "an operating system does not boot")
}

func TestASurveyIsAlwaysTheSameStrangerOnItsCard(t *testing.T) {
	a, b := identityOf(card), identityOf(card)
	assert.Equal(t, a, b)
	assert.NotEqual(t, a.mac, identityOf(store.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x57}).mac)
	for last := range 256 {
		id := identityOf(store.MAC{0, 0, 0, 0, 0, byte(last)})
		assert.Equal(t, byte(2), id.mac[0]&3, "locally administered, and no group")
	}
}

func reply(t *testing.T, to *dhcpv4.DHCPv4, mods ...dhcpv4.Modifier) []byte {
	t.Helper()
	p, err := dhcpv4.NewReplyFromRequest(to, append([]dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer)}, mods...)...)
	require.NoError(t, err)
	return p.ToBytes()
}

func TestAnAnswerIsReadWhole(t *testing.T) {
	probes, err := newProbes(identityOf(card), store.ClientKinds())
	require.NoError(t, err)
	for _, p := range probes {
		h, ok := answer(reply(t, p.sent, dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 9)), dhcpv4.WithServerIP(net.IPv4(10, 0, 0, 3)),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 2))), dhcpv4.WithOption(dhcpv4.OptBootFileName("a\x1b[31m.efi")),
			dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient"))), probes)
		require.True(t, ok)
		assert.Equal(t, store.Heard{As: p.kind, Server: netip.MustParseAddr("10.0.0.2"), Offered: netip.MustParseAddr("10.0.0.9"), Next: netip.MustParseAddr("10.0.0.3"), File: "a[31m.efi", PXE: true}, h)
	}
	old := probes[0].sent
	p, err := dhcpv4.NewReplyFromRequest(old, dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer))
	require.NoError(t, err)
	p.BootFileName = "pxelinux.0" // the field instead of the option
	h, ok := answer(p.ToBytes(), probes)
	require.True(t, ok)
	assert.Equal(t, "pxelinux.0", h.File)
	assert.False(t, h.Offered.IsValid())
}

func TestAnotherClientsAnswerIsNotOurs(t *testing.T) {
	probes, err := newProbes(identityOf(card), store.ClientKinds())
	require.NoError(t, err)
	stranger, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 1})
	require.NoError(t, err)
	_, ok := answer(reply(t, stranger), probes)
	assert.False(t, ok)
	_, ok = answer(probes[0].sent.ToBytes(), probes)
	assert.False(t, ok, "our own question")
	_, ok = answer(nil, probes)
	assert.False(t, ok)
}

func FuzzAnswer(f *testing.F) {
	probes, err := newProbes(identityOf(card), store.ClientKinds())
	require.NoError(f, err)
	p, err := dhcpv4.NewReplyFromRequest(probes[1].sent, dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer))
	require.NoError(f, err)
	f.Add(p.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := answer(b, probes)
		if ok && len(h.File) > maxFile {
			t.Errorf("a file name of %d bytes", len(h.File))
		}
	})
}
