package cli

import (
	"fmt"
	"strconv"
	"strings"

	"lunboot/store"
)

// access says who may write to a volume.
func access(v store.Volume) string {
	switch {
	case v.Golden:
		return "golden"
	case v.ReadOnly:
		return "read-only"
	}
	return ""
}

// origin is what a clone stands on, and whether it begins anew.
func origin(v store.Volume) string {
	if v.Kind != store.VolumeClone {
		return ""
	}
	if v.Volatile {
		return v.From + ", anew at each boot, volatile"
	}
	if v.Reset {
		return v.From + ", anew at each boot"
	}
	return v.From
}

// printDetail prints a volume, then who uses it, what was kept of it and what
// stands on it.
func printDetail(c *Context, v store.VolumeDetail, more ...string) {
	version := ""
	if v.Version != 0 {
		version = strconv.Itoa(v.Version)
		if v.Stale {
			version += ", which is not the current one"
		}
	}
	var chain, machines []string
	for _, l := range v.Chain {
		chain = append(chain, fmt.Sprintf("%s (%s, of %s)", l.Path, l.Kind, l.Owner))
	}
	for _, m := range v.Machines {
		machines = append(machines, user(m))
	}
	used := takes(v)
	printVolume(c, v.Volume, append([]string{"Golden", yes(v.Golden, "yes"), "Parent", v.ParentName, "Version", version, "Begins anew", yes(v.Reset, "at each boot of its machine"), "Volatile", yes(v.Volatile, "from its next boot on, if it is not yet"),
		"Layers", strings.Join(chain, ", "), "Takes", used, "Used by", strings.Join(machines, ", ")}, more...)...)
	if len(v.Versions) > 0 {
		c.say("")
		c.versions(v.Versions)
	}
	if len(v.Snapshots) > 0 {
		c.say("")
		c.snapshots(v.Snapshots)
	}
	if len(v.Clones) > 0 {
		c.say("")
		var rows [][]string
		for _, k := range v.Clones {
			rows = append(rows, []string{k.Name, number(k.Version), yes(k.Reset, "at boot"), strings.Join(k.Machines, ", ")})
		}
		c.table("CLONE VERSION RESET MACHINES", rows)
	}
}

// takes is what a volume takes of the file system, and how much of it is its own.
func takes(v store.VolumeDetail) string {
	if v.Used < 0 {
		return ""
	}
	if sharing := v.Sharing(); sharing != "" {
		return store.Bytes(v.Used) + ", " + sharing
	}
	return store.Bytes(v.Used)
}

func user(m store.VolumeUser) string {
	s := fmt.Sprintf("%s as LUN %d", m.Name, m.LUN)
	if m.ReadOnly {
		s += ", read-only"
	}
	if !m.Since.IsZero() {
		s += ", logged in since " + when(m.Since)
	}
	return s
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func (c *Context) versions(vs []store.VersionDetail) {
	var rows [][]string
	for _, v := range vs {
		rows = append(rows, []string{strconv.Itoa(v.Number), yes(v.Current, "current"), store.Bytes(v.Size), when(v.Created), v.Note, strings.Join(v.UsedBy, ", ")})
	}
	c.table("VERSION CURRENT SIZE CREATED NOTE USED-BY", rows)
}

func (c *Context) snapshots(ss []store.SnapshotDetail) {
	var rows [][]string
	for _, s := range ss {
		rows = append(rows, []string{s.Name, when(s.Created), s.Note, strings.Join(s.UsedBy, ", ")})
	}
	c.table("SNAPSHOT CREATED NOTE USED-BY", rows)
}

// VolumeCloneCmd makes a clone.
type VolumeCloneCmd struct {
	Parent   string `arg:"" help:"A golden volume, or VOLUME@SNAPSHOT."`
	Volume   string `arg:"" optional:"" help:"Name of the clone; with --for it may be left out."`
	Reset    bool   `name:"reset-at-boot" help:"It begins anew at each boot of its machine."`
	Volatile bool   `help:"With --reset-at-boot: nobody waits for the disk, which is faster; what it holds outlives a crash of lunboot, and is discarded after one of the appliance's machine."`
	Machine  string `name:"for" help:"The machine that is to boot from it." placeholder:"MACHINE"`
}

// Run makes a clone.
func (v *VolumeCloneCmd) Run(c *Context) error {
	if v.Volume == "" && v.Machine == "" {
		return usage("name the clone, or the machine that gets it with --for")
	}
	parent, snapshot, _ := strings.Cut(v.Parent, "@")
	var out struct {
		Volume  store.Volume   `json:"volume"`
		Mapping *store.Mapping `json:"mapping,omitempty"`
	}
	in := map[string]any{"name": v.Volume, "snapshot": snapshot, "reset_at_boot": v.Reset, "volatile": v.Volatile, "machine": v.Machine}
	if err := c.Client.Do(c, "POST", "/volumes/"+esc(parent)+"/clone", in, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		if out.Mapping != nil {
			c.say("cloned %s as volume %s; machine %s boots from it, as LUN %d", out.Volume.From, out.Volume.Name, v.Machine, out.Mapping.LUN)
			return
		}
		c.say("cloned %s as volume %s", out.Volume.From, out.Volume.Name)
	})
}

// VolumeFreezeCmd makes a volume golden.
type VolumeFreezeCmd struct {
	Volume string `arg:"" help:"Id or name."`
	Note   string `help:"What people should know of version 1."`
	ifSeen
}

// Run makes a volume golden.
func (f *VolumeFreezeCmd) Run(c *Context) error {
	var v store.Volume
	if err := c.change("POST", "/volumes/"+esc(f.Volume), "/freeze", f.tag(), map[string]string{"note": f.Note}, &v); err != nil {
		return err
	}
	return c.show(v, func() { c.say("volume %s is golden, version %d", v.Name, v.Version) })
}

// VolumeSnapshotCmd takes, lists or removes snapshots.
type VolumeSnapshotCmd struct {
	Volume string `arg:"" help:"Id or name."`
	Name   string `arg:"" optional:"" help:"Name of the snapshot; without one they are listed."`
	Note   string `help:"What people should know of it."`
	Remove bool   `help:"Forget the snapshot of this name."`
	ifSeen
}

// Run takes, lists or removes snapshots.
func (s *VolumeSnapshotCmd) Run(c *Context) error {
	noun, part := "/volumes/"+esc(s.Volume), "/snapshots"
	switch {
	case s.Name == "" && (s.Remove || s.Note != ""):
		return usage("name the snapshot")
	case s.Name == "":
		var out list[store.SnapshotDetail]
		if err := c.Client.Do(c, "GET", noun+part, nil, &out); err != nil {
			return err
		}
		return c.show(out, func() { c.snapshots(out.Items) })
	case s.Remove:
		if err := c.change("DELETE", noun, part+"/"+esc(s.Name), s.tag(), nil, nil); err != nil {
			return err
		}
		c.say("removed snapshot %s of volume %s", s.Name, s.Volume)
		return nil
	}
	var v store.Volume
	if err := c.change("POST", noun, part, s.tag(), map[string]string{"name": s.Name, "note": s.Note}, &v); err != nil {
		return err
	}
	return c.show(v, func() { c.say("kept what volume %s holds as snapshot %s", v.Name, s.Name) })
}

// VolumeRollbackCmd brings a former state back.
type VolumeRollbackCmd struct {
	Volume string `arg:"" help:"Id or name."`
	Name   string `arg:"" help:"Name of a snapshot, or the number of a golden volume's version."`
	ifSeen
}

// Run brings a former state back.
func (r *VolumeRollbackCmd) Run(c *Context) error {
	var v store.Volume
	if err := c.change("POST", "/volumes/"+esc(r.Volume), "/rollback", r.tag(), map[string]string{"to": r.Name}, &v); err != nil {
		return err
	}
	return c.show(v, func() {
		if v.Golden {
			c.say("version %d of volume %s is the current one", v.Version, v.Name)
			return
		}
		c.say("volume %s holds what it did at snapshot %s", v.Name, r.Name)
	})
}

// VolumePromoteCmd makes a clone the next version of its golden volume.
type VolumePromoteCmd struct {
	Volume string `arg:"" help:"A clone: id or name."`
	Note   string `help:"What people should know of the new version."`
	ifSeen
}

// Run promotes a clone and waits for it.
func (p *VolumePromoteCmd) Run(c *Context) error {
	return c.volumeJob(p.Volume, "promote", p.tag(), p.Note, func(v store.VolumeDetail) {
		c.say("promoted volume %s: its golden volume has a new version", v.Name)
	})
}

// VolumeFlattenCmd makes a volume stand alone.
type VolumeFlattenCmd struct {
	Volume string `arg:"" help:"Id or name."`
	ifSeen
}

// Run flattens a volume and waits for it.
func (f *VolumeFlattenCmd) Run(c *Context) error {
	return c.volumeJob(f.Volume, "flatten", f.tag(), "", func(v store.VolumeDetail) {
		c.say("volume %s stands alone", v.Name)
		c.sayTakes(v)
	})
}

// volumeJob begins a job on a volume and follows it to its end.
func (c *Context) volumeJob(volume, act, seen, note string, said func(store.VolumeDetail)) error {
	var job store.Job
	if err := c.change("POST", "/volumes/"+esc(volume), "/"+act, seen, map[string]string{"note": note}, &job); err != nil {
		return err
	}
	job, err := endJob(c, job)
	if err != nil {
		return err
	}
	var v store.VolumeDetail
	if err := c.Client.Do(c, "GET", "/volumes/"+esc(job.Subject), nil, &v); err != nil {
		return err
	}
	return c.show(job, func() { said(v) })
}

// sayTakes says what a volume takes that was just made, and whether it shares it.
func (c *Context) sayTakes(v store.VolumeDetail) {
	if words := takes(v); words != "" {
		c.say("it takes %s", words)
	}
}

// VolumeVersionsCmd lists or changes the versions of a golden volume.
type VolumeVersionsCmd struct {
	Volume string  `arg:"" help:"A golden volume: id or name."`
	Number int     `arg:"" optional:"" help:"The version to change."`
	Use    bool    `help:"Make it the current one: new clones are made of it, and those that begin anew move to it at their next boot."`
	Note   *string `help:"What people should know of it."`
	Remove bool    `help:"Remove it and its bytes; nothing may stand on it."`
	ifSeen
}

// Run lists or changes versions.
func (v *VolumeVersionsCmd) Run(c *Context) error {
	changes := v.Use || v.Note != nil
	switch {
	case v.Number == 0 && (changes || v.Remove):
		return usage("name the number of the version")
	case v.Number != 0 && changes == v.Remove:
		return usage("say what to do with the version: --use or --note, or --remove alone")
	}
	noun, part := "/volumes/"+esc(v.Volume), "/versions"
	one := part + "/" + strconv.Itoa(v.Number)
	if v.Remove {
		if err := c.change("DELETE", noun, one, v.tag(), nil, nil); err != nil {
			return err
		}
		c.say("removed version %d of volume %s", v.Number, v.Volume)
		return nil
	}
	if changes {
		in := map[string]any{"current": v.Use}
		if v.Note != nil {
			in["note"] = *v.Note
		}
		if err := c.change("PATCH", noun, one, v.tag(), in, nil); err != nil {
			return err
		}
	}
	var out list[store.VersionDetail]
	if err := c.Client.Do(c, "GET", noun+part, nil, &out); err != nil {
		return err
	}
	return c.show(out, func() { c.versions(out.Items) })
}

// VolumeCheckCmd checks the layers of a volume.
type VolumeCheckCmd struct {
	Volume string `arg:"" help:"Id or name."`
}

// Run checks a volume. Damage is exit code 1.
func (k *VolumeCheckCmd) Run(c *Context) error {
	var out store.VolumeCheck
	if err := c.Client.Do(c, "POST", "/volumes/"+esc(k.Volume)+"/check", nil, &out); err != nil {
		return err
	}
	damaged := 0
	err := c.show(out, func() {
		var rows [][]string
		for _, l := range out.Layers {
			if len(l.Damage) == 0 {
				rows = append(rows, []string{l.Path, strconv.FormatInt(l.Pages, 10), "", "sound"})
			}
			for _, d := range l.Damage {
				rows = append(rows, []string{l.Path, strconv.FormatInt(l.Pages, 10), blocks(d), d.What})
			}
		}
		c.table("LAYER MAP-PAGES BLOCKS STATE", rows)
	})
	for _, l := range out.Layers {
		damaged += len(l.Damage)
	}
	if err == nil && (!out.OK || damaged > 0) {
		err = fmt.Errorf("volume %s is damaged in %d places", k.Volume, damaged)
	}
	return err
}

func blocks(d store.Damage) string {
	if d.To < 0 {
		return fmt.Sprintf("%d to the end", d.From)
	}
	return fmt.Sprintf("%d to %d", d.From, d.To)
}
