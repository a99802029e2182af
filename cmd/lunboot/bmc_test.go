package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite"
)

// bmc starts OpenIPMI's simulator of a BMC on loopback. Its chassis is a script
// that keeps what it is told in the folder that is returned; with a file "refuse"
// there it does not touch the power, and with one "hold" it takes its time over that.
func bmc(t *testing.T) (at, dir string) {
	t.Helper()
	path, err := exec.LookPath("ipmi_sim")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("ipmi_sim is missing: apt-get install openipmi")
		}
		t.Skip("ipmi_sim is missing: apt-get install openipmi")
	}
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at, dir = c.LocalAddr().String(), t.TempDir()
	c.Close()
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"power": "0\n", "boot": "default\n",
		"chassis": "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho \"$@\" >> told\n[ -e refuse ] && [ \"$1 $2\" = \"set power\" ] && { while [ -e hold ]; do sleep 0.02; done; exit 1; }\nop=$1\nshift\nwhile [ $# -gt 0 ]; do\n" +
			"if [ \"$op\" = get ]; then echo \"$1:$(cat \"$1\")\"; shift; else [ \"$op\" = set ] && echo \"$2\" > \"$1\"; shift 2; fi\ndone\n",
		"lan.conf": fmt.Sprintf("name \"lab\"\nset_working_mc 0x20\nstartlan 1\n  addr 127.0.0.1 %s\n  priv_limit admin\n  allowed_auths_admin none md5\n"+
			"  guid a123456789abcdefa123456789abcdef\nendlan\nchassis_control \"%s/chassis\"\nuser 2 true \"ana\" \"hushhush-bmc\" admin 10 none md5\n", port, dir),
		"commands": "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(path, "-c", filepath.Join(dir, "lan.conf"), "-f", filepath.Join(dir, "commands"), "-s", dir)
	in, err := cmd.StdinPipe() // it ends with its console
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	return at, dir
}

func TestAMachineIsSwitchedByItsBMC(t *testing.T) {
	at, dir := bmc(t)
	a := started(t, dataDir(t))
	a.must(t, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5", "--bmc", "ipmi://ana@"+at, "--bmc-secret", "hushhush-bmc")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) { // until the simulator is up
		code, out, errs := cliIn(a.dir, "machine", "power", "lab1", "status")
		if code == exitDone && strings.Contains(out, "lab1 is off") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d: %s%s", code, out, errs)
		}
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	if out := a.must(t, "machine", "power", "lab1", "cycle", "--once", "pxe", "--profile", "local"); !strings.Contains(out, "lab1 was switched on; its BMC says that it is on; its next boot is one from the network, by the profile local") {
		t.Errorf("it says %q", out)
	}
	var m store.Machine
	if err := json.Unmarshal([]byte(a.must(t, "--json", "machine", "show", "lab1")), &m); err != nil {
		t.Fatal(err)
	}
	if m.OnceProfile != "local" || read("boot") != "pxe" || read("power") != "1" {
		t.Errorf("the next boot is by %q from %s, and its power is %s", m.OnceProfile, read("boot"), read("power"))
	}
	if out := a.must(t, "machine", "power", "lab1", "off"); !strings.Contains(out, "switched off") || read("power") != "0" {
		t.Errorf("it says %q, and its power is %s", out, read("power"))
	}
	if out := a.must(t, "machine", "power", "lab1", "off"); !strings.Contains(out, "lab1 is off already; nothing was switched") || strings.Contains(out, "switched off") {
		t.Errorf("an order for nothing says %q", out)
	}
	if out := a.must(t, "machine", "power", "lab1", "status"); !strings.Contains(out, "lab1 is off") {
		t.Errorf("what was seen before the order is still the answer: %q", out)
	}

	// An order that fails leaves no installer behind that waits for another boot.
	if err := os.WriteFile(filepath.Join(dir, "refuse"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	once := func() string {
		t.Helper()
		var m store.Machine
		if err := json.Unmarshal([]byte(a.must(t, "--json", "machine", "show", "lab1")), &m); err != nil {
			t.Fatal(err)
		}
		return m.OnceProfile
	}
	code, _, errs := cliIn(a.dir, "machine", "power", "lab1", "on", "--once", "pxe", "--profile", "san")
	if code != exitFailed || !strings.Contains(errs, "its next boot is still one from the network") || once() != "local" || read("power") != "0" {
		t.Errorf("it is %d %s, and the next boot is by %q", code, errs, once())
	}
	if code, _, errs := cliIn(a.dir, "machine", "power", "lab1", "on", "--once", "pxe", "--profile", "local"); code != exitFailed || once() != "local" {
		t.Errorf("a profile that was chosen before the order is taken back: %d %s, %q", code, errs, once())
	}
	a.must(t, "machine", "boot", "lab1", "--once", "")
	if code, _, errs := cliIn(a.dir, "machine", "power", "lab1", "on", "--once", "pxe", "--profile", "local"); code != exitFailed || once() != "" {
		t.Errorf("it is %d %s, and the next boot is by %q", code, errs, once())
	}
	// What somebody chose while the order was under way is theirs.
	if err := os.WriteFile(filepath.Join(dir, "hold"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	failed := make(chan int, 1)
	go func() {
		code, _, _ := cliIn(a.dir, "machine", "power", "lab1", "on", "--once", "pxe", "--profile", "local")
		failed <- code
	}()
	for end := time.Now().Add(20 * time.Second); once() != "local"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the order has not come so far")
		}
	}
	a.must(t, "machine", "boot", "lab1", "--once", "san")
	for _, name := range []string{"hold", "refuse"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if name == "hold" {
			if code := <-failed; code != exitFailed || once() != "san" {
				t.Errorf("it is %d, and the next boot is by %q", code, once())
			}
		}
	}
	a.must(t, "machine", "set", "lab1", "--bmc-secret", "hushhush-other")
	if code, _, errs := cliIn(a.dir, "machine", "power", "lab1", "on"); code != exitFailed || !strings.Contains(errs, "does not let the user ana in by this password") || read("power") != "0" {
		t.Errorf("a wrong password: %d %s", code, errs)
	}
	if code, _, errs := cliIn(a.dir, "machine", "power", "lab1", "status", "--once", "pxe"); code != exitUsage || !strings.Contains(errs, "changes nothing") {
		t.Errorf("a look that changes something: %d %s", code, errs)
	}

	audit := a.must(t, "--json", "audit")
	for _, want := range []string{"machine.power", "cycle: lab1 was switched on", "off: lab1 was switched off", "off: lab1 is off already", "on: not done: ", "on: failed, and may be done all the same: ", "still one from the network"} {
		if !strings.Contains(audit, want) {
			t.Errorf("the audit log has no %q", want)
		}
	}
	if events := a.must(t, "--json", "event", "list"); !strings.Contains(events, "machine.power") || !strings.Contains(events, string(store.CauseNotDone)) {
		t.Errorf("the journal tells nothing of it")
	}
	for where, text := range map[string]string{
		"the audit log": audit, "the log": a.log.String(), "the journal": a.must(t, "--json", "event", "list"),
		"the list of machines": a.must(t, "--json", "machine", "list"), "the machine with its secrets": a.must(t, "--json", "machine", "show", "lab1", "--secrets"),
	} {
		if strings.Contains(text, "hushhush") || strings.Contains(text, "authcode") {
			t.Errorf("%s tells the BMC's password, or what it can be guessed from", where)
		}
	}
}

// The boots before this one were real ones of an hour ago; this one is asked for as
// a machine does.
func TestAnInstallerThatIsGivenAgainAndAgainIsADiagnosis(t *testing.T) {
	dir := dataDir(t)
	a := started(t, dir)
	files := t.TempDir()
	for _, name := range []string{"linux", "initrd.gz"} {
		if err := os.WriteFile(filepath.Join(files, name), []byte("the bytes of "+name), 0o644); err != nil {
			t.Fatal(err)
		}
		a.must(t, "media", "add", filepath.Join(files, name))
	}
	a.must(t, "profile", "set", "deb", "--kind", "install", "--field", "kernel=linux", "--field", "initrd=initrd.gz")
	a.must(t, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5")
	a.must(t, "volume", "create", "lab1", "--size", "1G")
	a.must(t, "mapping", "add", "lab1", "lab1", "--lun", "0", "--boot")
	a.must(t, "machine", "boot", "lab1", "--once", "deb")
	if code := a.stop(t); code != exitDone {
		t.Fatal(code)
	}
	journal, err := sqlite.OpenJournal(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	seq, err := journal.LastSeq(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var past []store.Event
	for _, ago := range []time.Duration{50 * time.Minute, 25 * time.Minute} {
		at := time.Now().Add(-ago)
		for i, e := range []store.Event{
			{Kind: store.EventScriptSent, Detail: store.Detail{Profile: "deb", MatchedBy: "mac", IPXE: true, Script: "#!ipxe\nkernel /files/linux\nboot\n"}},
			{Kind: store.EventFileSent, Detail: store.Detail{File: "linux", Bytes: 18}},
			{Kind: store.EventDHCPDiscover, Detail: store.Detail{Class: "d-i"}}, // the installer's own system asks for its address
		} {
			seq++
			e.Seq, e.At, e.MAC, e.Machine = seq, at.Add(time.Duration(i)*10*time.Second), store.MAC{0, 7, 0xe9, 0x0f, 0xea, 0xf5}, 1
			past = append(past, e)
		}
	}
	if err := journal.AppendEvents(t.Context(), past); err != nil {
		t.Fatal(err)
	}
	if err := journal.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	// A lease is what proves that the machine asks for its own script.
	lease := store.Lease{Address: netip.MustParseAddr("127.0.0.1"), MAC: past[0].MAC, Machine: 1, State: store.LeaseBound, Expires: time.Now().Add(time.Hour)}
	if err := errors.Join(db.PutLease(t.Context(), lease), db.Close()); err != nil {
		t.Fatal(err)
	}
	a = started(t, dir)
	for _, path := range []string{"/boot.ipxe?mac=00:07:e9:0f:ea:f5", "/files/linux"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.Boot+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("User-Agent", "iPXE/1.21.1")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "linux") || strings.Contains(path, "boot.ipxe") && !strings.Contains(string(body), "kernel") {
			t.Fatalf("%s: %v %s %s", path, err, resp.Status, body)
		}
	}
	var boots struct{ Items []store.Attempt }
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err := json.Unmarshal([]byte(a.must(t, "--json", "attempt", "list", "lab1")), &boots); err != nil {
			t.Fatal(err)
		}
		if len(boots.Items) == 3 && len(boots.Items[0].Diagnoses) > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d boots; the journal has\n%s", len(boots.Items), a.must(t, "event", "list"))
		}
	}
	d := boots.Items[0].Diagnoses[0]
	if d.Code != "LB-BOOT-05" || d.Title != "lab1 installs again and again: it has been given the installer 3 times" || !d.Offers(store.FixAction{Kind: store.FixClearOnce}) {
		t.Errorf("it is explained as %+v", d)
	}
}
