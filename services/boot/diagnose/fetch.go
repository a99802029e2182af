package diagnose

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"lunboot/store"
)

// scriptRules explain boots that stopped at the script.
func scriptRules() []rule {
	return []rule{
		{code: "LB-SCR-01", stage: store.StageScript, build: conflict},
		{code: "LB-SCR-02", stage: store.StageScript, build: ignored},
		{code: "LB-SCR-16", stage: store.StageScript, build: otherCard},
		{code: "LB-SCR-03", stage: store.StageScript, build: withheld},
		{code: "LB-SCR-04", build: notEnrolled},
		{code: "LB-LOAD-07", build: noISCSI},
		{code: "LB-SCR-05", stage: store.StageScript, build: noBootVolume},
		{code: "LB-SCR-06", stage: store.StageScript, build: scriptFailed},
		{code: "LB-SCR-10", stage: store.StageScript, build: nothingThere},
		{code: "LB-SCR-11", stage: store.StageScript, build: atScreen},
		{code: "LB-SCR-12", build: scriptEnded},
		{code: "LB-SCR-13", build: littleMemory},
		{code: "LB-SCR-14", build: textKernel},
		{code: "LB-LOAD-06", build: circles},
	}
}

// scriptEvents are what the boot listener can answer; the newest one holds.
var scriptEvents = []store.EventKind{
	store.EventScriptSent, store.EventScriptWaiting, store.EventScriptConflict, store.EventScriptWithheld, store.EventScriptFailed, store.EventIgnoredMachine,
}

func (v *view) lastScript(kind store.EventKind) (store.Event, bool) {
	e, ok := v.last(scriptEvents...)
	return e, ok && e.Kind == kind
}

func conflict(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastScript(store.EventScriptConflict)
	if !ok {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	return store.Diagnosis{
		Title:      v.who() + " was given no script, because its names belong to different machines",
		Cause:      "Its hostname, UUID and MAC do not name one and the same machine, and the volume of the wrong one must not be handed out. " + sentence(e.Detail.Reason),
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Correct the hostname, UUID or MAC of the machine that has the wrong one"},
			{Label: "If a board or network card moved to another machine, enroll it in the other’s place"},
		},
	}, true
}

func ignored(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastScript(store.EventIgnoredMachine)
	if !ok {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s", plain(e.Kind))
	return store.Diagnosis{
		Title:      v.who() + " was left alone, because it is on the list of ignored machines",
		Cause:      "Somebody chose to ignore it when it asked to boot before.",
		Confidence: store.Certain,
		Fixes:      []store.Fix{{Action: string(store.FixUnignore), Label: "Take it off the list"}},
	}, true
}

// otherCard is a machine that is known by its name or UUID, and asked from a network
// card that nobody said is its own.
func otherCard(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastScript(store.EventScriptWithheld)
	if !ok || v.f.Name == "" || len(v.f.MACs) == 0 || e.MAC.IsZero() || slices.Contains(v.f.MACs, e.MAC) {
		return store.Diagnosis{}, false
	}
	var own []string
	for _, m := range v.f.MACs {
		own = append(own, m.String())
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	v.note(time.Time{}, "it asked as %s; the cards of %s are %s", e.MAC, v.who(), strings.Join(own, ", "))
	return store.Diagnosis{
		Title:      v.who() + " was given no script, because it asked from a network card that is not among its own",
		Cause:      fmt.Sprintf("By its %s it is %s, and the card %s is not one that it was enrolled with. A script carries secrets, and goes only to a machine’s own cards: it booted from its second one, or another machine says the same of itself.", orElse(e.Detail.MatchedBy, "name"), v.who(), e.MAC),
		Confidence: store.Certain,
		Fixes: []store.Fix{
			fix(store.FixAddCard, e.MAC.String(), "It is a card of "+v.who()+": add "+e.MAC.String()+" to it"),
			{Label: "Or let its firmware boot from " + own[0]},
			{Label: "If it is another machine: enroll it under its own name; it is on the list of machines that nobody enrolled"},
		},
	}, true
}

func withheld(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastScript(store.EventScriptWithheld)
	if !ok {
		return store.Diagnosis{}, false
	}
	from := "the address that it came from"
	if e.Addr.IsValid() {
		from = e.Addr.String()
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	fixes := []store.Fix{{Label: "Let the machine have its address from here, or from a server whose packets this appliance hears"}}
	if e.Detail.Network != "" {
		fixes = append([]store.Fix{fix(store.FixTrustSubnet, e.Detail.Network, "Trust "+e.Detail.Network+": every address there is given scripts, with their passwords")}, fixes...)
	} else {
		fixes = append(fixes, store.Fix{Label: "Where that cannot be: start the appliance with --script-guard subnet"})
	}
	return store.Diagnosis{
		Title:      v.who() + " was given no script, because " + from + " is not known to be its address",
		Cause:      "A script carries secrets, so it goes only to the address that the machine’s MAC holds: by a lease from here, by a DHCP request that was overheard, or by the neighbour table.",
		Confidence: store.Certain,
		Fixes:      fixes,
	}, true
}

func notEnrolled(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastScript(store.EventScriptWaiting)
	if !ok || v.a.Outcome == store.OutcomeUp || v.a.Outcome == store.OutcomeUpUnconfirmed {
		return store.Diagnosis{}, false
	}
	if v.f.Name != "" && !v.failed() {
		return store.Diagnosis{}, false // enrolled since: it asks again within seconds
	}
	n := len(v.since(time.Time{}, store.EventScriptWaiting))
	if v.f.Name != "" {
		v.note(e.At, "it asked for a script %s before it was enrolled", times(n))
		return store.Diagnosis{
			Title:      v.who() + " stopped waiting before it was enrolled",
			Cause:      "It showed its MAC and asked again every few seconds, until it was switched off or somebody pressed a key. Nothing was heard of it since.",
			Confidence: store.Certain,
			Fixes:      []store.Fix{{Label: "Switch it on: it boots by the profile " + orElse(v.f.Once, v.f.Profile) + " now"}},
		}, true
	}
	v.note(e.At, "it asked for a script %s in this boot", times(n))
	d := store.Diagnosis{
		Title:      v.who() + " is waiting to be enrolled",
		Cause:      "Nobody has said yet what it should boot. Its screen shows its MAC, and it asks again every few seconds.",
		Confidence: store.Certain,
		Fixes:      []store.Fix{{Action: string(store.FixEnroll), Label: "Enroll it"}},
	}
	if len(v.f.Alike) > 0 {
		v.note(time.Time{}, "enrolled, and never heard of: %s", strings.Join(v.f.Alike, "; "))
		name, _, _ := strings.Cut(v.f.Alike[0], " ")
		d.Cause += " A machine was enrolled that has nearly this MAC and was never heard of: " + v.f.Alike[0] + "."
		d.Fixes = append(d.Fixes, store.Fix{Label: "If it is " + name + ", correct that one’s MAC instead: lunboot machine set " + name + " --mac " + v.a.MAC.String()})
	}
	if v.failed() {
		d.Title = v.who() + " was not enrolled, and stopped waiting"
		d.Cause = "It showed its MAC and asked again every few seconds, until it was switched off or somebody pressed a key."
		d.Fixes = append(d.Fixes, store.Fix{Label: "Switch it on again"})
	}
	return d, true
}

func noBootVolume(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastScript(store.EventScriptFailed)
	if !ok || v.f.Name == "" || len(v.f.Mappings) == 0 || !forItsVolume(e) {
		return store.Diagnosis{}, false
	}
	for _, m := range v.f.Mappings {
		if m.Boot {
			return store.Diagnosis{}, false
		}
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	var fixes []store.Fix
	for _, m := range v.f.Mappings {
		fixes = append(fixes, fix(store.FixBootLUN, strconv.Itoa(int(m.LUN)), fmt.Sprintf("Boot from %s, its LUN %d", quoted(m.Volume), m.LUN)))
	}
	return store.Diagnosis{
		Title:      v.who() + " has volumes, and none of them is its boot volume",
		Cause:      "More than one volume can be mapped to a machine, so one of them must be marked as the one to boot from.",
		Confidence: store.Certain,
		Fixes:      fixes,
	}, true
}

func scriptFailed(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastScript(store.EventScriptFailed)
	if !ok || v.f.Name != "" && len(v.f.Mappings) == 0 && forItsVolume(e) {
		return store.Diagnosis{}, false // nothing-mapped says it better
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	if because(e, store.CauseProfile, store.CauseNoProfile) {
		return v.wrongProfile(e), true
	}
	if m, ok := v.boot(); ok && m.State != "" && m.State != store.VolumeReady {
		v.note(time.Time{}, "volume %s is %s", quoted(m.Volume), m.State)
		return store.Diagnosis{
			Title:      v.who() + " could not be given a script, because " + v.volume() + " is not ready",
			Cause:      sentence(orElse(m.Reason, orElse(e.Detail.Reason, "the volume is still being made"))),
			Confidence: store.Certain,
			Fixes:      []store.Fix{{Label: "Look at the volume: lunboot volume show " + m.Volume}},
		}, true
	}
	return store.Diagnosis{
		Title:      v.who() + " could not be given a script",
		Cause:      sentence(orElse(e.Detail.Reason, "the appliance could not make it; the log has the reason")),
		Confidence: store.Certain,
		Fixes:      []store.Fix{{Label: "Look at its profile"}},
	}, true
}

// forItsVolume reports whether a script failed because of the machine's volumes.
func forItsVolume(e store.Event) bool {
	return !because(e, store.CauseProfile, store.CauseNoProfile, store.CauseAppliance)
}

// wrongProfile is a machine whose profile makes no script: it is gone, or something
// that it names is.
func (v *view) wrongProfile(e store.Event) store.Diagnosis {
	name := orElse(e.Detail.Profile, v.f.Profile)
	d := store.Diagnosis{
		Title:      v.who() + " could not be given a script, because its profile " + quoted(name) + " makes none",
		Cause:      sentence(e.Detail.Reason),
		Confidence: store.Certain,
		Fixes:      []store.Fix{{Label: "Correct the profile: lunboot profile show " + name + ", then lunboot profile set " + name}},
	}
	if because(e, store.CauseNoProfile) {
		d.Title = v.who() + " could not be given a script: there is no profile " + quoted(name)
		d.Fixes = []store.Fix{{Label: "Make it again: lunboot profile set " + name}}
	}
	switch {
	case v.f.Once != "" && v.f.Once == name:
		d.Fixes = slices.Insert(d.Fixes, 0, v.takeBack())
	case v.f.Profile == name:
		d.Fixes = append(d.Fixes, fix(store.FixProfileSAN, "", "Or use profile san, which boots from "+v.volume()))
	}
	return d
}

// circles is an iPXE that is sent to an iPXE, again and again.
func circles(v *view) (store.Diagnosis, bool) {
	from := time.Time{}
	if e, ok := v.last(store.EventScriptSent, store.EventScriptWaiting); ok {
		from = e.At
	}
	all := v.since(from, store.EventTFTPSent, store.EventLoaderSent)
	// A script by its file's name, autoexec.ipxe, is no loader.
	all = slices.DeleteFunc(all, func(e store.Event) bool { return e.Detail.Loader == "" })
	if len(all) < 3 {
		return store.Diagnosis{}, false
	}
	first, last := all[len(all)-3], all[len(all)-1]
	// Three within a minute, and no script between them. A machine that is
	// chained to our loader fetches two.
	if last.At.Sub(first.At) > time.Minute || v.a.Outcome == store.OutcomeUp {
		return store.Diagnosis{}, false
	}
	v.noteEvents(all)
	d := store.Diagnosis{
		Title:      v.who() + " is going round in circles: iPXE keeps getting iPXE",
		Cause:      "Each time its iPXE asks DHCP what to do next, it is told to fetch the loader again, and never its script. Another DHCP server that does not know iPXE, or a fixed file name in a router, does this.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Ask the network who answers DHCP there: lunboot doctor"},
			{Label: "In the other server, name the loader only to clients that are not iPXE (options 77 and 175)"},
		},
	}
	if v.a.Outcome != store.OutcomeRunning {
		d.Title = v.who() + " went round in circles: iPXE kept getting iPXE"
	}
	return d, true
}

// loaderRules explain boots that stopped at the loader, or between it and the
// script.
func loaderRules() []rule {
	return []rule{
		{code: "LB-LOAD-01", stage: store.StageLoader, build: noLoader},
		{code: "LB-LOAD-02", stage: store.StageLoader, build: unknownFile},
		{code: "LB-DHCP-06", build: otherDHCP},
		{code: "LB-LOAD-03", stage: store.StageLoader, build: loaderStalled},
		{code: "LB-DHCP-09", build: addressShared},
		{code: "LB-NET-03", build: noWayThere},
		{code: "LB-NET-04", build: toldElsewhere},
		{code: "LB-LOAD-04", stage: store.StageLoader, build: loaderNeverAsked},
		{code: "LB-SCR-07", stage: store.StageScript, build: scriptUnreachable},
		{code: "LB-LOAD-08", build: otherLoader},
		{code: "LB-LOAD-09", build: refusedUnsigned},
		{code: "LB-LOAD-05", build: loaderNotStarted},
		{code: "LB-NET-02", stage: store.StageScript, build: firstScriptLost},
		{code: "LB-SCR-08", stage: store.StageScript, build: scriptNeverFetched},
	}
}

// kind names a machine's sort in words.
func kind(firmware, arch string) string {
	switch arch {
	case "x86":
		arch = "32-bit x86"
	case "x86-64":
		arch = "64-bit x86"
	case "arm32":
		arch = "32-bit ARM"
	case "arm64":
		arch = "64-bit ARM"
	case "", "unknown":
		return "of an unknown sort"
	}
	if firmware == "UEFI" {
		return arch + ", UEFI"
	}
	return arch
}

func unknownFile(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastAfter(store.EventTFTPMissing, store.EventTFTPSent, store.EventLoaderSent)
	if !ok {
		return store.Diagnosis{}, false
	}
	file := orElse(e.Detail.File, "a file")
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	return store.Diagnosis{
		Title:      v.who() + " asked for " + file + ", which was never offered from here",
		Cause:      "The name came from somewhere else: another DHCP server on this network, or a router that names a boot file.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Ask the network who answers DHCP there: lunboot doctor"},
			{Label: "Take the boot file name out of the other server (options 66 and 67)"},
		},
	}, true
}

func otherDHCP(v *view) (store.Diagnosis, bool) {
	if !v.failedAt(store.StageLoader) && !v.failedAt(store.StageAddress) && !v.failedAt(store.StageScript) {
		return store.Diagnosis{}, false
	}
	e, ok := v.lastAfter(store.EventDHCPOtherPick, store.EventDHCPAck, store.EventTFTPStart, store.EventLoaderSent, store.EventScriptSent)
	if !ok || e.Detail.Proxy { // in proxy mode that is as it should be
		return store.Diagnosis{}, false
	}
	other := orElse(e.Detail.Server, "another server")
	v.note(e.At, "its DHCP request chose the server %s", other)
	if v.saw(store.EventDHCPOffer) {
		v.note(time.Time{}, "we had made it an offer too")
	}
	return store.Diagnosis{
		Title:      v.who() + " followed " + other + "’s boot instructions instead of ours",
		Cause:      "Two DHCP servers answered, and the machine takes its boot file from the one whose offer it chooses.",
		Confidence: store.VeryLikely,
		Fixes: []store.Fix{
			fix(store.FixProxyMode, onWire(e), "Switch this network to proxy mode: the other server gives addresses, this one says what to boot"),
			{Label: "Turn the other DHCP server off on this network"},
		},
	}, true
}

func loaderStalled(v *view) (store.Diagnosis, bool) {
	e, ok := v.last(store.EventTFTPAbort, store.EventTFTPProgress, store.EventTFTPStart, store.EventTFTPProbe, store.EventTFTPSent, store.EventLoaderSent)
	if !ok || e.Kind == store.EventTFTPSent || e.Kind == store.EventLoaderSent {
		return store.Diagnosis{}, false
	}
	v.noteEvents(v.since(time.Time{}, store.EventTFTPStart, store.EventTFTPProgress, store.EventTFTPAbort))
	if e.Detail.Blksize > 0 {
		v.note(time.Time{}, "blocks of %d bytes", e.Detail.Blksize)
	}
	v.noteSilence()
	title := v.who() + " stopped downloading the boot loader"
	if e.Detail.Total > 0 && e.Detail.Bytes <= e.Detail.Total {
		title = fmt.Sprintf("%s stopped downloading at %d %%", v.who(), e.Detail.Bytes*100/e.Detail.Total)
	}
	d := store.Diagnosis{Title: title, Confidence: store.VeryLikely}
	answers := store.Fix{Label: "Let UDP answers of the appliance through, from its ports 1024 to 65535; TFTP answers from a new port each time (RFC 1350 §4)"}
	switch {
	case because(e, store.CauseStopping):
		d.Title = v.who() + " lost its boot loader on the way, because the appliance was stopped"
		d.Cause = "The appliance was stopped or restarted while it sent the file, and the machine did not ask for it again."
		d.Confidence = store.Certain
		d.Fixes = []store.Fix{{Label: "Switch " + v.who() + " off and on"}}
	case because(e, store.CauseUnacknowledged):
		d.Title = "Our answers over TFTP are not reaching " + v.who()
		d.Cause = "Its request came to port 69, and none of our answers was acknowledged. They come from another port than it asked, as TFTP has it: a packet filter that lets port 69 through and nothing else ends like this, and so does a way back that is another than the way here."
		d.Fixes = []store.Fix{answers, {Label: "Boot it over HTTP, if its firmware can: that needs one port alone"}}
	case because(e, store.CauseGaveUp):
		d.Title = strings.Replace(d.Title, "stopped downloading", "gave up downloading", 1)
		d.Cause = sentence(e.Detail.Reason) + " It ended the transfer itself: its firmware has no room for the file, or was interrupted."
		d.Confidence = store.BestGuess
		d.Fixes = []store.Fix{{Label: "Look at the machine’s screen"}, {Label: "Try a smaller loader: lunboot machine set " + v.who() + " --loader NAME"}}
	case e.Detail.Bytes > 0 && e.Kind != store.EventTFTPProbe:
		// Blocks of this size came through before.
		d.Cause = "It had acknowledged that much, and then nothing more. It was switched off, its cable was pulled, or the network lost everything for ten seconds and longer."
		d.Fixes = []store.Fix{{Label: "Switch " + v.who() + " off and on"}, {Label: "Look at the cable and the switch’s port: errors and collisions there, and whether both ends agree on speed and duplex"}}
	default:
		d.Cause = "The request came through and the file did not. Packets that are too large for a link on the way, or a firewall that lets the request in and the answer not out, end like this."
		d.Fixes = []store.Fix{{Label: "Boot it again: it is given smaller blocks then"}, answers}
	}
	return d, true
}

func loaderNeverAsked(v *view) (store.Diagnosis, bool) {
	if v.saw(store.EventTFTPProbe, store.EventTFTPStart, store.EventTFTPSent, store.EventLoaderSent, store.EventTFTPMissing) {
		return store.Diagnosis{}, false
	}
	if d, ok := proxyIgnored(v); ok {
		return d, true
	}
	e, ok := v.last(store.EventDHCPAck)
	if !ok {
		return store.Diagnosis{}, false
	}
	if strings.HasPrefix(e.Detail.Class, "HTTPClient") {
		return v.neverAskedOverHTTP(e), true
	}
	told := ""
	if e.Detail.Loader != "" && e.Detail.Loader != "." {
		told = ", and was told to fetch " + e.Detail.Loader
	}
	v.note(e.At, "it was given %s%s", e.Addr, told)
	v.noteSilence()
	return store.Diagnosis{
		Title:      v.who() + " got its address but never asked for the boot loader",
		Cause:      "Often a firewall stands before port 69, on the appliance or between two networks. Or another DHCP server named another boot server, which we cannot see.",
		Confidence: store.BestGuess,
		Fixes: []store.Fix{
			checkAgain("port 69"),
			letThrough(netip.AddrPortFrom(v.appliance(), 69), "UDP"),
			{Label: "Ask the network who answers DHCP there: lunboot doctor"},
		},
	}, true
}

// neverAskedOverHTTP is firmware that boots over HTTP (UEFI 2.10 §24.7), and
// which never came for what it was told to fetch.
func (v *view) neverAskedOverHTTP(e store.Event) store.Diagnosis {
	port := v.bootPort()
	v.note(e.At, "it was given %s, and was told to fetch %s", e.Addr, orElse(e.Detail.URL, "a URL"))
	v.noteSilence()
	return store.Diagnosis{
		Title:      v.who() + " got its address but never asked for the boot loader over HTTP",
		Cause:      "Its firmware boots over HTTP, and was told the URL of its loader. Often a firewall stands before that port; some firmware allows only https:// in its set-up, or wants a name server before it fetches anything.",
		Confidence: store.BestGuess,
		Fixes: []store.Fix{
			checkAgain("the boot port"),
			letThrough(netip.AddrPortFrom(v.appliance(), port), "TCP"),
			{Label: "Allow plain HTTP in the network settings of its firmware, or let it boot by PXE over IPv4"},
		},
	}
}

// bootPort is the port of the URL that the machine was told to fetch.
func (v *view) bootPort() uint16 {
	if e, ok := v.last(store.EventDHCPAck, store.EventDHCPProxyOffer); ok {
		if u, err := url.Parse(e.Detail.URL); err == nil && u.Port() != "" {
			if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
				return uint16(n)
			}
		}
	}
	return 80
}

// proxyIgnored is the loader that was never asked for in proxy mode: the address
// came from another server, and our word beside it was lost or not heeded.
func proxyIgnored(v *view) (store.Diagnosis, bool) {
	e, ok := v.last(store.EventDHCPOtherPick)
	if !ok || !e.Detail.Proxy {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "it took %s from %s", e.Addr, orElse(e.Detail.Server, "another server"))
	v.noteEvents(v.since(time.Time{}, store.EventDHCPProxyOffer, store.EventDHCPBootServer))
	v.noteSilence()
	d := store.Diagnosis{
		Title:      v.who() + " got its address from " + orElse(e.Detail.Server, "another server") + " but never asked for the boot loader",
		Confidence: store.BestGuess,
	}
	if v.saw(store.EventDHCPBootServer) {
		d.Cause = "It asked this appliance what to boot and was told. Often a firewall stands before port 69, on the appliance or between two networks."
		d.Fixes = []store.Fix{checkAgain("port 69"), letThrough(netip.AddrPortFrom(v.appliance(), 69), "UDP")}
		return d, true
	}
	d.Cause = "It was told what to boot beside the other server’s answer, and did not heed it: the other server names a boot server too, or its firmware asks on port 4011 and cannot reach it, or it takes such answers from nobody."
	d.Fixes = []store.Fix{
		{Action: store.FixAction{Kind: store.FixQuirk, Argument: string(store.QuirkOption43)}.String(), Label: "Tell " + v.who() + " to fetch its loader at once, without asking on port 4011"},
		{Label: "Let UDP port 4011 of the appliance through"},
		{Label: "Take the boot options (66, 67, next-server, 60) out of the other server; or name this appliance there, and set the quirk no-proxy-offer"},
	}
	return d, true
}

func scriptNeverFetched(v *view) (store.Diagnosis, bool) {
	if v.saw(scriptEvents...) || v.saw(store.EventScriptAsked) {
		return store.Diagnosis{}, false
	}
	asked := false
	for _, e := range v.events {
		asked = asked || e.Kind == store.EventDHCPDiscover && e.Detail.IPXE || e.Kind == store.EventDHCPAck && e.Detail.IPXE
	}
	if !asked {
		return store.Diagnosis{}, false
	}
	v.noteSilence()
	if e, ok := v.last(store.EventDHCPAck, store.EventDHCPProxyOffer); ok && strings.HasPrefix(e.Detail.URL, "http") {
		v.note(time.Time{}, "it was told to fetch %s", e.Detail.URL)
	}
	return store.Diagnosis{
		Title:      "iPXE started on " + v.who() + " but could not reach the appliance’s boot port",
		Cause:      "It got an address and was told where its script is, and never asked for it. A firewall before that port, or a network driver that stops working after the loader has started, ends like this.",
		Confidence: store.VeryLikely,
		Fixes: []store.Fix{
			checkAgain("the boot port"),
			letThrough(netip.AddrPortFrom(v.appliance(), v.bootPort()), "TCP"),
			{Label: "Try another loader, with other network drivers: lunboot machine set " + v.who() + " --loader NAME"},
		},
	}, true
}
