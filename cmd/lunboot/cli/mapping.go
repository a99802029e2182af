package cli

import (
	"fmt"
	"strconv"

	"lunboot/store"
)

// MappingCmd is the noun mapping.
type MappingCmd struct {
	List   MappingListCmd   `cmd:"" help:"List mappings."`
	Add    MappingAddCmd    `cmd:"" help:"Map a volume to a machine as one LUN."`
	Set    MappingSetCmd    `cmd:"" help:"Change a mapping."`
	Remove MappingRemoveCmd `cmd:"" help:"Remove a mapping."`
}

// MappingListCmd lists mappings.
type MappingListCmd struct{ listFlags }

// Run lists mappings.
func (l *MappingListCmd) Run(c *Context) error {
	var out list[mapping]
	if err := c.Client.Do(c, "GET", "/mappings"+l.query(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, m := range out.Items {
			rows = append(rows, []string{m.MachineName, strconv.Itoa(int(m.LUN)), m.VolumeName, store.Bytes(m.VolumeSize), yes(m.Boot, "boot"), yes(m.ReadOnly, "read-only")})
		}
		c.table("MACHINE LUN VOLUME SIZE BOOT ACCESS", rows)
	})
}

// MappingAddCmd adds a mapping.
type MappingAddCmd struct {
	Machine  string `arg:"" help:"Id, name, MAC or UUID."`
	Volume   string `arg:"" help:"Id or name."`
	LUN      *int64 `name:"lun" help:"0 to 16383 (default: the lowest free one)."`
	Boot     *bool  `negatable:"" help:"The machine boots this one (default: when it boots nothing yet)."`
	ReadOnly bool   `name:"read-only" help:"This machine may not write to it."`
}

// Run adds a mapping.
func (a *MappingAddCmd) Run(c *Context) error {
	in := map[string]any{"machine": a.Machine, "volume": a.Volume, "read_only": a.ReadOnly}
	if a.LUN != nil {
		in["lun"] = *a.LUN
	}
	if a.Boot != nil {
		in["boot"] = *a.Boot
	}
	var m mapping
	if err := c.Client.Do(c, "POST", "/mappings", in, &m); err != nil {
		return err
	}
	return c.show(m, func() {
		c.say("%s", mapped(m))
	})
}

// mapped says what a mapping is now.
func mapped(m mapping) string {
	text := fmt.Sprintf("%s is LUN %d of %s", m.VolumeName, m.LUN, m.MachineName)
	if m.Boot {
		text += ", which it boots"
	}
	if m.ReadOnly {
		text += ", read-only"
	}
	return text
}

// MappingSetCmd changes a mapping.
type MappingSetCmd struct {
	Machine  string `arg:"" help:"Id, name, MAC or UUID."`
	LUN      int64  `arg:"" name:"lun" help:"Its present LUN."`
	NewLUN   *int64 `name:"lun" help:"New LUN."`
	Boot     *bool  `negatable:"" help:"The machine boots this one."`
	ReadOnly *bool  `name:"read-only" negatable:"" help:"This machine may not write to it."`
	ifSeen
}

// Run changes a mapping.
func (s *MappingSetCmd) Run(c *Context) error {
	in := map[string]any{}
	if s.NewLUN != nil {
		in["lun"] = *s.NewLUN
	}
	if s.Boot != nil {
		in["boot"] = *s.Boot
	}
	if s.ReadOnly != nil {
		in["read_only"] = *s.ReadOnly
	}
	if len(in) == 0 {
		return usage("nothing to change; name at least one flag, such as --boot")
	}
	var m mapping
	if err := c.change("PATCH", "/mappings/"+esc(s.Machine)+"/"+strconv.FormatInt(s.LUN, 10), "", s.tag(), in, &m); err != nil {
		return err
	}
	return c.show(m, func() { c.say("%s", mapped(m)) })
}

// MappingRemoveCmd removes a mapping.
type MappingRemoveCmd struct {
	Machine string `arg:"" help:"Id, name, MAC or UUID."`
	LUN     int64  `arg:"" name:"lun" help:"LUN."`
	ifSeen
}

// Run removes a mapping.
func (r *MappingRemoveCmd) Run(c *Context) error {
	if err := c.change("DELETE", "/mappings/"+esc(r.Machine)+"/"+strconv.FormatInt(r.LUN, 10), "", r.tag(), nil, nil); err != nil {
		return err
	}
	c.say("LUN %d of %s is gone", r.LUN, r.Machine)
	return nil
}
