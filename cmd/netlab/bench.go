package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/load"
)

// benchCmd measures the target beside tgt, on loopback.
type benchCmd struct {
	Binary string        `default:"bin/lunboot" help:"The lunboot to measure." type:"path"`
	Rounds int           `default:"3" help:"Rounds of each load; medians are told."`
	Time   time.Duration `default:"3s" help:"How long each load runs."`
	Only   string        `help:"Only loads whose name has this in it."`
	Size   int64         `default:"1024" help:"MiB of the volume, which stays in the page cache."`
}

const benchInitiator = "iqn.2026-11.netlab:load"

// benchNames is how many initiator names the loads use.
const benchNames = 256 / load.SessionsPerName

// Run measures and prints.
func (b *benchCmd) Run(w *world) (err error) {
	dir, err := os.MkdirTemp("", "netlab-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	image := filepath.Join(dir, "image")
	if err := noise(image, b.Size<<20); err != nil {
		return err
	}
	ours, err := b.startLunboot(w, dir, image)
	if err != nil {
		return err
	}
	defer ours.stop()
	sides := []load.Side{ours.side}
	if _, missing := exec.LookPath("tgtd"); missing != nil {
		fmt.Fprintln(w.err, "netlab: tgt is not installed (apt-get install tgt): lunboot is measured alone")
	} else {
		peer, err := startTgt(w.ctx, dir, image)
		if err != nil {
			return err
		}
		defer peer.stop()
		sides = append(sides, peer.side)
	}
	if err := warm(filepath.Join(dir, "data", "volumes"), dir); err != nil {
		return err
	}
	var rows []load.Measured
	for _, row := range load.Rows(b.Time) {
		if !strings.Contains(row.Name, b.Only) {
			continue
		}
		row.Load.Initiator, row.Load.Span = benchInitiator, b.Size<<20
		fmt.Fprintln(w.err, "netlab:", row.Name)
		m, err := load.Measure(row, sides, b.Rounds)
		if err != nil {
			return err
		}
		rows = append(rows, m)
		if w.ctx.Err() != nil {
			return w.ctx.Err()
		}
	}
	if err := load.Print(w.out, sides, rows); err != nil {
		return err
	}
	for _, m := range rows {
		for _, s := range m.Below() {
			fmt.Fprintln(w.out, "below its goal:", s)
		}
	}
	return nil
}

// noise makes a file that no target can compress or leave out.
func noise(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size)
	return errors.Join(err, f.Close())
}

// warm reads what the targets serve, so that the page cache holds it: an import
// leaves its file cold.
func warm(dirs ...string) error {
	for _, dir := range dirs {
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			return err
		}
		for _, name := range names {
			st, err := os.Stat(name)
			if err != nil || !st.Mode().IsRegular() {
				continue
			}
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, f)
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
		}
	}
	return nil
}

// benched is a target's process.
type benched struct {
	side    load.Side
	process *lab.Process
}

func (b *benched) stop() { _ = b.process.Stop(20 * time.Second) } // its folder goes next

// freePort asks for a port on loopback that nobody has.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func awaitPort(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing listens on %s: %w", addr, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

var targetName = regexp.MustCompile(`"target":"([^"]+)"`)

// startLunboot starts an appliance whose machines share one volume, as users
// would set it up.
func (b *benchCmd) startLunboot(w *world, dir, image string) (_ *benched, err error) {
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	p, err := lab.Start(w.ctx, lab.Command{Path: b.Binary, Args: []string{
		"--data", data, "serve", "--dhcp", "off", "--admin", "127.0.0.1:0", "--boot", "127.0.0.1:0", "--tftp", "127.0.0.1:0", "--iscsi", addr, "--log-format", "json",
	}})
	if err != nil {
		return nil, fmt.Errorf("%w; make build makes bin/lunboot", err)
	}
	defer func() {
		if err != nil {
			_ = p.Stop(20 * time.Second)
		}
	}()
	if err := awaitPort(w.ctx, addr); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, p.Output())
	}
	verbs := [][]string{{"volume", "import", "bench", image}, {"volume", "set", "bench", "--shared"}}
	for k := range benchNames {
		name := fmt.Sprintf("load-%d", k)
		verbs = append(verbs,
			[]string{"machine", "add", name, "--mac", fmt.Sprintf("02:00:00:00:00:%02x", k), "--auth", "none", "--iqn", fmt.Sprintf("%s-%d", benchInitiator, k)},
			[]string{"mapping", "add", name, "bench", "--lun", "1"})
	}
	for _, v := range verbs {
		if _, err := lab.Run(w.ctx, lab.Command{Path: b.Binary, Args: append([]string{"--data", data}, v...)}); err != nil {
			return nil, err
		}
	}
	m := targetName.FindStringSubmatch(p.Output())
	if m == nil {
		return nil, fmt.Errorf("lunboot does not say its target's name:\n%s", p.Output())
	}
	return &benched{load.Side{Name: "lunboot", Target: load.Target{Portal: addr, Name: m[1], LUN: 1}, PID: p.PID()}, p}, nil
}

// startTgt starts tgt with the same bytes, in a control domain of its own.
func startTgt(ctx context.Context, dir, image string) (_ *benched, err error) {
	const name = "iqn.2026-11.netlab:tgt"
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	// The control port is a number in a socket's name, not a network port.
	control := fmt.Sprint(10000 + os.Getpid()%20000)
	if err := os.MkdirAll("/var/run/tgtd", 0o755); err != nil {
		return nil, err
	}
	p, err := lab.Start(ctx, lab.Command{Path: "tgtd", Args: []string{"-f", "-C", control, "--iscsi", "portal=" + addr}, Dir: dir})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = p.Stop(5 * time.Second)
		}
	}()
	if err := awaitPort(ctx, addr); err != nil {
		return nil, fmt.Errorf("tgt: %w\n%s", err, p.Output())
	}
	copied := image + ".tgt"
	if err := lab.CopyImage(copied, image); err != nil {
		return nil, err
	}
	for _, args := range [][]string{
		{"--mode", "target", "--op", "new", "--tid", "1", "--targetname", name},
		// Without these it answers None to whoever asks for digests.
		{"--mode", "target", "--op", "update", "--tid", "1", "--name", "HeaderDigest", "--value", "None,CRC32C"},
		{"--mode", "target", "--op", "update", "--tid", "1", "--name", "DataDigest", "--value", "None,CRC32C"},
		{"--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "--backing-store", copied, "--bstype", "rdwr"},
		{"--mode", "target", "--op", "bind", "--tid", "1", "--initiator-address", "ALL"},
	} {
		if _, err := lab.Run(ctx, lab.Command{Path: "tgtadm", Args: append([]string{"-C", control, "--lld", "iscsi"}, args...)}); err != nil {
			return nil, err
		}
	}
	return &benched{load.Side{Name: "tgt", Target: load.Target{Portal: addr, Name: name, LUN: 1}, PID: p.PID()}, p}, nil
}
