package attempt

import "lunboot/store"

// In proxy mode another server gives the address, and what is known of it was
// overheard (PXE 2.1 §2.2): the stages are the same, and one more party takes
// part in them.

// told takes our answer beside another server's.
func (s *State) told(e store.Event) {
	s.next = ""
	switch d := e.Detail; {
	case d.Loader != "" && d.Loader != ".":
		s.next = base(d.Loader)
	case d.URL != "":
		s.next = "its script"
	}
	if !s.early() {
		return
	}
	if s.stage(store.StageAddress).State == store.StageDone {
		s.progress(store.StageAddress, e.At)
		return
	}
	detail := "Waits for the address of another server"
	if s.next != "" {
		detail += ", next: " + s.next
	}
	s.run(store.StageAddress, e.At, detail)
}

// tookElsewhere takes the address that another server gave: the request for it
// was overheard, or the machine asked our boot server from it.
func (s *State) tookElsewhere(e store.Event) {
	d := e.Detail
	if !d.PXE && !d.IPXE {
		s.osAddress(e)
		return
	}
	s.lastAck, s.ackIPXE = e.At, d.IPXE
	if e.Addr.IsValid() {
		s.Address = addrString(e.Addr)
	}
	detail := s.Address
	if d.Server != "" {
		detail += " from " + d.Server
	} else if e.Kind == store.EventDHCPOtherPick {
		detail += " from another server"
	}
	if d.IPXE && s.stage(store.StageLoader).State == store.StageDone {
		s.run(store.StageScript, e.At, "iPXE has started, with address "+detail)
		return
	}
	if s.stage(store.StageAddress).State == store.StageDone {
		s.progress(store.StageAddress, e.At)
		return
	}
	if s.next != "" {
		detail += ", next: " + s.next
	}
	s.done(store.StageAddress, e.At, detail)
}
