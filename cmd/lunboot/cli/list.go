package cli

import "net/url"

// listFlags are how every list is searched and sorted.
type listFlags struct {
	Search string `arg:"" optional:"" help:"Words and qualifiers, such as state:ready, all of which must fit; quotation marks keep words together. A qualifier that there is not is a word; a value that there is not is refused with those that there are."`
	Sort   string `help:"Column to sort by; with a hyphen before it the other way, as in --sort=-name. One that there is not is refused with those that there are." placeholder:"COLUMN"`
}

// query is what the appliance is asked, beside what a list has of its own.
func (l listFlags) query(own ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(own); i += 2 {
		q.Set(own[i], own[i+1])
	}
	if l.Search != "" {
		q.Set("search", l.Search)
	}
	if l.Sort != "" {
		q.Set("sort", l.Sort)
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}
