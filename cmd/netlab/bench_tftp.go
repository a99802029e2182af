package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/load/rounds"
	"lunboot/cmd/netlab/load/tftp"
)

// Peers of the TFTP server.
const (
	dnsmasq = "dnsmasq"
	tftpd   = "tftpd-hpa"
)

// The loader that is fetched: as large as an iPXE with all its drivers.
const (
	tftpFile = "undionly.kpxe"
	tftpSize = 1<<20 + 1
)

var tftpAddr = netip.MustParseAddrPort("127.0.0.1:69")

// columns of the TFTP table, by place.
const (
	tftpRate = iota
	tftpP50
	tftpMax
	tftpCPU
	tftpOwn
	tftpRepeats
	tftpFailed
)

// tftp measures the TFTP server beside dnsmasq and tftpd-hpa, the clients on a
// processor of their own.
func (b *benchCmd) tftp(w *world) (below []string, err error) {
	dir, err := os.MkdirTemp("", "netlab-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := bytes.Buffer{}
	if _, err := io.CopyN(&file, rand.NewChaCha8([32]byte{2}), tftpSize); err != nil {
		return nil, err
	}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(root, tftpFile), file.Bytes(), 0o644); err != nil {
		return nil, err
	}
	rivals, err := b.tftpRivals(w, dir, root, file.Bytes())
	if err != nil {
		return nil, err
	}
	cpus, err := divide()
	if err != nil {
		return nil, err
	}
	for _, r := range rivals {
		cpus.hold(r)
	}
	stop, err := startRivals(w.ctx, rivals)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	return b.compare(w, b.tftpTable(cpus, rivals, file.Bytes()))
}

// tftpRivals are those that are installed, ours first.
func (b *benchCmd) tftpRivals(w *world, dir, root string, file []byte) ([]*rival, error) {
	ours, err := b.lunboot(dir, "--dhcp", "off", "--tftp", tftpAddr.String(), "--loaders", root)
	if err != nil {
		return nil, err
	}
	rivals := []*rival{ours}
	for _, peer := range []*rival{
		{name: dnsmasq, command: lab.Command{Path: "dnsmasq", Args: []string{"-k", "-C", "/dev/null", "--port=0", "--enable-tftp", "--tftp-root=" + root,
			"--listen-address=" + tftpAddr.Addr().String(), "--bind-interfaces", "--tftp-max=500", "--user=root", "-x", filepath.Join(dir, "dnsmasq.pid")}}},
		{name: tftpd, command: lab.Command{Path: "in.tftpd", Args: []string{"--foreground", "--address", tftpAddr.String(), "--user", "root", "--secure", root}}},
	} {
		if _, missing := exec.LookPath(peer.command.Path); missing != nil {
			fmt.Fprintf(w.err, "netlab: %s is not installed: lunboot is measured without it\n", peer.name)
			continue
		}
		rivals = append(rivals, peer)
	}
	for _, r := range rivals {
		r.ready = func(ctx context.Context) error {
			for {
				got, err := tftp.Run(tftp.Load{Server: tftpAddr, File: tftpFile, Want: file, Blksize: 1468, Clients: 1, Files: 1, Time: 5 * time.Second, Repeat: 100 * time.Millisecond})
				if err != nil || got.Files == 1 {
					return err
				}
				select {
				case <-ctx.Done():
					return fmt.Errorf("it does not answer on %s: %w", tftpAddr, errors.Join(ctx.Err(), got.Failure))
				case <-time.After(50 * time.Millisecond):
				}
			}
		}
	}
	return rivals, nil
}

// tftpTable is what is measured, and what is wanted.
func (b *benchCmd) tftpTable(cpus apart, rivals []*rival, file []byte) *rounds.Table {
	t := &rounds.Table{Columns: []rounds.Column{
		tftpRate:    {Name: "MiB/s", Format: "%.1f"},
		tftpP50:     {Name: "file p50 ms", Format: "%.0f", Less: true},
		tftpMax:     {Name: "file max ms", Format: "%.0f", Less: true},
		tftpCPU:     {Name: "CPU s/GiB", Format: "%.2f", Less: true},
		tftpOwn:     {Name: "clients' CPU s/GiB", Format: "%.2f", Less: true},
		tftpRepeats: {Name: "clients' repeats", Format: "%.0f", Less: true},
		tftpFailed:  {Name: "failed", Format: "%.0f", Less: true},
	}}
	for _, r := range rivals {
		t.Sides = append(t.Sides, r.name)
	}
	for _, row := range []struct {
		name  string
		load  tftp.Load
		goals []rounds.Goal
	}{
		{"blocks of 512, 1 client", tftp.Load{Clients: 1, Blksize: 512}, nil},
		{"blocks of 1468, 1 client", tftp.Load{Clients: 1}, []rounds.Goal{{Column: tftpRate, Of: dnsmasq, Want: 1}}},
		{"blocks of 1468, 16 clients", tftp.Load{Clients: 16}, []rounds.Goal{{Column: tftpRate, Of: dnsmasq, Want: 1}}},
		{"blocks of 1468, 64 clients", tftp.Load{Clients: 64}, []rounds.Goal{{Column: tftpRate, Of: dnsmasq, Want: 1}}},
		{"blocks of 1468, 256 clients", tftp.Load{Clients: 256}, []rounds.Goal{{Column: tftpFailed, Want: 0}}},
		{"1 % lost, 16 clients", tftp.Load{Clients: 16, Loss: 0.01, Time: 4 * b.Time}, []rounds.Goal{
			{Column: tftpRate, Of: dnsmasq, Want: 5}, {Column: tftpRate, Of: tftpd, Want: 5}, {Column: tftpFailed, Want: 0}}},
	} {
		l := row.load
		l.Server, l.File, l.Want, l.Time = tftpAddr, tftpFile, file, max(l.Time, b.Time)
		if l.Blksize == 0 {
			l.Blksize = 1468
		}
		t.Rows = append(t.Rows, &rounds.Row{Name: row.name, Goals: row.goals, Do: func(_ context.Context, side int) (f rounds.Figures, err error) {
			err = cpus.load(rivals[side], func() error { f, err = rivals[side].fetch(l); return err })
			return f, err
		}})
	}
	return t
}

// fetch puts a server under the load. It runs inside its network.
func (r *rival) fetch(l tftp.Load) (rounds.Figures, error) {
	before, err := rounds.CPUTime(r.process.PID())
	if err != nil {
		return nil, err
	}
	got, err := tftp.Run(l)
	if err != nil {
		return nil, err
	}
	if got.Files == 0 && got.Failure != nil {
		return nil, fmt.Errorf("no client has the file: %w", got.Failure)
	}
	after, err := rounds.CPUTime(r.process.PID())
	if err != nil {
		return nil, err
	}
	gib := float64(got.Bytes) / (1 << 30)
	cpu := (after - before).Seconds() / gib
	if r.name == tftpd {
		cpu = math.NaN() // a process for each transfer, which nobody asks before it ends
	}
	ms := func(d time.Duration) float64 {
		if got.Files == 0 {
			return math.NaN()
		}
		return float64(d) / 1e6
	}
	return rounds.Figures{
		tftpRate: got.MiBps(), tftpP50: ms(got.P50), tftpMax: ms(got.Max), tftpCPU: cpu, tftpOwn: got.Own.Seconds() / gib,
		tftpRepeats: float64(got.Repeats), tftpFailed: float64(got.Failed),
	}, nil
}
