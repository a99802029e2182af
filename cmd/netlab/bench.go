package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/load/rounds"
)

// benchCmd measures the appliance's services under load, each beside others that
// do the same work, in one run.
type benchCmd struct {
	What     []string      `arg:"" optional:"" help:"Which: iscsi, clone, storm, boot, tftp, dhcp. Without a word, all."`
	Binary   string        `default:"bin/lunboot" help:"The lunboot to measure." type:"path"`
	Rounds   int           `default:"3" help:"Rounds of each load; medians are told."`
	Time     time.Duration `default:"3s" help:"How long each load runs."`
	Only     string        `help:"Only loads whose name has this in it."`
	Size     int64         `default:"1024" help:"iscsi, clone: MiB of the volume, which stays in the page cache."`
	Machines []int         `default:"16,64,256" help:"storm: how many machines are switched on at the same time."`
	Trace    string        `placeholder:"FILE" help:"storm: the boot that each of them replays, made by netlab trace (default: the one of a BIOS machine that is built in)." type:"existingfile"`
	Require  bool          `help:"End with a fault when a goal is missed."`
	Leases   int           `default:"2000" help:"dhcp: leases that each server has on file before it is measured."`

	netlab string // this program; empty: the one that runs
}

// subject is one service under load. measure prints its tables and returns what
// falls short of its goals.
type subject struct {
	name    string
	root    bool // its peers need a network of their own, which only root can make
	measure func(*world) (below []string, err error)
}

// subjects are the services in the order in which they are measured.
func (b *benchCmd) subjects() []subject {
	return []subject{
		{name: "iscsi", measure: b.iscsi},
		{name: "clone", measure: b.clone},
		{name: "storm", measure: b.storm},
		{name: "boot", root: true, measure: b.boot},
		{name: "tftp", root: true, measure: b.tftp},
		{name: "dhcp", root: true, measure: b.dhcp},
	}
}

// wanted chooses the subjects that were named. Those that only root can measure
// are left out, with a word, when nobody asked for them by name.
func (b *benchCmd) wanted(w *world) ([]subject, error) {
	all := b.subjects()
	var names []string
	for _, s := range all {
		names = append(names, s.name)
	}
	for _, name := range b.What {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("there is no load %q: there are %s", name, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(s subject) bool {
		if len(b.What) > 0 {
			return !slices.Contains(b.What, s.name)
		}
		if s.root && os.Geteuid() != 0 {
			fmt.Fprintf(w.err, "netlab: %s is left out: only root can give each server a network of its own\n", s.name)
			return true
		}
		return false
	}), nil
}

// Run measures and prints.
func (b *benchCmd) Run(w *world) error {
	subjects, err := b.wanted(w)
	if err != nil {
		return err
	}
	var below []string
	for _, s := range subjects {
		short, err := s.measure(w)
		if err != nil {
			return err
		}
		below = append(below, short...)
	}
	return b.judge(w.out, below)
}

// judge prints what falls short of its goals, and is an error when they are required.
func (b *benchCmd) judge(out io.Writer, below []string) error {
	for _, s := range below {
		fmt.Fprintln(out, "below its goal:", s)
	}
	if b.Require && len(below) > 0 {
		return fmt.Errorf("%d of what was measured fall short of their goals", len(below))
	}
	return nil
}

// rival is a server that is measured, in a network namespace of its own.
type rival struct {
	name    string
	command lab.Command // without its namespace
	// ready waits until it answers, on a thread inside the namespace.
	ready func(context.Context) error

	ns      lab.Namespace
	process *lab.Process
}

// startRivals starts servers, each alone in a network. stop ends them and
// removes the networks.
func startRivals(ctx context.Context, rivals []*rival) (stop func() error, err error) {
	var started []*rival
	stop = func() error {
		var errs []error
		for _, r := range started {
			if r.process != nil {
				if err := r.process.Stop(20 * time.Second); err != nil {
					errs = append(errs, err)
				}
			}
			errs = append(errs, r.ns.Close())
		}
		return errors.Join(errs...)
	}
	for _, r := range rivals {
		if err := r.start(ctx, &started); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", r.name, err), stop())
		}
	}
	return stop, nil
}

func (r *rival) start(ctx context.Context, started *[]*rival) (err error) {
	if r.ns, err = lab.NewNamespace(ctx); err != nil {
		return err
	}
	*started = append(*started, r)
	c := r.command
	c.Namespace = r.ns.Name
	if r.process, err = lab.Start(ctx, c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := r.ns.Do(func() error { return r.ready(ctx) }); err != nil {
		return fmt.Errorf("%w\n%s", err, r.process.Output())
	}
	return nil
}

// lunboot is the appliance as a rival, with its data in a folder below dir; args
// are more flags of lunboot serve.
func (b *benchCmd) lunboot(dir string, args ...string) (*rival, error) {
	if _, err := os.Stat(b.Binary); err != nil {
		return nil, fmt.Errorf("%w; make build makes bin/lunboot", err)
	}
	return &rival{name: "lunboot", command: lab.Command{Path: b.Binary, Args: append([]string{"--data", filepath.Join(dir, "lunboot"), "serve", "--log-format", "json"}, args...)}}, nil
}

// compare measures a table of rounds and prints it.
func (b *benchCmd) compare(w *world, t *rounds.Table) (below []string, err error) {
	t.Only(b.Only)
	if err := t.Measure(w.ctx, b.Rounds, w.err); err != nil {
		return nil, err
	}
	if err := t.Print(w.out); err != nil {
		return nil, err
	}
	_, err = io.WriteString(w.out, "\n")
	return t.Below(), err
}
