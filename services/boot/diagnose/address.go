package diagnose

import (
	"fmt"
	"time"

	"lunboot/services/boot/ipxeerr"
	"lunboot/services/boot/oui"
	"lunboot/store"
)

// addressRules explain boots that got no address.
func addressRules() []rule {
	return []rule{
		{code: "LB-NET-05", stage: store.StageAsk, build: neverHeard},
		{code: "LB-DHCP-08", stage: store.StageAddress, build: relayUnknown},
		{code: "LB-DHCP-01", stage: store.StageAddress, build: noAddressLeft},
		{code: "LB-DHCP-02", stage: store.StageAddress, build: addressTaken},
		{code: "LB-NET-01", stage: store.StageAddress, build: portOpenedTooLate},
		{code: "LB-DHCP-03", stage: store.StageAddress, build: offersUnanswered},
		{code: "LB-DHCP-04", stage: store.StageAddress, build: requestUnanswered},
		{code: "LB-DHCP-07", stage: store.StageAddress, build: proxyUnanswered},
		{code: "LB-DHCP-05", stage: store.StageAddress, build: noOffer},
	}
}

// neverHeard is a machine that was switched on from here, by its BMC or a magic
// packet, and that nothing was heard of.
func neverHeard(v *view) (store.Diagnosis, bool) {
	e, ok := v.last(store.EventMachinePower)
	if _, heard := v.heard(); !ok || heard {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s", orElse(e.Detail.Reason, "it "+store.PowerAct(e.Detail.Step).Did()))
	quiet := "a while"
	if end := v.stage(store.StageAsk).Ended; end.After(e.At) {
		quiet = fmt.Sprintf("%d minutes", int(end.Sub(e.At).Round(time.Minute)/time.Minute))
		v.note(end, "nothing was heard of it for %s", quiet)
	}
	for _, mac := range v.f.MACs {
		v.note(time.Time{}, "its MAC here: %s", mac)
	}
	known := false
	for _, b := range v.f.Earlier {
		if b.Stage != store.StageAsk || b.Outcome != store.OutcomeFailed {
			v.note(b.Started, "it asked to boot, from %s", b.MAC)
			known = true
			break
		}
	}
	wire := store.Fix{Label: "Look at its network cable and the light of its card, and whether its switch port is in the VLAN of the appliance"}
	order := store.Fix{Label: "Look at its screen: if it started something else, put the network first in its boot order"}
	if !known {
		wire.Label = "Compare its MAC here with the label of its network card; then look at its cable, and whether its switch port is in the VLAN of the appliance"
	}
	if store.PowerAct(e.Detail.Step) == store.PowerWake {
		return store.Diagnosis{
			Title:      v.who() + " was sent a magic packet, and nothing was heard of it",
			Cause:      "Its network card was to switch it on. No machine answers such a packet, so that nobody knows whether it arrived; in " + quiet + " nothing came. A machine that is on already does not heed it.",
			Confidence: store.CannotSee,
			Fixes: []store.Fix{
				{Label: "Switch Wake-on-LAN on in its firmware, and what forbids it off: ErP, Deep Sleep. Many cards forget it when the mains were off, until the next start"},
				wire, order,
			},
		}, true
	}
	if v.f.Name != "" {
		order.Label = "If it started something else, have its BMC boot it from the network: lunboot machine power " + v.who() + " cycle --once pxe; or put the network first in its boot order"
	}
	return store.Diagnosis{
		Title:      v.who() + " was switched on, and did not ask to boot from the network",
		Cause:      "Its BMC switched it on, and in " + quiet + " nothing came from it. It started from something else, waits at its screen, or nothing of it comes here.",
		Confidence: store.BestGuess,
		Fixes:      []store.Fix{order, wire},
	}, true
}

func relayUnknown(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastAfter(store.EventDHCPNoSubnet, store.EventDHCPOffer, store.EventDHCPAck)
	if !ok {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	return store.Diagnosis{
		Title:      v.who() + " is on a network that is not known here",
		Cause:      fmt.Sprintf("The relay %s passed its question on, and it was not answered: %s.", e.Detail.Relay, orElse(e.Detail.Reason, "no subnet here holds that relay's address")),
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Make the network known: lunboot subnet add --prefix NETWORK --range FROM-TO --router " + e.Detail.Relay},
			{Label: "If the relay should not ask here, take the appliance off its list of DHCP servers"},
		},
	}, true
}

func noAddressLeft(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastAfter(store.EventDHCPNoAddress, store.EventDHCPOffer, store.EventDHCPAck)
	if !ok {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	d := store.Diagnosis{
		Title:      "There was no address left for " + v.who(),
		Cause:      sentence(orElse(e.Detail.Reason, "every address of the range is in use or reserved")),
		Confidence: store.Certain,
		Fixes: []store.Fix{
			fix(store.FixExtendRange, onWire(e), "Give addresses from a range twice as large"),
			{Label: "Drop leases that nobody uses: lunboot lease list, lunboot lease drop"},
		},
	}
	if e.Machine == 0 {
		d.Fixes = append(d.Fixes, store.Fix{Label: "Enroll " + v.who() + ": part of the range is kept for machines that are enrolled"})
	}
	return d, true
}

func addressTaken(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastAfter(store.EventDHCPDecline, store.EventDHCPAck)
	if !ok {
		return store.Diagnosis{}, false
	}
	by := "another device"
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	if w, ok := v.lastAfter(store.EventDHCPConflict, store.EventDHCPDecline); ok && w.Addr == e.Addr {
		v.note(w.At, "%s%s", plain(w.Kind), suffix(w))
		if w.Detail.Server == "" {
			return v.takenByNobody(e), true
		}
		by += " (" + withMaker(w.Detail.Server) + ")"
	}
	return store.Diagnosis{
		Title:      fmt.Sprintf("%s is already used by %s", e.Addr, by),
		Cause:      v.who() + " was given the address, found somebody else with it, and gave it back. Something on this network has a fixed address inside the range.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			fix(store.FixOtherAddress, e.Addr.String(), "Give "+v.who()+" another address"),
			{Label: "Take the address out of the range: lunboot subnet set"},
		},
	}, true
}

// takenByNobody is a machine that found a user of its address whom we do not hear.
func (v *view) takenByNobody(e store.Event) store.Diagnosis {
	return store.Diagnosis{
		Title:      fmt.Sprintf("%s took %s for an address of somebody else, and nobody else has it", v.who(), e.Addr),
		Cause:      "It was given the address, found somebody with it, and gave it back. The appliance asked the wire at once and nobody answered, so that the address is given again after a minute. A switch that asks every new machine for its address (device tracking) looks to the machine like another user; so does a device that was switched off just then.",
		Confidence: store.VeryLikely,
		Fixes: []store.Fix{
			fix(store.FixOtherAddress, e.Addr.String(), "Give "+v.who()+" another address"),
			{Label: "Have the switch wait before it asks: ip device tracking probe delay 10, on Cisco's"},
		},
	}
}

// withMaker prints a MAC and who made its card, when that is known.
func withMaker(mac string) string {
	m, err := store.ParseMAC(mac)
	if err != nil {
		return mac
	}
	if maker := oui.Of(m).String(); maker != "" {
		return mac + ", " + maker
	}
	return mac
}

// portOpenedTooLate is a port that slept until the machine had nearly given up: the
// one or two questions that came through say nothing of our answers.
func portOpenedTooLate(v *view) (store.Diagnosis, bool) {
	if !v.openedTooLate() {
		return store.Diagnosis{}, false
	}
	d, ok := sleptPort(v)
	d.Cause = "Spanning tree keeps a port silent for a while after the link comes up. When this one began to pass traffic, the machine’s firmware had nearly given up, and it took none of our answers any more. It does so after every power-on."
	d.Fixes = append(d.Fixes, store.Fix{Label: "Switch " + v.who() + " off and on, with the switch’s port up all the time"})
	return d, ok
}

// openedTooLate reports whether a boot without an address is explained by its port.
func (v *view) openedTooLate() bool {
	if !v.failedAt(store.StageAddress) || len(v.since(time.Time{}, store.EventDHCPDiscover)) > 2 || v.saw(store.EventDHCPRequest, store.EventDHCPOtherPick) {
		return false
	}
	evidence := v.evidence
	_, slept := sleptPort(v)
	v.evidence = evidence
	return slept
}

func offersUnanswered(v *view) (store.Diagnosis, bool) {
	offers := v.since(time.Time{}, store.EventDHCPOffer)
	asks := v.since(time.Time{}, store.EventDHCPDiscover)
	if len(offers) == 0 || v.saw(store.EventDHCPRequest, store.EventDHCPAck, store.EventDHCPOtherPick) {
		return store.Diagnosis{}, false
	}
	v.noteEvents(v.since(time.Time{}, store.EventDHCPDiscover, store.EventDHCPOffer))
	c := store.VeryLikely
	if len(asks) < 3 {
		c = store.BestGuess
	}
	return store.Diagnosis{
		Title:      "Our answers are not reaching " + v.who(),
		Cause:      fmt.Sprintf("It asked %s, each time it was offered %s, and it took none of the offers. A relay, a VLAN or a switch port that lets its packets in and ours not out ends like this.", times(len(asks)), offers[0].Addr),
		Confidence: c,
		Fixes: []store.Fix{
			{Label: "Compare the offer with what the machine needs: lunboot machine explain " + v.who()},
			{Label: "Compare the VLAN of the machine’s switch port with the appliance’s"},
		},
	}, true
}

func requestUnanswered(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastAfter(store.EventDHCPNak, store.EventDHCPAck)
	if !ok {
		return store.Diagnosis{}, false
	}
	v.noteEvents(v.since(time.Time{}, store.EventDHCPRequest, store.EventDHCPNak))
	return store.Diagnosis{
		Title:      v.who() + " insisted on an address that it cannot have here",
		Cause:      sentence(orElse(e.Detail.Reason, fmt.Sprintf("%s does not belong to this network or to this machine", e.Addr))) + " It was told to ask anew, and did not.",
		Confidence: store.VeryLikely,
		Fixes:      []store.Fix{{Label: "Switch the machine off and on, so that it forgets the address"}},
	}, true
}

// reservedConflict is what the wire said of the machine's reserved address.
func (v *view) reservedConflict() (store.Event, bool) {
	e, ok := v.last(store.EventDHCPConflict)
	return e, ok && e.Detail.Server != "" && !v.saw(store.EventDHCPDecline)
}

// addressShared is a boot that came to nothing on an address that two have: what is
// sent to one of them reaches the other.
func addressShared(v *view) (store.Diagnosis, bool) {
	e, ok := v.reservedConflict()
	if !ok || !v.sharedStopped(e) {
		return store.Diagnosis{}, false
	}
	d := v.sharedAddress(e)
	v.noteSilence()
	return d, true
}

// sharedStopped reports whether the boot was silent, or could reach nobody, on an
// address that somebody else has too.
func (v *view) sharedStopped(e store.Event) bool {
	if v.a.Address != e.Addr.String() || v.saw(store.EventISCSILogin, store.EventISCSIRefused) {
		return false
	}
	x, _, reported := v.report()
	return (v.failedAt(store.StageLoader) || v.failedAt(store.StageScript) || v.failedAt(store.StageLogin)) && (!reported || x.Class == ipxeerr.ClassUnreachable)
}

// reservedTaken is said besides what became of the boot.
func reservedTaken(v *view) (store.Diagnosis, bool) {
	e, ok := v.reservedConflict()
	if !ok || v.sharedStopped(e) {
		return store.Diagnosis{}, false
	}
	return v.sharedAddress(e), true
}

func (v *view) sharedAddress(e store.Event) store.Diagnosis {
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	cause := "The address is reserved for " + v.who() + ", and somebody else on this network (" + withMaker(e.Detail.Server) + ") has it by a setting of its own."
	switch a := v.a.Address; {
	case a != "" && a != e.Addr.String():
		cause += " " + v.who() + " was given " + a + " this time."
	case a != "":
		cause += " What is sent to one of them may reach the other. At its next boot " + v.who() + " is given another address, when the range has one, for as long as that goes on."
	}
	return store.Diagnosis{
		Title:      fmt.Sprintf("%s, the address of %s, is used by another device (%s)", e.Addr, v.who(), e.Detail.Server),
		Cause:      cause,
		Confidence: store.Certain,
		Fixes: []store.Fix{
			fix(store.FixOtherAddress, e.Addr.String(), "Reserve another address for "+v.who()),
			{Label: "Or give that device another address, outside of what is given here"},
		},
	}
}

func noOffer(v *view) (store.Diagnosis, bool) {
	asks := v.since(time.Time{}, store.EventDHCPDiscover)
	if len(asks) == 0 || v.saw(store.EventDHCPOffer, store.EventDHCPAck) {
		return store.Diagnosis{}, false
	}
	v.noteEvents(asks)
	return store.Diagnosis{
		Title:      v.who() + " asked for an address and got none from here",
		Cause:      "The appliance gives no addresses on that network, or has no range there. Whether another DHCP server answered cannot be seen from here.",
		Confidence: store.CannotSee,
		Fixes:      []store.Fix{{Label: "Look at how that network is served: lunboot subnet list"}},
	}, true
}

// proxyUnanswered is a machine in proxy mode that took no address from anybody.
func proxyUnanswered(v *view) (store.Diagnosis, bool) {
	asks := v.since(time.Time{}, store.EventDHCPDiscover)
	offers := v.since(time.Time{}, store.EventDHCPProxyOffer)
	if len(asks) == 0 || !asks[len(asks)-1].Detail.Proxy || v.saw(store.EventDHCPOtherPick, store.EventDHCPBootServer, store.EventDHCPAck) {
		return store.Diagnosis{}, false
	}
	v.noteEvents(v.since(time.Time{}, store.EventDHCPDiscover, store.EventDHCPProxyOffer))
	d := store.Diagnosis{
		Title:      v.who() + " took no address from any DHCP server",
		Cause:      fmt.Sprintf("It asked %s on a network where another server gives the addresses. Either that server did not answer it, or its firmware takes no address while a second server tells it what to boot.", times(len(asks))),
		Confidence: store.BestGuess,
	}
	if len(offers) > 0 {
		d.Fixes = []store.Fix{
			{Action: store.FixAction{Kind: store.FixQuirk, Argument: string(store.QuirkNoProxyOffer)}.String(), Label: "Offer " + v.who() + " nothing beside the other server, once that one names this appliance (options 66 and 67)"},
			{Label: "Give the addresses from here: full mode, with the other server off"},
		}
	}
	d.Fixes = append(d.Fixes, store.Fix{Label: "Ask the network who answers DHCP there: lunboot doctor"})
	return d, true
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}
