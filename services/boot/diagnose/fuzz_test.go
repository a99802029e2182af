package diagnose

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/store"
)

// FuzzBoot folds events in any order: the fold and the rules never panic, every
// failure has a word, and the stages agree with the outcome.
func FuzzBoot(f *testing.F) {
	for _, seed := range [][]byte{{0, 1, 3, 19, 28, 31}, {0, 0, 0, 0}, {28, 30, 25, 28, 31}, {0, 3, 11, 13, 0, 0x83, 19, 29, 25}, {25, 25, 27, 36}} {
		f.Add(seed)
	}
	kinds := store.EventKinds()
	details := []store.Detail{firmwareUEFI, ipxeBIOS, linux, session(ipxeID, "s1"), session(osID, "s2"), {Code: "1d704539", Step: "sanboot"}, {Code: "20d623c"}, {Mapped: []int{2}, LUN: lun(0), ISID: ipxeID}, {}}
	f.Fuzz(func(t *testing.T, tape []byte) {
		if len(tape) > 200 {
			return
		}
		at := start
		s := attempt.New(1, "key", at)
		var events []store.Event
		for i, b := range tape {
			at = at.Add(time.Duration(b) * 200 * time.Millisecond)
			e := store.Event{Seq: int64(i + 1), At: at, Kind: kinds[int(b)%len(kinds)], MAC: theMAC, Detail: details[(int(b)/7+i)%len(details)]}
			if b%3 == 0 {
				e.Addr = netip.MustParseAddr("10.0.0.9")
			}
			attempt.Begins(s, e)
			s.Fold(e)
			events = append(events, e)
			if b > 200 {
				s.Expire(at.Add(time.Hour), attempt.Usual{})
			}
			a := s.Snapshot()
			failed := 0
			for _, st := range a.Stages {
				if st.State == store.StageFailed {
					failed++
				}
				if st.State != store.StageWaiting && st.State != store.StageSkipped && st.State != store.StageUnsure && st.At.IsZero() {
					t.Fatalf("stage %s is %s and has no time", st.Name, st.State)
				}
			}
			if a.Outcome == store.OutcomeFailed && failed != 1 {
				t.Fatalf("it failed, at %d stages: %+v", failed, a.Stages)
			}
			if a.Outcome == store.OutcomeUp && a.Stages[6].State != store.StageDone {
				t.Fatalf("it is up, and its last stage is %s", a.Stages[6].State)
			}
			got := Explain(a, events, lab12(win11), at)
			if a.Outcome == store.OutcomeFailed && len(got) == 0 {
				t.Fatalf("nothing is said of a failure at %s: %+v", a.Stage, a.Stages)
			}
			for _, d := range got {
				if d.Title == "" || d.Cause == "" || strings.Contains(d.Title+d.Cause+strings.Join(d.Evidence, ""), "%!") {
					t.Fatalf("%+v", d)
				}
			}
			again := attempt.Restore(a)
			again.Resume(at)
			attempt.Begins(again, e)
		}
	})
}
