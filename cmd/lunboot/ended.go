package main

import (
	"log/slog"
	"time"

	"lunboot/store"
)

// ended is what happens when a boot came up or failed: it is counted, told to
// the webhook, and logged by the ids under which its page and its events are.
func (a *appliance) ended(t store.Attempt) {
	a.metrics.Ended(t)
	a.notify.Ended(t)
	a.once.ended(t)
	logEnd(a.log.With("part", "attempts"), t)
}

func logEnd(log *slog.Logger, t store.Attempt) {
	args := []any{"machine", t.Subject(), "attempt", t.ID, "outcome", string(t.Outcome), "stage", string(t.Stage), "took", t.Updated.Sub(t.Started).Round(time.Millisecond)}
	switch t.Outcome {
	case store.OutcomeFailed:
	case store.OutcomeNotEnrolled:
		log.Info("a boot of a machine that was not enrolled ended", args...)
		return
	default:
		log.Info("a boot came up", args...)
		return
	}
	if len(t.Diagnoses) > 0 {
		args = append(args, "code", t.Diagnoses[0].Code, "title", t.Diagnoses[0].Title)
	}
	log.Warn("a boot failed", args...)
}
