package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"lunboot/cmd/netlab/load"
)

const benchInitiator = "iqn.2026-11.netlab:load"

// benchNames is how many initiator names the loads use.
const benchNames = 256 / load.SessionsPerName

// iscsi measures the iSCSI target beside tgt and beside what the machine allows,
// on loopback.
func (b *benchCmd) iscsi(w *world) (below []string, err error) {
	dir, err := os.MkdirTemp("", "netlab-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	image := filepath.Join(dir, "image")
	if err := noise(image, b.Size<<20); err != nil {
		return nil, err
	}
	ours, err := b.setUpLunboot(w.ctx, dir, image)
	if err != nil {
		return nil, err
	}
	targets := []starter{ours}
	if _, missing := exec.LookPath("tgtd"); missing != nil {
		fmt.Fprintln(w.err, "netlab: tgt is not installed (apt-get install tgt): lunboot is measured alone")
	} else {
		peer, err := setUpTgt(dir, image)
		if err != nil {
			return nil, err
		}
		targets = append(targets, peer)
	}
	rows, err := b.measure(w, image, targets)
	if err != nil {
		return nil, err
	}
	for _, m := range rows {
		below = append(below, m.Below()...)
	}
	return below, load.Print(w.out, rows)
}

// measure runs every row that is asked for.
func (b *benchCmd) measure(w *world, image string, targets []starter) (rows []load.Measured, err error) {
	var wanted []load.Row
	for _, row := range load.Rows(b.Time) {
		if strings.Contains(row.Name, b.Only) {
			row.Load.Initiator, row.Load.Span = benchInitiator, b.Size<<20
			wanted = append(wanted, row)
		}
	}
	for len(wanted) > 0 && wanted[0].Kind == load.KindHold { // these come first
		fmt.Fprintln(w.err, "netlab:", wanted[0].Name)
		m, err := fresh(w.ctx, wanted[0], targets, b.Rounds)
		if err != nil {
			return nil, err
		}
		rows, wanted = append(rows, m), wanted[1:]
	}
	if len(wanted) == 0 {
		return rows, nil
	}
	sides := []load.Side{{Name: load.Cache, Path: image}}
	for _, start := range append(targets, b.echo(image)) {
		p, err := start.start(w.ctx)
		if err != nil {
			return nil, err
		}
		defer p.stop()
		sides = append(sides, p.side)
	}
	for _, s := range sides {
		if s.Target.Name == "" {
			continue
		}
		if err := load.Verify(s, benchInitiator, b.Size<<20); err != nil {
			return nil, err
		}
	}
	for _, row := range wanted {
		fmt.Fprintln(w.err, "netlab:", row.Name)
		// What the last load wrote would else go to the disk during this one.
		for _, t := range targets {
			if err := flush(t.file); err != nil {
				return nil, err
			}
		}
		m, err := load.Measure(row, sides, b.Rounds)
		if err != nil {
			return nil, err
		}
		rows = append(rows, m)
		if w.ctx.Err() != nil {
			return nil, w.ctx.Err()
		}
	}
	return rows, nil
}

// fresh measures a row in a new process of each target, round after round.
func fresh(ctx context.Context, row load.Row, targets []starter, rounds int) (load.Measured, error) {
	m := load.Measured{Row: row, Rounds: make([][]load.Result, len(targets))}
	for range rounds {
		m.Sides = nil
		for k, t := range targets {
			p, err := t.start(ctx)
			if err != nil {
				return m, err
			}
			r, err := load.Hold(p.side.Target, row.Load, p.side.PID)
			p.stop()
			if err != nil {
				return m, fmt.Errorf("%s, %s: %w", row.Name, p.side.Name, err)
			}
			m.Sides, m.Rounds[k] = append(m.Sides, p.side), append(m.Rounds[k], r)
		}
	}
	return m, nil
}
