package cli

import (
	"fmt"
	"io"
	"net/url"
	"os"

	"lunboot/store"
)

// ProfileCmd is the noun profile.
type ProfileCmd struct {
	List    ProfileListCmd    `cmd:"" help:"List profiles."`
	Show    ProfileShowCmd    `cmd:"" help:"Show a profile."`
	Set     ProfileSetCmd     `cmd:"" help:"Create or change a profile; its script is checked first."`
	Preview ProfilePreviewCmd `cmd:"" help:"Show the script that a machine would get from a profile."`
	Remove  ProfileRemoveCmd  `cmd:"" help:"Remove a profile that no machine uses."`
}

// ProfileListCmd lists profiles.
type ProfileListCmd struct{ listFlags }

// Run lists profiles.
func (l *ProfileListCmd) Run(c *Context) error {
	var out list[store.Profile]
	if err := c.Client.Do(c, "GET", "/profiles"+l.query(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, p := range out.Items {
			rows = append(rows, []string{p.Name, string(p.Kind), yes(p.BuiltIn, "built in")})
		}
		c.table("NAME KIND ORIGIN", rows)
	})
}

// ProfileShowCmd shows a profile.
type ProfileShowCmd struct {
	Profile string `arg:"" help:"Name."`
}

// Run shows a profile.
func (s *ProfileShowCmd) Run(c *Context) error {
	var p store.Profile
	if err := c.Client.Do(c, "GET", "/profiles/"+esc(s.Profile), nil, &p); err != nil {
		return err
	}
	return c.show(p, func() {
		c.facts("Name", p.Name, "Kind", string(p.Kind))
		for k, v := range p.Fields {
			c.facts(k, v)
		}
		if p.Text != "" {
			fmt.Fprintf(c.Out, "\n%s", p.Text)
		}
	})
}

// ProfileSetCmd creates or changes a profile.
type ProfileSetCmd struct {
	Profile string            `arg:"" help:"Name."`
	File    string            `help:"Script of a custom profile, or the answers of an installer (preseed, kickstart, user-data, a batch file), with {{ }} variables; '-' reads standard input." placeholder:"FILE"`
	Kind    string            `default:"custom" enum:"custom,install,kernel,wimboot,menu,local,san" help:"Kind: ${enum}."`
	Field   map[string]string `help:"Field. kernel: media, kernel, initrd, cmdline; install: also system, disk; wimboot: media, wimboot, disk; menu: items, default, timeout; local: bios, drive." placeholder:"KEY=VALUE"`
	ifSeen
}

// maxScript bounds what is read of a script file.
const maxScript = 256 << 10

// Run creates or changes a profile.
func (s *ProfileSetCmd) Run(c *Context) error {
	in := map[string]any{"kind": s.Kind}
	if len(s.Field) > 0 {
		in["fields"] = s.Field
	}
	if s.File != "" {
		var r io.Reader = c.In
		if s.File != "-" {
			f, err := os.Open(s.File)
			if err != nil {
				return err
			}
			defer f.Close()
			r = f
		}
		b, err := io.ReadAll(io.LimitReader(r, maxScript+1))
		if err != nil {
			return err
		}
		if len(b) > maxScript {
			return store.Invalid("file", "%s is longer than %s, which no script is", s.File, store.Bytes(maxScript))
		}
		in["text"] = string(b)
	} else if s.Kind == "custom" {
		return usage("a custom profile needs --file with its script")
	}
	// One that is not there yet is made.
	noun, seen := "/profiles/"+esc(s.Profile), ifMatch(s.tag())
	if seen == nil {
		var err error
		if seen, err = c.asSeen(noun); err != nil {
			return err
		}
	}
	var p store.Profile
	if err := c.Client.do(c, "PUT", noun, seen, in, &p); err != nil {
		return err
	}
	return c.show(p, func() { c.say("profile %s is set (%s)", p.Name, p.Kind) })
}

// ProfilePreviewCmd previews a profile.
type ProfilePreviewCmd struct {
	Profile string `arg:"" help:"Name."`
	Machine string `required:"" help:"Id, name, MAC or UUID."`
}

// Run previews a profile.
func (p *ProfilePreviewCmd) Run(c *Context) error {
	return preview(c, p.Machine, p.Profile)
}

// ProfileRemoveCmd removes a profile.
type ProfileRemoveCmd struct {
	Profile string `arg:"" help:"Name."`
	ifSeen
}

// Run removes a profile.
func (r *ProfileRemoveCmd) Run(c *Context) error {
	if err := c.change("DELETE", "/profiles/"+esc(r.Profile), "", r.tag(), nil, nil); err != nil {
		return err
	}
	c.say("removed profile %s", r.Profile)
	return nil
}

// ScriptCmd shows a machine's script.
type ScriptCmd struct {
	Machine string `arg:"" help:"Id, name, MAC or UUID."`
}

// Run shows a machine's script.
func (s *ScriptCmd) Run(c *Context) error { return preview(c, s.Machine, "") }

func preview(c *Context, machine, profile string) error {
	var out struct {
		Text string `json:"text"`
	}
	if err := c.Client.Do(c, "GET", "/machines/"+esc(machine)+"/script?profile="+url.QueryEscape(profile), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() { fmt.Fprint(c.Out, out.Text) })
}
