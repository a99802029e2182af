package attempt

import (
	"slices"
	"strings"

	"lunboot/store"
)

// InstallerDone is the line of a boot whose installer reported that it has finished.
const InstallerDone = "Its installer said that it is done"

// StartsInstaller reports whether a script is one of ours that hooks the volume for an
// installer: what is started then does not run from the volume, and needs it when
// somebody has answered its questions.
func StartsInstaller(script string) bool {
	return strings.Contains(script, "\nsanhook ") && strings.Contains(script, "\n:no_volume\n")
}

// StartedInstaller reports whether a boot by an installer's script went beyond its
// script: its kernel was fetched, and nobody said that it could not start. Its
// machine is back by now, also where that began no other boot yet.
func StartedInstaller(a store.Attempt) bool {
	if a.Outcome == store.OutcomeUp || a.Outcome == store.OutcomeUpUnconfirmed {
		return true
	}
	if a.Stage != store.StageRead && a.Stage != store.StageUp {
		return false
	}
	return slices.ContainsFunc(a.Stages, func(st store.Stage) bool {
		switch {
		case st.Name != a.Stage:
			return false
		case a.Outcome == store.OutcomeRunning:
			return st.State == store.StageRunning
		}
		// A stage that began before it ended was under way: its kernel came.
		return strings.HasPrefix(st.Detail, StartedOver) && st.At.Before(st.Ended)
	})
}
