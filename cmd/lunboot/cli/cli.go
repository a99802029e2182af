// Package cli holds the verbs of the command line, one file a noun. Each is a
// client of /api/v1 and knows nothing of the appliance but that; lunboot serve
// itself lives in cmd/lunboot.
package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"lunboot/store"
)

// Commands is the grammar of every verb that talks to a running appliance.
type Commands struct {
	Machine MachineCmd `cmd:"" help:"Machines: the computers that boot."`
	Volume  VolumeCmd  `cmd:"" help:"Volumes: the bytes that a machine sees as a disk."`
	Mapping MappingCmd `cmd:"" help:"Mappings: which volume is which LUN of which machine."`
	Profile ProfileCmd `cmd:"" help:"Profiles: the rules that make boot scripts."`
	Loader  LoaderCmd  `cmd:"" help:"Loaders: the programs that firmware fetches first."`
	Media   MediaCmd   `cmd:"" help:"Media: discs, kernels and other files that machines fetch while they boot."`
	Script  ScriptCmd  `cmd:"" help:"Show the script that a machine would be given now."`
	Attempt AttemptCmd `cmd:"" help:"Attempts: how each try to boot went, and why it failed."`
	Explain ExplainCmd `cmd:"" help:"Explain a code: iPXE's, such as 1d704539, or a diagnosis's, such as LB-LUN-01."`
	Session SessionCmd `cmd:"" help:"Live iSCSI sessions."`
	Lease   LeaseCmd   `cmd:"" help:"DHCP leases."`
	Subnet  SubnetCmd  `cmd:"" help:"Networks that the appliance serves."`
	Setting SettingCmd `cmd:"" help:"Choices that belong to no machine, volume or network."`
	Event   EventCmd   `cmd:"" help:"The journal of boot events."`
	Job     JobCmd     `cmd:"" help:"Long work: imports, exports, copies of media, clones for many machines, promotions, flattening and merges of layers."`
	Token   TokenCmd   `cmd:"" help:"Tokens for the REST API."`

	User       UserCmd       `cmd:"" help:"People: who may log in, and what they may do."`
	OIDC       OIDCCmd       `cmd:"" name:"oidc" help:"Single sign-on: the OpenID Connect provider through which people may log in too."`
	Audit      AuditCmd      `cmd:"" help:"The audit: who changed what, from what to what."`
	Completion CompletionCmd `cmd:"" help:"Print what makes a shell complete lunboot's verbs and flags."`
	Password   PasswordCmd   `cmd:"" help:"Set the password of the web pages."`
	Backup     BackupCmd     `cmd:"" help:"Back the appliance up into one file, while machines boot."`
	Export     ExportCmd     `cmd:"" help:"Write a list into a table, CSV or JSON: machines, volumes, unknown machines, leases, sessions, jobs, profiles, media, loaders, subnets, mappings, attempts, events, audit, people (users) or tokens."`
	Support    SupportCmd    `cmd:"" help:"Write what the appliance knows of itself, without passwords, for somebody who helps."`
}

// Context is what a verb runs with.
type Context struct {
	context.Context
	Client *Client
	In     io.Reader
	Out    io.Writer
	JSON   bool
}

// show prints v as JSON when asked to, else runs text.
func (c *Context) show(v any, text func()) error {
	if c.JSON {
		enc := json.NewEncoder(c.Out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	text()
	return nil
}

// Show prints v as JSON.
func (c *Context) Show(v any) error { return c.show(v, func() {}) }

// say prints one line about a change, nothing with --json.
func (c *Context) say(format string, args ...any) {
	if !c.JSON {
		fmt.Fprintf(c.Out, format+"\n", args...)
	}
}

// progress rewrites one line of a terminal, and clears it at the end; into a file or a pipe it says
// nothing.
func (c *Context) progress(what string, done, total int64) {
	if total <= 0 {
		return
	}
	text := ""
	if done < total {
		text = fmt.Sprintf("%s %d %% of %s", what, done*100/total, store.Bytes(total))
	}
	c.working(text)
}

// progressOf is progress of a job, which may count otherwise than in bytes.
func (c *Context) progressOf(j store.Job) {
	text := ""
	if j.Done < j.Total {
		text = fmt.Sprintf("done %d %% of %s", j.Done*100/j.Total, j.Amount(j.Total))
	}
	c.working(text)
}

// working rewrites one line of a terminal, and clears it for an empty text.
func (c *Context) working(text string) {
	if c.terminal() {
		fmt.Fprint(c.Out, "\r\x1b[K"+text)
	}
}

// terminal reports whether somebody watches who can be told how far a thing has come.
func (c *Context) terminal() bool {
	f, ok := c.Out.(*os.File)
	if !ok || c.JSON {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// table prints rows under a head, columns aligned.
func (c *Context) table(head string, rows [][]string) {
	w := tabwriter.NewWriter(c.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(head, " ", "\t"))
	for _, r := range rows {
		for i, cell := range r {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			if cell == "" {
				cell = "-"
			}
			fmt.Fprint(w, clean(cell))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

// facts prints names and values, one a line.
func (c *Context) facts(pairs ...string) {
	w := tabwriter.NewWriter(c.Out, 0, 4, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], clean(pairs[i+1]))
		}
	}
	w.Flush()
}

// clean keeps bytes that a machine sent from steering the operator's terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func yes(b bool, word string) string {
	if b {
		return word
	}
	return ""
}
