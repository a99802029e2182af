package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/load/rounds"
	"lunboot/services/boot"
	"lunboot/store"
)

// scriptRuns is what the measured script prints first.
const scriptRuns = "NETLAB SCRIPT RUNS"

const scriptText = "#!ipxe\necho " + scriptRuns + "\nsleep 60\n"

// scriptLimit bounds one boot to the script; 16 s for each iPXE that waits for an
// IPv6 router, and much more for a busy machine.
const scriptLimit = 3 * time.Minute

// Sides of the boots. dnsmasq hands out what its users are told to hand out,
// and, on UEFI, also the smaller loader that the appliance prefers.
const (
	bootDnsmasq     = "dnsmasq"
	bootDnsmasqIPXE = "dnsmasq, ipxe.efi"
)

// boot measures the time from power-on until a machine runs its script.
func (b *benchCmd) boot(w *world) ([]string, error) {
	if _, err := os.Stat(b.Binary); err != nil {
		return nil, fmt.Errorf("%w; make build makes bin/lunboot", err)
	}
	t := &rounds.Table{
		Columns: []rounds.Column{{Name: "s to script", Format: "%.1f", Less: true}},
		Sides:   []string{"lunboot", bootDnsmasq, bootDnsmasqIPXE},
	}
	for _, firmware := range []lab.Firmware{lab.BIOS, lab.UEFI} {
		for _, adverts := range []bool{true, false} {
			row := &rounds.Row{Name: string(firmware), Do: func(ctx context.Context, side int) (rounds.Figures, error) {
				return b.toScript(ctx, firmware, t.Sides[side], adverts)
			}}
			switch {
			case !adverts:
				row.Name += ", nobody answers router solicitations"
			case firmware == lab.BIOS:
				row.Goals = []rounds.Goal{{Of: bootDnsmasq, Want: 0.6}}
			default:
				row.Goals = []rounds.Goal{{Of: bootDnsmasq, Want: 1}}
			}
			t.Rows = append(t.Rows, row)
		}
	}
	return b.compare(w, t)
}

// toScript boots one machine in a network of its own.
func (b *benchCmd) toScript(ctx context.Context, firmware lab.Firmware, side string, adverts bool) (_ rounds.Figures, err error) {
	if side != "lunboot" && (!adverts && side == bootDnsmasq || side == bootDnsmasqIPXE && firmware != lab.UEFI) {
		// dnsmasq answers no router solicitation in either row, and BIOS has
		// one loader.
		return rounds.Figures{math.NaN()}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, scriptLimit, fmt.Errorf("no script ran within %v", scriptLimit))
	defer cancel()
	l, err := lab.New(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	m := lab.Machine{Name: "bench", Firmware: firmware, MAC: lab.MAC(1), UUID: store.NewUUID()}
	if side == "lunboot" {
		err = b.scriptFromLunboot(ctx, l, m, adverts)
	} else {
		err = scriptFromDnsmasq(ctx, l, side == bootDnsmasqIPXE)
	}
	if err != nil {
		return nil, err
	}
	r, err := l.PowerOn(ctx, m)
	if err != nil {
		return nil, err
	}
	at, err := r.Console.WaitFor(ctx, "^"+scriptRuns)
	if err != nil {
		return nil, fmt.Errorf("%w; its console's last lines:\n%s", err, r.Console.Tail(15))
	}
	return rounds.Figures{at.At.Seconds()}, nil
}

func (b *benchCmd) scriptFromLunboot(ctx context.Context, l *lab.Lab, m lab.Machine, adverts bool) error {
	file := filepath.Join(l.Dir, "script")
	if err := os.WriteFile(file, []byte(scriptText), 0o600); err != nil {
		return err
	}
	a, err := l.StartAppliance(ctx, b.Binary, nil)
	if err != nil {
		return err
	}
	verbs := [][]string{
		{"profile", "set", "bench", "--file", file},
		{"machine", "add", m.Name, "--mac", m.MAC.String(), "--profile", "bench"},
	}
	if !adverts {
		verbs = append(verbs, []string{"setting", "set", "router-adverts", "off"})
	}
	for _, v := range verbs {
		if _, err := a.CLI(ctx, v...); err != nil {
			return err
		}
	}
	return nil
}

// scriptFromDnsmasq serves the same machine the way that dnsmasq's users do: the
// loader to firmware, the script to an iPXE, both over TFTP.
func scriptFromDnsmasq(ctx context.Context, l *lab.Lab, native bool) error {
	loader := boot.SNPOnly
	if native {
		loader = boot.IPXEEFI
	}
	root := filepath.Join(l.Dir, "tftp")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	for _, f := range []boot.Loader{boot.Undionly, loader} {
		from := "/usr/lib/ipxe/" + string(f)
		if f == boot.IPXEEFI {
			if _, err := os.Stat(from); err != nil {
				from = "/boot/ipxe.efi"
			}
		}
		if err := lab.CopyImage(filepath.Join(root, string(f)), from); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "script.ipxe"), []byte(scriptText), 0o644); err != nil {
		return err
	}
	p, err := lab.Start(ctx, lab.Command{Namespace: l.Network.Server, Path: "dnsmasq", Args: []string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--interface=" + lab.ServerInterface, "--bind-interfaces",
		"--no-ping", "--dhcp-authoritative", "--dhcp-leasefile=" + filepath.Join(l.Dir, "leases"), "--dhcp-range=10.77.0.100,10.77.0.199,1h",
		"--dhcp-match=set:ipxe,175", "--dhcp-match=set:bios,option:client-arch,0", "--enable-tftp", "--tftp-root=" + root,
		"--dhcp-boot=tag:ipxe,script.ipxe", "--dhcp-boot=tag:!ipxe,tag:bios," + string(boot.Undionly), "--dhcp-boot=tag:!ipxe,tag:!bios," + string(loader),
	}})
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
		return fmt.Errorf("dnsmasq ended: %w\n%s", p.Wait(), p.Output())
	case <-time.After(500 * time.Millisecond): // it says nothing of being ready
		return nil
	}
}
