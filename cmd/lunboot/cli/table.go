package cli

import "net/url"

// ExportCmd writes a list into a table.
type ExportCmd struct {
	List   string `arg:"" enum:"machines,volumes,unknown-machines,leases,sessions,jobs,attempts,audit" help:"Which list: ${enum}. The table of machines can be imported again, as CSV."`
	File   string `arg:"" optional:"" default:"-" help:"File to write; - or nothing: standard output."`
	Search string `help:"Only what this finds, as in the list."`
	Sort   string `help:"Column to sort by, as in the list; with a hyphen before it the other way, as in --sort=-name." placeholder:"COLUMN"`
	Format string `enum:"csv,json" default:"csv" help:"Format of the table: ${enum}."`
}

// Run writes the table.
func (e *ExportCmd) Run(c *Context) error {
	q := url.Values{"search": {e.Search}, "sort": {e.Sort}, "format": {e.Format}}
	return c.save("/exports/"+esc(e.List)+"?"+q.Encode(), e.File)
}
