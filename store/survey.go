package store

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// ClientKind is the kind of client that a survey asks as: what a DHCP server
// answers depends on it.
type ClientKind string

// The kinds of client.
const (
	ClientPlain ClientKind = "plain" // an operating system, which only wants an address
	ClientBIOS  ClientKind = "bios"  // PXE firmware of a BIOS machine
	ClientUEFI  ClientKind = "uefi"  // PXE firmware of a UEFI x86-64 machine
	ClientHTTP  ClientKind = "http"  // the HTTP boot of such a machine
	ClientIPXE  ClientKind = "ipxe"  // an iPXE that is already running
)

// ClientKinds lists every kind.
func ClientKinds() []ClientKind {
	return []ClientKind{ClientPlain, ClientBIOS, ClientUEFI, ClientHTTP, ClientIPXE}
}

// Words names the kind in a sentence.
func (k ClientKind) Words() string {
	switch k {
	case ClientBIOS:
		return "BIOS machines"
	case ClientUEFI:
		return "UEFI machines"
	case ClientHTTP:
		return "UEFI HTTP boot"
	case ClientIPXE:
		return "iPXE"
	}
	return "operating systems"
}

// Heard is one DHCP answer to a survey.
type Heard struct {
	As      ClientKind `json:"as"`
	Server  netip.Addr `json:"server"`          // its server identifier
	MAC     MAC        `json:"mac"`             // the card that the answer came from: the server's, or its relay's
	Maker   string     `json:"maker,omitempty"` // who made that card; empty when it cannot be told
	Offered netip.Addr `json:"offered"`         // the address that it offers; the zero Addr is none
	File    string     `json:"file,omitempty"`  // the boot file that it names
	Next    netip.Addr `json:"next_server"`     // where that file is; the zero Addr is the server itself
	PXE     bool       `json:"pxe,omitempty"`   // it calls itself a PXE server (option 60), as a proxy does
	Ours    bool       `json:"ours,omitempty"`  // it is this appliance
}

// boots reports whether the answer makes a machine boot.
func (h Heard) boots() bool { return h.File != "" || h.PXE }

// Survey is who answers DHCP on one interface, asked as each kind of client.
type Survey struct {
	Interface string    `json:"interface"`
	At        time.Time `json:"at"`
	Heard     []Heard   `json:"heard"`
	Failed    string    `json:"failed,omitempty"` // why nobody could be asked
}

// SurveyVerdict says what a survey found, our own answers left out.
type SurveyVerdict string

// The verdicts.
const (
	VerdictUnknown   SurveyVerdict = "unknown"   // nobody could be asked
	VerdictNobody    SurveyVerdict = "nobody"    // nobody else answers
	VerdictAddresses SurveyVerdict = "addresses" // somebody gives addresses and boots nothing, as a router does
	VerdictConflict  SurveyVerdict = "conflict"  // somebody gives addresses, and they or another boot machines
	VerdictBootOnly  SurveyVerdict = "boot-only" // somebody boots machines and nobody gives addresses
)

// SurveyServer is one server that a survey heard, with all its answers.
type SurveyServer struct {
	Server    netip.Addr
	MAC       MAC
	Maker     string
	Addresses bool    // it offers addresses
	Boots     []Heard // its answers that boot
	Ours      bool
}

// Servers gathers the answers by server, in the order in which they were heard.
func (s Survey) Servers() []SurveyServer {
	var out []SurveyServer
	for _, h := range s.Heard {
		at := slices.IndexFunc(out, func(o SurveyServer) bool { return o.Server == h.Server })
		if at < 0 {
			out = append(out, SurveyServer{Server: h.Server, MAC: h.MAC, Maker: h.Maker, Ours: h.Ours})
			at = len(out) - 1
		}
		o := &out[at]
		o.Addresses = o.Addresses || h.Offered.IsValid()
		if h.boots() {
			o.Boots = append(o.Boots, h)
		}
	}
	return out
}

// Others is Servers without ourselves.
func (s Survey) Others() []SurveyServer {
	return slices.DeleteFunc(s.Servers(), func(o SurveyServer) bool { return o.Ours })
}

// Verdict says what was found.
func (s Survey) Verdict() SurveyVerdict {
	if s.Failed != "" {
		return VerdictUnknown
	}
	addresses, boots := false, false
	for _, o := range s.Others() {
		addresses = addresses || o.Addresses
		boots = boots || len(o.Boots) > 0
	}
	switch {
	case addresses && boots:
		return VerdictConflict
	case addresses:
		return VerdictAddresses
	case boots:
		return VerdictBootOnly
	}
	return VerdictNobody
}

// Fits is the mode that fits what was heard. Where others boot machines and
// nobody gives addresses, no mode is safe to propose: full would meet their
// answers, and proxy would leave machines without an address.
func (s Survey) Fits() DHCPMode {
	switch s.Verdict() {
	case VerdictNobody:
		return DHCPFull
	case VerdictAddresses, VerdictConflict:
		return DHCPProxy
	}
	return DHCPOff
}

// Sentence tells the verdict to the operator, and what to do about it.
func (s Survey) Sentence() string {
	switch s.Verdict() {
	case VerdictNobody:
		return "nobody else answers DHCP here: this appliance can give the addresses"
	case VerdictAddresses:
		var who []string
		for _, o := range s.Others() {
			who = append(who, o.String())
		}
		return fmt.Sprintf("%s %s addresses and %s nothing: proxy fits", strings.Join(who, " and "), number(len(who), "gives", "give"), number(len(who), "boots", "boot"))
	case VerdictConflict:
		return strings.Join(s.each(), "; ") + ". Two boot servers on one network race for each machine: take the boot file (options 66 and 67, or next-server and filename) out of the other one, then proxy fits"
	case VerdictBootOnly:
		return strings.Join(s.each(), "; ") + ", and nobody gives addresses. Turn that server off, or let it boot these machines"
	}
	return s.Failed
}

// each says of every other server what it does.
func (s Survey) each() []string {
	var out []string
	for _, o := range s.Others() {
		text := o.String() + " "
		switch {
		case o.Addresses && len(o.Boots) > 0:
			text += "gives addresses and boots "
		case o.Addresses:
			text += "gives addresses"
		default:
			text += "gives no addresses and boots "
		}
		out = append(out, text+o.booted())
	}
	return out
}

// booted lists whom a server boots, and by which file.
func (o SurveyServer) booted() string {
	var files []string
	whom := map[string][]string{}
	for _, h := range o.Boots {
		file := "through a PXE menu"
		if h.File != "" {
			file = fmt.Sprintf("with %q", h.File)
			if h.Next.IsValid() && h.Next != h.Server {
				file += " from " + h.Next.String()
			}
		}
		if whom[file] == nil {
			files = append(files, file)
		}
		if !slices.Contains(whom[file], h.As.Words()) {
			whom[file] = append(whom[file], h.As.Words())
		}
	}
	for i, f := range files {
		who := strings.Join(whom[f], ", ")
		if len(whom[f]) == len(ClientKinds()) {
			who = "everybody"
		}
		files[i] = who + " " + f
	}
	return strings.Join(files, "; ")
}

// String names a server by its address and its card.
func (o SurveyServer) String() string {
	switch {
	case o.MAC.IsZero():
		return o.Server.String()
	case o.Maker != "":
		return fmt.Sprintf("%s (%s, %s)", o.Server, o.Maker, o.MAC)
	}
	return fmt.Sprintf("%s (%s)", o.Server, o.MAC)
}

func number(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// Link is one network interface of the appliance, with what is known of the
// network behind it and the part that the appliance takes there.
type Link struct {
	Name      string         `json:"name"`
	MAC       MAC            `json:"mac"`
	Addresses []netip.Prefix `json:"addresses,omitempty"` // ours, with the length of the network
	Up        bool           `json:"up"`
	Carrier   bool           `json:"carrier"`             // something answers at the other end of the cable
	Default   bool           `json:"default,omitempty"`   // it leads to the Internet: most likely not the boot network
	Mode      DHCPMode       `json:"mode"`                // off also when nobody has chosen
	Range     Range          `json:"range"`               // the addresses that are given; zero for none
	Proposed  Range          `json:"proposed"`            // a range that could be given; zero for none
	Serving   bool           `json:"serving"`             // the mode is at work now
	Trouble   string         `json:"trouble,omitempty"`   // why it is not
	Locked    string         `json:"locked_by,omitempty"` // the flag that chose
	Survey    *Survey        `json:"survey,omitempty"`    // the last one, nil before the first
}
