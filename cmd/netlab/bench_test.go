package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/load"
)

// Every load runs, for a moment, against the program as users start it, and
// beside tgt where that is installed. What is printed has a line for each side.
func TestTheBenchMeasures(t *testing.T) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("runs every load")
	}
	dir := t.TempDir()
	binary, err := lab.BuildAppliance(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	netlab := filepath.Join(dir, "netlab")
	if _, err := lab.Run(t.Context(), lab.Command{Path: "go", Args: []string{"build", "-o", netlab, "."}}); err != nil {
		t.Fatal(err)
	}
	table := printed(t, &benchCmd{What: []string{"iscsi"}, Binary: binary, Rounds: 1, Time: 100 * time.Millisecond, Size: 64, netlab: netlab})
	sides := []string{load.Ours}
	if _, err := exec.LookPath("tgtd"); err == nil {
		sides = append(sides, load.Peer)
	} else if os.Getenv("CI") == "true" {
		t.Error("tgtd is missing")
	}
	for _, row := range load.Rows(time.Second) {
		by := sides
		switch {
		case row.Kind == load.KindPread:
			by = []string{load.Cache}
		case row.Limit:
			by = append(slices.Clone(sides), load.Bare)
		case row.Load.Digests:
			by = append(slices.Clone(sides), load.Plain, load.Copied)
		}
		for _, side := range by {
			line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(row.Name) + ` +` + side + ` +[0-9].*$`).FindString(table)
			if line == "" || strings.Contains(line, "NaN") {
				t.Errorf("no figures for %s by %s:\n%s", row.Name, side, table)
			}
		}
	}
}

// printed is what a run prints.
func printed(t *testing.T, b *benchCmd) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := b.Run(&world{ctx: t.Context(), in: os.Stdin, out: out, err: os.Stderr}); err != nil {
		t.Fatal(err)
	}
	said, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}

// The TFTP server is measured beside every peer that is installed.
func TestTheBenchMeasuresTFTP(t *testing.T) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("runs every load")
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	binary, err := lab.BuildAppliance(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sides := []string{"lunboot"}
	for side, program := range map[string]string{dnsmasq: "dnsmasq", tftpd: "in.tftpd"} {
		if _, err := exec.LookPath(program); err == nil {
			sides = append(sides, side)
		} else if os.Getenv("CI") == "true" {
			t.Errorf("%s is missing", program)
		}
	}
	b := &benchCmd{What: []string{"tftp"}, Binary: binary, Rounds: 1, Time: 100 * time.Millisecond}
	table := printed(t, b)
	for _, row := range b.tftpTable(apart{}, nil, nil).Rows {
		for _, side := range sides {
			line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(row.Name) + ` +` + side + ` +[0-9].*$`).FindString(table)
			if fields := strings.Fields(line); len(fields) == 0 || fields[len(fields)-1] != "0" {
				t.Errorf("no figures for %s by %s, or transfers failed:\n%s", row.Name, side, table)
			}
		}
	}
}

// A soak ends with a fault when the appliance has become slower than it should be.
func TestAMissedGoalIsAFaultWhereGoalsAreRequired(t *testing.T) {
	below := []string{"iscsi read 4 KiB: 0.90 of tgt"}
	for _, c := range []struct {
		require bool
		below   []string
		fault   bool
	}{{false, below, false}, {true, nil, false}, {true, below, true}} {
		var out bytes.Buffer
		err := (&benchCmd{Require: c.require}).judge(&out, c.below)
		if (err != nil) != c.fault {
			t.Errorf("required %v, short %q: %v", c.require, c.below, err)
		}
		if said := out.String(); len(c.below) > 0 && !strings.Contains(said, "below its goal: iscsi read 4 KiB") {
			t.Errorf("it prints %q", said)
		}
	}
}
