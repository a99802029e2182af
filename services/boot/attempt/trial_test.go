package attempt

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

// ruled lists what a boot said of its loaders.
func (p *tape) ruled() string {
	var out []string
	for _, s := range p.all {
		for _, t := range s.Trials() {
			out = append(out, fmt.Sprintf("%s %s", t.Loader, t.Verdict))
		}
	}
	return strings.Join(out, ", ")
}

// again is the firmware's next question, as the runner passes it on.
func (p *tape) again(after int, d store.Detail) *tape {
	p.s.StartsOver(store.Event{At: p.at.Add(time.Duration(after) * time.Millisecond), Kind: store.EventDHCPDiscover, MAC: theMAC, Detail: d})
	return p.see(after, store.EventDHCPDiscover, d)
}

func TestWhatABootSaysOfItsLoader(t *testing.T) {
	const snp, size = "snponly.efi", 173792
	overHTTP := firmwareUEFI
	overHTTP.Class = "HTTPClient:Arch:00016:UNDI:003000"
	uefi := func() *tape { return newTape(t).dora(firmwareUEFI, "525400770a0a/"+snp) }
	for name, c := range map[string]struct {
		boot *tape
		want string
	}{
		"it fetched its script":                       {uefi().tftp(snp, size).dora(ipxeUEFI, ".").script(), "snponly.efi worked"},
		"it waits to be enrolled":                     {uefi().tftp(snp, size).see(900, store.EventScriptWaiting, store.Detail{}), "snponly.efi worked"},
		"nothing was heard of it":                     {uefi().tftp(snp, size).quiet(limitStart), "snponly.efi silent"},
		"silence is held against it once":             {uefi().tftp(snp, size).quiet(limitStart).again(60_000, firmwareUEFI), "snponly.efi silent"},
		"it spoke after all":                          {uefi().tftp(snp, size).quiet(limitStart).dora(ipxeUEFI, ".").script(), "snponly.efi silent, snponly.efi worked"},
		"the firmware refused it":                     {uefi().tftp(snp, size).again(900, firmwareUEFI), "snponly.efi silent"},
		"somebody may have pulled its plug":           {uefi().tftp(snp, size).again(12_000, firmwareUEFI), "snponly.efi doubtful"},
		"the firmware went on to its next road":       {uefi().tftp(snp, size).again(12_000, overHTTP), "snponly.efi silent"},
		"over HTTP":                                   {uefi().see(900, store.EventLoaderSent, store.Detail{Loader: snp, Bytes: size, Total: size}).quiet(limitStart), "snponly.efi silent"},
		"a part over HTTP":                            {uefi().see(900, store.EventLoaderSent, store.Detail{Loader: snp, Bytes: 9, Total: size}).quiet(limitStart), ""},
		"switched off in the transfer":                {uefi().see(9, store.EventTFTPStart, store.Detail{Loader: snp, Total: size}).see(900, store.EventTFTPAbort, store.Detail{Loader: snp, Bytes: 9, Total: size}).quiet(limitStart).again(9000, firmwareUEFI), ""},
		"it never asked for it":                       {uefi().quiet(limitStart), ""},
		"iPXE started, and fetched nothing":           {uefi().tftp(snp, size).dora(ipxeUEFI, ".").quiet(limitStart), ""},
		"its firmware is an iPXE":                     {newTape(t).dora(ipxeBIOS, ".").script(), ""},
		"another server named the file":               {newTape(t).tftp(snp, size).quiet(limitStart), ""},
		"it chose another server":                     {uefi().see(9, store.EventDHCPOtherPick, store.Detail{Server: "10.77.0.254"}).tftp(snp, size).quiet(limitStart), ""},
		"it fetched what we had not named":            {uefi().tftp("ipxe.efi", size).quiet(limitStart), ""},
		"a script was served under the loader's name": {uefi().see(9, store.EventTFTPSent, store.Detail{File: snp, Bytes: 99, Total: 99}).quiet(limitStart), ""},
		"an iPXE that we sent to our loader":          {newTape(t).dora(ipxeBIOS, "525400770a0a/undionly.kpxe").tftp("undionly.kpxe", 74213).dora(ipxeBIOS, ".").script(), "undionly.kpxe worked"},
		"a signed chain": {newTape(t).dora(firmwareUEFI, "525400770a0a/secure/shimx64.efi").tftp("secure/shimx64.efi", 9).tftp("secure/grubx64.efi", 9).dora(ipxeUEFI, ".").script(),
			"secure/shimx64.efi worked"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.boot.ruled(); got != c.want {
				t.Errorf("it says %q, want %q", got, c.want)
			}
		})
	}
}

func TestATrialIsOfTheHardwareThatTheLoaderWasSentTo(t *testing.T) {
	p := newTape(t).dora(firmwareUEFI, "snponly.efi").tftp("snponly.efi", 9)
	ipxe := ipxeUEFI
	ipxe.Class = "PXEClient:Arch:00007:UNDI:003010"
	p.dora(ipxe, ".").script()
	got := p.s.Trials()
	if len(got) != 1 || got[0].Hardware != boot.HardwareOf(theMAC, "UEFI", "x86-64", firmwareUEFI.Class) || got[0].Hardware.UNDI != "003000" {
		t.Errorf("%+v", got)
	}
	if h, l, ok := newTape(t).dora(firmwareUEFI, "x/snponly.efi").s.Tried(); !ok || l != "snponly.efi" || h.UNDI != "003000" {
		t.Errorf("a loader that was only named: %s, %s, %v", h, l, ok)
	}
}

func TestASilenceThatNobodyListenedToSaysNothing(t *testing.T) {
	p := newTape(t).dora(firmwareUEFI, "snponly.efi").tftp("snponly.efi", 9)
	p.s.Resume(p.at)
	if got := p.quiet(2 * limitStart).ruled(); got != "" {
		t.Errorf("it says %q", got)
	}
}
