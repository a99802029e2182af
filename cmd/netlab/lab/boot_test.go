package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// A machine that is busy with other tests needs four times as long to boot as
// an idle one, and more.
const (
	sectorLimit = 90 * time.Second
	linuxLimit  = 4 * time.Minute
)

var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// TestMain removes the appliance's program, which the tests share.
func TestMain(m *testing.M) {
	if os.Getenv("LUNBOOT_LAB_CRASH") != "" {
		crash()
	}
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// bench is a lab with an appliance in it.
type bench struct {
	*lab.Lab
	appliance *lab.Appliance
	ctx       context.Context
	t         *testing.T
}

// start makes a lab with an appliance; both are gone when the test ends. The
// appliance is the one that users build.
func start(t *testing.T, limit time.Duration) *bench {
	t.Helper()
	b := bare(t, limit)
	b.serve()
	return b
}

// serve starts an appliance with flags; without any it gives addresses.
func (b *bench) serve(flags ...string) {
	b.t.Helper()
	var err error
	b.appliance, err = b.StartAppliance(b.ctx, built.path, nil, flags...)
	b.must(err)
}

// bare makes a lab without an appliance.
func bare(t *testing.T, limit time.Duration) *bench {
	t.Helper()
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("boots machines")
	}
	if err := lab.Usable(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "lunboot-bin-"); built.err == nil {
			built.path, built.err = lab.BuildAppliance(context.Background(), built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("the test took longer than %v", limit))
	t.Cleanup(cancel)
	l, err := lab.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{Lab: l, ctx: ctx, t: t}
	t.Cleanup(func() {
		if t.Failed() && b.appliance != nil {
			t.Logf("the appliance's log:\n%s", b.appliance.Log())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) cli(args ...string) string {
	b.t.Helper()
	out, err := b.appliance.CLI(b.ctx, args...)
	b.must(err)
	return out
}

// sector enrolls a machine with a boot-sector disk as LUN 2.
func (b *bench) sector(name string, n byte, mode area.Mode, flags ...string) *lab.Client {
	b.t.Helper()
	d, err := b.SectorDisk(name, mode)
	b.must(err)
	c, err := b.Enroll(b.ctx, b.appliance, b.machine(name, lab.BIOS, n), 2, d, flags...)
	b.must(err)
	return c
}

// linux enrolls a machine with a Linux disk as LUN 2.
func (b *bench) linux(name string, firmware lab.Firmware, n byte, mode area.Mode) *lab.Client {
	b.t.Helper()
	d, err := b.LinuxDisk(b.ctx, name, mode, 0)
	b.must(err)
	c, err := b.Enroll(b.ctx, b.appliance, b.machine(name, firmware, n), 2, d)
	b.must(err)
	return c
}

func (b *bench) machine(name string, firmware lab.Firmware, n byte) lab.Machine {
	return lab.Machine{Name: name, Firmware: firmware, MAC: lab.MAC(n), UUID: store.NewUUID()}
}

func (b *bench) powerOn(c *lab.Client) *lab.Running {
	b.t.Helper()
	r, err := c.PowerOn(b.ctx)
	b.must(err)
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("%s's console:\n%s", c.Machine.Name, r.Console.Tail(60))
		}
	})
	return r
}

// attempt waits until the newest attempt of a machine has ended one way or the
// other.
func (b *bench) attempt(machine string) store.Attempt {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	a, err := b.appliance.WaitAttempt(ctx, machine, func(a store.Attempt) bool { return a.Outcome != store.OutcomeRunning })
	b.must(err)
	return a
}

func stage(a store.Attempt, name store.StageName) store.Stage {
	i := slices.IndexFunc(a.Stages, func(s store.Stage) bool { return s.Name == name })
	if i < 0 {
		return store.Stage{}
	}
	return a.Stages[i]
}

func TestABootSectorBootsFromLUN2OnBIOS(t *testing.T) {
	b := start(t, 2*sectorLimit)
	for i, nic := range []string{"virtio-net-pci", "e1000"} {
		c := b.sector("sector-"+nic[:5], byte(20+i), area.PowerOff)
		c.Machine.NIC = nic
		r := b.powerOn(c)
		up, err := c.WaitUp(b.ctx, r)
		b.must(err)
		_, err = r.WaitWrote(b.ctx)
		b.must(err)
		b.must(r.Wait(b.ctx))
		b.must(c.CheckSector())
		t.Logf("%s: up after %.1f s", nic, up.At.Seconds())
	}
}

func TestLinuxBootsOnBIOSByALoaderOverTFTP(t *testing.T) {
	b := start(t, linuxLimit)
	c := b.linux("bios", lab.BIOS, 30, area.PowerOff)
	r := b.powerOn(c)
	b.must(r.ChainLoader(b.ctx))
	b.bootsLinux(c, r, "74,213 bytes")
}

func TestLinuxBootsOnUEFIByItsOwnPXE(t *testing.T) {
	b := start(t, linuxLimit)
	c := b.linux("uefi", lab.UEFI, 31, area.PowerOff)
	b.bootsLinux(c, b.powerOn(c), "173,792 bytes")
}

func TestLinuxBootsOnUEFIByHTTP(t *testing.T) {
	b := start(t, linuxLimit)
	c := b.linux("uefi-http", lab.UEFI, 32, area.PowerOff)
	c.Machine.HTTPBoot = true
	b.bootsLinux(c, b.powerOn(c), "bytes")
}

// bootsLinux follows a guest to its end and checks it from both sides: what it
// says, what the appliance says of it, and the bytes in the volume's file.
func (b *bench) bootsLinux(c *lab.Client, r *lab.Running, loader string) {
	b.t.Helper()
	up, err := c.WaitUp(b.ctx, r)
	b.must(err)
	_, err = r.WaitWrote(b.ctx)
	b.must(err)
	b.must(r.Wait(b.ctx))
	b.must(c.CheckLinux(b.ctx))
	if up.Facts["hostname"] != c.Machine.Name {
		b.t.Errorf("the guest's host name is %q", up.Facts["hostname"])
	}
	a := b.attempt(c.Machine.Name)
	if a.Outcome != store.OutcomeUp || len(a.Diagnoses) != 0 {
		b.t.Errorf("the appliance calls it %s, with %v", a.Outcome, a.Diagnoses)
	}
	for _, s := range a.Stages {
		if s.State != store.StageDone && s.State != store.StageSlow {
			b.t.Errorf("stage %s is %s: %s", s.Name, s.State, s.Detail)
		}
	}
	if s := stage(a, store.StageLoader); !strings.Contains(s.Detail, loader) {
		b.t.Errorf("the loader's stage says %q, not %q", s.Detail, loader)
	}
	if s := stage(a, store.StageLogin); !strings.Contains(s.Detail, "mutual CHAP") {
		b.t.Errorf("the login's stage says %q", s.Detail)
	}
	b.t.Logf("up after %.1f s", up.At.Seconds())
}

func TestTwoMachinesBootAtOnceEachFromItsOwnLUN2(t *testing.T) {
	b := start(t, 2*sectorLimit)
	clients := []*lab.Client{b.sector("left", 40, area.PowerOff), b.sector("right", 41, area.PowerOff)}
	errs := make([]error, len(clients))
	var both sync.WaitGroup
	for i, c := range clients {
		r := b.powerOn(c)
		both.Go(func() {
			_, err := c.WaitUp(b.ctx, r)
			errs[i] = errors.Join(err, r.Wait(b.ctx))
		})
	}
	both.Wait()
	for i, c := range clients {
		b.must(errs[i])
		b.must(c.CheckSector())
	}
}

// An address that leaves the LUN out asks for LUN 0. Other targets invent a
// disk there, or an error that nobody can read.
func TestAMachineThatAsksForTheWrongLUNIsToldWhichOneItHas(t *testing.T) {
	b := start(t, sectorLimit)
	c := b.sector("wrong", 50, area.PowerOff, "--auth", "none")
	var m store.Machine
	b.must(b.appliance.JSON(b.ctx, &m, "machine", "show", "wrong"))
	target := regexp.MustCompile(`sanboot iscsi:[^ ]*:(iqn\.[^ ]+)`).FindStringSubmatch(b.cli("script", "wrong"))
	if target == nil {
		t.Fatal("no target in the script")
	}
	wrong := "sanboot iscsi:10.77.0.1::::" + target[1]
	r := b.powerOn(c)
	b.must(r.Shell(b.ctx))
	b.must(r.Command(b.ctx, "set initiator-iqn "+string(m.Initiator)))
	b.must(r.Command(b.ctx, wrong))
	found := r.Console.Find(`ipxe\.org/([0-9a-f]{8})`)
	if found == nil || found[1] != "1d704539" { // 1d7045xx: ILLEGAL REQUEST; 39: on BIOS
		t.Errorf("the screen says %q, want the code 1d704539", found)
	}
	a := b.attempt("wrong")
	if a.Outcome != store.OutcomeFailed || len(a.Diagnoses) == 0 || a.Diagnoses[0].Code != "LB-LUN-01" {
		t.Fatalf("the attempt is %s, explained as %+v", a.Outcome, a.Diagnoses)
	}
	d := a.Diagnoses[0]
	if d.Confidence != store.Certain || !strings.Contains(d.Title, "LUN 0") || !strings.Contains(d.Title, "LUN 2") || len(d.Evidence) == 0 {
		t.Errorf("the diagnosis is %+v", d)
	}
	if said := b.cli("machine", "explain", "wrong"); !strings.Contains(said, d.Title) {
		t.Errorf("the command line says %q", said)
	}
	// The fix that it offers, and the same line again.
	if !slices.ContainsFunc(d.Fixes, func(f store.Fix) bool { return f.Action == "map-lun-0" }) {
		t.Errorf("no fix offers to map LUN 0: %+v", d.Fixes)
	}
	b.cli("mapping", "set", "wrong", "2", "--lun", "0")
	b.must(r.Enter(b.ctx, wrong))
	_, err := c.WaitUp(b.ctx, r)
	b.must(err)
	b.must(r.Wait(b.ctx))
	b.must(c.CheckSector())
}

func TestAnUnknownMachineIsEnrolledAndBootsWithoutAnotherPowerOn(t *testing.T) {
	b := start(t, sectorLimit)
	d, err := b.SectorDisk("new", area.PowerOff)
	b.must(err)
	c := b.NewClient(b.appliance, b.machine("new", lab.BIOS, 60), 2, d)
	r := b.powerOn(c)
	var unknown struct {
		Items []struct {
			store.UnknownMachine
			Maker string
		}
	}
	for len(unknown.Items) == 0 {
		time.Sleep(100 * time.Millisecond)
		b.must(b.appliance.JSON(b.ctx, &unknown, "machine", "unknown"))
	}
	u := unknown.Items[0]
	if u.MAC != c.Machine.MAC || u.Maker != "QEMU virtual machine" || u.Firmware != "BIOS" {
		t.Fatalf("the unknown machine is %+v, want %s", u, c.Machine.MAC)
	}
	if d := time.Since(u.FirstSeen); d > 2*time.Second {
		t.Errorf("it is listed %s after its first packet", d)
	}
	_, err = r.Console.WaitFor(b.ctx, "Its MAC address is "+c.Machine.MAC.String())
	b.must(err)
	b.must(b.appliance.JSON(b.ctx, &unknown, "machine", "unknown"))
	if u = unknown.Items[0]; u.UUID != c.Machine.UUID || u.NIC == "" || u.Chip == "" || u.Vendor == "" || u.Count < 2 {
		t.Errorf("once its iPXE has spoken, the unknown machine is %+v", u)
	}
	var dry store.DryRun
	b.must(b.appliance.JSON(b.ctx, &dry, "machine", "explain", c.Machine.MAC.String()))
	if dry.Script.Answer != "unknown" || dry.Platform != "BIOS x86" || len(dry.Differences) != 0 {
		t.Errorf("a dry run of what just happened says %+v, different are %+v", dry.Script, dry.Differences)
	}
	b.cli("volume", "import", c.Volume, d.Path)
	b.cli("machine", "enroll", c.Machine.MAC.String(), "new")
	b.cli("mapping", "add", "new", c.Volume, "--lun", "2", "--boot")
	b.must(c.FindVolume(b.ctx))
	_, err = c.WaitUp(b.ctx, r)
	b.must(err)
	b.must(r.Wait(b.ctx))
	b.must(c.CheckSector())
	// Nothing changed since, so a dry run is that boot once more; but it is
	// known by its new name from its first packet on.
	dry = store.DryRun{}
	b.must(b.appliance.JSON(b.ctx, &dry, "machine", "explain", "new"))
	named := []store.Difference{{What: "matched by", Then: "uuid", Now: "hostname"}}
	if dry.Last == nil || dry.Script.Answer != "script" || dry.Login.Refused != "" || len(dry.Login.Units) != 1 || !slices.Equal(dry.Differences, named) {
		t.Errorf("a dry run after the boot says %+v, %+v, different are %+v", dry.Script, dry.Login, dry.Differences)
	}
}

func TestNothingThatWasFlushedIsLostWhenTheApplianceIsKilled(t *testing.T) {
	b := start(t, linuxLimit)
	c := b.linux("records", lab.UEFI, 70, area.Records)
	r := b.powerOn(c)
	_, err := c.WaitUp(b.ctx, r)
	b.must(err)
	for _, end := range []struct {
		how string
		do  func() error
	}{
		{"kill -9", func() error { b.appliance.Kill(); return nil }},
		{"kill -9 again", func() error { b.appliance.Kill(); return nil }},
		{"a restart", func() error { return b.appliance.Stop(15 * time.Second) }},
	} {
		b.must(r.WaitRecord(b.ctx, r.LastRecord()+200))
		b.must(end.do())
		time.Sleep(500 * time.Millisecond) // what was acknowledged before has been printed by now
		last := r.LastRecord()
		b.must(c.CheckRecords(last))
		b.must(b.appliance.Start(b.ctx))
		back := time.Now()
		b.must(r.WaitRecord(b.ctx, last+50))
		t.Logf("%s at record %d; the machine went on %.1f s after the appliance was back", end.how, last, time.Since(back).Seconds())
	}
	r.Kill()
	b.must(c.CheckRecords(r.LastRecord()))
	b.must(c.CheckLinux(b.ctx))
}

// The firmware's own initiator runs a boot sector: nothing but iPXE holds the
// session, and it must come back by itself.
func TestAMachineOnFirmwareAloneOutlivesWhatHappensToTheAppliance(t *testing.T) {
	b := start(t, 2*sectorLimit)
	c := b.sector("hold", 80, area.Hold)
	r := b.powerOn(c)
	_, err := c.WaitUp(b.ctx, r)
	b.must(err)
	b.must(r.WaitTick(b.ctx))
	for _, fault := range []struct {
		what       string
		begin, end func() error
	}{
		{"its cable is pulled", func() error { return b.Network.Unplug(b.ctx) }, func() error { return b.Network.Plug(b.ctx) }},
		{"it stands still", b.appliance.Pause, b.appliance.Resume},
		{"it is killed", func() error { b.appliance.Kill(); return nil }, func() error { return b.appliance.Start(b.ctx) }},
	} {
		b.must(fault.begin())
		time.Sleep(3 * time.Second)
		b.must(fault.end())
		back := time.Now()
		for range 2 { // the first may have been on its way
			b.must(r.WaitTick(b.ctx))
		}
		t.Logf("%s: the machine reads again %.1f s after the end of it", fault.what, time.Since(back).Seconds())
	}
	r.Kill()
	b.must(c.CheckSector())
}

// crash makes a lab with a process in it and dies as a program dies that is
// killed: no clean-up of its own.
func crash() {
	ctx := context.Background()
	l, err := lab.New(ctx)
	if err != nil {
		panic(err)
	}
	p, err := lab.Start(ctx, lab.Command{Namespace: l.Network.Server, Path: "sleep", Args: []string{"300"}})
	if err != nil {
		panic(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode([]string{l.Network.Server, l.Dir, fmt.Sprint(p.PID())}); err != nil {
		panic(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(err)
	}
}

func TestWhatAKilledRunLeftIsClearedUpByTheNext(t *testing.T) {
	if err := lab.Usable(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "LUNBOOT_LAB_CRASH=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	printed, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the run was not killed")
	}
	var left []string
	if err := json.Unmarshal(printed, &left); err != nil {
		t.Fatalf("%q: %v", printed, err)
	}
	namespace, dir, pid := left[0], left[1], left[2]
	removed, err := lab.RemoveAbandoned(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(removed, namespace) || !slices.Contains(removed, dir) {
		t.Errorf("removed %q, which lacks %s or %s", removed, namespace, dir)
	}
	for _, path := range []string{filepath.Join("/run/netns", namespace), dir} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if state, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil && !strings.Contains(string(state), ") Z ") {
		t.Errorf("process %s still runs: %s", pid, state)
	}
}
