package cli

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"lunboot/store"
)

// MachineExplainCmd makes a dry run, and says how the last boot went.
type MachineExplainCmd struct {
	Machine string `arg:"" help:"Id, name, MAC or UUID; also the MAC of a machine that is not enrolled."`
	Arch    string `help:"Its firmware and architecture: bios, uefi-x64, http-arm64 …, or a number of option 93 (default: as it was last seen)."`
	Relay   string `help:"The relay agent that it asks through (default: none)." placeholder:"IP"`
}

// Run makes a dry run.
func (e *MachineExplainCmd) Run(c *Context) error {
	q := url.Values{}
	if e.Arch != "" {
		q.Set("arch", e.Arch)
	}
	if e.Relay != "" {
		q.Set("relay", e.Relay)
	}
	var out store.DryRun
	if err := c.Client.Do(c, "GET", "/machines/"+esc(e.Machine)+"/explain?"+q.Encode(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() { printExplanation(c, out) })
}

func printExplanation(c *Context, e store.DryRun) {
	head := func(format string, args ...any) { fmt.Fprintf(c.Out, "\n"+format+"\n", args...) }
	who := e.Name
	if who == "" {
		who = "not enrolled"
	}
	platform := e.Platform
	if e.Assumed {
		platform += " (assumed: nobody has seen its firmware)"
	}
	relay := ""
	if e.Relay.IsValid() {
		relay = e.Relay.String()
	}
	c.facts("If it booted now", who, "MAC", e.MAC.String(), "Firmware", platform, "Through the relay", relay)
	for _, o := range e.Offers {
		on := ""
		if o.Interface != "" {
			on = " on " + o.Interface
		}
		head("%s asks for an address%s: %s", clean(o.Client), on, clean(o.Verdict))
		if o.Why != "" {
			fmt.Fprintf(c.Out, "%s\n", clean(o.Why))
		}
		var rows [][]string
		for _, f := range o.Fields {
			option := ""
			if f.Option != 0 {
				option = strconv.Itoa(f.Option)
			}
			rows = append(rows, []string{option, f.Name, f.Value, f.Why})
		}
		if len(rows) > 0 {
			c.table("OPTION NAME VALUE WHY", rows)
		}
	}
	switch f := e.File; {
	case f.Missing:
		head("It fetches the loader %s, which is missing", clean(f.Loader))
	case f.Loader != "":
		head("It fetches the loader %s", clean(f.Loader))
		c.facts("Size", store.Bytes(f.Size), "Version", f.Version, "From", f.Source, "SHA-256", f.SHA256)
	}
	by := []string{}
	if e.Script.Profile != "" {
		by = append(by, "profile "+e.Script.Profile)
	}
	if e.Script.MatchedBy != "" {
		by = append(by, "found by its "+e.Script.MatchedBy)
	}
	head("Its iPXE asks for the script: %s", clean(strings.Join(append([]string{e.Script.Answer}, by...), ", ")))
	if e.Script.Why != "" {
		fmt.Fprintf(c.Out, "%s\n", clean(e.Script.Why))
	}
	if e.Script.Guarded {
		fmt.Fprintln(c.Out, "It carries a password, so it is given only to the address that the machine's MAC holds.")
	}
	for _, line := range strings.Split(strings.TrimRight(e.Script.Text, "\n"), "\n") {
		fmt.Fprintf(c.Out, "  %s\n", clean(line))
	}
	if e.Login.Initiator != "" {
		printLogin(c, e)
	}
	if e.Last == nil {
		head("It has not tried to boot since it was added, so there is nothing to compare with.")
		return
	}
	if len(e.Differences) == 0 {
		head("Nothing that was seen of its last attempt would be different.")
	} else {
		head("Since its last attempt, this is different:")
		var rows [][]string
		for _, d := range e.Differences {
			rows = append(rows, []string{d.What, d.Then, d.Now})
		}
		c.table("WHAT THEN NOW", rows)
	}
	head("Its last attempt:")
	printAttempt(c, *e.Last)
}

func printLogin(c *Context, e store.DryRun) {
	l := e.Login
	how := map[store.AuthMode]string{store.AuthNone: "without a password", store.AuthCHAP: "CHAP as " + l.User, store.AuthMutual: "mutual CHAP as " + l.User + ", the target as " + l.ReverseUser}[l.Auth]
	portal := ""
	if e.Script.Portal.IsValid() {
		portal = e.Script.Portal.String()
	}
	fmt.Fprintln(c.Out, "\nIt logs in to the target:")
	c.facts("Boots", e.Script.SAN, "Portal", portal, "Target", string(l.Target), "As", string(l.Initiator), "Login", how, "Refused", l.Refused)
	var rows [][]string
	for _, u := range l.Units {
		access := "read-write"
		if u.ReadOnly {
			access = "read-only"
		}
		rows = append(rows, []string{strconv.Itoa(int(u.LUN)), u.Volume, store.Bytes(u.Size), access, yes(u.Boot, "boots from this"), u.Problem})
	}
	if len(rows) > 0 {
		c.table("LUN VOLUME SIZE ACCESS BOOT PROBLEM", rows)
	}
}
