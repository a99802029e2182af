package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"lunboot/services/iscsi/iscsitest"
)

// child is a lunboot serve of its own, which can be killed.
type child struct {
	dir  string
	cmd  *exec.Cmd
	done chan struct{}
	log  *logs
	up   struct{ Msg, Target, Portal, Boot, Admin, TFTP string }
}

func bear(t *testing.T, dir string, flags ...string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, append([]string{"serve"}, flags...)...)
	c.Args[0] = "lunboot"
	return bearBy(t, dir, c)
}

// bearBy is bear with a command of the test's own.
func bearBy(t *testing.T, dir string, c *exec.Cmd) *child {
	t.Helper()
	p := &child{dir: dir, cmd: c, done: make(chan struct{}), log: &logs{more: make(chan struct{})}}
	p.cmd.Env = append(os.Environ(), "LUNBOOT_DATA="+dir)
	errs, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{})
	go func() {
		defer close(p.done)
		for s := bufio.NewScanner(errs); s.Scan(); {
			fmt.Fprintln(p.log, s.Text())
			if strings.Contains(s.Text(), "the appliance is up") && json.Unmarshal(s.Bytes(), &p.up) == nil {
				close(up)
			}
		}
	}()
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.done; _ = p.cmd.Wait() })
	select {
	case <-up:
	case <-p.done:
		t.Fatalf("it ended: %s", p.log)
	case <-time.After(30 * time.Second):
		t.Fatal("it is not up")
	}
	return p
}

// end asks it to end, and says how it did.
func (p *child) end() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-p.done
	return p.cmd.Wait()
}

// What a machine was told is on disk is there after every end, the machine is
// let in again on the same ports at once, and after an orderly end so is what
// it was only told is written.
func TestWritesSurviveEveryEndOfTheProcess(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			dir := dataDir(t)
			p := bear(t, dir, onLoopback...)
			same := []string{"--dhcp", "off", "--admin", p.up.Admin, "--boot", p.up.Boot, "--tftp", p.up.TFTP, "--iscsi", p.up.Portal, "--log-format", "json"}
			for _, verb := range []string{"machine add lab1 --mac 00:07:e9:0f:ea:f5 --auth none --iqn iqn.2026-11.test:lab1", "volume create v1 --size 64M", "mapping add lab1 v1 --lun 0"} {
				if code, _, errs := cliIn(dir, strings.Fields(verb)...); code != exitDone {
					t.Fatalf("%s: %s", verb, errs)
				}
			}
			login := func(n uint16) (*iscsitest.Initiator, error) {
				i, err := iscsitest.Dial(netip.MustParseAddrPort(p.up.Portal), iscsitest.Options{Name: "iqn.2026-11.test:lab1", Target: p.up.Target, ISID: iscsitest.Linux(n)})
				if err == nil {
					for range 3 { // unit attentions
						_, _ = i.Do(iscsitest.Ready(0))
					}
				}
				return i, err
			}
			acked, flushed := 0, 0
			for round := range 3 {
				i, err := login(uint16(round))
				if err != nil {
					t.Fatalf("after %d ends: %v", round, err)
				}
				for n := range acked {
					if round == 0 || sig == syscall.SIGKILL && n >= flushed {
						break
					}
					r, err := i.Do(iscsitest.Read10(0, uint32(n), 1))
					if err != nil || binary.BigEndian.Uint64(r.Data) != uint64(n+1) {
						t.Fatalf("block %d of %d acknowledged and %d flushed is lost: %v", n, acked, flushed, err)
					}
				}
				acked, flushed = 0, 0
				var end *time.Timer
				for err == nil && acked < 100000 {
					b := make([]byte, 512)
					binary.BigEndian.PutUint64(b, uint64(acked+1))
					c := iscsitest.Write10(0, uint32(acked), b)
					c.Immediate = len(b)
					if r, werr := i.Do(c); werr != nil || r.Status != 0 {
						break
					}
					acked++
					if acked%16 == 0 {
						if r, serr := i.Do(iscsitest.Sync10(0)); serr != nil || r.Status != 0 {
							break
						}
						if flushed = acked; end == nil {
							end = time.AfterFunc(100*time.Millisecond, func() { _ = p.cmd.Process.Signal(sig) })
						}
					}
				}
				_ = i.Conn.Close()
				if end == nil {
					t.Fatal("nothing was written before the end")
				}
				<-p.done
				if err := p.cmd.Wait(); sig == syscall.SIGTERM && err != nil {
					t.Errorf("after SIGTERM: %v", err)
				}
				begun := time.Now()
				p = bear(t, dir, same...)
				t.Logf("%d acknowledged, %d flushed; up again after %s", acked, flushed, time.Since(begun))
			}
		})
	}
}
