package doctor

import (
	"context"
	"errors"
	"testing"
)

func well(fact string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return fact, nil }
}

func TestAChildOfAFailedCheckSaysWhatItWaitsFor(t *testing.T) {
	asked := false
	got := Examine(t.Context(),
		Check{Name: "folder", Run: well("/data"), Then: []Check{{Name: "space", Run: well("3 GiB free")}}},
		Check{Name: "port", Run: func(context.Context) (string, error) { return "", errors.New("held by dnsmasq; stop it") },
			Then: []Check{{Name: "answers", Run: func(context.Context) (string, error) { asked = true; return "", nil }}}},
	)
	want := []Finding{
		{"folder", true, "/data"}, {"space", true, "3 GiB free"},
		{"port", false, "held by dnsmasq; stop it"}, {"answers", false, "not asked, since this failed first: port"},
	}
	if len(got) != len(want) {
		t.Fatalf("got %d findings, want %d: %v", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("finding %d is %v, want %v", i, got[i], want[i])
		}
	}
	if asked {
		t.Error("the child of a failed check was asked")
	}
	if f, bad := First(got); !bad || f.Name != "port" {
		t.Errorf("the first fault is %v", f)
	}
	if _, bad := First(got[:2]); bad {
		t.Error("a healthy tree has a first fault")
	}
}
