package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/load/trace"
)

// A boot is recorded again as the one that is built in was: the same machine asks
// for about the same.
func TestABootIsRecorded(t *testing.T) {
	if os.Getenv("LUNBOOT_SOAK") == "" {
		t.Skip("LUNBOOT_SOAK=1 records a boot")
	}
	if err := lab.Usable(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), "boot.trace")
	code, out, errs := netlab(t, "trace", path)
	if code != exitDone || !strings.Contains(out, path+": ") {
		t.Fatalf("%d, %q, %q", code, out, errs)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := trace.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	builtIn, err := (&benchCmd{}).bootTrace()
	if err != nil {
		t.Fatal(err)
	}
	a, b := got.Sum(), builtIn.Sum()
	t.Logf("recorded: %s; built in: %s", a, b)
	if a.Logins < 2 || a.Reads < b.Reads/2 || a.Reads > b.Reads*2 || a.Read < b.Read/2 || a.Read > b.Read*2 || a.Writes == 0 || a.Flushes == 0 {
		t.Error("they are not the same kind of boot: record the one that is built in again, by netlab trace cmd/netlab/bios.trace")
	}
}

func TestARecordingThatCannotBeMadeSaysWhy(t *testing.T) {
	if code, _, errs := netlab(t, "trace"); code != exitUsage || !strings.Contains(errs, "<file>") {
		t.Errorf("no file: %d, %q", code, errs)
	}
	if code, _, errs := netlab(t, "trace", "--firmware", "coreboot", "x"); code != exitUsage || !strings.Contains(errs, "bios") {
		t.Errorf("no such firmware: %d, %q", code, errs)
	}
}
