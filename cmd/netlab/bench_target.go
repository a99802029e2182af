package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/load"
)

// starter starts a process of one of those that are measured; file is what it
// serves.
type starter struct {
	file  string
	start func(context.Context) (*benched, error)
}

// benched is such a process.
type benched struct {
	side    load.Side
	process *lab.Process
}

// stop ends it; its folder goes next. tgtd does not end when it is asked.
func (b *benched) stop() {
	if b.side.Name == load.Peer {
		b.process.Kill()
		return
	}
	_ = b.process.Stop(20 * time.Second)
}

// piece is how much of a file is written at once. A file system that keeps large
// folios in the page cache, as ext4 does from Linux 6.16 on, makes them as large
// as the write, and a 4 KiB write later looks at the whole folio: it costs 4 µs in
// a file that was written in pieces of 64 KiB and 17 µs in one of 1 MiB pieces, or
// in one that came in by a large read-ahead. So the same function writes what
// each side serves, whatever its own tools would have made of it.
const piece = 64 << 10

// lay writes a file's bytes, in pieces, and sees them to the disk: nothing is
// written back while a load runs. What the page cache held of it before is
// dropped.
func lay(path string, r io.Reader) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	b := make([]byte, piece)
	for {
		n, err := io.ReadFull(r, b)
		if n > 0 {
			if _, err := f.Write(b[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return f.Sync()
		}
		if err != nil {
			return err
		}
	}
}

// layCopy lays the bytes of another file.
func layCopy(path, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	return errors.Join(lay(path, f), f.Close())
}

// noise makes a file that no target can compress or leave out.
func noise(path string, size int64) error {
	return lay(path, io.LimitReader(rand.NewChaCha8([32]byte{1}), size))
}

// flush sees what was written to a file to the disk.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// freePort asks for a port on loopback that nobody has.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// launch starts a process that will listen on a port.
func launch(ctx context.Context, name, addr string, c lab.Command) (*benched, error) {
	p, err := lab.Start(ctx, c)
	if err != nil {
		return nil, err
	}
	b := &benched{load.Side{Name: name, PID: p.PID(), Target: load.Target{Portal: addr, LUN: 1}}, p}
	if err := awaitPort(ctx, addr); err != nil {
		b.stop()
		return nil, fmt.Errorf("%s: %w\n%s", name, err, p.Output())
	}
	return b, nil
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

// setUpLunboot makes an appliance's data: machines that share one volume, as
// users would set them up.
func (b *benchCmd) setUpLunboot(ctx context.Context, dir, image string) (starter, error) {
	addr, err := freePort()
	if err != nil {
		return starter{}, err
	}
	data := filepath.Join(dir, "data")
	start := func(ctx context.Context) (*benched, error) {
		p, err := launch(ctx, load.Ours, addr, lab.Command{Path: b.Binary, Args: []string{
			"--data", data, "serve", "--dhcp", "off", "--admin", "127.0.0.1:0", "--boot", "127.0.0.1:0", "--tftp", "127.0.0.1:0", "--iscsi", addr, "--log-format", "json",
		}})
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w; make build makes bin/lunboot", err)
		}
		if err != nil {
			return nil, err
		}
		// It listens before its log says so.
		for range 100 {
			if m := targetName.FindStringSubmatch(p.process.Output()); m != nil {
				p.side.Target.Name = m[1]
				return p, nil
			}
			time.Sleep(20 * time.Millisecond)
		}
		p.stop()
		return nil, fmt.Errorf("lunboot does not say its target's name:\n%s", p.process.Output())
	}
	p, err := start(ctx)
	if err != nil {
		return starter{}, err
	}
	defer p.stop()
	verbs := [][]string{{"volume", "import", "bench", image}, {"volume", "set", "bench", "--shared"}}
	for k := range benchNames {
		name := fmt.Sprintf("load-%d", k)
		verbs = append(verbs,
			[]string{"machine", "add", name, "--mac", fmt.Sprintf("02:00:00:00:00:%02x", k), "--auth", "none", "--iqn", fmt.Sprintf("%s-%d", benchInitiator, k)},
			[]string{"mapping", "add", name, "bench", "--lun", "1"})
	}
	for _, v := range verbs {
		if _, err := lab.Run(ctx, lab.Command{Path: b.Binary, Args: append([]string{"--data", data}, v...)}); err != nil {
			return starter{}, err
		}
	}
	p.stop()
	files, err := filepath.Glob(filepath.Join(data, "volumes", "bench-*"))
	if err != nil {
		return starter{}, err
	}
	if len(files) != 1 {
		return starter{}, fmt.Errorf("lunboot keeps the volume in %q", files)
	}
	return starter{files[0], start}, layCopy(files[0], image)
}

// tgtControl is the control port of this program's tgt: a number in a socket's
// name, not a network port.
func tgtControl() string { return fmt.Sprint(10000 + os.Getpid()%20000) }

// setUpTgt makes what tgt serves: the same bytes, in a control domain of its own.
func setUpTgt(dir, image string) (starter, error) {
	const name = "iqn.2026-11.netlab:tgt"
	addr, err := freePort()
	if err != nil {
		return starter{}, err
	}
	control := tgtControl()
	if err := os.MkdirAll("/var/run/tgtd", 0o755); err != nil {
		return starter{}, err
	}
	copied := image + ".tgt"
	start := func(ctx context.Context) (*benched, error) {
		p, err := launch(ctx, load.Peer, addr, lab.Command{Path: "tgtd", Args: []string{"-f", "-C", control, "--iscsi", "portal=" + addr}, Dir: dir})
		if err != nil {
			return nil, err
		}
		p.side.Target.Name = name
		for _, args := range [][]string{
			{"--mode", "target", "--op", "new", "--tid", "1", "--targetname", name},
			// Without these it answers None to whoever asks for digests.
			{"--mode", "target", "--op", "update", "--tid", "1", "--name", "HeaderDigest", "--value", "None,CRC32C"},
			{"--mode", "target", "--op", "update", "--tid", "1", "--name", "DataDigest", "--value", "None,CRC32C"},
			{"--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "--backing-store", copied, "--bstype", "rdwr"},
			{"--mode", "target", "--op", "bind", "--tid", "1", "--initiator-address", "ALL"},
		} {
			if _, err := lab.Run(ctx, lab.Command{Path: "tgtadm", Args: append([]string{"-C", control, "--lld", "iscsi"}, args...)}); err != nil {
				p.stop()
				return nil, err
			}
		}
		return p, nil
	}
	return starter{copied, start}, layCopy(copied, image)
}

// echo is this program as a server that does nothing but read and send.
func (b *benchCmd) echo(image string) starter {
	return starter{image, func(ctx context.Context) (*benched, error) {
		addr, err := freePort()
		if err != nil {
			return nil, err
		}
		self := b.netlab
		if self == "" {
			if self, err = os.Executable(); err != nil {
				return nil, err
			}
		}
		p, err := launch(ctx, load.Bare, addr, lab.Command{Path: self, Args: []string{"echo", addr, image}})
		if err != nil {
			return nil, err
		}
		p.side.Target.Bare = true
		return p, nil
	}}
}

// echoCmd is the process that bench starts to see what Go and TCP allow.
type echoCmd struct {
	Addr string `arg:"" help:"Address and port to listen on."`
	File string `arg:"" help:"File to answer from." type:"existingfile"`
}

// Run serves until it is asked to end.
func (c echoCmd) Run(w *world) error {
	f, err := os.Open(c.File)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Addr)
	if err == nil {
		err = load.Echo(w.ctx, l, f)
	}
	return errors.Join(err, f.Close())
}
