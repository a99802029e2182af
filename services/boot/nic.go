package boot

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// NIC is what iPXE says of the network card that it boots from: the bus, and
// the vendor and device by which cards of one kind are known on that bus. The
// zero value is a card that nothing is known of.
type NIC struct {
	Bus            byte // iPXE's BUS_TYPE_… (include/ipxe/device.h)
	Vendor, Device uint16
}

// nicLength is the size of iPXE's struct dhcp_netdev_desc (include/ipxe/dhcp.h):
// the bus, then vendor and device in network order.
const nicLength = 5

// NICOf reads the sub-option 177 of option 175, which iPXE sends with every DHCP
// request and also keeps as its setting netX/busid. ok is false when b is
// something else.
func NICOf(b []byte) (n NIC, ok bool) {
	if len(b) != nicLength || b[0] == 0 {
		return NIC{}, false
	}
	return NIC{Bus: b[0], Vendor: uint16(b[1])<<8 | uint16(b[2]), Device: uint16(b[3])<<8 | uint16(b[4])}, true
}

// ParseNIC reads what iPXE makes of ${netX/busid}: five bytes in hexadecimal
// with colons, "01:80:86:10:0e".
func ParseNIC(s string) (n NIC, ok bool) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil {
		return NIC{}, false
	}
	return NICOf(b)
}

// IsZero reports whether nothing is known of the card.
func (n NIC) IsZero() bool { return n == NIC{} }

// String prints "PCI 8086:100e", as lspci and lsusb do; "" for the zero value.
func (n NIC) String() string {
	if n.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s %04x:%04x", n.busName(), n.Vendor, n.Device)
}

func (n NIC) busName() string {
	switch n.Bus {
	case 1:
		return "PCI"
	case 2:
		return "ISA PnP"
	case 3:
		return "EISA"
	case 4:
		return "MCA"
	case 5:
		return "ISA"
	case 6:
		return "TAP"
	case 7:
		return "EFI"
	case 8:
		return "Xen"
	case 9:
		return "Hyper-V"
	case 10:
		return "USB"
	case 11:
		return "device tree"
	}
	return fmt.Sprintf("bus %d", n.Bus)
}
