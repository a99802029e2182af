package store

import (
	"net/netip"
	"strings"
	"testing"
)

// answered makes a server's answers to some kinds of client.
func answered(server, offered, file string, pxe bool, kinds ...ClientKind) []Heard {
	var out []Heard
	for _, k := range kinds {
		h := Heard{As: k, Server: netip.MustParseAddr(server), MAC: MAC{2, 0, 0, 0, 0, 9}, File: file, PXE: pxe}
		if offered != "" {
			h.Offered = netip.MustParseAddr(offered)
		}
		out = append(out, h)
	}
	return out
}

func TestASurveySaysWhichModeFits(t *testing.T) {
	router := answered("192.168.1.254", "192.168.1.77", "", false, ClientKinds()...)
	proxy := answered("192.168.1.9", "", "snponly.efi", true, ClientUEFI)
	menu := answered("192.168.1.9", "", "", true, ClientBIOS)
	both := append(answered("192.168.1.254", "192.168.1.77", "", false, ClientPlain), answered("192.168.1.254", "192.168.1.77", "pxelinux.0", false, ClientBIOS, ClientUEFI)...)
	ours := answered("192.168.1.1", "192.168.1.130", "undionly.kpxe", false, ClientBIOS)
	ours[0].Ours = true
	join := func(parts ...[]Heard) (out []Heard) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	for name, c := range map[string]struct {
		heard   []Heard
		verdict SurveyVerdict
		fits    DHCPMode
		says    []string
	}{
		"nobody":                   {nil, VerdictNobody, DHCPFull, []string{"nobody else answers"}},
		"only ourselves":           {ours, VerdictNobody, DHCPFull, []string{"nobody else answers"}},
		"a router":                 {router, VerdictAddresses, DHCPProxy, []string{"192.168.1.254 (02:00:00:00:00:09) gives addresses and boots nothing: proxy fits"}},
		"a router and ourselves":   {join(router, ours), VerdictAddresses, DHCPProxy, []string{"boots nothing"}},
		"two routers":              {join(router, answered("192.168.1.253", "192.168.1.9", "", false, ClientPlain)), VerdictAddresses, DHCPProxy, []string{" and 192.168.1.253 ", " give addresses and boot nothing"}},
		"a server that boots too":  {both, VerdictConflict, DHCPProxy, []string{`gives addresses and boots BIOS machines, UEFI machines with "pxelinux.0"`, "options 66 and 67"}},
		"a file for everybody":     {answered("10.0.0.2", "10.0.0.9", "pxelinux.0", false, ClientKinds()...), VerdictConflict, DHCPProxy, []string{`gives addresses and boots everybody with "pxelinux.0"`}},
		"a router and a proxy":     {join(router, proxy), VerdictConflict, DHCPProxy, []string{"192.168.1.254 (02:00:00:00:00:09) gives addresses; 192.168.1.9", `gives no addresses and boots UEFI machines with "snponly.efi"`}},
		"only a proxy":             {proxy, VerdictBootOnly, DHCPOff, []string{"nobody gives addresses"}},
		"only a proxy with a menu": {menu, VerdictBootOnly, DHCPOff, []string{"boots BIOS machines through a PXE menu"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := Survey{Interface: "eth1", Heard: c.heard}
			if got := s.Verdict(); got != c.verdict {
				t.Errorf("the verdict is %s, want %s", got, c.verdict)
			}
			if got := s.Fits(); got != c.fits {
				t.Errorf("%s fits, want %s", got, c.fits)
			}
			for _, want := range c.says {
				if !strings.Contains(s.Sentence(), want) {
					t.Errorf("it says %q, not %q", s.Sentence(), want)
				}
			}
		})
	}
}

func TestASurveyThatCouldNotAskGuessesNothing(t *testing.T) {
	s := Survey{Failed: "the capability NET_RAW is needed"}
	if s.Verdict() != VerdictUnknown || s.Fits() != DHCPOff || s.Sentence() != s.Failed {
		t.Errorf("%s, %s: %s", s.Verdict(), s.Fits(), s.Sentence())
	}
}

func TestAServerIsNamedByItsCardsMaker(t *testing.T) {
	h := answered("192.168.1.254", "192.168.1.77", "", false, ClientPlain)
	h[0].Maker = "AVM"
	if got := (Survey{Heard: h}).Sentence(); !strings.HasPrefix(got, "192.168.1.254 (AVM, 02:00:00:00:00:09) gives addresses") {
		t.Error(got)
	}
}

func TestTheFileOnAnotherServerIsNamedWithThatServer(t *testing.T) {
	h := answered("10.0.0.2", "10.0.0.50", "a/boot.efi", false, ClientUEFI)
	h[0].Next = netip.MustParseAddr("10.0.0.3")
	if got := (Survey{Heard: h}).Sentence(); !strings.Contains(got, `with "a/boot.efi" from 10.0.0.3`) {
		t.Error(got)
	}
}
