package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/cmd/netlab/load/trace"
	"lunboot/store"
)

// traceCmd records what bench storm replays.
type traceCmd struct {
	File     string        `arg:"" help:"File to write. Bench storm replays it with --trace."`
	Firmware string        `enum:"bios,uefi" default:"bios" help:"The machine's firmware: ${enum}."`
	Binary   string        `placeholder:"FILE" help:"The lunboot to boot from (default: built from this source tree)."`
	Limit    time.Duration `default:"5m" help:"Give up after this long."`
}

// behind is where the appliance's portal is, on loopback in its own network: the
// recorder has the address that the script names.
const behind = "127.0.0.1:3260"

// Run boots the lab's Linux machine once, with a recorder between it and the
// appliance's portal.
func (c traceCmd) Run(w *world) (err error) {
	ctx, cancel := context.WithTimeoutCause(w.ctx, c.Limit, fmt.Errorf("the boot took longer than %v (see --limit)", c.Limit))
	defer cancel()
	l, err := lab.New(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if c.Binary == "" {
		if c.Binary, err = lab.BuildAppliance(ctx, l.Dir); err != nil {
			return err
		}
	}
	firmware := lab.Firmware(strings.ToUpper(c.Firmware))
	t, other, err := record(ctx, l, c.Binary, firmware)
	if err != nil {
		return err
	}
	t.About = []string{
		fmt.Sprintf("What a %s machine of the lab asked of its volume, from the firmware's login until it", firmware),
		"switched itself off: iPXE, GRUB, Linux, an ext4 root, 256 KiB written, flushed and read back.",
		"Made by: netlab trace --firmware " + c.Firmware + " FILE. The times have an emulated processor in them.",
		fmt.Sprintf("Left out: %d commands that move no blocks, such as INQUIRY and TEST UNIT READY.", other),
	}
	var b bytes.Buffer
	if err := t.Encode(&b); err != nil {
		return err
	}
	if err := os.WriteFile(c.File, b.Bytes(), 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w.out, "%s: %s\n", c.File, t.Sum())
	return err
}

// record boots a machine and returns what it asked for.
func record(ctx context.Context, l *lab.Lab, binary string, firmware lab.Firmware) (t *trace.Trace, other int, err error) {
	a, err := l.StartAppliance(ctx, binary, nil, append(lab.DefaultFlags(), "--iscsi", behind)...)
	if err != nil {
		return nil, 0, err
	}
	ns := lab.Namespace{Name: l.Network.Server}
	var listener net.Listener
	err = ns.Do(func() (err error) {
		var config net.ListenConfig
		listener, err = config.Listen(ctx, "tcp", net.JoinHostPort(lab.ServerAddr.String(), "3260"))
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	r := &trace.Recorder{Dial: func(ctx context.Context) (c net.Conn, err error) {
		err = ns.Do(func() error {
			var d net.Dialer
			c, err = d.DialContext(ctx, "tcp", behind)
			return err
		})
		return c, err
	}}
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- r.Serve(serving, listener) }()
	defer func() {
		stop()
		if failed := <-done; failed != nil {
			err = errors.Join(err, failed)
		}
	}()
	m := lab.Machine{Name: "trace", Firmware: firmware, MAC: lab.MAC(10), UUID: store.NewUUID()}
	d, err := l.LinuxDisk(ctx, m.Name, area.PowerOff, 0)
	if err != nil {
		return nil, 0, err
	}
	client, err := l.Enroll(ctx, a, m, 2, d)
	if err != nil {
		return nil, 0, err
	}
	running, err := client.PowerOn(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer running.Kill()
	if _, err := client.WaitUp(ctx, running); err != nil {
		return nil, 0, err
	}
	if err := errors.Join(running.Wait(ctx), client.CheckLinux(ctx)); err != nil {
		return nil, 0, err
	}
	return r.Trace(area.DiskSize, 512)
}
