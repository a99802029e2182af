package ipmi

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lunboot/services/power/fault"
	"lunboot/store"
)

// sim is OpenIPMI's simulator of a BMC, which speaks RMCP+ and was written by
// others. A script of the test's is its chassis.
type sim struct {
	dir string
	at  string
}

// chassis keeps what it is told in files. "stubborn" makes it say yes to power and
// do nothing, "slow" take its time.
const chassis = `#!/bin/sh
cd "$(dirname "$0")"
echo "$@" >> told
[ -e slow ] && sleep 2.5
op=$1
shift
while [ $# -gt 0 ]; do
  if [ "$op" = get ]; then
    echo "$1:$(cat "$1")"
    shift
  else
    [ "$op" = set ] && ! [ -e stubborn ] && echo "$2" > "$1"
    shift 2
  fi
done
`

func startSim(t *testing.T) *sim {
	t.Helper()
	path, err := exec.LookPath("ipmi_sim")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("ipmi_sim is missing: apt-get install openipmi")
		}
		t.Skip("ipmi_sim is missing: apt-get install openipmi")
	}
	s := &sim{dir: t.TempDir(), at: freePort(t)}
	_, port, err := net.SplitHostPort(s.at)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"power": "0\n", "boot": "default\n", "chassis": chassis,
		"lan.conf": fmt.Sprintf(`name "lab"
set_working_mc 0x20
startlan 1
  addr 127.0.0.1 %s
  priv_limit admin
  allowed_auths_admin none md5
  guid a123456789abcdefa123456789abcdef
endlan
chassis_control "%s/chassis"
user 2 true "ana" "hunter2" admin 10 none md5
`, port, s.dir),
		"commands": "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n",
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(path, "-c", filepath.Join(s.dir, "lan.conf"), "-f", filepath.Join(s.dir, "commands"), "-s", s.dir)
	cmd.Dir = s.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	in, err := cmd.StdinPipe() // it ends with its console
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("the chassis was told:\n%s\nthe simulator says:\n%s", s.read(t, "told"), out.String())
		}
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		b, err := s.open(t, "ana", "hunter2", time.Second)
		if err == nil {
			b.Close()
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("the simulator does not answer: %v\n%s", err, out.String())
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}

func (s *sim) read(t *testing.T, name string) string {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (s *sim) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (s *sim) open(t *testing.T, user, secret string, within time.Duration) (*BMC, error) {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	t.Cleanup(cancel)
	return Open(ctx, target(s.at, user, secret))
}

func target(at, user, secret string) Target {
	return Target{BMC: store.BMC{Protocol: store.BMCIPMI, Address: at, User: user, Secret: secret}, Machine: "lab-01", Log: slog.New(slog.DiscardHandler)}
}

// must logs in, and out at the end of the test.
func (s *sim) must(t *testing.T) *BMC {
	t.Helper()
	b, err := s.open(t, "ana", "hunter2", 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestARealBMCDoesWhatItIsTold(t *testing.T) {
	s := startSim(t)
	b := s.must(t)
	state := func(want store.PowerState) {
		t.Helper()
		if is, err := b.State(); is != want || err != nil {
			t.Fatalf("it is %q (%v), want %q", is, err, want)
		}
	}
	do := func(act store.PowerAct, before store.PowerState) {
		t.Helper()
		if err := b.Do(act, before); err != nil {
			t.Fatalf("%s: %v", act, err)
		}
	}
	state(store.PowerStateOff)
	do(store.PowerOn, store.PowerStateOff)
	state(store.PowerStateOn)
	if err := b.BootNetworkOnce(); err != nil {
		t.Fatal(err)
	}
	if boot := s.read(t, "boot"); boot != "pxe" {
		t.Errorf("the next boot is from %q", boot)
	}
	do(store.PowerReset, store.PowerStateOn)
	if s.read(t, "reset") != "1" {
		t.Error("it was not reset")
	}
	do(store.PowerShutdown, store.PowerStateOn)
	if s.read(t, "shutdown") != "1" {
		t.Error("it was not asked to shut down")
	}
	do(store.PowerOff, store.PowerStateOn)
	state(store.PowerStateOff)
	s.write(t, "power", "1")
	do(store.PowerCycle, store.PowerStateOn)
	if told := s.read(t, "told"); !strings.Contains(told, "set power 0") {
		t.Errorf("the chassis never lost power:\n%s", told)
	}
}

func TestAPasswordThatIsWrongIsCalledThat(t *testing.T) {
	s := startSim(t)
	for _, c := range [][2]string{{"ana", "hunter3"}, {"eve", "hunter2"}} {
		_, err := s.open(t, c[0], c[1], 20*time.Second)
		if fault.Of(err) != fault.Password || !strings.Contains(fmt.Sprint(err), "the user "+c[0]) {
			t.Errorf("%s: %v", c, err)
		}
		// Its proofs of the password could be guessed from, wherever they are logged.
		for e := err; e != nil; e = unwrap(e) {
			if strings.Contains(e.Error(), "authcode") || strings.Contains(e.Error(), c[1]) {
				t.Errorf("%s: the error tells: %v", c, e)
			}
		}
	}
	s.must(t) // what went wrong left nothing behind that is in the way
}

func unwrap(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return nil
}

func TestABMCThatSaysYesAndDoesNothingIsFoundOut(t *testing.T) {
	s := startSim(t)
	s.write(t, "stubborn", "")
	b := s.must(t)
	if err := b.BootNetworkOnce(); fault.Of(err) != fault.Ignored {
		t.Errorf("the next boot: %v", err)
	}
	b.Close()
	short, err := s.open(t, "ana", "hunter2", 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	if err := short.Do(store.PowerOn, store.PowerStateOff); fault.Of(err) != fault.Ignored {
		t.Errorf("on: %v", err)
	}
}

func TestAnAnswerThatComesLateIsNotTakenForTheNextOne(t *testing.T) {
	s := startSim(t)
	b := s.must(t)
	s.write(t, "slow", "") // slower than an answer is waited for, so that the request is sent twice
	if is, err := b.State(); is != store.PowerStateOff || err != nil {
		t.Fatalf("%q, %v", is, err)
	}
	if err := os.Remove(filepath.Join(s.dir, "slow")); err != nil {
		t.Fatal(err)
	}
	if err := b.BootNetworkOnce(); err != nil {
		t.Fatalf("%v (%v)", err, unwrap(err))
	}
	if is, err := b.State(); is != store.PowerStateOff || err != nil {
		t.Fatalf("%q, %v", is, err)
	}
}

// peer answers UDP packets on loopback as the test likes; nil is silence.
func peer(t *testing.T, answer func(request []byte) []byte) string {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if out := answer(slices.Clone(buf[:n])); out != nil {
				c.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().String()
}

// handshake frames the payload of a handshake: RMCP, then a session header.
func handshake(kind byte, payload ...byte) []byte {
	out := []byte{6, 0, 0xff, 7, 6, kind, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(payload)), 0}
	return append(out, payload...)
}

func TestWhatKeepsOneFromABMCIsSaidInWords(t *testing.T) {
	status := func(kind, code byte) func([]byte) []byte {
		return func(req []byte) []byte { return handshake(kind, 0, code, 0, 0, 0xa3, 0xa2, 0xa1, 0xa0) }
	}
	const openReply = 0x11
	for name, c := range map[string]struct {
		at   string
		want fault.Why
		says string
	}{
		"nobody listens":             {freePort(t), fault.Closed, "does not listen"},
		"nothing comes back":         {peer(t, func([]byte) []byte { return nil }), fault.Silent, "IPMI over LAN may have to be switched on"},
		"neither cipher suite":       {peer(t, status(openReply, 0x11)), fault.Cipher, "17 and 3"},
		"one that says it shortly":   {peer(t, func([]byte) []byte { return handshake(openReply, 0, 0x04) }), fault.Cipher, "17 and 3"},
		"no session left":            {peer(t, status(openReply, 0x01)), fault.Busy, "try again"},
		"a user who may not":         {peer(t, status(openReply, 0x0a)), fault.Rights, "Operator"},
		"another service":            {peer(t, func([]byte) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") }), fault.Answer, "no IPMI 2.0 BMC"},
		"a suite that hides nothing": {peer(t, offersNothing), fault.Cipher, "17 and 3"},
		"a name that is none":        {"bmc.invalid:623", fault.NoName, "bmc.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
			defer cancel()
			b, err := Open(ctx, target(c.at, "ana", "hunter2"))
			if err == nil {
				b.Close()
			}
			if fault.Of(err) != c.want || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("%s: %v", fault.Of(err), err)
			}
		})
	}
}

// relay is the simulator behind somebody who changes its answers.
func (s *sim) relay(t *testing.T, change func(answer []byte)) string {
	t.Helper()
	c, err := net.Dial("udp4", s.at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return peer(t, func(req []byte) []byte {
		buf := make([]byte, 2048)
		c.SetDeadline(time.Now().Add(answerTime))
		if _, err := c.Write(req); err != nil {
			return nil
		}
		n, err := c.Read(buf)
		if err != nil {
			return nil
		}
		change(buf[:n])
		return buf[:n]
	})
}

// What the library says of a proof that is not good has the proof in it, which a
// password can be guessed from wherever it is logged.
func TestAProofThatIsNotGoodIsToldToNobody(t *testing.T) {
	s := startSim(t)
	const kind, status, rakp4 = 5, 17, 0x15
	for name, c := range map[string]struct {
		change func([]byte)
		want   fault.Why
		says   string
	}{
		"another proof":       {func(b []byte) { b[len(b)-1] ^= 1 }, fault.Answer, "does not prove that it knows the password"},
		"a status":            {func(b []byte) { b[status] = byte(0x0f) }, fault.Password, "the user ana"},
		"a status of its own": {func(b []byte) { b[status] = byte(0xc0) }, fault.Answer, "no IPMI 2.0 BMC"},
	} {
		t.Run(name, func(t *testing.T) {
			var changed atomic.Int32
			at := s.relay(t, func(b []byte) {
				if len(b) > status && b[kind]&0x3f == rakp4 {
					changed.Add(1)
					c.change(b)
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			b, err := Open(ctx, target(at, "ana", "hunter2"))
			if err == nil {
				b.Close()
			}
			if fault.Of(err) != c.want || !strings.Contains(fmt.Sprint(err), c.says) || changed.Load() == 0 {
				t.Errorf("after %d changes %s: %v", changed.Load(), fault.Of(err), err)
			}
			for e := err; e != nil; e = unwrap(e) {
				if strings.Contains(e.Error(), "mac") || strings.Contains(e.Error(), "authcode") {
					t.Errorf("the error tells: %v", e)
				}
			}
		})
	}
}

// offersNothing takes every session with algorithms that protect nothing.
func offersNothing(req []byte) []byte {
	out := make([]byte, 36)
	copy(out[4:8], []byte{0xa3, 0xa2, 0xa1, 0xa0})
	for i, kind := range []byte{0, 1, 2} {
		out[12+8*i], out[12+8*i+3] = kind, 8
	}
	return handshake(0x11, out...)
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	at := peer(t, func([]byte) []byte { return nil })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := Open(ctx, target(at, "ana", "hunter2"))
		ended <- err
	}()
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it logged in to nobody")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits on")
	}
}

func TestTheNextBootIsByTheFirmwareThatTheMachineHas(t *testing.T) {
	// IPMI 2.0, table 28-14: valid 80h, EFI 20h; PXE is 1 in bits 5:2.
	if got := networkOnce(false).Pack(); !bytes.Equal(got, []byte{0x80, 0x04, 0, 0, 0}) {
		t.Errorf("BIOS: % x", got)
	}
	if got := networkOnce(true).Pack(); !bytes.Equal(got, []byte{0xa0, 0x04, 0, 0, 0}) {
		t.Errorf("UEFI: % x", got)
	}
}

// Whatever a BMC answers, a login ends and nothing falls over.
func FuzzAnswers(f *testing.F) {
	f.Add(handshake(0x11, 0, 0, 0, 0, 0xa3, 0xa2, 0xa1, 0xa0))
	f.Add(offersNothing(nil))
	f.Add([]byte{6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x40})
	f.Add([]byte{6, 0, 0xff, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0x81, 0x1c, 0x63, 0x20, 0, 0x38, 0, 0})
	f.Fuzz(func(t *testing.T, answer []byte) {
		at := peer(t, func([]byte) []byte { return answer })
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		b, err := Open(ctx, target(at, "ana", "hunter2"))
		if err == nil {
			b.Close()
			t.Error("it logged in by an answer that nobody could have made")
		}
	})
}
