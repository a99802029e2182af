package diagnose

import (
	"slices"
	"strings"

	"lunboot/store"
)

// told is what an event said of its cause before events had one: journals are kept
// for months.
var told = map[store.Cause][]string{
	store.CauseGaveUp:         {"gave up"},
	store.CauseUnacknowledged: {"acknowledged none"},
	store.CauseStopping:       {"the appliance stopped"},
	store.CauseSilent:         {"stopped answering"},
	store.CauseNoProfile:      {"does not exist"},
	store.CauseProfile:        {"its profile "},
	store.CauseAppliance:      {"the appliance could not "},
	store.CauseNoInitiator:    {"no machine has the initiator name"},
	store.CauseRemoved:        {"removed"},
	store.CauseNotDone:        {"not done"},

	store.CauseOtherMachine: {namedOther},
	store.CauseAuthRequired: {"required"},
	store.CauseNoReverse:    {"no reverse secret"},
	store.CauseWrongSecret:  {"another CHAP secret", "CHAP user name"},
	store.CauseUnopened:     {openingVolume},
	store.CauseNotAnew:      {beginningAnew},
	store.CauseWaits:        {"succeeds when", "it is to begin anew first"},
	store.CauseHeld:         {"held by another program"},
	store.CauseDiscarded:    {"is volatile, and the appliance"},
	store.CauseFull:         {"the file system that holds the volumes is full"},
}

// Sentences of events that have no cause are cut behind these.
const (
	namedOther    = "the initiator name of "
	namedTarget   = `the target "`
	openingVolume = "open volume "
	beginningAnew = "begin anew "
)

// because reports whether one of the causes lies behind an event.
func because(e store.Event, causes ...store.Cause) bool {
	if e.Detail.Cause != "" {
		return slices.Contains(causes, e.Detail.Cause)
	}
	return slices.ContainsFunc(causes, func(c store.Cause) bool {
		return slices.ContainsFunc(told[c], func(text string) bool { return strings.Contains(e.Detail.Reason, text) })
	})
}

// asked is the machine whose name a refused login gave, or the target that is not
// here; from the sentence in journals that are older than the field.
func asked(e store.Event) string {
	if e.Detail.Asked != "" {
		return e.Detail.Asked
	}
	if _, rest, ok := strings.Cut(e.Detail.Reason, namedOther); ok {
		name, _, _ := strings.Cut(rest, " ")
		return name
	}
	_, rest, _ := strings.Cut(e.Detail.Reason, namedTarget)
	name, _, _ := strings.Cut(rest, `"`)
	return name
}

// after is what a sentence says after its first words; all of it when it has
// others.
func after(reason, words string) string {
	if _, rest, ok := strings.Cut(reason, words); ok {
		return rest
	}
	return reason
}
