// Package doctor is a tree of self-checks. A check whose parent failed is not
// run: it says what it waits for. The same checks run inside the appliance,
// for its health listing, and alone, when no appliance answers.
//
// It opens nothing that an appliance holds and sends nothing: who wants to ask
// a network gives it a check that does.
package doctor

import (
	"context"
	"errors"
	"fmt"
)

// Check is one question. Run returns a fact when all is well; else a Problem,
// or an error whose text says what to do.
type Check struct {
	Name string
	Run  func(context.Context) (string, error)
	Then []Check // asked only when this one is well, or well enough
}

// State is what became of a check.
type State string

// The states of a finding.
const (
	Well    State = "ok"
	Advice  State = "advice"  // machines boot, and something could be better
	Fault   State = "fault"   // machines will not boot, or lose what they have
	Unknown State = "unknown" // it cannot be told from here
	Waits   State = "waits"   // not asked, since its parent failed
)

// Finding is the answer to one check.
type Finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty"` // the command that mends it
	Depth  int    `json:"depth,omitempty"`
}

// Problem is what a check found when not all is well.
type Problem struct {
	State State  // Advice, Fault or Unknown
	What  string // in a sentence
	Mend  string // the command that mends it; empty when there is none
}

// Error prints the problem and its way out.
func (p *Problem) Error() string {
	if p.Mend != "" {
		return p.What + ": " + p.Mend
	}
	return p.What
}

func fault(mend, what string, args ...any) error {
	return &Problem{State: Fault, What: fmt.Sprintf(what, args...), Mend: mend}
}

func advice(mend, what string, args ...any) error {
	return &Problem{State: Advice, What: fmt.Sprintf(what, args...), Mend: mend}
}

func unknown(mend, what string, args ...any) error {
	return &Problem{State: Unknown, What: fmt.Sprintf(what, args...), Mend: mend}
}

// Examine runs the tree and returns the findings in reading order.
func Examine(ctx context.Context, checks ...Check) []Finding { return examine(ctx, checks, 0) }

func examine(ctx context.Context, checks []Check, depth int) []Finding {
	var out []Finding
	for _, c := range checks {
		fact, err := c.Run(ctx)
		f := Finding{Name: c.Name, OK: err == nil, State: Well, Detail: fact, Depth: depth}
		if err != nil {
			f.State, f.Detail = Fault, err.Error()
			if p, ok := errors.AsType[*Problem](err); ok {
				f.State, f.Detail, f.Mend = p.State, p.What, p.Mend
			}
		}
		out = append(out, f)
		if f.State == Well || f.State == Advice {
			out = append(out, examine(ctx, c.Then, depth+1)...)
		} else {
			out = append(out, skipped(c.Name, c.Then, depth+1)...)
		}
	}
	return out
}

func skipped(parent string, checks []Check, depth int) []Finding {
	var out []Finding
	for _, c := range checks {
		out = append(out, Finding{Name: c.Name, State: Waits, Detail: "not asked, since this failed first: " + parent, Depth: depth})
		out = append(out, skipped(parent, c.Then, depth+1)...)
	}
	return out
}

// First returns the first finding that is a fault.
func First(findings []Finding) (Finding, bool) {
	for _, f := range findings {
		if f.State == Fault {
			return f, true
		}
	}
	return Finding{}, false
}
