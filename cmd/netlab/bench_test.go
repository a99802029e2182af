package main

import (
	"io"
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
	if testing.Short() {
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
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := &world{ctx: t.Context(), in: os.Stdin, out: out, err: os.Stderr}
	if err := (&benchCmd{What: []string{"iscsi"}, Binary: binary, Rounds: 1, Time: 100 * time.Millisecond, Size: 64, netlab: netlab}).Run(w); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	table, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
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
			line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(row.Name) + ` +` + side + ` +[0-9].*$`).FindString(string(table))
			if line == "" || strings.Contains(line, "NaN") {
				t.Errorf("no figures for %s by %s:\n%s", row.Name, side, table)
			}
		}
	}
}
