package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"lunboot/store"
)

// VolumeCmd is the noun volume.
type VolumeCmd struct {
	List    VolumeListCmd    `cmd:"" help:"List volumes."`
	Show    VolumeShowCmd    `cmd:"" help:"Show a volume."`
	Create  VolumeCreateCmd  `cmd:"" help:"Create an empty volume."`
	Import  VolumeImportCmd  `cmd:"" help:"Create a volume from a disk image: raw, also packed with gzip, xz or zstd, qcow2, VMDK, VHD or VHDX."`
	Export  VolumeExportCmd  `cmd:"" help:"Write a volume to a file, raw or as qcow2, as it is at that moment; its machine may run meanwhile."`
	Space   VolumeSpaceCmd   `cmd:"" help:"Show the room for volumes, and how long it lasts."`
	Uploads VolumeUploadsCmd `cmd:"" help:"List images that are being sent, and drop or finish them."`
	Attach  VolumeAttachCmd  `cmd:"" help:"Make a volume of a block device of the appliance, as it is."`
	Set     VolumeSetCmd     `cmd:"" help:"Change a volume."`

	Clone    VolumeCloneCmd    `cmd:"" help:"Make a writable copy of a golden volume or of a snapshot."`
	Freeze   VolumeFreezeCmd   `cmd:"" help:"Make a volume golden: it never changes again, and others are cloned from it."`
	Snapshot VolumeSnapshotCmd `cmd:"" help:"Keep what a volume holds now under a name; list or remove what was kept."`
	Rollback VolumeRollbackCmd `cmd:"" help:"Bring a snapshot back, or another version of a golden volume."`
	Promote  VolumePromoteCmd  `cmd:"" help:"Make what a clone holds the next version of its golden volume."`
	Versions VolumeVersionsCmd `cmd:"" help:"List the versions of a golden volume, note something, remove one."`
	Flatten  VolumeFlattenCmd  `cmd:"" help:"Make a clone stand alone, while its machine runs."`
	Check    VolumeCheckCmd    `cmd:"" help:"Read the maps of a volume's layers and name what is damaged."`

	Resize VolumeResizeCmd `cmd:"" help:"Grow a volume."`
	Remove VolumeRemoveCmd `cmd:"" help:"Remove a volume and its bytes."`
}

func printVolume(c *Context, v store.Volume, more ...string) {
	c.facts(append([]string{"Name", v.Name, "Id", strconv.FormatInt(int64(v.ID), 10), "Kind", string(v.Kind),
		"Size", fmt.Sprintf("%s (%d blocks of %d bytes)", store.Bytes(v.Size), v.Blocks(), v.BlockSize), "State", volumeState(v),
		"Read-only", yes(v.ReadOnly, "yes"), "Shared", yes(v.Shared, "yes"), "Sanitize", yes(v.Sanitize, "yes"), "UUID", v.UUID.String(), "Direct", yes(v.Direct, "yes"), "Device", deviceOf(v), "Imported from", v.From, "Created", when(v.Created)}, more...)...)
}

func deviceOf(v store.Volume) string {
	if v.Kind != store.VolumeDevice {
		return ""
	}
	return v.Path
}

func volumeState(v store.Volume) string {
	switch v.State {
	case store.VolumeImporting:
		return fmt.Sprintf("importing %d %%", v.Progress)
	case store.VolumeFailed:
		return "failed: " + v.Reason
	}
	return string(v.State)
}

// VolumeListCmd lists volumes.
type VolumeListCmd struct{ listFlags }

// Run lists volumes.
func (l *VolumeListCmd) Run(c *Context) error {
	var out list[struct {
		store.Volume
		Used int64 `json:"used"`
	}]
	if err := c.Client.Do(c, "GET", "/volumes"+l.query(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, line := range out.Items {
			v, takes := line.Volume, ""
			if line.Used >= 0 {
				takes = store.Bytes(line.Used)
			}
			rows = append(rows, []string{strconv.FormatInt(int64(v.ID), 10), v.Name, string(v.Kind), store.Bytes(v.Size), takes, strconv.Itoa(v.BlockSize), volumeState(v), access(v), yes(v.Shared, "shared"), origin(v)})
		}
		c.table("ID NAME KIND SIZE TAKES BLOCK STATE ACCESS SHARED FROM", rows)
	})
}

// VolumeShowCmd shows a volume.
type VolumeShowCmd struct {
	Volume string `arg:"" help:"Id or name."`
}

// Run shows a volume.
func (s *VolumeShowCmd) Run(c *Context) error {
	var v store.VolumeDetail
	if err := c.Client.Do(c, "GET", "/volumes/"+esc(s.Volume), nil, &v); err != nil {
		return err
	}
	if v.State != store.VolumeReady {
		return c.show(v, func() { printDetail(c, v) })
	}
	shown := struct {
		store.VolumeDetail
		Preflight *store.Preflight `json:"preflight,omitempty"`
		Trouble   string           `json:"trouble,omitempty"` // why nobody can look into it
	}{VolumeDetail: v, Preflight: &store.Preflight{}}
	var refused *refusal
	switch err := c.Client.Do(c, "GET", "/volumes/"+esc(s.Volume)+"/preflight", nil, shown.Preflight); {
	case errors.As(err, &refused): // who asks for a volume that is ill wants to know the rest all the more
		shown.Preflight, shown.Trouble = nil, err.Error()
	case err != nil:
		return err
	}
	return c.show(shown, func() {
		p := shown.Preflight
		if p == nil {
			printDetail(c, v, "Trouble", shown.Trouble)
			return
		}
		printDetail(c, v, "Holds", p.Summary, "Boots on BIOS", bootable(p.BIOS), "Boots on UEFI", bootable(p.UEFI))
	})
}

func bootable(b store.Bootable) string {
	if b.OK {
		return "yes"
	}
	return "no, it " + b.Why
}

// VolumeCreateCmd creates an empty volume.
type VolumeCreateCmd struct {
	Volume    string `arg:"" help:"Name."`
	Size      string `required:"" help:"Size, such as 8G."`
	BlockSize int    `name:"block-size" help:"Bytes in a logical block: 512 (default) or 4096. Only 512 boots on BIOS."`
	ReadOnly  bool   `name:"read-only" help:"Nobody writes to it."`
	Shared    bool   `help:"Several machines may write to it."`
}

// Run creates an empty volume.
func (v *VolumeCreateCmd) Run(c *Context) error {
	size, err := store.ParseBytes(v.Size)
	if err != nil {
		return err
	}
	var out store.Volume
	in := map[string]any{"name": v.Volume, "size": size, "block_size": v.BlockSize, "read_only": v.ReadOnly, "shared": v.Shared}
	if err := c.Client.Do(c, "POST", "/volumes", in, &out); err != nil {
		return err
	}
	return c.show(out, func() { c.say("created volume %s, %s", out.Name, store.Bytes(out.Size)) })
}

// VolumeImportCmd imports an image.
type VolumeImportCmd struct {
	Volume    string `arg:"" help:"Name of the new volume."`
	File      string `arg:"" help:"The image: raw, also packed with gzip, xz or zstd, qcow2, VMDK, VHD or VHDX."`
	Format    string `enum:"auto,raw,qcow2,vmdk,vhd,vhdx" default:"auto" help:"Format of the image: ${enum}. Its content tells it; raw takes the bytes as they are."`
	SHA256    string `name:"sha256" placeholder:"SUM" help:"SHA-256 that the file must have, in hexadecimal."`
	BlockSize int    `name:"block-size" help:"Bytes in a logical block: 512 or 4096; the image's own by default."`
	ReadOnly  bool   `name:"read-only" help:"Nobody writes to it."`
	Shared    bool   `help:"Several machines may write to it."`
}

// Run imports an image: by its path where the appliance shares this machine's
// files and may read it, else by upload.
func (v *VolumeImportCmd) Run(c *Context) error {
	if !c.Client.Local() {
		return v.upload(c)
	}
	path, err := filepath.Abs(v.File)
	if err != nil {
		return err
	}
	var out struct {
		Volume store.Volume `json:"volume"`
		Job    store.Job    `json:"job"`
	}
	in := map[string]any{"name": v.Volume, "path": path, "format": v.Format, "sha256": v.SHA256, "block_size": v.BlockSize, "read_only": v.ReadOnly, "shared": v.Shared}
	err = c.Client.Do(c, "POST", "/volumes/import", in, &out)
	if unopened(err) {
		if st, statErr := os.Stat(path); statErr == nil && st.Mode().IsRegular() {
			return v.upload(c)
		}
	}
	if err != nil {
		return err
	}
	return v.finished(c, out.Job, "imported")
}

// lookEvery is the longest time between two looks at a job, whose progress is not
// written more often.
const lookEvery = time.Second

// waitJob follows a job to its end; an interrupt leaves it running.
func waitJob(c *Context, job store.Job) (store.Job, error) {
	for pause := 100 * time.Millisecond; job.State == store.JobRunning; pause = min(2*pause, lookEvery) {
		select {
		case <-c.Done():
			return job, fmt.Errorf("%s goes on as job %d: %w", job.Kind, job.ID, c.Err())
		case <-time.After(pause):
		}
		c.progressOf(job)
		// It alone, since each of those on many machines says something of each of them.
		var now store.Job
		if err := c.Client.Do(c, "GET", "/jobs/"+strconv.FormatInt(job.ID, 10), nil, &now); err != nil {
			return job, err
		}
		job = now
	}
	return job, nil
}

// endJob follows a job to its end; one that does not end well is an error.
func endJob(c *Context, job store.Job) (store.Job, error) {
	job, err := waitJob(c, job)
	if err == nil {
		err = endedWell(job)
	}
	return job, err
}

// endedWell is the error of a job that ended otherwise than done.
func endedWell(job store.Job) error {
	switch {
	case job.State == store.JobDone:
		return nil
	case job.Error == "":
		return fmt.Errorf("job %d: %s", job.ID, job.State)
	}
	return fmt.Errorf("job %d: %s", job.ID, job.Error)
}

// VolumeSetCmd changes a volume.
type VolumeSetCmd struct {
	Volume   string  `arg:"" help:"Id or name."`
	Name     *string `help:"New name."`
	Shared   *bool   `negatable:"" help:"Several machines may write to it."`
	ReadOnly *bool   `name:"read-only" negatable:"" help:"Nobody writes to it."`
	Reset    *bool   `name:"reset-at-boot" negatable:"" help:"A clone begins anew at each boot of its machine."`
	Volatile *bool   `negatable:"" help:"With --reset-at-boot, from the next boot on: nobody waits for the disk, and what it holds is discarded after a crash of the appliance's machine."`
	Sanitize *bool   `negatable:"" help:"A machine that has it writable may wipe it with the SCSI command SANITIZE; never a shared or read-only volume."`
	ifSeen
}

// Run changes a volume.
func (s *VolumeSetCmd) Run(c *Context) error {
	b := map[string]any{}
	if s.Name != nil {
		b["name"] = *s.Name
	}
	if s.Shared != nil {
		b["shared"] = *s.Shared
	}
	if s.ReadOnly != nil {
		b["read_only"] = *s.ReadOnly
	}
	if s.Reset != nil {
		b["reset_at_boot"] = *s.Reset
	}
	if s.Volatile != nil {
		b["volatile"] = *s.Volatile
	}
	if s.Sanitize != nil {
		b["sanitize"] = *s.Sanitize
	}
	if len(b) == 0 {
		return usage("nothing to change; name at least one flag, such as --shared")
	}
	var v store.Volume
	if err := c.change("PATCH", "/volumes/"+esc(s.Volume), "", s.tag(), b, &v); err != nil {
		return err
	}
	return c.show(v, func() { printVolume(c, v) })
}

// VolumeResizeCmd grows a volume.
type VolumeResizeCmd struct {
	Volume string `arg:"" help:"Id or name."`
	Size   string `arg:"" help:"New size, such as 16G."`
	ifSeen
}

// Run grows a volume.
func (r *VolumeResizeCmd) Run(c *Context) error {
	size, err := store.ParseBytes(r.Size)
	if err != nil {
		return err
	}
	var v store.Volume
	if err := c.change("PATCH", "/volumes/"+esc(r.Volume), "", r.tag(), map[string]int64{"size": size}, &v); err != nil {
		return err
	}
	return c.show(v, func() { c.say("volume %s has %s now", v.Name, store.Bytes(v.Size)) })
}

// VolumeRemoveCmd removes a volume.
type VolumeRemoveCmd struct {
	Volume string `arg:"" help:"Id or name."`
	ifSeen
}

// Run removes a volume.
func (r *VolumeRemoveCmd) Run(c *Context) error {
	if err := c.change("DELETE", "/volumes/"+esc(r.Volume), "", r.tag(), nil, nil); err != nil {
		return err
	}
	c.say("removed volume %s", r.Volume)
	return nil
}
