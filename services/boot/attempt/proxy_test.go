package attempt

import (
	"testing"

	"lunboot/store"
)

// beside is a detail on a network where another server gives the addresses.
func beside(d store.Detail) store.Detail {
	d.Proxy = true
	return d
}

func chose(d store.Detail, server string) store.Detail {
	d = beside(d)
	d.Server = server
	return d
}

// proxied is one stage's exchange in proxy mode: what was said to the machine,
// and what it was heard to ask the other server for.
func (p *tape) proxied(d, next store.Detail) *tape {
	d.Loader, d.URL = "", ""
	return p.see(0, store.EventDHCPDiscover, beside(d)).see(1, store.EventDHCPProxyOffer, beside(next)).
		see(1000, store.EventDHCPDiscover, beside(d)).see(1, store.EventDHCPProxyOffer, beside(next)).
		see(2000, store.EventDHCPOtherPick, chose(d, "10.77.0.254"))
}

func url(d store.Detail) store.Detail {
	d.URL = "http://10.77.0.1/boot.ipxe"
	return d
}

func TestABIOSBootInProxyMode(t *testing.T) {
	p := newTape(t).proxied(ipxeBIOS, url(ipxeBIOS))
	p.expect(store.OutcomeRunning, store.StageAddress, "done done waiting waiting waiting waiting waiting")
	p.detail(store.StageAddress, "10.77.0.50 from 10.77.0.254, next: its script")
	p.script().login(ipxeID, "s1").
		see(3000, store.EventDHCPDiscover, beside(linux)).see(1, store.EventDHCPOtherPick, chose(linux, "10.77.0.254")).
		login(osID, "s2")
	p.expect(store.OutcomeUp, store.StageUp, "done done skipped done done done done")
	if p.s.Trouble() {
		t.Error("a boot as it should be in proxy mode counts as trouble")
	}
}

func TestAUEFIBootInProxyMode(t *testing.T) {
	p := newTape(t).see(0, store.EventDHCPDiscover, beside(firmwareUEFI)).see(1, store.EventDHCPProxyOffer, beside(with(firmwareUEFI, "5254007700aa/snponly.efi")))
	p.expect(store.OutcomeRunning, store.StageAddress, "done running waiting waiting waiting waiting waiting")
	p.detail(store.StageAddress, "Waits for the address of another server, next: snponly.efi")
	p.see(4000, store.EventDHCPOtherPick, chose(firmwareUEFI, "10.77.0.254")).see(20, store.EventDHCPBootServer, beside(with(firmwareUEFI, "5254007700aa/snponly.efi")))
	p.expect(store.OutcomeRunning, store.StageAddress, "done done waiting waiting waiting waiting waiting")
	p.detail(store.StageAddress, "10.77.0.50 from 10.77.0.254, next: snponly.efi")
	p.tftp("snponly.efi", 173792).see(5000, store.EventDHCPDiscover, beside(ipxeUEFI)).see(1, store.EventDHCPProxyOffer, beside(url(ipxeUEFI)))
	p.expect(store.OutcomeRunning, store.StageScript, "done done done running waiting waiting waiting")
	p.see(2000, store.EventDHCPOtherPick, chose(ipxeUEFI, "10.77.0.254"))
	p.detail(store.StageScript, "iPXE has started, with address 10.77.0.50 from 10.77.0.254")
	p.script().login(ipxeID, "s1")
	p.expect(store.OutcomeRunning, store.StageRead, "done done done done done done waiting")
	if p.s.Trouble() || p.s.Address != "10.77.0.50" {
		t.Errorf("trouble: %v, address: %s", p.s.Trouble(), p.s.Address)
	}
}

// Where the request for the address is not heard, the question to our boot
// server shows that there is one.
func TestABootServersQuestionProvesAnAddress(t *testing.T) {
	p := newTape(t).see(0, store.EventDHCPDiscover, beside(firmwareUEFI)).see(4000, store.EventDHCPBootServer, beside(with(firmwareUEFI, "5254007700aa/snponly.efi")))
	p.expect(store.OutcomeRunning, store.StageAddress, "done done waiting waiting waiting waiting waiting")
	p.detail(store.StageAddress, "10.77.0.50, next: snponly.efi")
}

func TestAnotherServersPickIsTroubleWhereWeGiveAddresses(t *testing.T) {
	p := newTape(t).see(0, store.EventDHCPDiscover, firmwareUEFI).see(1, store.EventDHCPOtherPick, store.Detail{PXE: true, Server: "10.77.0.254"})
	if !p.s.Trouble() {
		t.Error("a second DHCP server goes unnoticed")
	}
}
