package rounds

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

// table compares ours with one side that is faster round after round, and one
// of which the second figure cannot be known.
func table(t *testing.T) (*Table, *[]int) {
	t.Helper()
	var order []int
	values := [][]Figures{
		{{10, 1}, {40, 2}, {20, 3}},
		{{5, 4}, {10, 4}, {10, 4}},
		{{30, math.NaN()}, {30, math.NaN()}, {30, math.NaN()}},
	}
	done := make([]int, 3)
	return &Table{
		Columns: []Column{{Name: "MiB/s", Format: "%.0f"}, {Name: "CPU", Format: "%.1f", Less: true}},
		Sides:   []string{"ours", "slow", "fast"},
		Rows: []*Row{{
			Name: "one client",
			Do: func(_ context.Context, side int) (Figures, error) {
				order = append(order, side)
				done[side]++
				return values[side][done[side]-1], nil
			},
			Goals: []Goal{{0, "slow", 2}, {0, "fast", 1}, {1, "slow", 0.6}, {1, "fast", 1}, {1, "", 1.5}, {0, "absent", 9}},
		}, {Name: "two clients"}},
	}, &order
}

func TestSidesTakeTurns(t *testing.T) {
	tab, order := table(t)
	tab.Only("one")
	if err := tab.Measure(context.Background(), 3, io.Discard); err != nil {
		t.Fatal(err)
	}
	for k, side := range *order {
		if side != k%3 {
			t.Fatalf("the order is %v", *order)
		}
	}
}

func TestATableSaysWhatCameOutAndWhatIsBelow(t *testing.T) {
	tab, _ := table(t)
	tab.Only("one")
	if err := tab.Measure(context.Background(), 3, io.Discard); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := tab.Print(&out); err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"one client ours 20 2.0", "one client slow 10 4.0", "one client fast 30 -", // medians
		"MiB/s slow 2.00 ≥ 2.00 met", "MiB/s fast 0.67 ≥ 1.00 below", "CPU slow 0.50 ≤ 0.60 met", "CPU - 2.0 ≤ 1.5 below", // medians of ratios
	} {
		if !strings.Contains(words, want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(words, "absent") || strings.Contains(words, "CPU fast") {
		t.Errorf("what was not measured has a line:\n%s", out.String())
	}
	below := strings.Join(tab.Below(), "; ")
	if below != "one client: MiB/s against fast is 0.67, ≥ 1.00 wanted; one client: CPU against itself is 2.0, ≤ 1.5 wanted" {
		t.Errorf("below are %s", below)
	}
}

func TestAFailureNamesTheRowAndTheSide(t *testing.T) {
	broken := errors.New("broken")
	tab := &Table{Columns: []Column{{Name: "n"}}, Sides: []string{"ours", "peer"}, Rows: []*Row{{Name: "work", Do: func(_ context.Context, side int) (Figures, error) {
		if side == 1 {
			return nil, broken
		}
		return Figures{1}, nil
	}}}}
	err := tab.Measure(context.Background(), 1, io.Discard)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "work, peer") {
		t.Errorf("the error is %v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := tab.Measure(ended, 1, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("a run that was called off ends with %v", err)
	}
}

func TestCPUTimeIsReadBehindTheName(t *testing.T) {
	got, err := parseCPU("17 (a (strange) name) S 1 17 17 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 1 2 3")
	if err != nil || got != 3*time.Second {
		t.Errorf("%s, %v", got, err)
	}
	for _, bad := range []string{"", "17 (x) S 1 2", "17 (x) S 1 2 3 4 5 6 7 8 9 10 a b c"} {
		if _, err := parseCPU(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	if _, err := CPUTime(os.Getpid()); err != nil {
		t.Error(err)
	}
}
