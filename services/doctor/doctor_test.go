package doctor

import (
	"context"
	"errors"
	"slices"
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
		{Name: "folder", OK: true, State: Well, Detail: "/data"}, {Name: "space", OK: true, State: Well, Detail: "3 GiB free", Depth: 1},
		{Name: "port", State: Fault, Detail: "held by dnsmasq; stop it"}, {Name: "answers", State: Waits, Detail: "not asked, since this failed first: port", Depth: 1},
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

func TestWhatCannotBeToldIsNeitherWellNorAFault(t *testing.T) {
	got := Examine(t.Context(),
		Check{Name: "rules", Run: func(context.Context) (string, error) { return "", unknown("sudo look", "root is needed. Run") }, Then: []Check{{Name: "port", Run: well("open")}}},
		Check{Name: "clock", Run: func(context.Context) (string, error) { return "", advice("set it", "it is late") }, Then: []Check{{Name: "year", Run: well("2026")}}},
	)
	want := []Finding{
		{Name: "rules", State: Unknown, Detail: "root is needed. Run", Mend: "sudo look"}, {Name: "port", State: Waits, Detail: "not asked, since this failed first: rules", Depth: 1},
		{Name: "clock", State: Advice, Detail: "it is late", Mend: "set it"}, {Name: "year", OK: true, State: Well, Detail: "2026", Depth: 1},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if f, bad := First(got); bad {
		t.Errorf("%+v is called a fault", f)
	}
}
