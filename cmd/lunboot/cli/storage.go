package cli

import (
	"fmt"

	"lunboot/store"
)

// VolumeAttachCmd makes a volume of a block device.
type VolumeAttachCmd struct {
	Volume    string `arg:"" help:"Name of the new volume."`
	Device    string `arg:"" help:"Block device of the appliance, such as /dev/vg0/lab-01. Its bytes stay as they are."`
	BlockSize int    `name:"block-size" help:"Bytes in a logical block: 512 or 4096; the device's own by default."`
	ReadOnly  bool   `name:"read-only" help:"Nobody writes to it."`
	Shared    bool   `help:"Several machines may write to it."`
	Direct    bool   `help:"Past the page cache (O_DIRECT): writes wait for the disk, and other volumes keep the memory."`
}

// Run attaches a device.
func (a *VolumeAttachCmd) Run(c *Context) error {
	var v store.Volume
	in := map[string]any{"name": a.Volume, "path": a.Device, "block_size": a.BlockSize, "read_only": a.ReadOnly, "shared": a.Shared, "direct": a.Direct}
	if err := c.Client.Do(c, "POST", "/volumes/attach", in, &v); err != nil {
		return err
	}
	return c.show(v, func() { c.say("attached %s as volume %s, %s", v.Path, v.Name, store.Bytes(v.Size)) })
}

// VolumeSpaceCmd shows the room for volumes.
type VolumeSpaceCmd struct{}

// Run shows the room.
func (*VolumeSpaceCmd) Run(c *Context) error {
	var s struct {
		store.Space
		Promised int64  `json:"promised"`
		Forecast string `json:"forecast,omitempty"`
		Warning  string `json:"warning,omitempty"`
	}
	if err := c.Client.Do(c, "GET", "/space", nil, &s); err != nil {
		return err
	}
	return c.show(s, func() {
		forecast := s.Forecast
		if forecast == "" {
			forecast = "none: it does not shrink, or was not watched for long enough"
		}
		c.facts("File system", store.Bytes(s.Size), "Free", store.Bytes(s.Free), "Volumes take", store.Bytes(s.Used), "Machines see", store.Bytes(s.Virtual),
			"May still take", fmt.Sprintf("%s%s", store.Bytes(s.Promised), yes(s.Overcommitted(), ", which is more than is free")), "Forecast", forecast, "Warning", s.Warning)
	})
}
