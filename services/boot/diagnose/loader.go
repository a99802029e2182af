package diagnose

import (
	"fmt"
	"strings"
	"time"

	"lunboot/services/boot"
	"lunboot/services/boot/attempt"
	"lunboot/store"
)

func noLoader(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastAfter(store.EventDHCPNoLoader, store.EventTFTPSent, store.EventLoaderSent)
	if !ok {
		e, ok = v.lastAfter(store.EventLoaderMissing, store.EventTFTPSent, store.EventLoaderSent)
	}
	if !ok {
		return store.Diagnosis{}, false
	}
	firmware, arch := orElse(e.Detail.Firmware, v.a.Firmware), orElse(e.Detail.Arch, v.a.Arch)
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	d := store.Diagnosis{
		Title:      "There is no boot loader for this kind of machine (" + kind(firmware, arch) + ")",
		Cause:      v.who() + " said what it is when it asked to boot, and the appliance has no iPXE that runs on it.",
		Confidence: store.Certain,
		Fixes:      []store.Fix{{Label: "Add a loader: lunboot loader add FILE"}},
	}
	if name, ok := boot.LoaderFor(boot.PlatformNamed(firmware, arch)); ok {
		d.Fixes[0].Label = fmt.Sprintf("Add an iPXE for it, called %s", name)
		d.Fixes = append(d.Fixes, store.Fix{Label: fmt.Sprintf("On a command line: lunboot loader add %s", name)})
	}
	return d, true
}

// noISCSI is said before the boot has failed: the volume is out of reach for
// the loader that there is.
func noISCSI(v *view) (store.Diagnosis, bool) {
	e, ok := v.last(store.EventDHCPNoISCSI)
	if !ok || v.a.Outcome == store.OutcomeUp || v.saw(store.EventISCSILogin) {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	what, how := "its own iPXE has no iSCSI inside", "An iPXE says in its DHCP request what it can do (option 175), and this one does not name iSCSI."
	if e.Detail.Loader != "" {
		name := path(e.Detail.Loader)
		what, how = "its loader "+name+" has no iSCSI inside", "What a loader can do stands in its bytes, and this one has nothing of iSCSI."
	}
	v.addReport()
	kindOf := kind(orElse(e.Detail.Firmware, v.a.Firmware), orElse(e.Detail.Arch, v.a.Arch))
	return store.Diagnosis{
		Title:      v.who() + " cannot boot from its volume, because " + what,
		Cause:      how + " A kernel over HTTP boots with it; a volume does not.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Add an iPXE with iSCSI for it (" + kindOf + ")"},
			{Label: "Let it boot by a profile that fetches a kernel"},
		},
	}, true
}

// path leaves the machine's folder out of a loader's path.
func path(s string) string {
	if _, l, err := boot.ParseLoaderPath(s); err == nil {
		return string(l)
	}
	return s
}

// otherLoader is a loader of another kind of machine, which firmware fetches and
// cannot start. The appliance offers none such: somebody else named it, or the
// machine's own setting does.
func otherLoader(v *view) (store.Diagnosis, bool) {
	if !v.failedAt(store.StageLoader) && !v.failedAt(store.StageScript) {
		return store.Diagnosis{}, false
	}
	e, ok := v.last(store.EventTFTPSent, store.EventLoaderSent)
	if !ok || e.Detail.Loader == "" {
		return store.Diagnosis{}, false
	}
	mine, its := boot.PlatformNamed(v.a.Firmware, v.a.Arch), boot.Loader(e.Detail.Loader).Platform()
	if mine.Firmware == boot.FirmwareUnknown || its == (boot.Platform{}) || mine.Runs(its) {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	v.note(time.Time{}, "the machine is %s, and %s is for %s", mine, e.Detail.Loader, its)
	v.noteSilence()
	d := store.Diagnosis{
		Title:      v.who() + " fetched " + e.Detail.Loader + ", which is a loader for another kind of machine",
		Cause:      fmt.Sprintf("Its firmware is %s, and the file is for %s, so it could not start it.", mine, its),
		Confidence: store.Certain,
	}
	by := "Another DHCP server or a router names that file to everybody"
	if o, ok := v.last(store.EventDHCPOtherPick); ok && o.Detail.Server != "" {
		by = "The server " + o.Detail.Server + " names that file to everybody"
		v.note(o.At, "its DHCP request chose the server %s", o.Detail.Server)
	}
	if v.f.OwnLoader != "" && strings.HasSuffix(e.Detail.Loader, v.f.OwnLoader) {
		d.Cause += " It is this machine’s own setting here."
		d.Fixes = []store.Fix{{Action: string(store.FixLoaderAuto), Label: "Let the appliance choose its loader, by what its firmware says that it is"}}
		return d, true
	}
	d.Cause += " " + by + "; this appliance names each kind of machine its own."
	d.Fixes = []store.Fix{
		{Label: "Take the boot file (option 67) out of that server, or let it tell machines apart by option 93"},
		{Label: "Ask the network who answers DHCP there: lunboot doctor --probe"},
	}
	return d, true
}

// refusedAtOnce is how soon firmware asks anew after it has refused a file: it
// only looks at the signature. A machine that was switched off and on takes longer.
const refusedAtOnce = 2 * time.Second

// delivered returns the loader's last byte, when nothing was heard of the loader
// after it.
func (v *view) delivered() (store.Event, bool) {
	if !v.failedAt(store.StageLoader) && !v.failedAt(store.StageScript) {
		return store.Event{}, false
	}
	e, ok := v.lastAfter(store.EventTFTPSent, append([]store.EventKind{store.EventDHCPDiscover, store.EventReport, store.EventLoaderSent}, scriptEvents...)...)
	if !ok {
		e, ok = v.lastAfter(store.EventLoaderSent, append([]store.EventKind{store.EventDHCPDiscover, store.EventReport}, scriptEvents...)...)
	}
	return e, ok && e.Detail.Loader != "" // else it fetched a script by its file's name: it runs
}

// refusedUnsigned is UEFI that takes an unsigned loader to the last byte and goes
// on to its next way to boot within milliseconds: that is Secure Boot. Nothing
// on the wire says so.
func refusedUnsigned(v *view) (store.Diagnosis, bool) {
	e, ok := v.delivered()
	if !ok || v.a.Firmware != "UEFI" || v.f.Loader == nil || !v.f.Loader.Unsigned {
		return store.Diagnosis{}, false
	}
	st, l := v.stage(v.a.Stage), v.f.Loader
	took := st.Ended.Sub(e.At)
	if !strings.HasPrefix(st.Detail, attempt.StartedOver) || took < 0 || took > refusedAtOnce {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	v.note(e.At.Add(took), "%.2f s later it asked for an address anew, as firmware and not as iPXE", took.Seconds())
	v.note(time.Time{}, "%s carries no signature", l.Loader)
	d := store.Diagnosis{
		Title:      fmt.Sprintf("Secure Boot on %s refused %s", v.who(), l.Loader),
		Cause:      "It fetched the loader to the last byte, and went on to its next way to boot at once. So does UEFI with Secure Boot on when a file is not signed by a key that it trusts, and this one is not signed at all. A loader that ends by itself looks alike.",
		Confidence: store.VeryLikely,
		Fixes: []store.Fix{
			{Label: "Switch Secure Boot off in the machine’s firmware"},
			{Label: "Or give it what is signed: a chain of shim and iPXE (lunboot loader add FILE --chain NAME --role first, then second), or this loader signed with a key that its firmware trusts"},
		},
	}
	v.nextLoader(&d, l)
	return d, true
}

// loaderNotStarted covers the silence after the transfer, and the machine that
// starts over within seconds of it.
func loaderNotStarted(v *view) (store.Diagnosis, bool) {
	e, ok := v.delivered()
	if !ok {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	v.noteSilence()
	d := store.Diagnosis{
		Title:      v.who() + " downloaded the boot loader but did not start it",
		Confidence: store.VeryLikely,
	}
	d.Cause = "The loader works through the network driver in the machine’s firmware, and on some cards it does not get on with it."
	if v.a.Firmware == "UEFI" {
		d.Cause = "With Secure Boot switched on, UEFI refuses a loader that is not signed. Otherwise the loader does not get on with this machine’s network card."
		if l := v.f.Loader; l != nil && l.Loader != "" && !l.Unsigned {
			d.Cause = "The loader is signed. With Secure Boot switched on, UEFI refuses it all the same when it does not trust who signed it. Otherwise the loader does not get on with this machine’s network card."
		}
	}
	if l := v.f.Loader; l != nil {
		if l.Loader != "" {
			d.Title = v.who() + " downloaded " + string(l.Loader) + " but did not start it"
		}
		v.note(time.Time{}, "the machine has %s", l.Hardware)
		v.nextLoader(&d, l)
	}
	if v.a.Firmware == "UEFI" {
		d.Fixes = append(d.Fixes,
			store.Fix{Label: "Switch Secure Boot off in the machine’s firmware"},
			store.Fix{Label: "Or add another loader and name it for this machine: a signed chain of shim and iPXE, or an iPXE with drivers for its card"})
		return d, true
	}
	d.Fixes = append(d.Fixes,
		store.Fix{Label: "Look at the machine’s screen: iPXE says there what it waits for"},
		store.Fix{Label: "Or add another iPXE, a newer one or one with drivers for its card"})
	return d, true
}

// nextLoader says what the machine is given when it boots again.
func (v *view) nextLoader(d *store.Diagnosis, l *Loader) {
	next := l.Next
	if next.Loader == "" {
		return
	}
	v.note(time.Time{}, "at its next boot it is given %s, since %s", next.Loader, next.Why)
	switch {
	case next.Own:
		d.Fixes = append(d.Fixes, store.Fix{Action: string(store.FixLoaderAuto), Label: "Let the appliance choose its loader: " + v.f.OwnLoader + " is this machine’s own choice, and it is given it again"})
	case next.Exhausted:
		d.Cause += " Every loader that there is for it was sent and never spoke, so it is given " + string(next.Loader) + " once more."
		d.Fixes = append(d.Fixes, store.Fix{Label: fmt.Sprintf("Boot it again: %s is tried once more", next.Loader)})
	case next.Loader == l.Loader:
		d.Fixes = append(d.Fixes, store.Fix{Label: fmt.Sprintf("Boot it again: it is given %s once more, since it has worked before, or its plug may have been pulled", next.Loader)})
	default:
		d.Fixes = append(d.Fixes, store.Fix{Label: fmt.Sprintf("Boot it again: it is given %s then", next.Loader)})
	}
}
