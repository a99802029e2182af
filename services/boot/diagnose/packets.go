package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/store"
)

// A link that swallows large packets and says nothing lets DHCP, requests and
// logins through, and stops the first answer that fills a packet: RFC 2923 §2.1
// calls it a black hole.

// oneMTU are the fixes of a black hole. Its place cannot be seen from here.
func oneMTU(v *view) []store.Fix {
	return []store.Fix{
		{Label: "Set the same packet size (MTU) on the appliance, the switches and the machine; 1500 everywhere is safe"},
		{Label: "Find the link: from a computer beside the machine, ping -M do -s 1472 APPLIANCE goes through when 1500 bytes do; try smaller numbers until it does"},
		{Label: "Boot it again and watch: lunboot attempt watch " + v.who()},
	}
}

// readsLost is an iPXE that logs in again and again, because the answer to its
// read never comes.
func readsLost(v *view) (store.Diagnosis, bool) {
	e, ok := v.last(store.EventISCSILogin, store.EventISCSINoLUN, store.EventISCSIRefused, store.EventISCSIIOFailed, store.EventReport)
	if !ok || e.Kind != store.EventISCSILogin || !ofIPXE(e) || !v.saw(store.EventISCSIFirstRead) {
		return store.Diagnosis{}, false
	}
	logins := v.since(time.Time{}, store.EventISCSILogin)
	if len(logins) < 3 {
		return store.Diagnosis{}, false
	}
	v.noteEvents(v.since(time.Time{}, store.EventISCSILogin, store.EventISCSIFirstRead))
	if n := v.bytesRead(); n > 0 {
		v.note(time.Time{}, "what we sent of its volume in all these sessions: %s", attempt.Amount(n))
	}
	return store.Diagnosis{
		Title:      "Our answers to the reads of " + v.who() + " are lost on the way",
		Cause:      "It logged in " + times(len(logins)) + ", asked for the first blocks each time, was sent them, and began anew as if nothing had come. Logins are small packets and what is read fills large ones: a link on the way swallows those.",
		Confidence: store.VeryLikely,
		Fixes:      oneMTU(v),
	}, true
}

// firstScriptLost is an iPXE that asked for its script, was answered, and never
// asked for what stands in that answer.
func firstScriptLost(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastAfter(store.EventScriptAsked, append([]store.EventKind{store.EventDHCPDiscover, store.EventReport, store.EventFileMissing}, scriptEvents...)...)
	if !ok {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s, and was answered", plain(e.Kind))
	v.noteSilence()
	return store.Diagnosis{
		Title:      "Our answers are not reaching " + v.who() + ", though its requests reach us",
		Cause:      "It asked for its script over HTTP, and never went on to what the answer says. A link on the way that swallows large packets, or a packet filter that lets requests in and answers not out, ends like this; or it was switched off just then.",
		Confidence: store.VeryLikely,
		Fixes:      oneMTU(v),
	}, true
}

// scriptLost is the other explanation of a script that led nowhere: it is longer
// than one packet, and may never have arrived.
func scriptLost(v *view) (store.Diagnosis, bool) {
	e, ok := v.last(store.EventScriptSent)
	if !ok || e.Detail.Bytes < 1200 || v.saw(store.EventISCSILogin, store.EventISCSIRefused) || v.spokeSinceScript() {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "its script has %d bytes, which is more than one packet", e.Detail.Bytes)
	return store.Diagnosis{
		Title:      "The script of " + v.who() + " may not have reached it",
		Cause:      "It is longer than one packet, and nothing that it says was done. A link on the way that swallows large packets ends like this.",
		Confidence: store.BestGuess,
		Fixes:      oneMTU(v),
	}, true
}

// neverCame returns our last answer with an address, when the machine asked this
// appliance for nothing at all after it.
func (v *view) neverCame() (store.Event, bool) {
	if !v.failedAt(store.StageLoader) && !v.failedAt(store.StageScript) {
		return store.Event{}, false
	}
	return v.lastAfter(store.EventDHCPAck, append([]store.EventKind{
		store.EventTFTPProbe, store.EventTFTPStart, store.EventTFTPProgress, store.EventTFTPSent, store.EventTFTPAbort, store.EventTFTPMissing,
		store.EventLoaderSent, store.EventLoaderMissing, store.EventScriptAsked, store.EventReport, store.EventDHCPOtherPick,
	}, scriptEvents...)...)
}

// noWayThere is a machine behind a relay whose gateway does not lead to the
// appliance: DHCP is carried by the relay, and all else must find its own way.
func noWayThere(v *view) (store.Diagnosis, bool) {
	e, ok := v.neverCame()
	if !ok || e.Detail.Relay == "" || e.Detail.Router == e.Detail.Relay {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "it was given %s through the relay %s", e.Addr, e.Detail.Relay)
	v.note(time.Time{}, "its gateway: %s", orElse(e.Detail.Router, "none"))
	v.noteSilence()
	d := store.Diagnosis{
		Title:      v.who() + " cannot reach the appliance: it was given no gateway, and is on another network",
		Cause:      "Its question and our answer were carried by the relay. For everything else it needs a router, and its network has none here.",
		Confidence: store.Certain,
		Fixes:      []store.Fix{{Label: fmt.Sprintf("Set the gateway of its network: lunboot subnet set NETWORK --router %s, which is the relay’s address, or another router’s there", e.Detail.Relay)}},
	}
	if e.Detail.Router != "" {
		d.Title = v.who() + " asked the appliance for nothing; its gateway " + e.Detail.Router + " may lead nowhere"
		d.Cause = fmt.Sprintf("It is on another network, with the relay %s, and was given %s as its gateway. Its question and our answer were carried by the relay; nothing else of it came. The two differ, as they rightly do where routers share an address (VRRP, HSRP).", e.Detail.Relay, e.Detail.Router)
		d.Confidence = store.VeryLikely
		d.Fixes = append(d.Fixes, checkAgain("the ports of the appliance"), store.Fix{Label: "If that gateway is right, look at the filters and the ways between the two networks"})
	}
	return d, true
}

// toldElsewhere is a machine that was told an address which is not one of the
// appliance's.
func toldElsewhere(v *view) (store.Diagnosis, bool) {
	e, ok := v.neverCame()
	there := v.appliance()
	if !ok || !there.IsValid() || len(v.f.Own) == 0 || slices.Contains(v.f.Own, there) {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "it was told to fetch %s", orElse(e.Detail.URL, "something at "+there.String()))
	v.note(time.Time{}, "addresses of the appliance: %s", v.ownAddresses())
	v.noteSilence()
	return store.Diagnosis{
		Title:      v.who() + " was told to find the appliance at " + there.String() + ", which is not its address",
		Cause:      "The appliance tells machines the address that --advertise names, and no interface of its own has it. Nothing came from the machine after that. Only where something in between passes that address on is it right.",
		Confidence: store.VeryLikely,
		Fixes: []store.Fix{
			{Label: "Start the appliance without --advertise (LUNBOOT_ADVERTISE), so that machines are told the address of the interface that they ask on"},
			{Label: "Or give the appliance that address, or correct it"},
		},
	}, true
}

// ownAddresses lists the addresses of the appliance's machine.
func (v *view) ownAddresses() string {
	var own []string
	for _, a := range v.f.Own {
		if a.Is4() && !a.IsLoopback() {
			own = append(own, a.String())
		}
	}
	return orElse(strings.Join(own, ", "), "none but its own loopback")
}
