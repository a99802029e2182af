package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// MAC returns the lab's n-th MAC: locally made, in QEMU's own range.
func MAC(n byte) store.MAC { return store.MAC{0x52, 0x54, 0x00, 0x77, 0x00, n} }

// ReportURL is what a guest GETs when it is up.
func ReportURL() string {
	return "http://" + ServerAddr.String() + "/report?up=1&mac={mac}"
}

// Disk is a disk image, made to be imported: the host's nonce is on it.
type Disk struct {
	Path  string
	Nonce area.Nonce
}

// LinuxDisk makes a Linux disk with a nonce of its own. Its guest does what the
// mode says, count times where that counts, and reports when it is up.
func (l *Lab) LinuxDisk(ctx context.Context, name string, mode area.Mode, count int) (Disk, error) {
	image, err := LinuxImage(ctx)
	if err != nil {
		return Disk{}, err
	}
	d := Disk{filepath.Join(l.Dir, name+".img"), area.NewNonce()}
	if err := CopyImage(d.Path, image); err != nil {
		return Disk{}, err
	}
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return Disk{}, err
	}
	err = area.Stamp(f, area.Control{Nonce: d.Nonce, Mode: mode, Count: count, Report: ReportURL()})
	return d, errors.Join(err, f.Close())
}

// SectorDisk makes a boot-sector disk with a nonce of its own.
func (l *Lab) SectorDisk(name string, mode area.Mode) (Disk, error) {
	d := Disk{filepath.Join(l.Dir, name+".img"), area.NewNonce()}
	return d, BuildBootSector(d.Path, d.Nonce, mode)
}

// Client is a machine that the appliance knows, with a volume to boot from.
type Client struct {
	Machine   Machine
	Volume    string
	LUN       store.LUN
	Nonce     area.Nonce
	Appliance *Appliance
	lab       *Lab
	file      string // the volume's raw file, once it is known
}

// NewClient is a client that the appliance does not know yet.
func (l *Lab) NewClient(a *Appliance, m Machine, lun store.LUN, d Disk) *Client {
	return &Client{Machine: m, Volume: m.Name + "-disk", LUN: lun, Nonce: d.Nonce, Appliance: a, lab: l}
}

// Enroll does what an operator does, on the command line: import the disk as a
// volume, add the machine, map the volume to it as the LUN that it boots. The
// flags are for machine add.
func (l *Lab) Enroll(ctx context.Context, a *Appliance, m Machine, lun store.LUN, d Disk, flags ...string) (*Client, error) {
	c := l.NewClient(a, m, lun, d)
	for _, verb := range [][]string{
		{"volume", "import", c.Volume, d.Path},
		append([]string{"machine", "add", m.Name, "--mac", m.MAC.String(), "--uuid", m.UUID.String()}, flags...),
		{"mapping", "add", m.Name, c.Volume, "--lun", fmt.Sprint(lun), "--boot"},
	} {
		if _, err := a.CLI(ctx, verb...); err != nil {
			return nil, err
		}
	}
	return c, c.FindVolume(ctx)
}

// FindVolume asks the appliance for the file that holds the client's volume.
func (c *Client) FindVolume(ctx context.Context) (err error) {
	c.file, err = c.Appliance.VolumeFile(ctx, c.Volume)
	return err
}

// PowerOn switches the client's machine on.
func (c *Client) PowerOn(ctx context.Context) (*Running, error) {
	return c.lab.PowerOn(ctx, c.Machine)
}

// read opens the volume's raw file and lets check look at it. It works while
// the appliance is down, too.
func (c *Client) read(check func(*os.File) error) error {
	f, err := os.Open(c.file)
	if err != nil {
		return err
	}
	defer f.Close()
	return check(f)
}

// CheckLinux reads the volume's raw file: the guest's pattern must be in it,
// byte for byte, and its root file system whole.
func (c *Client) CheckLinux(ctx context.Context) error {
	return c.read(func(f *os.File) error {
		if err := area.CheckPattern(f, c.Nonce); err != nil {
			return err
		}
		return CheckRoot(ctx, f, c.lab.Dir)
	})
}

// CheckSector reads the volume's raw file: the boot sector's answer must be in
// it.
func (c *Client) CheckSector() error {
	return c.read(func(f *os.File) error { return CheckBootSector(f, c.Nonce) })
}

// CheckRecords reads the volume's raw file: every record up to the last one
// that the guest called flushed must be in it.
func (c *Client) CheckRecords(last uint64) error {
	return c.read(func(f *os.File) error { return area.CheckRecords(f, c.Nonce, last) })
}

// Up is a guest's word that it runs from its volume.
type Up struct {
	At    time.Duration     // since power-on
	Facts map[string]string // nonce, lun, vpd83, size, hostname, ip, mac, root, uuid
}

// WaitUp waits for the guest's first marker and checks that it speaks of this
// client's volume: the nonce is the one that was hidden on it, and, where the
// guest knows, the LUN is the one that was mapped.
func (c *Client) WaitUp(ctx context.Context, r *Running) (Up, error) {
	m, err := r.waitMark(ctx, area.MarkUp)
	if err != nil {
		return Up{}, err
	}
	up := Up{At: m.At, Facts: map[string]string{}}
	for field := range strings.FieldsSeq(m.Groups[2]) {
		key, value, _ := strings.Cut(field, "=")
		up.Facts[key] = value
	}
	if got := up.Facts["nonce"]; got != c.Nonce.String() {
		return up, fmt.Errorf("%s booted from another disk than its volume: it read the nonce %s, %s was hidden there", c.Machine.Name, got, c.Nonce)
	}
	if got, said := up.Facts["lun"]; said && got != fmt.Sprint(c.LUN) {
		return up, fmt.Errorf("%s runs from LUN %s, its volume is mapped as LUN %d", c.Machine.Name, got, c.LUN)
	}
	return up, nil
}

// WaitWrote waits until the guest says that its write is flushed and read back.
func (r *Running) WaitWrote(ctx context.Context) (time.Duration, error) {
	m, err := r.waitMark(ctx, area.MarkWrote)
	return m.At, err
}

// waitMark waits for a whole line that begins with the mark; one that begins
// with the guest's mark of failure is an error.
func (r *Running) waitMark(ctx context.Context, mark string) (Match, error) {
	m, err := r.Console.WaitFor(ctx, `^(?:(`+mark+`|`+area.MarkFail+`) ?(.*)\n|No bootable device|BdsDxe: No bootable option)`)
	if err != nil {
		return m, fmt.Errorf("%s: %w", r.Machine.Name, err)
	}
	if m.Groups[1] == "" {
		return m, fmt.Errorf("%s found nothing to boot after %.1f s; its console's last lines:\n%s", r.Machine.Name, m.At.Seconds(), r.Console.Tail(15))
	}
	if m.Groups[1] == area.MarkFail {
		return m, fmt.Errorf("%s after %.1f s: %s", r.Machine.Name, m.At.Seconds(), m.Groups[2])
	}
	return m, nil
}

// WaitTick waits for the next read of a guest that holds.
func (r *Running) WaitTick(ctx context.Context) error {
	if _, err := r.Console.WaitFor(ctx, `^`+area.MarkTick+`\b`); err != nil {
		return fmt.Errorf("%s reads no more: %w", r.Machine.Name, err)
	}
	return nil
}

// LastRecord is the highest number that the guest printed as flushed.
func (r *Running) LastRecord() uint64 {
	var n uint64
	if found := r.Console.Find(`^` + area.MarkRecord + ` (\d+)\n`); found != nil {
		fmt.Sscan(found[1], &n)
	}
	return n
}

// WaitRecord waits until the guest has flushed a record of at least that
// number.
func (r *Running) WaitRecord(ctx context.Context, n uint64) error {
	for r.LastRecord() < n {
		if _, err := r.waitMark(ctx, area.MarkRecord); err != nil {
			return err
		}
	}
	return nil
}
