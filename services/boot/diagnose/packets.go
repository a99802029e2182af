package diagnose

import (
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
	if !ok || e.Detail.Bytes < 1200 || v.saw(store.EventISCSILogin, store.EventISCSIRefused, store.EventReport) {
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
