package load

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestQuantilesAreWithinASixteenth(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		var l, half Latencies
		var all []time.Duration
		for k := range 5000 {
			d := time.Duration(r.ExpFloat64() * 1e6)
			all = append(all, max(d, 1))
			if k%2 == 0 {
				l.Add(d)
			} else {
				half.Add(d)
			}
		}
		l.Merge(&half)
		slices.Sort(all)
		for _, q := range []float64{0, 0.5, 0.99} {
			want, got := all[int(q*float64(len(all)))], l.Quantile(q)
			if got > want || float64(got) < float64(want)*15/16-1 {
				t.Errorf("seed %d, quantile %g: %s, want %s", seed, q, got, want)
			}
		}
		if l.Count() != 5000 {
			t.Errorf("%d counted", l.Count())
		}
	}
	var none Latencies
	if none.Quantile(0.99) != 0 {
		t.Error("nothing has a latency")
	}
}

func TestEveryDurationHasItsBucket(t *testing.T) {
	for d := time.Duration(1); d > 0; d *= 3 {
		b := bucket(uint64(d))
		if low, next := lower(b), lower(b+1); d < low || b+1 < len(Latencies{}.counts) && d >= next && next > low {
			t.Errorf("%d lies in [%d, %d)", d, low, next)
		}
	}
}

func TestMemoryIsRead(t *testing.T) {
	if n, err := Resident(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("this test holds %d bytes: %v", n, err)
	}
}

func TestWhatIsBelowItsGoalIsNamed(t *testing.T) {
	row := Row{Name: "reads", Goals: []Goal{{Rate, Peer, 2, 2.9}, {CPU, Peer, 0.5, 0}, {P99, Peer, 0.5, 0}, {P99, "", 1.5e6, 0}, {CPU, Plain, 1.25, 0}, {Rate, Bare, 3, 0}}}
	ours := Result{Ops: 300, Seconds: 1, CPU: 300 * time.Millisecond, P99: time.Millisecond}
	peer := Result{Ops: 100, Seconds: 1, CPU: 300 * time.Millisecond, P99: 3 * time.Millisecond}
	m := Measured{Row: row, Sides: []Side{{Name: Ours}, {Name: Peer}, {Name: Plain}}, Rounds: [][]Result{{ours, ours, ours}, {peer, peer, peer}, {ours, ours, ours}}}
	if short := m.Below(); len(short) != 0 {
		t.Errorf("three times as fast is below the goal: %v", short)
	}
	slow := ours
	slow.Ops, slow.P99 = 150, 2*time.Millisecond
	m.Rounds[0] = []Result{slow, ours, slow}
	got := strings.Join(m.Below(), "\n")
	for _, want := range []string{
		"rate against tgt is 1.50, ≥ 2.00", "CPU time against tgt is 0.67, ≤ 0.50", "p99 against tgt is 0.67, ≤ 0.50",
		"p99 by itself is 2ms, ≤ 1.5ms", "CPU time against lunboot, no digests is +100 %, ≤ +25 %",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
	if strings.Contains(got, Bare) {
		t.Errorf("a side that was not measured is held against ours: %q", got)
	}
	var out bytes.Buffer
	if err := Print(&out, []Measured{m}); err != nil || !strings.Contains(out.String(), "≥ 2.00") || !strings.Contains(out.String(), "1.50") {
		t.Errorf("%v\n%s", err, &out)
	}
	m.Rounds[0] = []Result{ours, ours, ours}
	out.Reset()
	if err := Print(&out, []Measured{m}); err != nil || !strings.Contains(out.String(), "far goal met") || strings.Contains(out.String(), "below") {
		t.Errorf("%v\n%s", err, &out)
	}
	hold := Measured{Row: Row{Name: "idle", Kind: KindHold, Goals: []Goal{{Memory, "", 40 << 10, 0}}}, Sides: []Side{{Name: Ours}}, Rounds: [][]Result{{{RSS: 64 << 10}}}}
	if short := fmt.Sprint(hold.Below()); !strings.Contains(short, "64.0 KiB") {
		t.Error(short)
	}
}

func TestARowIsMeasuredWithTheSidesThatItIsFor(t *testing.T) {
	all := []Side{{Name: Cache, Path: "image"}, {Name: Ours}, {Name: Peer}, {Name: Bare, Target: Target{Bare: true}}}
	for want, row := range map[string]Row{
		"lunboot tgt":         {},
		"lunboot tgt Go echo": {Limit: true},
		"lunboot lunboot, no digests lunboot, copies tgt": {Load: Load{Digests: true}},
		"page cache": {Kind: KindPread},
	} {
		var names []string
		for _, s := range row.take(all) {
			names = append(names, s.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%+v: %q, want %q", row, got, want)
		}
	}
}
