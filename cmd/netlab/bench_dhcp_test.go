package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
)

// Every load runs, for a moment, against the program as users start it, and
// beside dnsmasq; Kea is measured where it is installed.
func TestTheBenchMeasuresDHCP(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
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
	if err := (&benchCmd{What: []string{"dhcp"}, Binary: binary, Rounds: 1, Time: 100 * time.Millisecond, Leases: 200}).Run(w); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	table, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	sides := []string{"lunboot"}
	for binary, needed := range map[string]bool{"dnsmasq": true, "kea-dhcp4": false} {
		if _, err := exec.LookPath(binary); err == nil {
			sides = append(sides, regexp.MustCompile(`-dhcp4$`).ReplaceAllString(binary, ""))
		} else if needed && os.Getenv("CI") == "true" {
			t.Errorf("%s is missing", binary)
		}
	}
	for _, row := range []string{"a lease, 1 in flight", "a lease, 16 in flight", "a lease, 64 in flight", "an offer, 16 in flight"} {
		for _, side := range sides {
			if !regexp.MustCompile(`(?m)^` + row + ` +` + side + ` +[1-9][0-9]* .* 0$`).Match(table) {
				t.Errorf("no figures for %s by %s, or failures:\n%s", row, side, table)
			}
		}
	}
	if !regexp.MustCompile(`(?m)^a lease, 1 in flight +fdatasync +[1-9]`).Match(table) {
		t.Errorf("nothing says what the disk allows:\n%s", table)
	}
}
