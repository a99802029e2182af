// Package oui says who made a network card, by the first bytes of its MAC.
//
// It is pure. The table is the IEEE's public listing as Debian's package
// ieee-data carries it, with shortened names; oui.txt is searched where it lies
// in the binary, so that nothing is unpacked or kept.
package oui

import (
	_ "embed"
	"sort"
	"strings"

	"lunboot/store"
)

//go:generate go run generate.go

// table has a line for each prefix, "0007E9 Intel", by prefix. Prefixes have 6,
// 7 or 9 digits: MA-L, MA-M and MA-S with the older IAB.
//
//go:embed oui.txt
var table string

// Kind says what sort of address a MAC is. The zero value is a card's own.
type Kind uint8

// The kinds of address.
const (
	Card    Kind = iota // of a maker, or of one that the table does not know
	Virtual             // of a virtual machine
	Local               // locally administered: made up, and says nothing (IEEE 802-2014 §8.4)
)

// Maker is who made a card.
type Maker struct {
	Name string // short: "Intel"; "" when the table does not know it
	Kind Kind
}

// String prints what people read: "Intel", "QEMU virtual machine", "locally
// administered address", or "" when nothing is known.
func (m Maker) String() string {
	switch {
	case m.Kind == Virtual:
		return m.Name + " virtual machine"
	case m.Kind == Local:
		return "locally administered address"
	}
	return m.Name
}

// virtual are the prefixes that hypervisors give to their machines. Some are
// locally administered, and some are their maker's whole block.
var virtual = [...]struct{ prefix, name string }{
	{"525400", "QEMU"}, {"080027", "VirtualBox"}, {"0A0027", "VirtualBox"},
	{"005056", "VMware"}, {"000C29", "VMware"}, {"000569", "VMware"}, {"001C14", "VMware"},
	{"00155D", "Hyper-V"}, {"00163E", "Xen"}, {"001C42", "Parallels"}, {"589CFC", "bhyve"}, {"BC2411", "Proxmox"}, {"506B8D", "Nutanix"},
}

// Of returns the maker of a card.
func Of(mac store.MAC) Maker {
	digits := strings.ToUpper(mac.Hex12())
	for _, v := range virtual {
		if strings.HasPrefix(digits, v.prefix) {
			return Maker{Name: v.name, Kind: Virtual}
		}
	}
	if mac[0]&0x02 != 0 {
		return Maker{Kind: Local}
	}
	for _, n := range []int{9, 7, 6} { // the longest prefix is the owner's
		if name, ok := find(digits[:n]); ok {
			return Maker{Name: name}
		}
	}
	return Maker{}
}

// find searches the lines of the table for a prefix. The search is over bytes:
// an offset stands for the line that it lies in.
func find(prefix string) (name string, ok bool) {
	at := sort.Search(len(table), func(i int) bool { return key(line(i)) >= prefix })
	if at == len(table) {
		return "", false
	}
	k, name, _ := strings.Cut(line(at), " ")
	return name, k == prefix
}

// line returns the line of the table in which the byte i lies.
func line(i int) string {
	begin := strings.LastIndexByte(table[:i], '\n') + 1
	end := strings.IndexByte(table[begin:], '\n')
	return table[begin:][:end]
}

func key(line string) string { k, _, _ := strings.Cut(line, " "); return k }
