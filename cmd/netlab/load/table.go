package load

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// The sides of a comparison. Ours is held against the others.
const (
	Ours  = "lunboot"
	Peer  = "tgt"
	Bare  = "Go echo"             // see Echo
	Cache = "page cache"          // see Pread
	Plain = "lunboot, no digests" // our own target under the same load without them
	// Copied is Plain in a session that has used an ORDERED command: no READ of it
	// comes straight from the file. What digests themselves cost shows beside it.
	Copied = "lunboot, copies"
)

// Row is a load with what is wanted of it.
type Row struct {
	Name  string
	Load  Load
	Kind  Kind
	Limit bool // measured beside an Echo too
	Goals []Goal
}

// Kind is what a row does.
type Kind uint8

// The kinds.
const (
	KindIO Kind = iota
	KindLogins
	KindHold
	KindPread
)

// Figure is what a goal is about.
type Figure uint8

// The figures. Of Rate much is wanted, of the others little.
const (
	Rate   Figure = iota // operations per second
	CPU                  // the target's CPU time for an operation
	P99                  // the latency that 1 % exceed
	Memory               // what an idle session costs the target
)

func (f Figure) String() string {
	return [...]string{"rate", "CPU time", "p99", "memory"}[f]
}

func (f Figure) of(r Result) float64 {
	switch f {
	case Rate:
		return r.IOPS()
	case CPU:
		return float64(r.CPUPerOp())
	case P99:
		return float64(r.P99)
	}
	return float64(r.RSS)
}

// Goal is what is wanted of a figure of ours: as a part of another side's, or,
// with no side, by itself in nanoseconds or bytes. 0 wants nothing.
type Goal struct {
	Figure    Figure
	Of        string
	Goal, Far float64
}

// Rows are the loads that the target is measured by.
func Rows(seconds time.Duration) []Row {
	rw := func(sessions, depth, block int, write, sequential, digests bool) Load {
		return Load{Sessions: sessions, Depth: depth, Block: block, Write: write, Sequential: sequential, Digests: digests, Time: seconds}
	}
	return []Row{
		{Name: "memory of an idle session", Load: Load{Sessions: 256, Time: min(seconds, 2*time.Second)}, Kind: KindHold, Goals: []Goal{{Memory, "", 40 << 10, 20 << 10}}},
		{Name: "4 KiB random pread", Load: rw(1, 1, 4<<10, false, false, false), Kind: KindPread},
		{Name: "256 KiB random pread", Load: rw(1, 1, 256<<10, false, false, false), Kind: KindPread},
		{Name: "4 KiB random read, depth 32", Load: rw(1, 32, 4<<10, false, false, false), Limit: true,
			Goals: []Goal{{Rate, Peer, 2.5, 4}, {CPU, Peer, 0.4, 0}, {Rate, Bare, 0, 0.5}}},
		{Name: "4 KiB random read, depth 1", Load: rw(1, 1, 4<<10, false, false, false), Limit: true,
			Goals: []Goal{{Rate, Peer, 1.5, 2}, {Rate, Bare, 0, 0}}},
		{Name: "4 KiB random read, 64 sessions", Load: rw(64, 1, 4<<10, false, false, false), Limit: true,
			Goals: []Goal{{Rate, Peer, 2, 3}, {P99, Peer, 0.5, 0}, {Rate, Bare, 0, 0}}},
		{Name: "4 KiB random read, 256 sessions", Load: rw(256, 1, 4<<10, false, false, false), Goals: []Goal{{Rate, Peer, 2, 3}, {P99, Peer, 0.5, 0}}},
		{Name: "4 KiB random write, depth 32", Load: rw(1, 32, 4<<10, true, false, false), Goals: []Goal{{Rate, Peer, 2, 3}, {CPU, Peer, 0.5, 0}}},
		{Name: "256 KiB sequential read", Load: rw(1, 8, 256<<10, false, true, false), Limit: true,
			Goals: []Goal{{Rate, Peer, 1.2, 0}, {CPU, Peer, 0.8, 0}, {Rate, Bare, 0, 0.85}}},
		{Name: "1 MiB sequential read", Load: rw(1, 4, 1<<20, false, true, false), Limit: true,
			Goals: []Goal{{Rate, Peer, 2.5, 3.5}, {CPU, Peer, 0.4, 0}, {Rate, Bare, 0, 0}}},
		{Name: "256 KiB sequential write", Load: rw(1, 8, 256<<10, true, true, false), Goals: []Goal{{Rate, Peer, 1.3, 2}, {CPU, Peer, 0, 0}}},
		{Name: "1 MiB sequential write", Load: rw(1, 4, 1<<20, true, true, false), Goals: []Goal{{Rate, Peer, 3, 4}, {CPU, Peer, 0, 0}}},
		{Name: "256 KiB read, digests", Load: rw(1, 8, 256<<10, false, true, true), Goals: []Goal{{Rate, Peer, 3, 0}, {CPU, Plain, 1.25, 0}, {CPU, Copied, 0, 0}}},
		{Name: "logins, 8 workers", Load: rw(8, 1, 0, false, false, false), Kind: KindLogins,
			Goals: []Goal{{Rate, Peer, 1, 2}, {P99, "", float64(20 * time.Millisecond), 0}}},
	}
}

// Side is one of those that are measured.
type Side struct {
	Name   string
	Target Target
	PID    int
	Path   string // of a file that is read in place of a target
}

// Measured are the rounds of one row, by side.
type Measured struct {
	Row    Row
	Sides  []Side
	Rounds [][]Result // [side][round]
}

// take chooses the sides that a row is measured with.
func (r Row) take(all []Side) (some []Side) {
	for _, s := range all {
		if (r.Kind == KindPread) != (s.Path != "") || s.Target.Bare && !r.Limit {
			continue
		}
		some = append(some, s)
		if s.Name == Ours && r.Load.Digests {
			for _, s.Name = range []string{Plain, Copied} {
				some = append(some, s)
			}
		}
	}
	return some
}

// Measure runs a row against each side in turn, round after round: what else
// the machine does meanwhile falls on all of them.
func Measure(row Row, all []Side, rounds int) (Measured, error) {
	m := Measured{Row: row, Sides: row.take(all)}
	m.Rounds = make([][]Result, len(m.Sides))
	for range rounds {
		for k, s := range m.Sides {
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
		return Hold(s.Target, row.Load, s.PID)
	case KindPread:
		return Pread(s.Path, row.Load)
	}
	if s.Name == Plain || s.Name == Copied {
		row.Load.Digests, row.Load.Ordered = false, s.Name == Copied
	}
	return Run(s.Target, row.Load, s.PID)
}

// Verify writes a pattern to the beginning of the volume and reads it back in
// other pieces, with digests and without: a target that answers fast and wrong
// is not fast.
func Verify(s Side, initiator string, span int64) error {
	l := Load{Initiator: initiator, Sessions: 2, Depth: 8, Block: 64 << 10, Sequential: true, Span: min(span, 64<<20), Time: time.Minute, Generation: 1}
	for _, step := range []struct {
		block          int
		write, digests bool
	}{{64 << 10, true, false}, {4 << 10, false, true}, {256 << 10, false, false}, {1 << 20, true, true}, {16 << 10, false, false}} {
		if step.write {
			l.Generation++
		}
		l.Block, l.Write, l.Digests, l.Commands = step.block, step.write, step.digests, l.Span/int64(step.block)
		if _, err := Run(s.Target, l, s.PID); err != nil {
			return fmt.Errorf("%s, checking its answers: %w", s.Name, err)
		}
	}
	return nil
}

func middle(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// median of one figure over a side's rounds.
func (m Measured) median(side int, figure func(Result) float64) float64 {
	var all []float64
	for _, r := range m.Rounds[side] {
		all = append(all, figure(r))
	}
	return middle(all)
}

// got is what came out for a goal: the median over the rounds of our figure, or
// of its ratio to the other side's in the same round. ok is false when there is
// no such side.
func (m Measured) got(g Goal) (v float64, ok bool) {
	find := func(name string) int { return slices.IndexFunc(m.Sides, func(s Side) bool { return s.Name == name }) }
	ours, other := find(Ours), find(g.Of)
	if ours < 0 || g.Of != "" && other < 0 {
		return 0, false
	}
	if g.Of == "" {
		return m.median(ours, g.Figure.of), true
	}
	var all []float64
	for k, r := range m.Rounds[ours] {
		if n := g.Figure.of(m.Rounds[other][k]); n != 0 {
			all = append(all, g.Figure.of(r)/n)
		}
	}
	return middle(all), len(all) > 0
}

// meets compares what came out with what is wanted.
func (g Goal) meets(got, want float64) bool {
	if g.Figure == Rate {
		return got >= want
	}
	return got <= want
}

// show writes a value of the goal's unit.
func (g Goal) show(v float64) string {
	switch {
	case g.Of == Plain, g.Of == Copied:
		return fmt.Sprintf("%+.0f %%", (v-1)*100)
	case g.Of != "":
		return fmt.Sprintf("%.2f", v)
	case g.Figure == Memory:
		return fmt.Sprintf("%.1f KiB", v/1024)
	}
	return time.Duration(v).Round(time.Microsecond).String()
}

// wanted writes a goal.
func (g Goal) wanted(v float64) string {
	switch {
	case v == 0:
		return ""
	case g.Figure == Rate:
		return "≥ " + g.show(v)
	}
	return "≤ " + g.show(v)
}

// Below lists what falls short of the row's goals; a side that was not measured
// is not held against ours.
func (m Measured) Below() (short []string) {
	for _, g := range m.Row.Goals {
		got, ok := m.got(g)
		if ok && g.Goal != 0 && !g.meets(got, g.Goal) {
			short = append(short, fmt.Sprintf("%s: %s %s is %s, %s wanted", m.Row.Name, g.Figure, g.against(), g.show(got), g.wanted(g.Goal)))
		}
	}
	return short
}

func (g Goal) against() string {
	if g.Of == "" {
		return "by itself"
	}
	return "against " + g.Of
}

// Print writes two tables: what was measured, a line for each side, and what
// that is against the goals. Ratios are of ours to the other's.
func Print(w io.Writer, rows []Measured) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "load\tby\tops/s\tMiB/s\tp50\tp99\tCPU/op\tCPU s/GiB\tmeter's CPU/op")
	for _, m := range rows {
		for k, s := range m.Sides {
			fmt.Fprintf(t, "%s\t%s\t%s\n", m.Row.Name, s.Name, m.line(k))
		}
	}
	fmt.Fprintln(t)
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(t, "load\tfigure\tagainst\tgot\tgoal\tfar goal\t")
	for _, m := range rows {
		for _, g := range m.Row.Goals {
			got, ok := m.got(g)
			if !ok {
				continue
			}
			verdict := ""
			switch {
			case g.Goal != 0 && !g.meets(got, g.Goal):
				verdict = "below"
			case g.Far != 0 && g.meets(got, g.Far):
				verdict = "far goal met"
			case g.Goal != 0:
				verdict = "met"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Row.Name, g.Figure, cmp.Or(g.Of, "-"), g.show(got), g.wanted(g.Goal), g.wanted(g.Far), verdict)
		}
	}
	return t.Flush()
}

// line writes the medians of a side.
func (m Measured) line(side int) string {
	if m.Row.Kind == KindHold {
		return fmt.Sprintf("%.1f KiB", m.median(side, Memory.of)/1024)
	}
	show := func(unit time.Duration, figure func(Result) float64) string {
		return time.Duration(m.median(side, figure)).Round(unit).String()
	}
	mib, gib, own := "", "", ""
	if m.Row.Load.Block > 0 {
		mib = fmt.Sprintf("%.0f", m.median(side, func(r Result) float64 { return float64(r.Bytes) / r.Seconds / (1 << 20) }))
	}
	if m.Row.Load.Sequential {
		gib = fmt.Sprintf("%.3f", m.median(side, func(r Result) float64 { return r.CPU.Seconds() / float64(r.Bytes) * (1 << 30) }))
	}
	if m.Row.Kind != KindPread {
		own = show(100*time.Nanosecond, func(r Result) float64 { return float64(r.Own) / float64(max(r.Ops, 1)) })
	}
	return fmt.Sprintf("%.0f\t%s\t%s\t%s\t%s\t%s\t%s", m.median(side, Rate.of), mib,
		show(time.Microsecond, func(r Result) float64 { return float64(r.P50) }), show(time.Microsecond, P99.of), show(100*time.Nanosecond, CPU.of), gib, own)
}
