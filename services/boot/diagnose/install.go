package diagnose

import (
	"fmt"
	"slices"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/store"
)

// A machine that came back from its installer so often is in a loop. What is back
// sooner than leastInstall has installed nothing: it crashed, which another rule
// speaks of. What is back later than mostInstall was told to install once more.
const (
	installs     = 2
	leastInstall = 2 * time.Minute
	mostInstall  = 4 * time.Hour
)

// Installing returns the boots before a, the newest first, that each started an
// installer and ended in a boot that is given an installer again; nil when they
// are too few. installers names the profiles that install.
func Installing(a store.Attempt, earlier []store.Attempt, installers []string) []store.Attempt {
	if !slices.Contains(installers, attempt.ProfileOf(a)) {
		return nil
	}
	var out []store.Attempt
	next := a.Started
	for _, e := range earlier {
		profile := attempt.ProfileOf(e)
		if profile == "" { // it asked for an address and no more
			continue
		}
		took := next.Sub(e.Started)
		if !slices.Contains(installers, profile) || !attempt.StartedInstaller(e) || took < leastInstall || took > mostInstall {
			break
		}
		out = append(out, e)
		next = e.Started
	}
	if len(out) < installs {
		return nil
	}
	return out
}

// saidDone reports whether a boot's installer said that it is done.
func saidDone(e store.Attempt) bool {
	return slices.ContainsFunc(e.Stages, func(st store.Stage) bool { return st.Detail == attempt.InstallerDone })
}

// installLoop is a machine that is installed, and is given its installer again.
func installLoop(v *view) (store.Diagnosis, bool) {
	loop := Installing(v.a, v.f.Earlier, v.f.Installers)
	once := slices.Contains(v.f.Installers, v.f.Once)
	if !slices.Contains(v.f.Installers, v.f.Profile) {
		// An installer for one boot that said that it was done is used up: what came
		// after it was asked for anew by somebody. Unless nothing shows whose word it is.
		if n := slices.IndexFunc(loop, func(e store.Attempt) bool { return saidDone(e) && (e.Owned || !once) }); n >= 0 {
			loop = loop[:n]
		}
	}
	if len(loop) < installs {
		return store.Diagnosis{}, false
	}
	next, done := v.a.Started, false
	for _, e := range loop {
		says := "and nobody said that it was done"
		if saidDone(e) {
			says, done = "which said that it was done", true
		}
		v.note(e.Started, "it was given the installer of profile “%s”, %s, and was back after %s", attempt.ProfileOf(e), says, minutes(next.Sub(e.Started)))
		next = e.Started
	}
	if len(v.evidence) > 6 {
		v.evidence = v.evidence[:6]
	}
	profile := attempt.ProfileOf(v.a)
	d := store.Diagnosis{
		Title:      fmt.Sprintf("%s installs again and again: it has been given the installer %d times", v.who(), len(loop)+1),
		Cause:      fmt.Sprintf("Each time the installer “%s” ran and the machine came back. Nothing told the appliance that it is done, so the installer is what it is given next.", profile),
		Confidence: store.VeryLikely,
	}
	if done {
		d.Cause = fmt.Sprintf("The installer “%s” said that it was done, and it is the machine’s profile for every boot, so it is given again.", profile)
		d.Confidence = store.Certain
	}
	if once {
		if !v.a.Owned {
			d.Cause = fmt.Sprintf("Each time the installer “%s” ran and the machine came back. Nothing shows that the address from which it asks is its own, and what is said in the name of a machine uses no profile for one boot up.", profile)
		} else if len(v.f.Mappings) > 0 && !done {
			d.Cause += " Nor does " + v.volume() + " show it: it starts nothing, or what it started before."
		}
		d.Fixes = append(d.Fixes, fix(store.FixClearOnce, "", "It is installed: take the installer back, and boot by profile "+v.f.Profile))
		if !v.a.Owned {
			d.Fixes = append(d.Fixes, store.Fix{Label: "Let the machine have its address from here, or, behind a router, trust its network: lunboot setting set trusted-subnets NETWORK"})
		}
	}
	if slices.Contains(v.f.Installers, v.f.Profile) {
		if len(v.f.Mappings) > 0 {
			d.Fixes = append(d.Fixes, fix(store.FixProfileSAN, "", "Use profile san: it is installed, and boots from "+v.volume()))
		} else {
			d.Fixes = append(d.Fixes, store.Fix{Label: "It is installed on its own disk: lunboot machine set " + v.who() + " --profile local"})
		}
	}
	d.Fixes = append(d.Fixes, store.Fix{Label: "Choose an installer for one boot only (lunboot machine boot " + v.who() + " --once " + profile + "), and let its last step say that it is done; the profile’s page says how"})
	return d, true
}

func minutes(d time.Duration) string {
	if d < 2*time.Hour {
		return fmt.Sprintf("%d minutes", int(d.Round(time.Minute)/time.Minute))
	}
	return fmt.Sprintf("%d hours", int(d.Round(time.Hour)/time.Hour))
}
