package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/load"
	"lunboot/cmd/netlab/load/trace"
)

// smallBoot is a boot of a few commands, as a file.
func smallBoot(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "boot.trace")
	text := "netlab trace 1\nsize 8388608\nblock 512\n0 login 8192\n1 read 1 0 1\n2 read 1 1 127\n3 login 262144\n4 read 1 8 256\n5 read 2 4096 8\n6 write 1 64 64\n7 flush 1 0 0\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A storm runs against the program as users start it, and beside tgt where that
// is installed. What is printed has a line for each room and side.
func TestTheBenchMeasuresAStorm(t *testing.T) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("runs every load")
	}
	binary, err := lab.BuildAppliance(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sides := []string{sideClones}
	if _, err := exec.LookPath("tgtd"); err == nil {
		sides = append(sides, load.Peer)
	} else if os.Getenv("CI") == "true" {
		t.Error("tgtd is missing")
	}
	// Two rounds: clones are made anew for the second.
	table := printed(t, &benchCmd{What: []string{"storm"}, Binary: binary, Rounds: 2, Machines: []int{1, 3}, Trace: smallBoot(t)})
	for _, row := range []string{"1 machines, first boot", "1 machines, boot again", "3 machines, first boot", "3 machines, boot again"} {
		for _, side := range sides {
			line := regexp.MustCompile(`(?m)^` + row + ` +` + regexp.QuoteMeta(side) + ` +[0-9].*$`).FindString(table)
			if line == "" || strings.Contains(line, "NaN") {
				t.Errorf("no figures for %s by %s:\n%s", row, side, table)
			}
		}
	}
	if !strings.Contains(table, "2 logins, 4 reads") {
		t.Errorf("it does not say what each machine does:\n%s", table)
	}
	for _, wrong := range []*benchCmd{
		{What: []string{"storm"}, Binary: binary, Machines: []int{0}},
		{What: []string{"storm"}, Binary: binary, Machines: []int{1}, Trace: binary},
	} {
		if err := wrong.Run(&world{ctx: t.Context(), out: os.Stdout, err: os.Stderr}); err == nil {
			t.Errorf("%v machines by the trace %q are replayed", wrong.Machines, wrong.Trace)
		}
	}
}

// The volume has data where the boot goes, and holes elsewhere.
func TestTheVolumeOfAStormHasDataWhereTheBootGoes(t *testing.T) {
	boot := &trace.Trace{Size: 8 << 20, BlockSize: 512, Steps: []trace.Step{
		{Op: trace.Login, Segment: 8192}, {Op: trace.Read, Depth: 1, Block: 9, Blocks: 8}, {Op: trace.Write, Depth: 1, Block: 4096, Blocks: 1}, {Op: trace.Read, Depth: 1, Block: 4097, Blocks: 1}, {Op: trace.Flush, Depth: 1},
	}}
	path := filepath.Join(t.TempDir(), "image")
	if err := layBoot(path, boot); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || int64(len(b)) != boot.Size {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	for at := 0; at < len(b); at += granule {
		data := strings.Trim(string(b[at:at+granule]), "\x00") != ""
		if want := at == granule || at == 2*granule || at == 512*granule; data != want { // blocks 9 to 16, and 4096
			t.Errorf("data at %d: %v", at, data)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Blocks*512 > boot.Size/2 {
		t.Errorf("it takes %d bytes: %v", st.Blocks*512, err)
	}
	// Cold is out of the page cache, warm is in it.
	for _, cold := range []bool{true, false} {
		if err := cool(path, cold); err != nil {
			t.Fatal(err)
		}
		n, err := cachedOf([]string{path})
		if err != nil || cold && n != 0 || !cold && n < 3*granule {
			t.Errorf("cold %v: %d bytes are in the page cache, %v", cold, n, err)
		}
	}
}

func TestTheMostMemoryIsWhatIsReported(t *testing.T) {
	peak := watchMemory(os.Getpid())
	if n, err := peak(); err != nil || n <= 0 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := watchMemory(1 << 30)(); err == nil {
		t.Error("a process that there is not has memory")
	}
}
