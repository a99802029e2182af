package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestCommandLine runs testdata/script: each file has an appliance of its own
// in $DATA. 'lunboot' is the program within this process, its data folder
// given; 'code N' then compares its exit code. 'exec lunboot' is the program as
// a process, with nothing but its environment.
func TestCommandLine(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("fish"); err != nil && os.Getenv("CI") == "true" {
		t.Fatal("fish is missing: apt-get install fish")
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			bin, data := filepath.Join(env.WorkDir, "bin"), filepath.Join(env.WorkDir, "data")
			if err := os.Mkdir(bin, 0o755); err != nil {
				return err
			}
			if err := os.Symlink(exe, filepath.Join(bin, "lunboot")); err != nil {
				return err
			}
			a := serve(env.T(), data, "--target", "iqn.2024-01.org.example:rack")
			env.Defer(func() {
				if code := a.stop(env.T()); code != exitDone {
					env.T().Fatal("lunboot serve ended with", code, a.log)
				}
			})
			env.Values["appliance"], env.Values["code"] = a, new(int)
			env.Setenv("DATA", data)
			env.Setenv("BOOT", a.Boot)
			env.Setenv("ADMIN", a.Admin)
			env.Setenv("PORTAL", a.Portal)
			env.Setenv("PATH", bin+":"+env.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"lunboot": func(ts *testscript.TestScript, neg bool, args []string) {
				in := io.Reader(strings.NewReader(""))
				if len(args) > 0 && strings.HasPrefix(args[0], "<") {
					in, args = strings.NewReader(ts.ReadFile(args[0][1:])), args[1:]
				}
				if len(args) > 0 && args[0] != "--server" {
					args = append([]string{"--data", ts.Getenv("DATA")}, args...)
				}
				for i, arg := range args {
					if i > 0 && (args[i-1] == "--file" || strings.HasSuffix(arg, ".img")) && arg != "-" {
						args[i] = ts.MkAbs(arg)
					}
				}
				code := run(context.Background(), nil, args, in, ts.Stdout(), ts.Stderr())
				*ts.Value("code").(*int) = code
				if neg != (code != exitDone) {
					ts.Fatalf("lunboot ended with %d", code)
				}
			},
			// soon runs a verb until it succeeds, for five seconds.
			"soon": func(ts *testscript.TestScript, _ bool, args []string) {
				args = append([]string{"--data", ts.Getenv("DATA")}, args[1:]...)
				for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
					var out, errs bytes.Buffer
					if run(context.Background(), nil, args, strings.NewReader(""), &out, &errs) == exitDone {
						_, err := out.WriteTo(ts.Stdout())
						ts.Check(err)
						return
					}
					if time.Now().After(end) {
						ts.Fatalf("%s", errs.String())
					}
				}
			},
			"code": func(ts *testscript.TestScript, neg bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				if got := *ts.Value("code").(*int); got != want {
					ts.Fatalf("the exit code is %d, want %d", got, want)
				}
			},
			// get fetches an address, as a machine's iPXE does.
			"get": func(ts *testscript.TestScript, neg bool, args []string) {
				c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
				resp, err := c.Get(args[0])
				ts.Check(err)
				defer resp.Body.Close()
				_, err = io.Copy(ts.Stdout(), resp.Body)
				ts.Check(err)
				if neg != (resp.StatusCode >= 300) {
					ts.Fatalf("%s", resp.Status)
				}
			},
			// keep sets a variable to the last output.
			"keep": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
			},
			"image": func(ts *testscript.TestScript, neg bool, args []string) {
				size, err := strconv.Atoi(args[1])
				ts.Check(err)
				b := make([]byte, size)
				for i := range b {
					b[i] = byte(i * 7)
				}
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
			},
			// efi makes the smallest file that passes for an EFI application of a
			// machine type, in hexadecimal, with words in it.
			"efi": func(ts *testscript.TestScript, neg bool, args []string) {
				machine, err := strconv.ParseUint(args[1], 16, 16)
				ts.Check(err)
				b := make([]byte, 2048)
				copy(b, "MZ")
				b[60] = 128
				copy(b[128:], "PE\x00\x00")
				binary.LittleEndian.PutUint16(b[132:], uint16(machine))
				b[128+24+68] = 10
				copy(b[512:], "\x00"+strings.Join(args[2:], "\x00")+"\x00")
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
			},
			"stop": func(ts *testscript.TestScript, neg bool, args []string) {
				if code := ts.Value("appliance").(*testAppliance).stop(tsTester{ts}); code != exitDone {
					ts.Fatalf("lunboot serve ended with %d", code)
				}
			},
		},
	})
}

type tsTester struct{ *testscript.TestScript }

func (t tsTester) Fatal(args ...any) { t.Fatalf("%v", args) }
func (t tsTester) Log(args ...any)   { t.Logf("%v", args) }
