package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/load"
	"lunboot/cmd/netlab/load/dhcp"
	"lunboot/cmd/netlab/load/rounds"
)

// The network that each DHCP server has on its own loopback, with a relay agent
// and its clients on the same host.
var (
	dhcpServer = netip.MustParseAddrPort("10.99.0.1:67")
	dhcpRelay  = netip.MustParseAddrPort("10.99.0.2:67")
)

const (
	dhcpPrefix = 16
	dhcpFrom   = "10.99.1.0"
	dhcpTo     = "10.99.200.255"
	// dhcpClients is how many MACs there are; a lab and all that it ever saw.
	dhcpClients = 20000
	// dhcpTimeout is when a client asks again (RFC 2131 §4.1: four seconds), and
	// here an answer that takes longer has failed.
	dhcpTimeout = 4 * time.Second
)

// onLoopback makes a command that has the addresses of a DHCP network first.
func onLoopback(c lab.Command) lab.Command {
	script := fmt.Sprintf(`ip addr add %s/%d dev lo; ip addr add %s/32 dev lo; exec "$@"`, dhcpServer.Addr(), dhcpPrefix, dhcpRelay.Addr())
	c.Args = append([]string{"-euc", script, "sh", c.Path}, c.Args...)
	c.Path = "/bin/sh"
	return c
}

// The columns of the DHCP table.
const (
	dhcpRate = iota
	dhcpP50
	dhcpP99
	dhcpCPU
	dhcpOwn
	dhcpFailed
)

// disk is the side that shows what the disk allows: one write after the other,
// each on the disk before the next.
const disk = "fdatasync"

// dhcp measures DHCP beside Kea and dnsmasq.
func (b *benchCmd) dhcp(w *world) (below []string, err error) {
	dir, err := os.MkdirTemp("", "netlab-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ours, err := b.lunboot(dir, "--dhcp", "full", "--interface", "lo", "--dhcp-range", dhcpFrom+"-"+dhcpTo, "--dhcp-force",
		"--admin", "127.0.0.1:0", "--boot", "127.0.0.1:0", "--tftp", "127.0.0.1:0", "--iscsi", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	rivals := []*rival{ours}
	for _, peer := range []struct {
		binary, pkg string
		setUp       func(dir string) (*rival, error)
	}{{"kea-dhcp4", "kea-dhcp4-server", keaServer}, {"dnsmasq", "dnsmasq-base", dnsmasqServer}} {
		if _, err := exec.LookPath(peer.binary); err != nil {
			fmt.Fprintf(w.err, "netlab: %s is not installed (apt-get install %s): it is left out\n", peer.binary, peer.pkg)
			continue
		}
		r, err := peer.setUp(dir)
		if err != nil {
			return nil, err
		}
		rivals = append(rivals, r)
	}
	for _, r := range rivals {
		r.command = onLoopback(r.command)
		r.ready = answersDHCP
	}
	stop, err := startRivals(w.ctx, rivals)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	// A server that has nothing on file has it easy: dnsmasq writes all its leases
	// anew with each one.
	for _, r := range rivals {
		if _, err := r.ask(w.ctx, dhcp.Load{Flight: 16, Count: b.Leases}); err != nil {
			return nil, fmt.Errorf("%s, its first leases: %w", r.name, err)
		}
	}
	return b.compare(w, b.dhcpTable(rivals, dir))
}

// answersDHCP waits until somebody gives an address. The relay's port is left
// alone until the server has its own: lunboot does not share it.
func answersDHCP(ctx context.Context) error {
	for {
		held, err := os.ReadFile("/proc/thread-self/net/udp")
		if err != nil {
			return err
		}
		if bytes.Contains(held, []byte(":0043 ")) { // port 67
			break
		}
		if ctx.Err() != nil {
			return fmt.Errorf("nobody listens on UDP port 67: %w", ctx.Err())
		}
		time.Sleep(50 * time.Millisecond)
	}
	for {
		r, err := dhcp.Run(ctx, dhcp.Load{Server: dhcpServer, Relay: dhcpRelay, Clients: 1, Flight: 1, Count: 1, Timeout: 200 * time.Millisecond})
		if err == nil && r.Done == 1 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no address is given: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// asked is what a load came to, with the CPU time of the server.
type asked struct {
	dhcp.Result
	cpu time.Duration
}

// ask runs a load in a rival's network.
func (r *rival) ask(ctx context.Context, l dhcp.Load) (a asked, err error) {
	l.Server, l.Relay, l.Clients, l.Timeout, l.PXE = dhcpServer, dhcpRelay, dhcpClients, dhcpTimeout, true
	before, err := rounds.CPUTime(r.process.PID())
	if err != nil {
		return a, err
	}
	err = r.ns.Do(func() error {
		a.Result, err = dhcp.Run(ctx, l)
		return err
	})
	after, failed := rounds.CPUTime(r.process.PID())
	a.cpu = after - before
	return a, errors.Join(err, failed)
}

// dhcpTable is what is measured, with the goals.
func (b *benchCmd) dhcpTable(rivals []*rival, dir string) *rounds.Table {
	t := &rounds.Table{Columns: []rounds.Column{
		{Name: "exchanges/s", Format: "%.0f"}, {Name: "p50 ms", Format: "%.2f", Less: true}, {Name: "p99 ms", Format: "%.2f", Less: true},
		{Name: "CPU µs", Format: "%.0f", Less: true}, {Name: "meter's CPU µs", Format: "%.0f", Less: true}, {Name: "failed", Format: "%.0f", Less: true},
	}}
	for _, r := range rivals {
		t.Sides = append(t.Sides, r.name)
	}
	t.Sides = append(t.Sides, disk)
	row := func(name string, l dhcp.Load, goals ...rounds.Goal) {
		l.Time = b.Time
		t.Rows = append(t.Rows, &rounds.Row{Name: name, Goals: goals, Do: func(ctx context.Context, side int) (rounds.Figures, error) {
			if side == len(rivals) {
				if l.Flight > 1 || l.Offers { // one fsync serves many
					return unknownFigures(), nil
				}
				return syncs(dir, b.Time)
			}
			a, err := rivals[side].ask(ctx, l)
			if err != nil {
				return nil, err
			}
			per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(max(a.Done, 1)) }
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			return rounds.Figures{float64(a.Done) / a.Seconds, ms(a.P50), ms(a.P99), per(a.cpu), per(a.Own), float64(a.Failures())}, nil
		}})
	}
	none := rounds.Goal{Column: dhcpFailed, Want: 0}
	row("a lease, 1 in flight", dhcp.Load{Flight: 1}, rounds.Goal{Column: dhcpRate, Of: disk, Want: 0.5}, none)
	row("a lease, 16 in flight", dhcp.Load{Flight: 16}, rounds.Goal{Column: dhcpRate, Of: "dnsmasq", Want: 10}, none)
	row("a lease, 64 in flight", dhcp.Load{Flight: 64}, rounds.Goal{Column: dhcpRate, Of: "dnsmasq", Want: 10},
		rounds.Goal{Column: dhcpRate, Of: "kea", Want: 0.7}, rounds.Goal{Column: dhcpP99, Want: 20}, none)
	row("an offer, 16 in flight", dhcp.Load{Flight: 16, Offers: true}, none)
	return t
}

func unknownFigures() rounds.Figures {
	n := math.NaN()
	return rounds.Figures{n, n, n, n, n, n}
}

// syncs measures how often the disk under dir takes 4 KiB for good.
func syncs(dir string, d time.Duration) (_ rounds.Figures, err error) {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	var lat load.Latencies
	b := make([]byte, 4<<10)
	start := time.Now()
	for at := start; time.Since(start) < d; at = time.Now() {
		if _, err := f.Write(b); err != nil {
			return nil, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return nil, fmt.Errorf("fdatasync: %w", err)
		}
		lat.Add(time.Since(at))
	}
	out := unknownFigures()
	out[dhcpRate] = float64(lat.Count()) / time.Since(start).Seconds()
	out[dhcpP50], out[dhcpP99] = float64(lat.Quantile(0.5).Microseconds())/1000, float64(lat.Quantile(0.99).Microseconds())/1000
	return out, nil
}

// keaServer is Kea with its memfile, which it writes and does not sync, and as
// many threads as there are processors here.
func keaServer(dir string) (*rival, error) {
	home := filepath.Join(dir, "kea")
	if err := os.Mkdir(home, 0o755); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`{"Dhcp4": {
	"interfaces-config": {"interfaces": ["lo/%s"], "dhcp-socket-type": "udp"},
	"lease-database": {"type": "memfile", "persist": true, "name": "%s/leases.csv", "lfc-interval": 0},
	"multi-threading": {"enable-multi-threading": true, "thread-pool-size": 2},
	"valid-lifetime": 14400, "authoritative": true,
	"subnet4": [{"subnet": "%s", "pools": [{"pool": "%s - %s"}], "boot-file-name": "ipxe.efi", "next-server": "%[1]s"}],
	"loggers": [{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{"output": "stdout"}]}]
}}
`, dhcpServer.Addr(), home, netip.PrefixFrom(dhcpServer.Addr(), dhcpPrefix).Masked(), dhcpFrom, dhcpTo)
	file := filepath.Join(home, "kea.conf")
	return &rival{name: "kea", command: lab.Command{Path: "kea-dhcp4", Args: []string{"-c", file},
		Env: []string{"KEA_PIDFILE_DIR=" + home, "KEA_LOCKFILE_DIR=" + home}}}, os.WriteFile(file, []byte(conf), 0o644)
}

// dnsmasqServer is dnsmasq as it gives addresses and a loader's name.
func dnsmasqServer(dir string) (*rival, error) {
	home := filepath.Join(dir, "dnsmasq")
	if err := os.Mkdir(home, 0o755); err != nil {
		return nil, err
	}
	conf := strings.Join([]string{
		"port=0", "interface=lo", "bind-interfaces", "user=root", "no-ping", "dhcp-authoritative", "quiet-dhcp", "dhcp-option=3", "dhcp-lease-max=60000",
		fmt.Sprintf("dhcp-range=%s,%s,255.255.0.0,4h", dhcpFrom, dhcpTo),
		fmt.Sprintf("dhcp-boot=ipxe.efi,boot,%s", dhcpServer.Addr()), "dhcp-leasefile=" + filepath.Join(home, "leases"), "",
	}, "\n")
	file := filepath.Join(home, "dnsmasq.conf")
	return &rival{name: "dnsmasq", command: lab.Command{Path: "dnsmasq", Args: []string{"-k", "-C", file, "-x", filepath.Join(home, "pid")}}},
		os.WriteFile(file, []byte(conf), 0o644)
}
