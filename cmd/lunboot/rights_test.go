package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is lunboot as a process of its own, since a test's process may not
// give up its rights.
type process struct {
	*exec.Cmd
	said  chan string // each line, closed at the end
	lines []string
}

func startProcess(t *testing.T, exe string, as *syscall.Credential, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	p := &process{Cmd: exec.CommandContext(ctx, exe, args...), said: make(chan string, 100)}
	p.Args[0] = "lunboot"
	p.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	errs, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		defer close(p.said)
		for s := bufio.NewScanner(errs); s.Scan(); {
			p.said <- s.Text()
		}
	}()
	t.Cleanup(func() {
		p.Process.Kill()
		for range p.said { // so that its reader ends
		}
		p.Wait()
	})
	return p
}

// until reads what it says up to a word, or to the end when there is none.
func (p *process) until(t *testing.T, word string) {
	t.Helper()
	for line := range p.said {
		p.lines = append(p.lines, line)
		if word != "" && strings.Contains(line, word) {
			return
		}
	}
	if word != "" {
		t.Fatalf("it ended without %q: %s", word, p.text())
	}
}

func (p *process) text() string { return strings.Join(p.lines, "\n") }

// rights reads a field of every thread of a process.
func rights(t *testing.T, pid int, field string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) < 2 {
		t.Fatalf("threads of %d: %q, %v", pid, files, err)
	}
	values := map[string]bool{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has just ended
		}
		for line := range strings.Lines(string(b)) {
			if value, ok := strings.CutPrefix(line, field+":"); ok {
				values[strings.TrimSpace(value)] = true
			}
		}
	}
	return values
}

func ourselves(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func needRoot(t *testing.T) {
	t.Helper()
	have, err := capabilities()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 && have.permitted()&^kept != 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root and its rights")
	}
	t.Skip("this test needs root and its rights")
}

func TestRootKeepsTwoCapabilitiesInEveryThread(t *testing.T) {
	needRoot(t)
	dir := dataDir(t)
	p := startProcess(t, ourselves(t), nil, append([]string{"--data", dir, "serve"}, onLoopback...)...)
	p.until(t, "the appliance is up")
	if strings.Contains(p.text(), "rights of root are kept") {
		t.Fatal(p.text())
	}
	const two = "0000000000002400" // bits 10 and 13 (linux/capability.h)
	for field, want := range map[string]string{"CapPrm": two, "CapEff": two, "CapBnd": two, "CapInh": "0000000000000000", "CapAmb": "0000000000000000"} {
		if got := rights(t, p.Process.Pid, field); len(got) != 1 || !got[want] {
			t.Errorf("%s of its threads: %v, want %s", field, got, want)
		}
	}
	if code, out, errs := cliIn(dir, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5"); code != exitDone {
		t.Errorf("it does not work: %d %s %s", code, out, errs)
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.until(t, "")
	if err := p.Wait(); err != nil {
		t.Errorf("it ended with %v: %s", err, p.text())
	}
}

func TestRootGivesTheSocketToItsGroup(t *testing.T) {
	needRoot(t)
	g, err := user.LookupGroup(socketGroup)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no group lunboot: groupadd --system lunboot")
		}
		t.Skip("there is no group lunboot")
	}
	dir := dataDir(t)
	p := startProcess(t, ourselves(t), nil, append([]string{"--data", dir, "serve"}, onLoopback...)...)
	p.until(t, "the appliance is up")
	st, err := os.Stat(filepath.Join(dir, "lunboot.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if gid := strconv.Itoa(int(st.Sys().(*syscall.Stat_t).Gid)); gid != g.Gid {
		t.Errorf("the socket belongs to group %s, want %s: %s", gid, g.Gid, p.text())
	}
}

func TestRootStillSaysWhoHoldsAPort(t *testing.T) {
	needRoot(t)
	for flag, network := range map[string]string{"--admin": "tcp", "--boot": "tcp", "--iscsi": "tcp", "--tftp": "udp4"} {
		t.Run(flag, func(t *testing.T) {
			addr, pid := stranger(t, network, "127.0.0.1:0")
			args := append([]string{"--data", dataDir(t), "serve"}, onLoopback...)
			p := startProcess(t, ourselves(t), nil, append(args, flag, addr)...)
			p.until(t, "")
			for _, want := range []string{fmt.Sprintf("(pid %d)", pid), flag} {
				if !strings.Contains(p.text(), want) {
					t.Errorf("it does not say %q: %s", want, p.text())
				}
			}
		})
	}
}

// byNobody starts an appliance without any right, and returns its data folder.
func byNobody(t *testing.T) (p *process, data string) {
	t.Helper()
	needRoot(t)
	dir := dataDir(t)
	const nobody = 65534
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "lunboot") // the test's own place is root's alone
	if out, err := exec.Command("install", "-m", "0755", ourselves(t), exe).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	as := &syscall.Credential{Uid: nobody, Gid: nobody}
	data = filepath.Join(dir, "data")
	p = startProcess(t, exe, as, append([]string{"--data", data, "serve"}, onLoopback...)...)
	p.until(t, "the appliance is up")
	return p, data
}

func TestNobodyServesAndKeepsEverythingToThemselves(t *testing.T) {
	p, data := byNobody(t)
	if got := rights(t, p.Process.Pid, "CapPrm"); len(got) != 1 || !got["0000000000000000"] {
		t.Errorf("its capabilities: %v", got)
	}
	if code, _, errs := cliIn(data, "volume", "create", "v1", "--size", "8M"); code != exitDone {
		t.Fatal(errs)
	}
	seen := 0
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		switch {
		case d.IsDir():
			want = 0o750
		case filepath.Base(path) == "lunboot.sock":
			want = 0o660
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, st.Mode().Perm(), want)
		}
		seen++
		return nil
	})
	if err != nil || seen < 6 {
		t.Errorf("%d files, %v", seen, err)
	}
}

func TestAnImageThatTheApplianceMayNotOpenIsUploaded(t *testing.T) {
	_, data := byNobody(t)
	ours := filepath.Join(t.TempDir(), "image") // which root may read, and the appliance may not
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if err := os.WriteFile(ours, want, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := cliIn(data, "volume", "import", "v2", ours); code != exitDone || !strings.Contains(out, "uploaded") {
		t.Errorf("an image that only root may read: %d %s %s", code, out, errs)
	}
	if files, _ := filepath.Glob(filepath.Join(data, "volumes", "v2-*.raw")); len(files) != 1 {
		t.Errorf("its files: %q", files)
	} else if got, err := os.ReadFile(files[0]); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came of %d, %v", len(got), len(want), err)
	}
	if code, _, errs := cliIn(data, "volume", "import", "v3", ours+"-not"); code != exitFailed || !strings.Contains(errs, "cannot be opened") {
		t.Errorf("an image that is not there: %d %s", code, errs)
	}
}

func TestAForeignDataFolderIsRefusedWithItsRemedy(t *testing.T) {
	needRoot(t)
	const nobody = 65534
	for name, owner := range map[string]int{"of root": 0, "of somebody else": nobody} {
		t.Run(name, func(t *testing.T) {
			dir := dataDir(t)
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			exe := filepath.Join(dir, "lunboot")
			if out, err := exec.Command("install", "-m", "0755", ourselves(t), exe).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			data := filepath.Join(dir, "data")
			if err := errors.Join(os.Mkdir(data, 0o750), os.Chown(data, owner, owner)); err != nil {
				t.Fatal(err)
			}
			runner := &syscall.Credential{Uid: nobody, Gid: nobody}
			if owner == nobody {
				runner = nil // root, who opens foreign folders no more
			}
			p := startProcess(t, exe, runner, append([]string{"--data", data, "serve"}, onLoopback...)...)
			p.until(t, "")
			if !strings.Contains(p.text(), "permission denied") || !strings.Contains(p.text(), "chown -R") || !strings.Contains(p.text(), data) {
				t.Errorf("it says: %s", p.text())
			}
		})
	}
}
