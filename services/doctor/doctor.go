// Package doctor is a tree of self-checks. A check whose parent failed is not
// run: it says what it waits for. The same checks run inside the appliance,
// for its health listing, and alone, when no appliance answers.
//
// It opens nothing that an appliance holds and sends nothing.
package doctor

import "context"

// Check is one question. Run returns a fact when all is well, else an error
// whose text says what to do.
type Check struct {
	Name string
	Run  func(context.Context) (string, error)
	Then []Check // asked only when this one is well
}

// Finding is the answer to one check.
type Finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Examine runs the tree and returns the findings in reading order.
func Examine(ctx context.Context, checks ...Check) []Finding {
	var out []Finding
	for _, c := range checks {
		fact, err := c.Run(ctx)
		if err != nil {
			out = append(out, Finding{Name: c.Name, Detail: err.Error()})
			out = append(out, skipped(c.Name, c.Then)...)
			continue
		}
		out = append(out, Finding{Name: c.Name, OK: true, Detail: fact})
		out = append(out, Examine(ctx, c.Then...)...)
	}
	return out
}

func skipped(parent string, checks []Check) []Finding {
	var out []Finding
	for _, c := range checks {
		out = append(out, Finding{Name: c.Name, Detail: "not asked, since this failed first: " + parent})
		out = append(out, skipped(parent, c.Then)...)
	}
	return out
}

// First returns the first finding that is not well.
func First(findings []Finding) (Finding, bool) {
	for _, f := range findings {
		if !f.OK {
			return f, true
		}
	}
	return Finding{}, false
}
