package survey

import (
	"slices"
	"testing"
	"time"

	"lunboot/store"
)

// Two that answer for one address are both known, and neither for longer than an
// answer counts.
func TestWhoAnswersForAnAddressIsKnownForAWhile(t *testing.T) {
	one, two, three := store.MAC{2, 0, 0, 0, 0, 1}, store.MAC{2, 0, 0, 0, 0, 2}, store.MAC{2, 0, 0, 0, 0, 3}
	noon := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	f := found{check: Unchecked}.heard(one, noon).heard(two, noon.Add(time.Second)).heard(one, noon.Add(2*time.Second))
	if got := f.users(); f.check != Taken || !slices.Equal(got, []store.MAC{two, one}) {
		t.Errorf("%v, %v", f.check, got)
	}
	if got := f.heard(three, noon.Add(3*time.Second)).users(); !slices.Equal(got, []store.MAC{one, three}) {
		t.Errorf("of three: %v", got)
	}
	// The one that left is forgotten, though the other goes on.
	if got := f.heard(one, noon.Add(takenLife+5*time.Second)).users(); !slices.Equal(got, []store.MAC{one}) {
		t.Errorf("much later: %v", got)
	}
}
