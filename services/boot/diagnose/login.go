package diagnose

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/services/boot/ipxeerr"
	"lunboot/store"
)

// refused finds a refused login that no later login overtook.
func (v *view) refused(status string) (store.Event, bool) {
	if !v.failed() {
		return store.Event{}, false
	}
	e, ok := v.lastAfter(store.EventISCSIRefused, store.EventISCSIFirstRead)
	if !ok || status != "" && e.Detail.Status != status {
		return store.Event{}, false
	}
	return e, true
}

func (v *view) noteRefused(e store.Event) {
	v.note(e.At, "login refused with status %s: %s", e.Detail.Status, orElse(e.Detail.Reason, "no reason was noted"))
	if e.Detail.Initiator != "" {
		v.note(time.Time{}, "initiator: %s", e.Detail.Initiator)
	}
	v.addReport()
}

// subject is the machine, or its operating system when that was refused after
// iPXE had been let in.
func (v *view) subject() string {
	if v.failedAt(store.StageUp) {
		return v.who() + "’s operating system"
	}
	return v.who()
}

func mutualMismatch(v *view) (store.Diagnosis, bool) {
	if !v.reported(ipxeerr.ClassMutual) {
		return store.Diagnosis{}, false
	}
	return store.Diagnosis{
		Title:      v.who() + " did not accept the appliance’s own password",
		Cause:      "With mutual CHAP each side proves itself, and the machine expects another name or secret from the appliance than the one that is set here. Its script or its own settings carry an old pair.",
		Confidence: store.Certain,
		Fixes: v.secrets("Issue a new pair of secrets; its next script carries it",
			"If the secrets stand in the machine’s own iPXE, write the reverse pair from its page there"),
	}, true
}

func noReverseSecret(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("0201")
	if !ok || !because(e, store.CauseNoReverse) {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	return store.Diagnosis{
		Title:      v.subject() + " asked the appliance to prove itself, and no password is set for that",
		Cause:      "It wants mutual CHAP, and this machine is set to another way of logging in here.",
		Confidence: store.Certain,
		Fixes:      []store.Fix{{Action: string(store.FixMutual), Label: "Set " + v.who() + " to mutual CHAP"}},
	}, true
}

func authRequired(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("0201")
	if !ok || !because(e, store.CauseAuthRequired) {
		if !ok || !v.reported(ipxeerr.ClassNegotiate) {
			return store.Diagnosis{}, false
		}
		v.evidence = nil
	}
	v.noteRefused(e)
	return store.Diagnosis{
		Title:      v.subject() + " offered no password that " + v.volume() + " accepts",
		Cause:      "The machine is set to prove itself with CHAP here, and what it runs offered less: its script or its own settings carry no secret, or only one of the two.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Action: string(store.FixProfileSAN), Label: "Use profile san, which hands over the secrets"},
			{Label: "Write username, password, reverse-username and reverse-password in its script"},
		},
	}, true
}

func wrongSecret(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("0201")
	if !ok || (e.Detail.Cause != "" || e.Detail.Reason != "") && !because(e, store.CauseWrongSecret) {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	return store.Diagnosis{
		Title:      v.subject() + " gave the wrong password for " + v.volume(),
		Cause:      "The CHAP user name or secret that it used is not the one that is set for it here. Its script or its own settings carry an old one.",
		Confidence: store.Certain,
		Fixes: v.secrets("Issue a new secret; its next script carries it",
			"If the secret stands in the machine’s own iPXE, write the one from its page there"),
	}, true
}

// credentialMix is an iPXE that did not even try: its settings make no login.
func credentialMix(v *view) (store.Diagnosis, bool) {
	if !v.failed() || !v.reported(ipxeerr.ClassMix) {
		return store.Diagnosis{}, false
	}
	return store.Diagnosis{
		Title:      v.who() + " has only parts of the passwords for " + v.volume(),
		Cause:      "Its iPXE knows a user name without its secret, or the appliance’s pair without the machine’s own, and so it did not try to log in. Its script set or cleared some of them.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			fix(store.FixProfileSAN, "", "Use profile san, which hands over all of them"),
			{Label: "Set all four in its script, or none: username, password, reverse-username, reverse-password"},
		},
	}, true
}

// changedSince reports whether somebody changed the machine here after it was
// given its script: what it carries is older than what is set.
func (v *view) changedSince() bool {
	e, ok := v.lastAfter(store.EventMachineChanged, store.EventScriptSent)
	if ok = ok && v.saw(store.EventScriptSent); ok {
		v.note(e.At, "the machine was changed here, after its script was given")
	}
	return ok
}

// secrets are the fixes of a secret that differs. A new one reaches the machine
// only by a script that carries it, which an operator's own may not.
func (v *view) secrets(renew, byHand string) []store.Fix {
	var out []store.Fix
	if v.changedSince() && v.f.Profile == store.DefaultProfile {
		return []store.Fix{{Label: "Boot it again: its next script carries what is set now"}, {Label: byHand}}
	}
	if v.f.Profile != store.DefaultProfile && v.f.Name != "" {
		out = append(out, fix(store.FixProfileSAN, "", "Use profile san, which hands over the secrets"))
	}
	return append(out, fix(store.FixSecret, "", renew), store.Fix{Label: byHand})
}

// generalise are the steps that keep clones of one image from carrying its name.
func generalise() []store.Fix {
	return []store.Fix{
		{Label: "In a clone of the golden volume, delete /etc/iscsi/initiatorname.iscsi and empty /etc/machine-id; let the initramfs take the name from the firmware (Debian: ISCSI_AUTO=true in /etc/iscsi/iscsi.initramfs, then update-initramfs -u; Fedora: rd.iscsi.firmware=1)"},
		{Label: "Windows: run sysprep /generalize /oobe /shutdown in it; its initiator takes the name from the firmware"},
		{Label: "Promote that clone: lunboot volume promote NAME. Machines whose clones begin anew have it at their next boot"},
	}
}

// copiedName is an initiator that gave another machine's name, or, once iPXE was
// let in under the right one, a name of nobody: what an image carries along that
// was installed on another machine.
func copiedName(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("0202")
	if !ok {
		return store.Diagnosis{}, false
	}
	d := store.Diagnosis{Confidence: store.Certain}
	os := v.failedAt(store.StageUp)
	switch other := asked(e); {
	case because(e, store.CauseOtherMachine):
		d.Title = v.subject() + " logged in as " + other
		d.Cause = "It gave the iSCSI name of " + other + ", and was not let in: it would have been served the volumes of " + other + ", and two machines that write to one volume destroy it."
	case os && because(e, store.CauseNoInitiator):
		d.Title = v.subject() + " used an iSCSI name that no machine has here"
		d.Cause = "Its firmware was let in under the right name, and the system that it started gave another."
		d.Confidence = store.VeryLikely
	default:
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	if v.f.Initiator != "" {
		v.note(time.Time{}, "the name set for %s is %s", v.who(), v.f.Initiator)
	}
	if os {
		d.Cause += " The image that it boots carries the name of the machine that it was installed on, in /etc/iscsi/initiatorname.iscsi."
		d.Fixes = generalise()
		return d, true
	}
	d.Cause += " Its script, or the settings of its own iPXE, set that name."
	d.Fixes = []store.Fix{
		{Action: string(store.FixProfileSAN), Label: "Use profile san, which sets the right name"},
		{Label: "Write set initiator-iqn " + orElse(string(v.f.Initiator), "and the machine’s name") + " in its script, before sanboot"},
	}
	return d, true
}

func unknownInitiator(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("0202")
	if !ok {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	if v.f.Initiator != "" {
		v.note(time.Time{}, "the name set for %s is %s", v.who(), v.f.Initiator)
	}
	if m, ok := v.boot(); ok && m.State != "" && m.State != store.VolumeReady {
		v.note(time.Time{}, "volume %s is %s", quoted(m.Volume), m.State)
		return store.Diagnosis{
			Title:      v.subject() + " was refused, because " + v.volume() + " is not ready",
			Cause:      sentence(orElse(m.Reason, "the volume is still being made")),
			Confidence: store.Certain,
			Fixes:      []store.Fix{{Label: "Look at the volume: lunboot volume show " + m.Volume}},
		}, true
	}
	title := v.subject() + " used an iSCSI name that no machine has here"
	if string(v.f.Initiator) == e.Detail.Initiator && e.Detail.Initiator != "" {
		title = v.subject() + " was not allowed to use a volume"
	}
	return store.Diagnosis{
		Title:      title,
		Cause:      "Volumes are mapped to a machine by its iSCSI name, and the name that it gave belongs to nobody who has one. iPXE makes up a name of its own when a script sets none.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Action: string(store.FixProfileSAN), Label: "Use profile san, which sets the name"},
			{Label: "Write set initiator-iqn " + orElse(string(v.f.Initiator), "and the machine’s name") + " in its script, before sanboot"},
		},
	}, true
}

func unknownTarget(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("0203")
	if !ok {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	title := v.subject() + " asked for a target that is not here"
	if other := asked(e); other != "" { // Detail.Target is our own name
		title = v.subject() + " asked for the target " + quoted(other) + ", which is not here"
	}
	return store.Diagnosis{
		Title:      title,
		Cause:      "The appliance has one target name, and the script or the machine’s own settings carry another.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Action: string(store.FixProfileSAN), Label: "Use profile san, which writes the right name"},
			{Label: "Write the appliance’s target name, shown on the machine’s page, in its sanboot line"},
		},
	}, true
}

// loginUnfinished is an initiator that hung up in the middle of its login, as
// iPXE does when it does not believe the target.
func loginUnfinished(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("")
	if !ok || e.Detail.Status != "" {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s", orElse(e.Detail.Reason, "it began to log in and did not finish"))
	d := store.Diagnosis{
		Title:      v.subject() + " broke off its login to " + v.volume(),
		Cause:      "It hung up before the login was done, and nothing was refused here. It was switched off, or the network lost its packets.",
		Confidence: store.BestGuess,
		Fixes:      []store.Fix{{Label: "Look at the machine’s screen"}},
	}
	if v.f.Auth == store.AuthMutual {
		d.Cause = "It hung up before the login was done, and nothing was refused here. With mutual CHAP a machine does that when the appliance’s own password is not the one that it expects."
		d.Confidence = store.VeryLikely
		d.Fixes = v.secrets("Issue a new pair of secrets; its next script carries it",
			"If the secrets stand in the machine’s own iPXE, write the reverse pair from its page there")
	}
	return d, true
}

func loginRefused(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("")
	if !ok {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	return store.Diagnosis{
		Title:      v.subject() + " was refused its volume",
		Cause:      sentence(orElse(e.Detail.Reason, "the appliance could not serve it at that moment")) + " The machine tries again when it is switched on again.",
		Confidence: store.Certain,
		Fixes:      []store.Fix{{Label: "Mend what the reason names, then boot again"}},
	}, true
}

func badSANAddress(v *view) (store.Diagnosis, bool) {
	if !v.failed() || !v.reported(ipxeerr.ClassRootPath) {
		return store.Diagnosis{}, false
	}
	x, _, _ := v.report()
	return store.Diagnosis{
		Title:      v.who() + " could not read the address of its volume in its script",
		Cause:      sentence(x.Meaning) + " The form is iscsi:ADDRESS::PORT:LUN:TARGET, with the LUN in hexadecimal.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Action: string(store.FixProfileSAN), Label: "Use profile san, which writes it by itself"},
			{Label: "Mend the sanboot line of its profile"},
		},
	}, true
}

func targetUnreachable(v *view) (store.Diagnosis, bool) {
	if v.saw(store.EventISCSILogin, store.EventISCSIRefused) || !v.reported(ipxeerr.ClassUnreachable, ipxeerr.ClassName, ipxeerr.ClassNoTarget) {
		return store.Diagnosis{}, false
	}
	x, _, _ := v.report()
	d := store.Diagnosis{
		Title:      v.who() + " could not reach " + v.volume() + " over the network",
		Cause:      sentence(x.Meaning) + " No login of it came to this appliance.",
		Confidence: store.VeryLikely,
		Fixes:      []store.Fix{checkAgain("the iSCSI port"), letThrough(v.portal(), "TCP")},
	}
	line, there, here := v.sanLine(), v.portal().Addr(), v.appliance()
	if there.IsValid() {
		v.note(time.Time{}, "its script says: %s", line)
	}
	if there.IsValid() && here.IsValid() && there != here {
		d.Title = v.who() + " could not reach " + v.volume() + " at " + there.String() + ": the appliance is not there"
		d.Cause += fmt.Sprintf(" Its script names %s, and it was told to boot by %s.", there, here)
		d.Fixes = []store.Fix{{Label: fmt.Sprintf("Write {{san_uri}}, or %s for %s, in the sanboot line of its profile%s", here, there, v.ofProfile())}}
		if v.f.Profile != store.DefaultProfile && v.f.Name != "" {
			d.Fixes = slices.Insert(d.Fixes, 0, fix(store.FixProfileSAN, "", "Use profile san, which writes the right address by itself"))
		}
	}
	return d, true
}

// checkAgain is the button that looks whether a cause outside is gone.
func checkAgain(what string) store.Fix {
	return store.Fix{Action: string(store.FixCheckAgain), Label: "Check again: test " + what}
}

// letThrough says how a packet filter lets a port through.
func letThrough(at netip.AddrPort, protocol string) store.Fix {
	rule := fmt.Sprintf("%d/%s", at.Port(), strings.ToLower(protocol))
	to := ""
	if at.Addr().IsValid() {
		to = " to " + at.Addr().String()
	}
	return store.Fix{Label: fmt.Sprintf("Let %s port %d%s through, on the appliance (ufw allow %s, or firewall-cmd --permanent --add-port=%s and --reload) and on routers between", protocol, at.Port(), to, rule, rule)}
}

// sanLine is the line of the machine's script that logs in to its volume.
func (v *view) sanLine() string {
	for l := range strings.Lines(v.a.Script) {
		if l = strings.TrimSpace(l); attempt.OfSAN(l) && strings.Contains(l, "iscsi:") {
			l, _, _ = strings.Cut(l, " ||")
			return l
		}
	}
	return ""
}

// portal is where the machine's script says that its volume is (RFC 4173 §5); a
// name that needs DNS is no address, and the port is 3260 when none stands there.
func (v *view) portal() netip.AddrPort {
	_, uri, _ := strings.Cut(v.sanLine(), "iscsi:")
	host, rest, _ := strings.Cut(uri, ":")
	port := uint64(3260)
	if parts := strings.SplitN(rest, ":", 3); len(parts) == 3 {
		if n, err := strconv.ParseUint(parts[1], 10, 16); err == nil && n > 0 {
			port = n
		}
	}
	addr, _ := netip.ParseAddr(host)
	return netip.AddrPortFrom(addr, uint16(port))
}

// appliance is the address at which the machine was told to find us.
func (v *view) appliance() netip.Addr {
	for i := len(v.events) - 1; i >= 0; i-- {
		switch e := v.events[i]; e.Kind {
		case store.EventDHCPAck, store.EventDHCPProxyOffer, store.EventDHCPBootServer:
			if u, err := url.Parse(e.Detail.URL); err == nil && u.Host != "" {
				addr, _ := netip.ParseAddr(u.Hostname())
				return addr
			}
		case store.EventDHCPRequest: // it names us, by our server identifier
			if addr, err := netip.ParseAddr(e.Detail.Server); err == nil && v.saw(store.EventDHCPAck) {
				return addr
			}
		}
	}
	return netip.Addr{}
}

// spokeSinceScript reports whether the machine reported something after it was given
// its script of now.
func (v *view) spokeSinceScript() bool {
	_, spoke := v.lastAfter(store.EventReport, store.EventScriptSent)
	return spoke
}

func neverLoggedIn(v *view) (store.Diagnosis, bool) {
	if v.saw(store.EventISCSILogin, store.EventISCSIRefused) || v.spokeSinceScript() {
		return store.Diagnosis{}, false
	}
	v.noteSilence()
	d := store.Diagnosis{
		Title:      v.who() + " never tried to reach " + v.volume(),
		Cause:      "It was given its script, and no login came after it. A firewall in front of the iSCSI port, an address in the script that leads elsewhere, or a loader without iSCSI ends like this; or it was switched off just then.",
		Confidence: store.VeryLikely,
		Fixes: []store.Fix{
			checkAgain("the iSCSI port"),
			letThrough(v.portal(), "TCP"),
		},
	}
	if v.f.Profile != store.DefaultProfile && v.f.Name != "" {
		d.Cause = "It was given its script, and no login came after it. A script that leads elsewhere or goes round before it comes to that line, an address in it that leads elsewhere, a firewall in front of the iSCSI port, or a loader without iSCSI ends like this; or it was switched off just then."
		d.Fixes = slices.Insert(d.Fixes, 0, fix(store.FixProfileSAN, "", "Use profile san, whose script names the appliance and the volume"))
	}
	return d, true
}
