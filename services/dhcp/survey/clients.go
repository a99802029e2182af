package survey

import (
	"crypto/sha256"
	"fmt"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"lunboot/store"
)

// identity is whom the probes claim to be on one interface. It is always the
// same there: a server that sets an address aside for an offer sets aside one,
// and its log and its list of unknown machines have one line and not a new one
// for each survey.
type identity struct {
	mac  store.MAC
	uuid [16]byte
}

func identityOf(card store.MAC) identity {
	sum := sha256.Sum256(append([]byte("lunboot survey "), card[:]...))
	var id identity
	copy(id.mac[:], sum[:6])
	id.mac[0] = id.mac[0]&^1 | 2 // unicast, locally administered (IEEE 802 §8.2.2)
	copy(id.uuid[:], sum[6:22])
	id.uuid[6] = id.uuid[6]&0x0f | 0x80 // version 8, vendor's own (RFC 9562 §5.8)
	id.uuid[8] = id.uuid[8]&0x3f | 0x80
	return id
}

// template is what one kind of client puts into its DISCOVER.
type template struct {
	arch   int // option 93; -1 for none
	class  string
	undi   []byte // option 94
	user   string // option 77, as iPXE sends it: without RFC 3004's length byte
	params []byte // option 55
	ipxe   []byte // option 175
	size   uint16 // option 57
	id     bool   // it sends option 61, type 1 and its MAC
}

// The lists of options that are asked for, from captures of each client; PXE
// 2.1 §2.2.1 has the one of BIOS firmware.
var (
	paramsPlain = []byte{1, 3, 6, 12, 15, 28, 42}
	paramsBIOS  = []byte{1, 2, 3, 5, 6, 11, 12, 13, 15, 16, 17, 18, 43, 54, 60, 67, 128, 129, 130, 131, 132, 133, 134, 135}
	paramsUEFI  = []byte{1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58, 59, 60, 66, 67, 97, 128, 129, 130, 131, 132, 133, 134, 135}
	paramsHTTP  = []byte{1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58, 59, 60, 235, 67, 97}
	paramsIPXE  = []byte{1, 3, 6, 7, 12, 15, 17, 26, 43, 60, 66, 67, 119, 128, 129, 130, 131, 132, 133, 134, 135, 175, 203}
	// A card's bus address, a version, and what the build can do: a server may
	// leave out the boot file for an iPXE that cannot use it.
	featuresIPXE = []byte{0xb1, 5, 1, 0x1a, 0xf4, 0x10, 0, 0xeb, 3, 1, 0, 0, 0x17, 1, 1, 0x24, 1, 1, 0x13, 1, 1, 0x11, 1, 1, 0x27, 1, 1, 0x29, 1, 1, 0x15, 1, 1, 0x12, 1, 1}
)

func templateOf(k store.ClientKind) template {
	switch k {
	case store.ClientBIOS:
		return template{arch: 0, class: "PXEClient:Arch:00000:UNDI:002001", undi: []byte{1, 2, 1}, params: paramsBIOS, size: 1260}
	case store.ClientUEFI:
		return template{arch: 7, class: "PXEClient:Arch:00007:UNDI:003000", undi: []byte{1, 3, 0}, params: paramsUEFI, size: 1472}
	case store.ClientHTTP:
		return template{arch: 16, class: "HTTPClient:Arch:00016:UNDI:003000", undi: []byte{1, 3, 0}, params: paramsHTTP, size: 1472}
	case store.ClientIPXE:
		return template{arch: 7, class: "PXEClient:Arch:00007:UNDI:003010", undi: []byte{1, 3, 10}, user: "iPXE", params: paramsIPXE, ipxe: featuresIPXE, size: 1472, id: true}
	}
	return template{arch: -1, class: "udhcp 1.35.0", params: paramsPlain, size: 576, id: true}
}

// discover makes the DISCOVER of one kind of client. Other than some of them it
// asks for a broadcast, since its MAC is no card's.
func discover(k store.ClientKind, id identity) (*dhcpv4.DHCPv4, error) {
	p, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithHwAddr(id.mac[:]), dhcpv4.WithBroadcast(true))
	if err != nil {
		return nil, fmt.Errorf("make a DISCOVER: %w", err)
	}
	t := templateOf(k)
	set := func(code uint8, v []byte) { p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), v)) }
	set(55, t.params)
	set(57, []byte{byte(t.size >> 8), byte(t.size)})
	set(60, []byte(t.class))
	if t.id {
		set(61, append([]byte{1}, id.mac[:]...))
	}
	if t.arch >= 0 {
		set(93, []byte{byte(t.arch >> 8), byte(t.arch)})
		set(94, t.undi)
		set(97, append([]byte{0}, id.uuid[:]...))
	}
	if t.user != "" {
		set(77, []byte(t.user))
		set(175, t.ipxe)
	}
	return p, nil
}
