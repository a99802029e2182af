package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/store"
)

// bootLoaderBytes is about what a boot loader's first look at a disk reads: an
// ISO descriptor, a partition table. A kernel is megabytes.
const bootLoaderBytes = 256 << 10

// upRules explain operating systems that never came up.
func upRules() []rule {
	return []rule{
		{code: "LB-OS-04", stage: store.StageUp, build: ownDisk},
		{code: "LB-OS-01", stage: store.StageUp, build: osNeverRead},
		{code: "LB-VOL-08", or: []string{"LB-OS-02"}, stage: store.StageUp, build: emptyVolume},
		{code: "LB-VOL-12", or: []string{"LB-OS-02"}, stage: store.StageUp, build: wentNoFurther},
		{code: "LB-OS-02", stage: store.StageUp, build: osLostVolume},
		{code: "LB-OS-03", build: upUnconfirmed},
	}
}

// osLogin finds a login that is not iPXE's, after one that is.
func (v *view) osLogin() (store.Event, bool) {
	for i := len(v.events) - 1; i >= 0; i-- {
		if e := v.events[i]; e.Kind == store.EventISCSILogin && e.Detail.ISID != "" && !ofIPXE(e) {
			return e, true
		}
	}
	return store.Event{}, false
}

func osNeverRead(v *view) (store.Diagnosis, bool) {
	e, ok := v.osLogin()
	if !ok {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "its operating system logged in as %s", orElse(e.Detail.Initiator, "its own initiator"))
	if n, ok := v.last(store.EventISCSINoLUN); ok && !ofIPXE(n) && n.Detail.LUN != nil {
		v.note(n.At, "it asked for LUN %d", *n.Detail.LUN)
	}
	v.noteSilence()
	var fixes []store.Fix
	if m, ok := v.boot(); ok && m.LUN != 0 {
		fixes = append(fixes, fix(store.FixMapLUN, "0", "Map its boot volume as LUN 0, which every system looks at"))
	}
	return store.Diagnosis{
		Title:      v.who() + "’s operating system logged in and never read from " + v.volume(),
		Cause:      "It found its way to the appliance, and no volume that it could use there: it looks for another LUN, or its disk driver is missing.",
		Confidence: store.VeryLikely,
		Fixes:      append(fixes, store.Fix{Label: "Look at the machine’s screen"}),
	}, true
}

func emptyVolume(v *view) (store.Diagnosis, bool) {
	sure, ok := v.nothingStarted()
	if !ok || sure == store.Certain {
		return store.Diagnosis{}, false
	}
	if _, found, ok := v.contents(); ok && !found.Blank {
		return store.Diagnosis{}, false // it holds something: what became of that is for the rules below
	}
	return v.emptyVolume(sure), true
}

// lateSign reports whether the operating system gave any sign of itself.
func (v *view) lateSign() bool {
	_, login := v.osLogin()
	return login || v.osDHCP() != nil
}

// osDHCP is the operating system's own DISCOVER, or nil.
func (v *view) osDHCP() *store.Event {
	read, ok := v.last(store.EventISCSIFirstRead)
	if !ok {
		return nil
	}
	for _, e := range v.since(read.At, store.EventDHCPDiscover, store.EventDHCPRequest, store.EventDHCPAck) {
		if !e.Detail.PXE && !e.Detail.IPXE {
			return &e
		}
	}
	return nil
}

// osLostVolume is the hand-over that failed: the firmware's view of the disk
// ends when the operating system takes the network card, and its own initiator
// must take over.
func osLostVolume(v *view) (store.Diagnosis, bool) {
	read, ok := v.last(store.EventISCSIFirstRead)
	if !ok {
		return store.Diagnosis{}, false
	}
	if n := v.bytesRead(); n > 0 {
		v.note(read.At, "its boot loader read %s", attempt.Amount(n))
	} else {
		v.note(read.At, "its boot loader read from the volume")
	}
	if e, ok := v.last(store.EventISCSIClosed, store.EventISCSILogout); ok {
		v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	}
	system := ""
	if m, ok := v.boot(); ok {
		if m.Contents != nil {
			system = string(m.Contents.OS)
		}
	}
	if e := v.osDHCP(); e != nil {
		v.note(e.At, "its operating system asked for an address, %s", orElse(e.Detail.Class, "without saying what it is"))
		if system == "" && !strings.HasPrefix(e.Detail.Class, "MSFT") {
			system = "linux"
		}
	}
	v.noteSilence()
	sure, also, title := store.VeryLikely, "", map[string]string{
		"windows": "Windows started on " + v.who() + " but lost its volume when it took over the network card",
		"linux":   "Linux started on " + v.who() + " but did not reconnect to its volume",
	}[system]
	if v.osDHCP() == nil && v.vanished() {
		title = v.who() + " stopped while it started " + map[string]string{"windows": "Windows", "linux": "Linux"}[system] + " from its volume"
		sure, also = store.BestGuess, " Or it was switched off, or crashed, while its boot loader read: it stopped to answer from one moment to the next."
	}
	heartbeat := store.Fix{Label: "If it did start: let its start-up say so, by fetching http://APPLIANCE/report?up=1&mac=MAC"}
	switch system {
	case "windows":
		return store.Diagnosis{
			Title:      title,
			Cause:      "Its network driver is not among those that Windows starts first, so the volume was gone before the driver was there; the screen says stop code 0x7B." + also,
			Confidence: sure,
			Fixes: []store.Fix{
				{Label: "Before the image is made, let the network card’s driver start at boot: set Start to 0 for its service and for iScsiPrt in the registry"},
				{Label: "Or try another loader: lunboot machine set " + v.who() + " --loader NAME"},
			},
		}, true
	case "linux":
		return store.Diagnosis{
			Title:      title,
			Cause:      "Its initial RAM disk has no iSCSI in it, or no driver for the network card, so it could not find its root file system." + also,
			Confidence: sure,
			Fixes: []store.Fix{
				{Label: "Debian: install open-iscsi and write ISCSI_AUTO=true into /etc/iscsi/iscsi.initramfs; Fedora: dracut with the module iscsi and rd.iscsi.firmware=1"},
				heartbeat,
			},
		}, true
	}
	return store.Diagnosis{
		Title:      v.who() + " started from its volume, and its operating system did not reconnect to it",
		Cause:      "The boot loader read what it needed, and nothing came after that. The operating system needs an iSCSI initiator of its own that starts early, and a driver for the network card beside it." + also,
		Confidence: store.BestGuess,
		Fixes: []store.Fix{
			{Label: "Put an iSCSI initiator and the network card’s driver into what the operating system loads first"},
			heartbeat,
		},
	}, true
}

// vanished reports whether the machine's last session ended because nobody answered
// any more, and not because somebody hung up.
func (v *view) vanished() bool {
	e, ok := v.last(store.EventISCSIClosed, store.EventISCSILogout)
	return ok && e.Kind == store.EventISCSIClosed && because(e, store.CauseSilent)
}

// lostAfterUp is a system that runs, and that was refused its volume when it came
// back for it: what was changed here keeps it out.
func lostAfterUp(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastAfter(store.EventISCSIRefused, store.EventISCSILogin)
	if !ok || v.a.Outcome != store.OutcomeUp || e.Detail.Status == "" || ofIPXE(e) {
		return store.Diagnosis{}, false
	}
	n := len(v.since(e.At.Add(-time.Hour), store.EventISCSIRefused))
	v.noteRefused(e)
	if c, ok := v.last(store.EventMachineChanged); ok {
		v.note(c.At, "the machine was %s here", orElse(c.Detail.Reason, "changed"))
	}
	d := store.Diagnosis{
		Title:      v.who() + " ran, and was refused its volume when it logged in again",
		Cause:      "Its system was up, its session ended, and it has asked for a new one " + times(n) + ": " + strings.TrimSuffix(e.Detail.Reason, ".") + ".",
		Confidence: store.Certain,
		Fixes:      []store.Fix{{Label: "Mend what the reason names; its system goes on as soon as it is let in, or switch it off and on"}},
	}
	switch c, changed := v.last(store.EventMachineChanged); {
	case changed && because(c, store.CauseRemoved) && v.f.Name == "":
		d.Cause += " It was removed from the appliance while it ran."
		d.Fixes = []store.Fix{{Action: string(store.FixEnroll), Label: "Enroll it again, map its volume to it, and switch it off and on"}}
	case v.f.Initiator != "" && e.Detail.Initiator != "" && e.Detail.Initiator != string(v.f.Initiator):
		d.Cause += " Its iSCSI name was changed here while it ran."
		d.Fixes = []store.Fix{
			{Label: "Set the old name again: lunboot machine set " + v.who() + " --iqn " + e.Detail.Initiator},
			{Label: "Or switch " + v.who() + " off and on: its next script carries the new name"},
		}
	case v.f.Name != "" && len(v.f.Mappings) == 0:
		d.Cause += " Its volume was taken away while it ran."
		d.Fixes = v.freeVolumes()
	}
	return d, true
}

// portalMoved is a system that ran, and whose session ended for good: it goes on
// asking for it at an address that the appliance has no more. Systems keep the
// address that their script, or the firmware's iBFT, told them.
func portalMoved(v *view) (store.Diagnosis, bool) {
	there := v.portal().Addr()
	if v.stage(store.StageUp).Hold != store.HoldLost || !there.IsValid() || len(v.f.Own) == 0 || slices.Contains(v.f.Own, there) {
		return store.Diagnosis{}, false
	}
	if _, refused := v.lastAfter(store.EventISCSIRefused, store.EventISCSILogin); refused {
		return store.Diagnosis{}, false // it found us
	}
	v.note(v.stage(store.StageUp).HoldAt, "it has had no session since")
	v.note(time.Time{}, "its script says: %s", v.sanLine())
	v.note(time.Time{}, "addresses of the appliance: %s", v.ownAddresses())
	return store.Diagnosis{
		Title:      v.who() + " ran from its volume at " + there.String() + ", which is not the appliance’s address any more",
		Cause:      "Its session ended and did not come back. If it still runs, it asks for its volume where it found it when it booted, and nobody answers there. Only where something in between passes that address on is it right, and then the machine is off.",
		Confidence: store.VeryLikely,
		Fixes: []store.Fix{
			{Label: "Give the appliance the address " + there.String() + " again, beside its new one: a system that still runs goes on by itself"},
			{Label: "Or switch " + v.who() + " off and on: its next script carries the address of now"},
		},
	}, true
}

func upUnconfirmed(v *view) (store.Diagnosis, bool) {
	if v.a.Outcome != store.OutcomeUpUnconfirmed {
		return store.Diagnosis{}, false
	}
	if _, ok := v.osLogin(); !ok && attempt.StartsInstaller(v.a.Script) {
		v.noteSilence()
		return store.Diagnosis{
			Title:      v.who() + " was given its installer, and how far that is cannot be seen from here",
			Cause:      "The installer has not logged in to the volume yet. It does so before it looks for disks; until then it may wait for somebody, or for its mirror.",
			Confidence: store.CannotSee,
			Fixes:      []store.Fix{{Label: "Look at the machine’s screen"}, {Label: "Give its profile the answers, and let the last of them fetch {{done_url}}"}},
		}, true
	}
	if e, ok := v.last(store.EventISCSIIO, store.EventISCSIFirstRead); ok {
		v.note(e.At, "it read or wrote last")
		return store.Diagnosis{
			Title:      v.who() + " is probably up: it is reading its volume but has not said so",
			Cause:      "It has used its volume steadily for more than three minutes, which a boot loader does not do. Nothing else tells that its operating system runs.",
			Confidence: store.BestGuess,
			Fixes:      []store.Fix{{Label: "Let its start-up say that it is up, by fetching http://APPLIANCE/report?up=1&mac=MAC"}},
		}, true
	}
	v.noteSilence()
	return store.Diagnosis{
		Title:      v.who() + " went on by itself, and how that ended cannot be seen from here",
		Cause:      "Its script handed over to something that does not come from a volume of this appliance, such as its own disk or an installer.",
		Confidence: store.CannotSee,
		Fixes:      []store.Fix{{Label: "Let its start-up say that it is up, by fetching http://APPLIANCE/report?up=1&mac=MAC"}},
	}, true
}

// lastRules make sure that a failed boot is never without a word.
func lastRules() []rule {
	return []rule{
		{code: "LB-BOOT-01", build: reportedOther},
		{code: "LB-BOOT-02", rest: true, build: beganAnew},
		{code: "LB-BOOT-03", rest: true, build: stopped},
	}
}

// reportedOther passes on a report that no rule knows better.
func reportedOther(v *view) (store.Diagnosis, bool) {
	x, e, ok := v.report()
	if !ok || !v.failed() {
		return store.Diagnosis{}, false
	}
	v.noteReport(x, e)
	return store.Diagnosis{
		Title:      v.who() + " gave up while it " + doing(v.a.Stage),
		Cause:      sentence(x.Meaning),
		Confidence: store.VeryLikely,
		Fixes:      []store.Fix{{Label: "Look at the machine’s screen for what came before it"}},
	}, true
}

func beganAnew(v *view) (store.Diagnosis, bool) {
	if !v.failed() || !strings.HasPrefix(v.stage(v.a.Stage).Detail, attempt.StartedOver) {
		return store.Diagnosis{}, false
	}
	v.noteSilence()
	d := store.Diagnosis{
		Title:      v.who() + " started over while it " + doing(v.a.Stage),
		Cause:      "It asked to boot again from the beginning: somebody switched it off and on, or its firmware gave up and tried anew.",
		Confidence: store.VeryLikely,
		Fixes:      []store.Fix{{Label: "Look at the boot that followed"}},
	}
	if v.f.Once != "" && v.a.Stage == store.StageUp && !sanOf(v.a) {
		d.Cause += stays
		d.Fixes = append(d.Fixes, v.takeBack())
	}
	return d, true
}

func stopped(v *view) (store.Diagnosis, bool) {
	if !v.failed() {
		return store.Diagnosis{}, false
	}
	v.noteSilence()
	title := v.who() + " was not heard of again while it " + doing(v.a.Stage)
	return store.Diagnosis{
		Title:      title,
		Cause:      "Nothing came from it any more, and nothing that was seen says why. It may have been switched off.",
		Confidence: store.CannotSee,
		Fixes:      []store.Fix{{Label: "Look at the machine’s screen"}},
	}, true
}

// doing says what a machine does in a stage.
func doing(name store.StageName) string {
	switch name {
	case store.StageAsk, store.StageAddress:
		return "asked for an address"
	case store.StageLoader:
		return "fetched its boot loader"
	case store.StageScript:
		return "fetched its script"
	case store.StageLogin:
		return "logged in to its volume"
	case store.StageRead:
		return "read from its volume"
	}
	return "started its operating system"
}

// asideRules are said besides what stopped the boot.
func asideRules() []rule {
	return []rule{
		{code: "LB-OS-05", aside: true, build: lostAfterUp},
		{code: "LB-OS-06", aside: true, build: portalMoved},
		{code: "LB-DHCP-09", aside: true, build: reservedTaken},
		{code: "LB-SCR-15", aside: true, build: otherBoard},
		{code: "LB-NET-01", aside: true, build: slowPort},
		{code: "LB-BOOT-05", aside: true, build: installLoop},
		{code: "LB-BOOT-04", aside: true, build: again},
	}
}

// ownDisk is a machine whose profile leaves it to its own disk, which has
// nothing to start.
func ownDisk(v *view) (store.Diagnosis, bool) {
	x, e, ok := v.report()
	if !ok || e.Detail.Step != "local" {
		return store.Diagnosis{}, false
	}
	v.noteReport(x, e)
	d := store.Diagnosis{
		Title:      v.who() + " could not start from its own disk",
		Cause:      "Its profile leaves it to its own disk, and " + x.Meaning + ". Its firmware goes on with its list of boot devices; what came of that cannot be seen from here.",
		Confidence: store.Certain,
	}
	switch {
	case v.f.Once != "":
		d.Cause += stays
		d.Fixes = append(d.Fixes, v.takeBack())
	case len(v.f.Mappings) > 0:
		d.Fixes = append(d.Fixes, fix(store.FixProfileSAN, "", "Use profile san, which boots from "+v.volume()))
	}
	d.Fixes = append(d.Fixes, store.Fix{Label: "Look whether the machine’s firmware sees its disk"})
	return d, true
}

// stays is said of a boot that came to nothing while its machine has a profile for
// one boot.
const stays = " The profile that was chosen for one boot only is not used up by that: the next boot is by it as well."

// takeBack offers to end a profile for one boot by hand.
func (v *view) takeBack() store.Fix {
	return fix(store.FixClearOnce, "", "Take the profile for one boot back, and boot by profile "+v.f.Profile)
}

// A machine that booted so often in so short a time is in a loop.
const (
	loopBoots = 4
	loopTime  = 15 * time.Minute
)

// Looping returns how many boots in a row, this one among them, ended in the
// next one without anybody having said that the system was up; 0 when that is no
// loop. A boot that our own script tries again after it failed is none.
func Looping(a store.Attempt, earlier []store.Attempt) (boots int, took time.Duration) {
	next, first := a.Started, a.Started
	for boots = 1; boots <= len(earlier); boots++ {
		e := earlier[boots-1]
		over := e.Outcome == store.OutcomeFailed && e.Stage == store.StageUp && len(e.Stages) > 0 && strings.HasPrefix(e.Stages[len(e.Stages)-1].Detail, attempt.StartedOver)
		// An installer that is done starts the machine anew, and comes up again.
		installs := e.Outcome != store.OutcomeFailed && !sanOf(e)
		if !over && !installs || a.Started.Sub(e.Started) > loopTime || e.Started.After(next) {
			break
		}
		next, first = e.Started, e.Started
	}
	if boots < loopBoots {
		return 0, 0
	}
	return boots, a.Started.Sub(first)
}

// sanOf reports whether a boot needed its volume.
func sanOf(a store.Attempt) bool {
	for _, s := range a.Stages {
		if s.Name == store.StageLogin {
			return s.State != store.StageSkipped
		}
	}
	return true
}

// again is a machine that boots again and again.
func again(v *view) (store.Diagnosis, bool) {
	n, took := Looping(v.a, v.f.Earlier)
	if n == 0 || Installing(v.a, v.f.Earlier, v.f.Installers) != nil {
		return store.Diagnosis{}, false
	}
	for _, e := range v.f.Earlier[:n-1] {
		v.note(e.Started, "it asked to boot, which got as far as that it %s", doing(e.Stage))
	}
	if len(v.evidence) > 6 {
		v.evidence = v.evidence[:6]
	}
	d := store.Diagnosis{
		Title:      fmt.Sprintf("%s boots again and again: %d times in %d minutes", v.who(), n, int((took+time.Minute-1)/time.Minute)),
		Cause:      "Each time it was given its script, started something and began anew. What it starts crashes, or a watchdog or power setting resets it.",
		Confidence: store.VeryLikely,
		Fixes:      []store.Fix{{Label: "Look at the machine’s screen just before it starts over"}},
	}
	if !sanOf(v.a) || !sanOf(v.f.Earlier[0]) {
		d.Cause = "Each time it was given the same script, which does not boot from its volume. An installer that is done starts the machine anew, and is then given once more."
		if v.f.Once == "" && v.f.Profile != store.DefaultProfile && len(v.f.Mappings) > 0 {
			d.Fixes = append([]store.Fix{fix(store.FixProfileSAN, "", "Use profile san: it is installed, and boots from its volume")}, d.Fixes...)
		}
	}
	if v.f.Once != "" {
		d.Cause += stays
		d.Fixes = append([]store.Fix{v.takeBack()}, d.Fixes...)
	}
	return d, true
}

// slowPort is a first DISCOVER that was not the machine's first: firmware had
// been asking for a while before the switch let it through.
func slowPort(v *view) (store.Diagnosis, bool) {
	if v.openedTooLate() {
		return store.Diagnosis{}, false // said already, and not besides
	}
	return sleptPort(v)
}

func sleptPort(v *view) (store.Diagnosis, bool) {
	asks := v.since(time.Time{}, store.EventDHCPDiscover)
	if len(asks) == 0 || !asks[0].Detail.PXE && !asks[0].Detail.IPXE || asks[0].Detail.Secs < attempt.LateAsk || asks[0].Detail.Secs > 300 {
		return store.Diagnosis{}, false
	}
	v.note(asks[0].At, "its first packet that reached us says that it had been asking for %d s", asks[0].Detail.Secs)
	return store.Diagnosis{
		Title:      fmt.Sprintf("The switch port slept for %d s before passing traffic", asks[0].Detail.Secs),
		Cause:      "Spanning tree keeps a port silent for a while after the link comes up, and firmware gives up in that time. It does so after every power-on.",
		Confidence: store.BestGuess,
		Fixes:      []store.Fix{{Label: "Make the port of " + v.who() + " an edge port (PortFast) on the switch"}},
	}, true
}
