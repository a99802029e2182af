// Package rounds compares programs that do the same work. Every row of work is
// done against each side in turn, round after round, so that what else the
// machine does meanwhile falls on all of them; a table says what came out, and
// what that is against what is wanted.
package rounds

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// Column is one figure of every row.
type Column struct {
	Name   string
	Format string // of fmt, for one float64
	Less   bool   // little is wanted of it, not much
}

// Figures are what one round of one side came to, a value for each column. NaN
// is what cannot be known of that side, and is printed as a dash.
type Figures []float64

// Row is a piece of work.
type Row struct {
	Name string
	// Do does the work once against a side, by its place in Table.Sides.
	Do    func(ctx context.Context, side int) (Figures, error)
	Goals []Goal

	rounds [][]Figures // [side][round]
}

// Goal is what is wanted of a figure of ours: as a multiple of another side's in
// the same round, or, with no side, by itself.
type Goal struct {
	Column int    // its place in Table.Columns
	Of     string // a side
	Want   float64
}

// Table is a whole comparison. The first side is ours.
type Table struct {
	Columns []Column
	Sides   []string
	Rows    []*Row
}

// Only leaves out the rows whose names do not have part in them.
func (t *Table) Only(part string) {
	t.Rows = slices.DeleteFunc(t.Rows, func(r *Row) bool { return !strings.Contains(r.Name, part) })
}

// Measure does every row, rounds times against each side, and names each row on
// said as it begins.
func (t *Table) Measure(ctx context.Context, rounds int, said io.Writer) error {
	for _, r := range t.Rows {
		fmt.Fprintln(said, "netlab:", r.Name)
		r.rounds = make([][]Figures, len(t.Sides))
		for range rounds {
			for side, name := range t.Sides {
				if err := ctx.Err(); err != nil {
					return err
				}
				f, err := r.Do(ctx, side)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", r.Name, name, err)
				}
				if len(f) != len(t.Columns) {
					return fmt.Errorf("%s, %s: %d figures for %d columns", r.Name, name, len(f), len(t.Columns))
				}
				r.rounds[side] = append(r.rounds[side], f)
			}
		}
	}
	return nil
}

// middle is the median of what is known.
func middle(all []float64) float64 {
	all = slices.DeleteFunc(all, math.IsNaN)
	if len(all) == 0 {
		return math.NaN()
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// Median is the median of a side's column over the rounds.
func (r *Row) Median(side, column int) float64 {
	var all []float64
	for _, f := range r.rounds[side] {
		all = append(all, f[column])
	}
	return middle(all)
}

// got is what came out for a goal; NaN when there is no such side, or nothing
// is known of it.
func (t *Table) got(r *Row, g Goal) float64 {
	if g.Of == "" {
		return r.Median(0, g.Column)
	}
	other := slices.Index(t.Sides, g.Of)
	if other < 0 {
		return math.NaN()
	}
	var all []float64
	for k, ours := range r.rounds[0] {
		if theirs := r.rounds[other][k][g.Column]; theirs != 0 {
			all = append(all, ours[g.Column]/theirs)
		}
	}
	return middle(all)
}

// verdict compares what came out for a goal with what is wanted.
func (t *Table) verdict(r *Row, g Goal) (got, want string, met, known bool) {
	c := t.Columns[g.Column]
	v := t.got(r, g)
	format, sign := c.Format, "≥ "
	if g.Of != "" {
		format = "%.2f"
	}
	met = v >= g.Want
	if c.Less {
		sign, met = "≤ ", v <= g.Want
	}
	return show(format, v), sign + show(format, g.Want), met, !math.IsNaN(v)
}

func show(format string, v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

// Below lists what falls short of its goal. A side that was not measured is not
// held against ours.
func (t *Table) Below() (short []string) {
	for _, r := range t.Rows {
		for _, g := range r.Goals {
			got, want, met, known := t.verdict(r, g)
			if known && !met {
				short = append(short, fmt.Sprintf("%s: %s against %s is %s, %s wanted", r.Name, t.Columns[g.Column].Name, cmp.Or(g.Of, "itself"), got, want))
			}
		}
	}
	return short
}

// Print writes two tables: the medians over the rounds, a line for each side,
// and what ours are against the goals.
func (t *Table) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprint(tw, "load\tby")
	for _, c := range t.Columns {
		fmt.Fprint(tw, "\t", c.Name)
	}
	fmt.Fprintln(tw)
	for _, r := range t.Rows {
		for side, name := range t.Sides {
			fmt.Fprint(tw, r.Name, "\t", name)
			for k, c := range t.Columns {
				fmt.Fprint(tw, "\t", show(c.Format, r.Median(side, k)))
			}
			fmt.Fprintln(tw)
		}
	}
	fmt.Fprintln(tw)
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(tw, "load\tfigure\tagainst\tgot\tgoal\t")
	for _, r := range t.Rows {
		for _, g := range r.Goals {
			got, want, met, known := t.verdict(r, g)
			if !known {
				continue
			}
			word := "met"
			if !met {
				word = "below"
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, t.Columns[g.Column].Name, cmp.Or(g.Of, "-"), got, want, word)
		}
	}
	return tw.Flush()
}
