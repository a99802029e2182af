package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/store"
)

// netlab runs a verb and returns its exit code and what it printed.
func netlab(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	files := map[string]*os.File{}
	for _, name := range []string{"in", "out", "err"} {
		f, err := os.Create(filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[name] = f
	}
	code = run(&world{t.Context(), files["in"], files["out"], files["err"]}, args)
	read := func(name string) string {
		b, err := os.ReadFile(files[name].Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return code, read("out"), read("err")
}

func TestWrongUseIsSaidAndIsExitCode2(t *testing.T) {
	for _, args := range [][]string{{}, {"dance"}, {"demo", "--firmware", "coreboot"}, {"image"}} {
		if code, _, errs := netlab(t, args...); code != exitUsage || !strings.HasPrefix(errs, "netlab: ") {
			t.Errorf("%q: exit code %d, %q", args, code, errs)
		}
	}
	if code, _, errs := netlab(t, "demo", "--lun", "99999"); code != exitFailed || !strings.Contains(errs, "99999") {
		t.Errorf("a LUN that is none: exit code %d, %q", code, errs)
	}
}

func TestThePackagesAreOneALine(t *testing.T) {
	code, out, _ := netlab(t, "packages")
	if code != exitDone {
		t.Fatal(code)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != len(lab.Packages())+len(lab.TestPackages()) || strings.ContainsAny(out, " \t") {
		t.Errorf("%q", out)
	}
}

func TestCheckPrintsTheLineToRunAndNothingElse(t *testing.T) {
	code, out, _ := netlab(t, "check")
	if code != exitDone || out != "" && !strings.HasPrefix(out, "apt-get install -y") {
		t.Errorf("exit code %d, %q", code, out)
	}
}

func TestAnAttemptMustShowTheWholeWay(t *testing.T) {
	whole := func() store.Attempt {
		a := store.Attempt{Outcome: store.OutcomeUp}
		for _, name := range store.Stages() {
			a.Stages = append(a.Stages, store.Stage{Name: name, State: store.StageDone, At: time.Now(), Detail: "74,213 bytes in 0.1 s"})
		}
		return a
	}
	if err := complete(whole()); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*store.Attempt){
		"not up":            func(a *store.Attempt) { a.Outcome = store.OutcomeUpUnconfirmed },
		"loader skipped":    func(a *store.Attempt) { a.Stages[2].State = store.StageSkipped },
		"loader of no size": func(a *store.Attempt) { a.Stages[2].Detail = "fetched" },
		"no login":          func(a *store.Attempt) { a.Stages[4].State = store.StageWaiting },
	} {
		a := whole()
		if spoil(&a); complete(a) == nil {
			t.Errorf("%s: the demo passes", name)
		}
	}
}
