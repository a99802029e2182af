package diagnose

import (
	"slices"
	"strings"

	"lunboot/store"
)

// told is what an event said of its cause before events had one: journals are kept
// for months.
var told = map[store.Cause]string{
	store.CauseGaveUp:         "gave up",
	store.CauseUnacknowledged: "acknowledged none",
	store.CauseStopping:       "the appliance stopped",
	store.CauseSilent:         "stopped answering",
	store.CauseNoProfile:      "does not exist",
	store.CauseProfile:        "its profile ",
	store.CauseAppliance:      "the appliance could not ",
	store.CauseNoInitiator:    "no machine has the initiator name",
	store.CauseRemoved:        "removed",
	store.CauseNotDone:        "not done",
}

// because reports whether one of the causes lies behind an event.
func because(e store.Event, causes ...store.Cause) bool {
	if e.Detail.Cause != "" {
		return slices.Contains(causes, e.Detail.Cause)
	}
	return slices.ContainsFunc(causes, func(c store.Cause) bool { return strings.Contains(e.Detail.Reason, told[c]) })
}
