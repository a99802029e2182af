package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/load"
	"lunboot/cmd/netlab/load/rounds"
)

// Sides of the clones. qemu-nbd serves what its users make for the same purpose.
const (
	sideClone = "lunboot, clone"
	sideRaw   = "lunboot, raw"
	sideQcow2 = "qemu-nbd, qcow2"
)

const (
	cloneDepth = 32
	manyClones = 64
	granule    = 4096
	// LUNs of the machine that is the load.
	lunRaw, lunClone = 1, 2
)

// cloned is what the clones' loads need.
type cloned struct {
	b      *benchCmd
	data   string // the appliance's
	image  string
	dir    string
	size   int64
	server *benched
	clones int // that were made
}

// clone measures clones beside a raw volume and beside a qcow2 file over a raw
// one. Each load that writes has a clone, or a qcow2 file, that nobody wrote to.
func (b *benchCmd) clone(w *world) (below []string, err error) {
	dir, err := os.MkdirTemp("", "netlab-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// A power of two, since qemu-img counts places around in it.
	c := &cloned{b: b, dir: dir, data: filepath.Join(dir, "data"), image: filepath.Join(dir, "image"), size: 1 << (bits.Len64(uint64(b.Size<<20)) - 1)}
	if err := noise(c.image, c.size); err != nil {
		return nil, err
	}
	if err := c.start(w.ctx); err != nil {
		return nil, err
	}
	defer c.server.stop()
	t := &rounds.Table{
		Columns: []rounds.Column{{Name: "IOPS", Format: "%.0f"}, {Name: "p99 µs", Format: "%.0f", Less: true}, {Name: "CPU µs", Format: "%.1f", Less: true}},
		Sides:   []string{sideClone, sideRaw},
		Rows: []*rounds.Row{
			{Name: "4 KiB random read", Do: c.lean(load.Load{Depth: cloneDepth, Time: b.Time}), Goals: []rounds.Goal{{Of: sideRaw, Want: 0.9}}},
			{Name: "4 KiB random read, depth 1", Do: c.lean(load.Load{Depth: 1, Time: b.Time}), Goals: []rounds.Goal{{Of: sideRaw, Want: 0.9}}},
			{Name: "256 KiB sequential read", Do: c.lean(load.Load{Depth: 8, Block: 256 << 10, Sequential: true, Time: b.Time})},
			{Name: "first write of 4 KiB", Do: c.lean(load.Load{Depth: cloneDepth, Write: true, Sequential: true, Scattered: true, Commands: c.size / granule, Time: time.Minute}), Goals: []rounds.Goal{{Of: sideRaw, Want: 0.7}}},
		},
	}
	if _, missing := exec.LookPath("qemu-nbd"); missing != nil {
		fmt.Fprintln(w.err, "netlab: qemu-nbd is not installed (apt-get install qemu-utils qemu-block-extra): clones are measured beside raw volumes alone")
	} else {
		t.Sides = append(t.Sides, sideQcow2)
		t.Rows = append(t.Rows,
			&rounds.Row{Name: "first write of 4 KiB, by qemu-img", Do: c.qemu(t.Sides, true), Goals: []rounds.Goal{{Of: sideQcow2, Want: 1.5}, {Of: sideRaw, Want: 0.7}}},
			&rounds.Row{Name: "4 KiB scattered read, by qemu-img", Do: c.qemu(t.Sides, false), Goals: []rounds.Goal{{Of: sideQcow2, Want: 1}}})
	}
	if below, err = b.compare(w, t); err != nil {
		return nil, err
	}
	if b.Only != "" {
		return below, nil
	}
	more, err := c.oneCache(w)
	return append(below, more...), err
}

// start runs an appliance with a golden volume and a raw one of the same bytes.
func (c *cloned) start(ctx context.Context) error {
	addr, err := freePort()
	if err != nil {
		return err
	}
	c.server, err = launch(ctx, load.Ours, addr, lab.Command{Path: c.b.Binary, Args: []string{
		"--data", c.data, "serve", "--dhcp", "off", "--admin", "127.0.0.1:0", "--boot", "127.0.0.1:0", "--tftp", "127.0.0.1:0", "--iscsi", addr, "--log-format", "json",
	}})
	if err != nil {
		return err
	}
	for range 100 { // it listens before its log says so
		if m := targetName.FindStringSubmatch(c.server.process.Output()); m != nil {
			c.server.side.Target.Name = m[1]
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	err = c.verbs(ctx, [][]string{
		{"volume", "import", "golden", c.image, "--format", "raw"}, {"volume", "freeze", "golden"},
		{"volume", "import", "raw", c.image, "--format", "raw"},
		{"machine", "add", "load", "--mac", "02:00:00:00:00:01", "--auth", "none", "--iqn", benchInitiator + "-0"},
		{"mapping", "add", "load", "raw", "--lun", strconv.Itoa(lunRaw)},
	})
	if err != nil {
		c.server.stop()
	}
	return err
}

func (c *cloned) verbs(ctx context.Context, all [][]string) error {
	for _, v := range all {
		if _, err := lab.Run(ctx, lab.Command{Path: c.b.Binary, Args: append([]string{"--data", c.data}, v...)}); err != nil {
			return err
		}
	}
	return nil
}

// fresh gives the machine a clone that nobody wrote to, and takes it away.
func (c *cloned) fresh(ctx context.Context, do func() error) error {
	c.clones++
	name := fmt.Sprintf("clone-%d", c.clones)
	err := c.verbs(ctx, [][]string{{"volume", "clone", "golden", name}, {"mapping", "add", "load", name, "--lun", strconv.Itoa(lunClone)}})
	if err == nil {
		err = do()
	}
	if err != nil {
		return err
	}
	return c.verbs(ctx, [][]string{{"mapping", "remove", "load", strconv.Itoa(lunClone)}, {"volume", "remove", name}})
}

// settle sees what was written to the disk, so that it is not during the next
// load.
func (c *cloned) settle() error {
	files, err := filepath.Glob(filepath.Join(c.data, "volumes", "raw-*"))
	for _, f := range files {
		err = errors.Join(err, flush(f))
	}
	return err
}

// lean is a load of our own, whose initiator costs little.
func (c *cloned) lean(l load.Load) func(context.Context, int) (rounds.Figures, error) {
	l.Initiator, l.Sessions, l.Span = benchInitiator, 1, c.size
	if l.Block == 0 {
		l.Block = granule
	}
	return func(ctx context.Context, side int) (f rounds.Figures, err error) {
		if side > 1 {
			return rounds.Figures{math.NaN(), math.NaN(), math.NaN()}, nil
		}
		if err := c.settle(); err != nil {
			return nil, err
		}
		run := func(lun byte) error {
			t := c.server.side.Target
			t.LUN = lun
			r, err := load.Run(t, l, c.server.side.PID)
			f = rounds.Figures{r.IOPS(), float64(r.P99) / 1e3, float64(r.CPUPerOp()) / 1e3}
			return err
		}
		if side == 0 {
			return f, c.fresh(ctx, func() error { return run(lunClone) })
		}
		return f, run(lunRaw)
	}
}

// qemu is a load of QEMU's tool, which speaks to all of them.
func (c *cloned) qemu(sides []string, write bool) func(context.Context, int) (rounds.Figures, error) {
	return func(ctx context.Context, side int) (f rounds.Figures, err error) {
		if err := c.settle(); err != nil {
			return nil, err
		}
		iscsi := func(lun int) string {
			t := c.server.side.Target
			return fmt.Sprintf("driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=%s,file.target=%s,file.lun=%d,file.initiator-name=%s-0", t.Portal, t.Name, lun, benchInitiator)
		}
		switch sides[side] {
		case sideRaw:
			return c.qemuBench(ctx, iscsi(lunRaw), write, c.server.side.PID)
		case sideClone:
			return f, c.fresh(ctx, func() error {
				f, err = c.qemuBench(ctx, iscsi(lunClone), write, c.server.side.PID)
				return err
			})
		}
		over := filepath.Join(c.dir, "over.qcow2")
		if _, err := lab.Run(ctx, lab.Command{Path: "qemu-img", Args: []string{"create", "-q", "-f", "qcow2", "-b", c.image, "-F", "raw", over}}); err != nil {
			return nil, err
		}
		// Over TCP its answers wait for delayed acknowledgements, 40 ms each; on a
		// Unix socket it is at its best.
		socket := filepath.Join(c.dir, "nbd")
		p, err := lab.Start(ctx, lab.Command{Path: "qemu-nbd", Args: []string{"--persistent", "--shared=8", "--socket=" + socket, "--cache=writeback", "--format=qcow2", over}})
		if err != nil {
			return nil, err
		}
		defer p.Kill()
		for range 200 {
			var n net.Conn
			if n, err = net.Dial("unix", socket); err == nil {
				n.Close()
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, p.Output())
		}
		f, err = c.qemuBench(ctx, "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path="+socket, write, p.PID())
		return f, errors.Join(err, os.Remove(over))
	}
}

var benchTook = regexp.MustCompile(`completed in ([0-9.]+) seconds`)

func (c *cloned) qemuBench(ctx context.Context, where string, write bool, pid int) (rounds.Figures, error) {
	count := c.size / granule
	args := []string{"bench", "-c", fmt.Sprint(count), "-d", fmt.Sprint(cloneDepth), "-s", fmt.Sprint(granule), "-S", fmt.Sprint(granule * 7919), "-t", "writeback", "--image-opts"}
	if write {
		args = append(args, "-w", "--pattern", "165")
	}
	before, err := rounds.CPUTime(pid)
	if err != nil {
		return nil, err
	}
	out, err := lab.Run(ctx, lab.Command{Path: "qemu-img", Args: append(args, where)})
	if err != nil {
		return nil, err
	}
	after, err := rounds.CPUTime(pid)
	if err != nil {
		return nil, err
	}
	m := benchTook.FindStringSubmatch(string(out))
	if m == nil {
		return nil, fmt.Errorf("qemu-img bench says no time: %s", out)
	}
	took, err := strconv.ParseFloat(m[1], 64)
	return rounds.Figures{float64(count) / took, math.NaN(), float64((after - before).Microseconds()) / float64(count)}, err
}

// oneCache reads all of many clones of one golden volume, and looks at what of
// which file is in the page cache afterwards.
func (c *cloned) oneCache(w *world) (below []string, err error) {
	fmt.Fprintln(w.err, "netlab: one page cache")
	for k := range manyClones {
		name := fmt.Sprintf("many-%d", k)
		if err := c.verbs(w.ctx, [][]string{{"volume", "clone", "golden", name}, {"mapping", "add", "load", name, "--lun", strconv.Itoa(10 + k)}}); err != nil {
			return nil, err
		}
	}
	var first, last int64
	for k := range manyClones {
		t := c.server.side.Target
		t.LUN = byte(10 + k)
		l := load.Load{Initiator: benchInitiator, Sessions: 1, Depth: 4, Block: 256 << 10, Sequential: true, Commands: c.size / (256 << 10), Span: c.size, Time: time.Minute}
		if _, err := load.Run(t, l, c.server.side.PID); err != nil {
			return nil, err
		}
		if last, err = load.Resident(c.server.side.PID); err != nil {
			return nil, err
		}
		if k == 0 {
			first = last
		}
	}
	golden, err := cached(filepath.Join(c.data, "volumes", "golden-*"))
	if err != nil {
		return nil, err
	}
	layers, err := cached(filepath.Join(c.data, "volumes", "many-*"))
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(w.out, "%d clones of one golden volume of %d MiB, each read whole: %d MiB of the golden volume's file and %d KiB of the clones' are in the page cache; the process grew by %d KiB from the first to the last.\n\n",
		manyClones, c.size>>20, golden>>20, layers>>10, (last-first)>>10)
	if layers > manyClones*64<<10 || last-first > 32<<20 {
		below = append(below, "64 clones read from one page cache")
	}
	return below, nil
}

// cached is how much of files is in the page cache, in bytes.
func cached(pattern string) (total int64, err error) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return 0, err
	}
	return cachedOf(files)
}

func cachedOf(files []string) (total int64, err error) {
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return 0, err
		}
		var st unix.Cachestat_t
		err = unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &st, 0)
		if err = errors.Join(err, f.Close()); err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		total += int64(st.Cache) * int64(os.Getpagesize())
	}
	return total, nil
}
