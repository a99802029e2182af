package attempt

import (
	"strings"
	"time"

	"lunboot/store"
)

// foldDHCP reads the address stages: RFC 2131's exchange, once by the firmware
// and once by iPXE, and perhaps once more by the operating system.
func (s *State) foldDHCP(e store.Event) {
	d := e.Detail
	boots := d.PXE || d.IPXE
	switch e.Kind {
	case store.EventDHCPDiscover:
		if !boots {
			s.osAddress(e)
			return
		}
		s.asked(e)
	case store.EventDHCPOffer:
		if s.early() {
			s.run(store.StageAddress, e.At, "Offered "+e.Addr.String())
		}
	case store.EventDHCPRequest:
		if s.early() {
			s.run(store.StageAddress, e.At, "Asked for "+e.Addr.String())
		}
	case store.EventDHCPAck:
		s.acked(e)
	case store.EventDHCPNak:
		s.trouble, s.lastAck = true, time.Time{}
		if s.early() {
			s.run(store.StageAddress, e.At, "Asked for "+e.Addr.String()+" and was told to ask anew")
		}
	case store.EventDHCPDecline:
		s.lastAck = time.Time{}
		s.fail(store.StageAddress, e.At, e.Addr.String()+" is in use by somebody else")
	case store.EventDHCPConflict:
		s.trouble = s.trouble || d.Server != ""
	case store.EventDHCPNoAddress:
		s.fail(store.StageAddress, e.At, "No address was left")
	case store.EventDHCPNoISCSI:
		s.trouble = true // it goes on, and will fail at its volume
	case store.EventDHCPNoSubnet:
		s.fail(store.StageAddress, e.At, "Its network, behind the relay "+d.Relay+", is not known here")
	case store.EventDHCPNoLoader:
		s.fail(store.StageLoader, e.At, "No loader for "+platform(d))
	case store.EventDHCPProxyOffer:
		s.told(e)
	case store.EventDHCPBootServer:
		s.told(e)
		s.tookElsewhere(e)
	case store.EventDHCPOtherPick:
		if d.Proxy {
			s.tookElsewhere(e)
			return
		}
		s.trouble = true
		if s.early() {
			s.done(store.StageAddress, e.At, "Took its address from "+d.Server)
		}
	}
}

// early reports whether the machine is still before its script.
func (s *State) early() bool {
	return s.lastScript.IsZero() && index(s.Stage) < index(store.StageScript)
}

func (s *State) asked(e store.Event) {
	d := e.Detail
	s.lastDiscover, s.ipxeLast = e.At, d.IPXE
	if d.Firmware != "" {
		s.Firmware, s.Arch = d.Firmware, d.Arch
	}
	if d.IPXE {
		first := s.stage(store.StageAsk).State == store.StageWaiting
		s.ipxeAsked = true
		if !first {
			// The iPXE that our loader started: it runs, whatever the
			// transfer's last packet said.
			if s.stage(store.StageLoader).State == store.StageRunning || s.stage(store.StageLoader).State == store.StageFailed {
				s.done(store.StageLoader, e.At, "It runs")
			}
			if s.stage(store.StageLoader).State == store.StageDone {
				s.run(store.StageScript, e.At, "iPXE has started, and asked for an address")
				return
			}
		}
	}
	if s.stage(store.StageAsk).State == store.StageWaiting && d.Secs >= LateAsk {
		s.trouble = true
	}
	if s.stage(store.StageAsk).State == store.StageDone {
		s.progress(store.StageAsk, e.At)
		if s.stage(store.StageAddress).State == store.StageFailed {
			s.run(store.StageAddress, e.At, "Asked again")
		}
		return
	}
	s.done(store.StageAsk, e.At, asking(d))
}

func (s *State) acked(e store.Event) {
	d := e.Detail
	if !d.PXE && !d.IPXE && index(s.Stage) >= index(store.StageScript) && !s.lastScript.IsZero() {
		s.osAddress(e)
		return
	}
	ipxe := d.IPXE || !d.PXE && s.ipxeLast
	s.lastAck, s.ackIPXE, s.relayed = e.At, ipxe, d.Relay != ""
	s.Address = addrString(e.Addr)
	if ipxe && s.stage(store.StageLoader).State == store.StageDone {
		s.run(store.StageScript, e.At, "iPXE has started, with address "+s.Address)
		return
	}
	detail := s.Address
	if d.Loader != "" && d.Loader != "." && !ipxe {
		detail += ", next: " + base(d.Loader)
	} else if ipxe {
		detail += ", next: its script"
	}
	if s.stage(store.StageAddress).State == store.StageDone {
		s.progress(store.StageAddress, e.At)
		return
	}
	s.done(store.StageAddress, e.At, detail)
}

// osAddress takes a DHCP exchange without a boot request: the operating system
// has started. With a SAN boot that proves a kernel, not yet a disk, unless it
// is Windows, whose DHCP client runs long after its disk was needed.
func (s *State) osAddress(e store.Event) {
	if s.lastScript.IsZero() && !s.beyondScript() {
		return
	}
	who := "Its operating system asked for an address"
	windows := strings.HasPrefix(e.Detail.Class, "MSFT ")
	if windows {
		who = "Windows asked for an address"
	}
	if e.Detail.Hostname != "" {
		who += " as " + e.Detail.Hostname
	}
	s.osAsked = e.At
	if windows || !s.sanBoot() || s.osLogin {
		s.up(e.At, who)
		return
	}
	s.run(store.StageUp, e.At, who)
}
