package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"lunboot/store"
)

// MachineImportCmd makes and changes machines by a table.
type MachineImportCmd struct {
	File   string `arg:"" help:"CSV in UTF-8 whose first line names fields of machines (name, macs, address, profile, tags and so on); - reads it from standard input."`
	DryRun bool   `name:"dry-run" help:"Only say what would become of each line."`
	All    bool   `help:"List the lines too that change nothing."`
}

// Run imports a table. It fails when a line is refused; the others are done.
func (i *MachineImportCmd) Run(c *Context) error {
	var (
		in  io.Reader = c.In
		err error
	)
	if i.File != "-" {
		f, err := os.Open(i.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	// A reader of its own: the table is short, and refused only when it was read.
	resp, err := c.Client.send(c, http.MethodPost, "/machines.csv?dry_run="+strconv.FormatBool(i.DryRun), struct{ io.Reader }{in}, "text/csv", nil)
	if err != nil {
		return err
	}
	var out store.MachineImport
	if err := decode(resp, &out); err != nil {
		return fmt.Errorf("the answer to the import could not be read: %w", err)
	}
	err = c.show(out, func() {
		var rows [][]string
		for _, l := range out.Lines {
			if l.Verdict != store.VerdictSame || i.All {
				rows = append(rows, []string{strconv.Itoa(l.Line), string(l.Verdict), l.Name, verdictWords(l)})
			}
		}
		if len(rows) > 0 {
			c.table("LINE VERDICT MACHINE WHAT", rows)
		}
		words := "imported"
		if !out.Done {
			words = "nothing was changed; it would be"
		}
		c.say("%s: %d new, %d changed, %d as they are, %d refused", words, out.New, out.Changed, out.Same, out.Refused)
	})
	if err == nil && out.Refused > 0 {
		err = fmt.Errorf("%d of %d lines are refused", out.Refused, len(out.Lines))
	}
	return err
}

// verdictWords is what a line changes, or why it is refused.
func verdictWords(l store.LineVerdict) string {
	if l.Verdict == store.VerdictRefused {
		if l.Field == "" {
			return l.Reason
		}
		return l.Field + ": " + l.Reason
	}
	var out []string
	for _, ch := range l.Changes {
		switch {
		case l.Machine == 0 && (ch.Field == "name" || ch.Field == "auth"):
		case ch.Before == "":
			out = append(out, ch.Field+" "+ch.After)
		case ch.After == "":
			out = append(out, "no "+ch.Field+" (was "+ch.Before+")")
		default:
			out = append(out, ch.Field+" "+ch.Before+" → "+ch.After)
		}
	}
	return strings.Join(out, "; ")
}

// MachineExportCmd writes machines into a table.
type MachineExportCmd struct {
	File   string `arg:"" optional:"" default:"-" help:"File to write; - or nothing: standard output."`
	Search string `help:"Only machines that this finds, as in 'machine list'."`
}

// Run writes a table that can be imported again.
func (e *MachineExportCmd) Run(c *Context) error {
	return c.save("/machines.csv?search="+url.QueryEscape(e.Search), e.File)
}
