package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
)

// Every load runs, for a moment, against the program as users start it, and
// beside tgt where that is installed.
func TestTheBenchMeasures(t *testing.T) {
	if testing.Short() {
		t.Skip("runs every load")
	}
	dir := t.TempDir()
	binary, err := lab.BuildAppliance(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := &world{ctx: t.Context(), in: os.Stdin, out: out, err: os.Stderr}
	if err := (&benchCmd{Binary: binary, Rounds: 1, Time: 100 * time.Millisecond, Size: 64}).Run(w); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	table, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, load := range []string{"4 KiB random read, depth 32", "1 MiB sequential write", "256 KiB read, digests", "logins, 8 workers", "memory of an idle session"} {
		line, _, _ := strings.Cut(string(table[max(bytes.Index(table, []byte(load)), 0):]), "\n")
		if !strings.HasPrefix(line, load) || strings.Contains(line, "NaN") {
			t.Errorf("no figures for %s:\n%s", load, table)
		}
	}
}
