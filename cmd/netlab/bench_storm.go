package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/load"
	"lunboot/cmd/netlab/load/rounds"
	"lunboot/cmd/netlab/load/trace"
)

// recorded is one boot of a BIOS machine of the lab; its first lines say how it
// was made and how to make it again.
//
//go:embed bios.trace
var recorded []byte

// sideClones is the appliance in a storm; the other side is load.Peer, which
// serves each machine a copy.
const sideClones = "lunboot, clones"

// storm is a room whose machines are switched on at the same moment.
type storm struct {
	b     *benchCmd
	boot  *trace.Trace
	dir   string
	image string
	most  int // machines of the largest room
	ours  *cloned
	api   *socket
	tgt   *benched
	tgts  int // its targets: as many as the room has machines
	made  int // clones of each machine so far
}

// storm replays a recorded boot as many machines at once, each under its own name
// and from its own clone of one golden volume, beside tgt with a copy of that
// volume for each.
func (b *benchCmd) storm(w *world) (below []string, err error) {
	s := &storm{b: b, most: slices.Max(b.Machines)}
	if slices.Min(b.Machines) < 1 || s.most > 1000 {
		return nil, fmt.Errorf("rooms of %v machines: 1 to 1000 can be", b.Machines)
	}
	if s.boot, err = b.bootTrace(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "netlab-bench-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	s.image = filepath.Join(s.dir, "image")
	if err := layBoot(s.image, s.boot); err != nil {
		return nil, err
	}
	fmt.Fprintf(w.err, "netlab: each machine: %s\n", s.boot.Sum())
	s.ours = &cloned{b: b, dir: s.dir, data: filepath.Join(s.dir, "data"), image: s.image}
	if err := s.ours.start(w.ctx); err != nil {
		return nil, err
	}
	defer s.ours.server.stop()
	s.api = newSocket(s.ours.data)
	defer s.api.CloseIdleConnections()
	t := &rounds.Table{
		Columns: []rounds.Column{
			{Name: "s to the last", Format: "%.2f", Less: true}, {Name: "p50 µs", Format: "%.0f", Less: true}, {Name: "p99 µs", Format: "%.0f", Less: true},
			{Name: "CPU s", Format: "%.2f", Less: true}, {Name: "own MiB", Format: "%.0f", Less: true}, {Name: "cached MiB", Format: "%.0f", Less: true},
		},
		Sides: []string{sideClones},
	}
	if _, missing := exec.LookPath("tgtd"); missing != nil {
		fmt.Fprintln(w.err, "netlab: tgt is not installed (apt-get install tgt): lunboot is measured alone")
	} else {
		if err := s.layCopies(w.ctx); err != nil {
			return nil, err
		}
		defer s.stopTgt()
		t.Sides = append(t.Sides, load.Peer)
	}
	for k := range s.most {
		in := map[string]any{"name": stormName(k), "macs": []string{fmt.Sprintf("02:00:00:01:%02x:%02x", k>>8, k&0xff)}, "auth": "none", "initiator": stormInitiator(k)}
		if err := s.api.do(w.ctx, http.MethodPost, "/machines", in); err != nil {
			return nil, err
		}
	}
	sum := s.boot.Sum()
	for _, n := range b.Machines {
		// In the page cache is the golden volume once, and what each machine wrote.
		held := 2/float64(n) + 2*float64(sum.Written)/float64(max(sum.Read, 1))
		t.Rows = append(t.Rows,
			&rounds.Row{Name: fmt.Sprintf("%d machines, first boot", n), Do: s.switchOn(t.Sides, n, true), Goals: []rounds.Goal{{Of: load.Peer, Want: 0.6}, {Column: 3, Of: load.Peer, Want: 0.4}, {Column: 4, Want: 256}, {Column: 5, Of: load.Peer, Want: held}}},
			&rounds.Row{Name: fmt.Sprintf("%d machines, boot again", n), Do: s.switchOn(t.Sides, n, false), Goals: []rounds.Goal{{Of: load.Peer, Want: 0.6}, {Column: 3, Of: load.Peer, Want: 0.4}, {Column: 4, Want: 256}}})
	}
	fmt.Fprintf(w.out, "Each machine: %s. First boot: clones that nobody wrote to, and nothing of either side's files in the page cache; again: the same clones, all of it there. "+
		"Own: the most anonymous memory of the process; cached: of its files, in the page cache at the end. tgt's copies are laid out in full wherever a machine reads or writes; elsewhere they are sparse.\n\n", sum)
	return b.compare(w, t)
}

// bootTrace is what is replayed.
func (b *benchCmd) bootTrace() (*trace.Trace, error) {
	text := recorded
	if b.Trace != "" {
		var err error
		if text, err = os.ReadFile(b.Trace); err != nil {
			return nil, err
		}
	}
	t, err := trace.Decode(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Trace, err)
	}
	return t, nil
}

// layBoot makes a volume that has data wherever a boot reads or writes, and holes
// elsewhere.
func layBoot(path string, t *trace.Trace) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(t.Size); err != nil {
		return err
	}
	noise := rand.NewChaCha8([32]byte{2})
	var piece [granule]byte
	laid := map[int64]bool{}
	for _, s := range t.Steps {
		from := s.Block * int64(t.BlockSize)
		for at := from / granule * granule; at < from+int64(t.Bytes(s)); at += granule {
			if laid[at] {
				continue
			}
			laid[at] = true
			if _, err := io.ReadFull(noise, piece[:]); err != nil {
				return err
			}
			if _, err := f.WriteAt(piece[:min(granule, t.Size-at)], at); err != nil {
				return err
			}
		}
	}
	return f.Sync()
}

func stormName(k int) string { return fmt.Sprintf("storm-%d", k) }

func stormInitiator(k int) string { return fmt.Sprintf("%s-storm-%d", benchInitiator, k) }

func (s *storm) copied(k int) string { return filepath.Join(s.dir, fmt.Sprintf("copy-%d", k)) }

// tgtTarget names the k-th of tgt's targets: its users make one for each machine.
func tgtTarget(k int) string { return fmt.Sprintf("iqn.2026-11.netlab:tgt-%d", k) }

// layCopies makes a copy of the volume for each machine.
func (s *storm) layCopies(ctx context.Context) error {
	var file unix.Stat_t
	var room unix.Statfs_t
	if err := errors.Join(unix.Stat(s.image, &file), unix.Statfs(s.dir, &room)); err != nil {
		return err
	}
	if need, free := file.Blocks*512*int64(s.most), int64(room.Bavail)*room.Bsize; need > free*9/10 {
		return fmt.Errorf("%d copies of the volume take %d MiB, there are %d MiB free in %s: ask for fewer with --machines", s.most, need>>20, free>>20, filepath.Dir(s.dir))
	}
	for k := range s.most {
		if err := errors.Join(lab.CopyImage(s.copied(k), s.image), flush(s.copied(k)), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

func (s *storm) stopTgt() {
	if s.tgt != nil {
		s.tgt.stop()
	}
	s.tgt, s.tgts = nil, 0
}

// startTgt sees that there is a tgt with n targets. It has sixteen threads for
// each, so that a small room would be slower in one that is made for a large one.
func (s *storm) startTgt(ctx context.Context, n int) error {
	if s.tgts == n {
		return nil
	}
	s.stopTgt()
	addr, err := freePort()
	if err != nil {
		return err
	}
	if err := os.MkdirAll("/var/run/tgtd", 0o755); err != nil {
		return err
	}
	control := tgtControl()
	p, err := launch(ctx, load.Peer, addr, lab.Command{Path: "tgtd", Args: []string{"-f", "-C", control, "--iscsi", "portal=" + addr}, Dir: s.dir})
	if err != nil {
		return err
	}
	s.tgt, s.tgts = p, n
	for k := range n {
		tid := fmt.Sprint(k + 1)
		for _, args := range [][]string{
			{"--mode", "target", "--op", "new", "--tid", tid, "--targetname", tgtTarget(k)},
			{"--mode", "logicalunit", "--op", "new", "--tid", tid, "--lun", "1", "--backing-store", s.copied(k), "--bstype", "rdwr"},
			{"--mode", "target", "--op", "bind", "--tid", tid, "--initiator-name", stormInitiator(k)},
		} {
			if _, err := lab.Run(ctx, lab.Command{Path: "tgtadm", Args: append([]string{"-C", control, "--lld", "iscsi"}, args...)}); err != nil {
				s.stopTgt()
				return err
			}
		}
	}
	return nil
}

// switchOn is one storm.
func (s *storm) switchOn(sides []string, n int, first bool) func(context.Context, int) (rounds.Figures, error) {
	return func(ctx context.Context, side int) (rounds.Figures, error) {
		server, machines := s.ours.server, make([]load.Machine, n)
		for k := range machines {
			machines[k] = load.Machine{Target: s.ours.server.side.Target, Initiator: stormInitiator(k)}
			machines[k].Target.LUN = 0
		}
		var files []string
		if sides[side] == load.Peer {
			if err := s.startTgt(ctx, n); err != nil {
				return nil, err
			}
			server = s.tgt
			for k := range machines {
				machines[k].Target = s.tgt.side.Target
				machines[k].Target.Name = tgtTarget(k)
				files = append(files, s.copied(k))
			}
		} else {
			if err := s.clones(ctx, n, first); err != nil {
				return nil, err
			}
			var err error
			if files, err = s.layers(n); err != nil {
				return nil, err
			}
		}
		for _, f := range files {
			if err := cool(f, first); err != nil {
				return nil, err
			}
		}
		peak := watchMemory(server.side.PID)
		r, err := load.Replay(machines, s.boot, server.side.PID)
		own, failed := peak()
		if err := errors.Join(err, failed); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, server.process.Output())
		}
		held, err := cachedOf(files)
		return rounds.Figures{r.Seconds, float64(r.P50) / 1e3, float64(r.P99) / 1e3, r.CPU.Seconds(), float64(own) / (1 << 20), float64(held) / (1 << 20)}, err
	}
}

// clones gives each machine a clone that nobody wrote to, or sees that it has one.
func (s *storm) clones(ctx context.Context, n int, first bool) error {
	if !first && s.made >= n {
		return nil
	}
	for k := range n {
		if k < s.made {
			if err := errors.Join(s.api.do(ctx, http.MethodDelete, "/mappings/"+stormName(k)+"/0", nil), s.api.do(ctx, http.MethodDelete, "/volumes/"+stormName(k), nil)); err != nil {
				return err
			}
		}
		if err := s.api.do(ctx, http.MethodPost, "/volumes/golden/clone", map[string]any{"name": stormName(k), "machine": stormName(k)}); err != nil {
			return err
		}
		s.made = max(s.made, k+1)
	}
	return nil
}

// layers are the files of the golden volume and of the first n machines' clones.
func (s *storm) layers(n int) (files []string, err error) {
	names := []string{"golden-*"}
	for k := range n {
		names = append(names, stormName(k)+"-*")
	}
	for _, name := range names {
		found, err := filepath.Glob(filepath.Join(s.ours.data, "volumes", name))
		if err != nil || len(found) == 0 {
			return nil, errors.Join(fmt.Errorf("lunboot keeps no %s among its volumes", name), err)
		}
		files = append(files, found...)
	}
	return files, nil
}

// cool drops a file from the page cache, or reads it into it, so that each storm
// finds what its name says.
func cool(name string, cold bool) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if cold {
		return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	}
	b := make([]byte, 1<<20)
	for at, end := int64(0), int64(0); err == nil; { // data alone: a hole would take memory too
		if at, err = unix.Seek(int(f.Fd()), end, unix.SEEK_DATA); err != nil {
			break
		}
		if end, err = unix.Seek(int(f.Fd()), at, unix.SEEK_HOLE); err == nil {
			_, err = io.CopyBuffer(io.Discard, struct{ io.Reader }{io.NewSectionReader(f, at, end-at)}, b)
		}
	}
	if errors.Is(err, unix.ENXIO) { // behind the last data
		return nil
	}
	return err
}

// watchMemory looks at a process's anonymous memory until the returned function
// is called, which returns the most that was seen.
func watchMemory(pid int) (peak func() (int64, error)) {
	stop, done := make(chan struct{}), make(chan struct{})
	var most int64
	var failed error
	go func() {
		defer close(done)
		for {
			n, err := load.Anonymous(pid)
			if most = max(most, n); err != nil {
				failed = err
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() (int64, error) {
		close(stop)
		<-done
		return most, failed
	}
}
