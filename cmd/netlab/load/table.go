package load

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// Row is a load with what is wanted of it beside the peer.
type Row struct {
	Name string
	Load Load
	Kind Kind
	// Rate is the least ratio of operations per second, CPU the largest of CPU
	// time for an operation, P99 the largest of the latency; 0 asks nothing.
	Rate, CPU, P99 float64
}

// Kind is what a row does.
type Kind uint8

// The kinds.
const (
	KindIO Kind = iota
	KindLogins
	KindHold
)

// MaxIdleSession is how much memory an idle session may cost.
const MaxIdleSession = 40 << 10

// Rows are the loads that the target is measured by.
func Rows(seconds time.Duration) []Row {
	rw := func(sessions, depth, block int, write, sequential, digests bool) Load {
		return Load{Sessions: sessions, Depth: depth, Block: block, Write: write, Sequential: sequential, Digests: digests, Time: seconds}
	}
	return []Row{
		{Name: "4 KiB random read, depth 32", Load: rw(1, 32, 4<<10, false, false, false), Rate: 2.5, CPU: 0.4},
		{Name: "4 KiB random read, depth 1", Load: rw(1, 1, 4<<10, false, false, false), Rate: 1.5},
		{Name: "4 KiB random read, 64 sessions", Load: rw(64, 1, 4<<10, false, false, false), Rate: 2, P99: 0.5},
		{Name: "4 KiB random read, 256 sessions", Load: rw(256, 1, 4<<10, false, false, false), Rate: 2, P99: 0.5},
		{Name: "4 KiB random write, depth 32", Load: rw(1, 32, 4<<10, true, false, false), Rate: 2, CPU: 0.5},
		{Name: "256 KiB sequential read", Load: rw(1, 8, 256<<10, false, true, false), Rate: 1.2, CPU: 0.8},
		{Name: "1 MiB sequential read", Load: rw(1, 4, 1<<20, false, true, false), Rate: 2.5, CPU: 0.4},
		{Name: "256 KiB sequential write", Load: rw(1, 8, 256<<10, true, true, false), Rate: 1.3},
		{Name: "1 MiB sequential write", Load: rw(1, 4, 1<<20, true, true, false), Rate: 3},
		{Name: "256 KiB read, digests", Load: rw(1, 8, 256<<10, false, true, true), Rate: 3},
		{Name: "logins, 8 workers", Load: rw(8, 1, 0, false, false, false), Kind: KindLogins, Rate: 1},
		{Name: "memory of an idle session", Load: Load{Sessions: 128, Time: time.Second}, Kind: KindHold},
	}
}

// Side is one target in a comparison.
type Side struct {
	Name   string
	Target Target
	PID    int
}

// Measured are the rounds of one row, by side.
type Measured struct {
	Row    Row
	Rounds [][]Result // [side][round]
}

// Measure runs a row against each side in turn, round after round: what else
// the machine does meanwhile falls on all of them.
func Measure(row Row, sides []Side, rounds int) (Measured, error) {
	m := Measured{Row: row, Rounds: make([][]Result, len(sides))}
	for range rounds {
		for k, s := range sides {
			r, err := one(row, s)
			if err != nil {
				return m, fmt.Errorf("%s, %s: %w", row.Name, s.Name, err)
			}
			m.Rounds[k] = append(m.Rounds[k], r)
		}
	}
	return m, nil
}

func one(row Row, s Side) (Result, error) {
	switch row.Kind {
	case KindLogins:
		return Logins(s.Target, row.Load, s.PID)
	case KindHold:
		n, err := Hold(s.Target, row.Load, s.PID)
		return Result{RSS: n, Ops: 1, Seconds: 1}, err
	}
	return Run(s.Target, row.Load, s.PID)
}

// median of one figure over a side's rounds.
func (m Measured) median(side int, figure func(Result) float64) float64 {
	var all []float64
	for _, r := range m.Rounds[side] {
		all = append(all, figure(r))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// ratio is the median over the rounds of side 0 by side 1, round by round.
func (m Measured) ratio(figure func(Result) float64) float64 {
	var all []float64
	for k, r := range m.Rounds[0] {
		if peer := figure(m.Rounds[1][k]); peer != 0 {
			all = append(all, figure(r)/peer)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

var (
	rate = Result.IOPS
	cpu  = func(r Result) float64 { return float64(r.CPUPerOp()) }
	p99  = func(r Result) float64 { return float64(r.P99) }
	rss  = func(r Result) float64 { return float64(r.RSS) }
)

// Below lists what falls short of the row's goals; with one side there is
// nothing to compare.
func (m Measured) Below() (short []string) {
	if m.Row.Kind == KindHold {
		if got := m.median(0, rss); got > MaxIdleSession {
			short = append(short, fmt.Sprintf("%s: %.1f KiB, at most %d wanted", m.Row.Name, got/1024, MaxIdleSession>>10))
		}
		return short
	}
	if len(m.Rounds) < 2 {
		return nil
	}
	for _, g := range []struct {
		what    string
		goal    float64
		figure  func(Result) float64
		atLeast bool
	}{{"rate", m.Row.Rate, rate, true}, {"CPU time an operation", m.Row.CPU, cpu, false}, {"p99", m.Row.P99, p99, false}} {
		if g.goal == 0 {
			continue
		}
		got, word := m.ratio(g.figure), "at least"
		bad := got < g.goal
		if !g.atLeast {
			bad, word = got > g.goal, "at most"
		}
		if bad {
			short = append(short, fmt.Sprintf("%s: %s is %.2f of the peer's, %s %.2f wanted", m.Row.Name, g.what, got, word, g.goal))
		}
	}
	return short
}

// Print writes the table: each side's medians, and their ratios.
func Print(w io.Writer, sides []Side, rows []Measured) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprint(t, "load")
	for _, s := range sides {
		fmt.Fprintf(t, "\t%s ops/s\tMiB/s\tp99\tCPU/op", s.Name)
	}
	if len(sides) > 1 {
		fmt.Fprint(t, "\tops/s ratio\tgoal\tCPU ratio\tgoal\tp99 ratio\tgoal")
	}
	fmt.Fprintln(t)
	for _, m := range rows {
		fmt.Fprint(t, m.Row.Name)
		if m.Row.Kind == KindHold {
			for k := range sides {
				fmt.Fprintf(t, "\t%.1f KiB\t\t\t", m.median(k, rss)/1024)
			}
			fmt.Fprintln(t)
			continue
		}
		for k := range sides {
			mib := func(r Result) float64 { return float64(r.Bytes) / r.Seconds / (1 << 20) }
			fmt.Fprintf(t, "\t%.0f\t%.0f\t%s\t%s", m.median(k, rate), m.median(k, mib),
				time.Duration(m.median(k, p99)).Round(time.Microsecond), time.Duration(m.median(k, cpu)).Round(100*time.Nanosecond))
		}
		if len(sides) > 1 {
			fmt.Fprintf(t, "\t%.2f\t%s\t%.2f\t%s\t%.2f\t%s", m.ratio(rate), goal(m.Row.Rate, "≥"), m.ratio(cpu), goal(m.Row.CPU, "≤"), m.ratio(p99), goal(m.Row.P99, "≤"))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func goal(g float64, sign string) string {
	if g == 0 {
		return ""
	}
	return fmt.Sprintf("%s %.2f", sign, g)
}
