package lab_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

var sanboot = regexp.MustCompile(`sanboot iscsi:\S+`)

// cloned is a machine that boots from a clone.
type cloned struct {
	*lab.Client
	b     *bench
	clone string
}

// golden makes a golden volume of a boot sector's disk.
func (b *bench) golden(name string, d lab.Disk) {
	b.t.Helper()
	b.cli("volume", "import", name, d.Path)
	b.cli("volume", "freeze", name, "--note", "as installed")
}

// clone enrolls a machine that boots from a fresh clone of a golden volume.
func (b *bench) clone(name string, n byte, golden string, d lab.Disk, flags ...string) *cloned {
	b.t.Helper()
	m := b.machine(name, lab.BIOS, n)
	b.cli("machine", "add", name, "--mac", m.MAC.String(), "--uuid", m.UUID.String())
	b.cli(append([]string{"volume", "clone", golden, "--for", name}, flags...)...)
	return &cloned{b.NewClient(b.appliance, m, 0, d), b, name + "-" + golden}
}

// boots runs the machine from its power button to its end, and checks what it
// found on its volume: what a boot before it wrote ("g"), or nothing ("-").
func (c *cloned) boots(found string) {
	c.b.t.Helper()
	r := c.b.powerOn(c.Client)
	up, err := c.WaitUp(c.b.ctx, r)
	c.b.must(err)
	_, err = r.WaitWrote(c.b.ctx)
	c.b.must(err)
	c.b.must(r.Wait(c.b.ctx))
	if got := up.Facts["found"]; got != found {
		c.b.t.Errorf("%s found %q on its volume, want %q", c.clone, got, found)
	}
	c.b.t.Logf("%s: up after %.1f s, found %s", c.clone, up.At.Seconds(), up.Facts["found"])
}

func (b *bench) volume(name string) (d store.VolumeDetail) {
	b.t.Helper()
	b.must(b.appliance.JSON(b.ctx, &d, "volume", "show", name))
	return d
}

// end closes what the firmware left open: a machine that loses its power logs
// out of nothing.
func (b *bench) end() {
	b.t.Helper()
	var live struct{ Items []store.Session }
	b.must(b.appliance.JSON(b.ctx, &live, "session", "list"))
	for _, s := range live.Items {
		b.cli("session", "drop", s.ID)
	}
}

// The quick one: a clone that is kept, and one that begins anew at each boot.
func TestAMachineBootsFromAClone(t *testing.T) {
	b := start(t, 6*sectorLimit)
	d, err := b.SectorDisk("golden", area.PowerOff)
	b.must(err)
	b.golden("golden", d)
	before, err := os.ReadFile(d.Path)
	b.must(err)

	c := b.clone("lab-01", 90, "golden", d)
	c.boots("-")
	c.boots("g") // kept
	b.end()
	b.cli("volume", "set", c.clone, "--reset-at-boot")
	was := b.volume(c.clone).Path
	c.boots("-") // gone
	now := b.volume(c.clone).Path
	if now == was {
		t.Errorf("it begins anew in the same layer, %s", now)
	}
	if _, err := os.Stat(filepath.Join(b.appliance.Data, "volumes", was)); !os.IsNotExist(err) {
		t.Errorf("the layer of the boot before is still there: %v", err)
	}
	// Nothing of all that reached the golden volume.
	after, err := os.ReadFile(filepath.Join(b.appliance.Data, "volumes", b.volume("golden").Path))
	b.must(err)
	if string(before) != string(after[:len(before)]) {
		t.Error("the golden volume has changed")
	}
}

// What one machine wrote is promoted, and another one finds it at its next boot;
// going back is one act, and so is a rollback to a snapshot.
func TestAPromotedCloneIsWhatTheNextMachineBoots(t *testing.T) {
	if os.Getenv("LUNBOOT_SOAK") == "" {
		t.Skip("LUNBOOT_SOAK=1 boots eight machines in turn")
	}
	b := start(t, 10*sectorLimit)
	d, err := b.SectorDisk("golden", area.PowerOff)
	b.must(err)
	b.golden("golden", d)
	work := b.clone("work", 91, "golden", d)
	b.cli("volume", "snapshot", work.clone, "clean")
	fresh := b.clone("fresh", 92, "golden", d, "--reset-at-boot")
	fresh.boots("-")
	work.boots("-")
	b.end()
	b.cli("volume", "promote", work.clone, "--note", "with the guest's answer")
	if v := b.volume("golden"); v.Version != 2 || len(v.Versions) != 2 {
		t.Errorf("promoted to %+v", v.Versions)
	}
	if !b.volume(fresh.clone).Stale {
		t.Error("the other machine's clone does not know that there is another version")
	}
	fresh.boots("g") // the second machine sees it
	b.cli("volume", "rollback", "golden", "1")
	fresh.boots("-") // going back is one act
	b.cli("volume", "versions", "golden", "2", "--use")
	fresh.boots("g")
	// A snapshot of what it was before its first boot.
	work.boots("g")
	b.end()
	b.cli("volume", "rollback", work.clone, "clean")
	work.boots("-")
}

// Linux runs from a clone as from any volume: its loader, its kernel and its root
// file system come out of the golden volume, and what it writes stays in its own
// layer.
func TestLinuxBootsFromACloneOnBIOS(t *testing.T) {
	soaking(t)
	linuxFromAClone(t, lab.BIOS, 96)
}

func TestLinuxBootsFromACloneOnUEFI(t *testing.T) {
	soaking(t)
	linuxFromAClone(t, lab.UEFI, 97)
}

func linuxFromAClone(t *testing.T, firmware lab.Firmware, n byte) {
	b := start(t, linuxLimit)
	d, err := b.LinuxDisk(b.ctx, "golden", area.PowerOff, 0)
	b.must(err)
	b.golden("golden", d)
	m := b.machine("linux", firmware, n)
	b.cli("machine", "add", m.Name, "--mac", m.MAC.String(), "--uuid", m.UUID.String())
	b.cli("volume", "clone", "golden", "--for", m.Name)
	c := b.NewClient(b.appliance, m, 0, d)
	golden := filepath.Join(b.appliance.Data, "volumes", b.volume("golden").Path)
	before, err := os.ReadFile(golden)
	b.must(err)
	r := b.powerOn(c)
	up, err := c.WaitUp(b.ctx, r)
	b.must(err)
	_, err = r.WaitWrote(b.ctx)
	b.must(err)
	b.must(r.Wait(b.ctx))
	t.Logf("%s: up after %.1f s from its clone", firmware, up.At.Seconds())
	if a := b.attempt(m.Name); a.Outcome != store.OutcomeUp {
		t.Errorf("its attempt is %s, explained as %+v", a.Outcome, a.Diagnoses)
	}
	b.end()
	// What it wrote is in the clone, and its file system is whole there.
	file := filepath.Join(b.Dir, "exported")
	b.cli("volume", "export", "linux-golden", file)
	f, err := os.Open(file)
	b.must(err)
	defer f.Close()
	b.must(area.CheckPattern(f, d.Nonce))
	b.must(lab.CheckRoot(b.ctx, f, b.Dir))
	b.cli("volume", "check", "linux-golden")
	// Nothing of it is in the golden volume.
	after, err := os.ReadFile(golden)
	b.must(err)
	if !bytes.Equal(before, after) {
		t.Error("the golden volume has changed")
	}
	if err := area.CheckPattern(bytes.NewReader(after), d.Nonce); err == nil {
		t.Error("the guest's pattern is in the golden volume")
	}
}

// An image is dropped on the page, and a machine boots from it: sent in pieces by
// the page's own script, converted from qcow2 on its way.
func TestAMachineBootsFromAnImageUploadedInTheBrowser(t *testing.T) {
	b := start(t, 2*sectorLimit)
	programs := map[string]string{}
	for _, name := range []string{"chromium", "qemu-img"} {
		path, err := exec.LookPath(name)
		if err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
		programs[name] = path
	}
	d, err := b.SectorDisk("uploaded", area.PowerOff)
	b.must(err)
	image := filepath.Join(b.Dir, "classroom.qcow2")
	_, err = lab.Run(b.ctx, lab.Command{Path: programs["qemu-img"], Args: []string{"convert", "-f", "raw", "-O", "qcow2", d.Path, image}})
	b.must(err)
	p := b.pages()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(programs["chromium"]), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-component-update", true))
	ctx, stop := chromedp.NewExecAllocator(b.ctx, opts...)
	defer stop()
	ctx, closeTab := chromedp.NewContext(ctx)
	defer closeTab()
	b.must(chromedp.Do(ctx,
		chromedp.Navigate(p.base+"/login"), chromedp.SendKeys(chromedp.CSS("input[name=password]"), operatorPassword), chromedp.Click(chromedp.CSS("button.wide")), chromedp.WaitVisible(chromedp.CSS(".rail")),
		chromedp.Navigate(p.base+"/volumes/new"), chromedp.WaitVisible(chromedp.CSS("form[data-upload]")),
		chromedp.SetUploadFiles(chromedp.CSS("form[data-upload] input[type=file]"), []string{image}),
		chromedp.Click(chromedp.CSS("form[data-upload] .primary"))))
	waitVolume(b.ctx, b, "classroom")

	m := b.machine("first", lab.BIOS, 98)
	b.cli("machine", "add", m.Name, "--mac", m.MAC.String())
	b.cli("mapping", "add", m.Name, "classroom", "--lun", "2", "--boot")
	c := &cloned{b.NewClient(b.appliance, m, 2, d), b, "classroom"}
	c.boots("-")
}

// waitVolume waits until a volume is there as a whole.
func waitVolume(ctx context.Context, b *bench, name string) {
	b.t.Helper()
	var list struct{ Items []store.Volume }
	for {
		b.must(b.appliance.JSON(ctx, &list, "volume", "list"))
		for _, v := range list.Items {
			if v.Name == name && v.State == store.VolumeReady {
				return
			}
			if v.Name == name && v.State == store.VolumeFailed {
				b.t.Fatalf("the volume %s: %+v", name, v)
			}
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf("no volume %s after all: %+v: %v", name, list.Items, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// A machine that nobody enrolled boots from a fresh clone of the lab's default
// golden volume, by one act, without another power-on.
func TestAnUnknownMachineBootsFromAFreshCloneByOneAct(t *testing.T) {
	if os.Getenv("LUNBOOT_SOAK") == "" {
		t.Skip("LUNBOOT_SOAK=1 enrolls a machine with a clone")
	}
	b := start(t, 2*sectorLimit)
	d, err := b.SectorDisk("golden", area.PowerOff)
	b.must(err)
	b.golden("golden", d)
	b.cli("setting", "set", "default-golden", "golden")
	c := &cloned{b.NewClient(b.appliance, b.machine("new", lab.BIOS, 93), 0, d), b, "new-golden"}
	r := b.powerOn(c.Client)
	_, err = r.Console.WaitFor(b.ctx, "Its MAC address is "+c.Machine.MAC.String())
	b.must(err)
	b.cli("machine", "enroll", c.Machine.MAC.String(), "new", "--clone-of", "default", "--reset-at-boot")
	up, err := c.WaitUp(b.ctx, r)
	b.must(err)
	b.must(r.Wait(b.ctx))
	if up.Facts["found"] != "-" {
		t.Errorf("a fresh clone holds %q", up.Facts["found"])
	}
	if v := b.volume("new-golden"); !v.Reset || v.ParentName != "golden" || len(v.Machines) != 1 {
		t.Errorf("its clone is %+v", v)
	}
}

// A system that gives another machine's iSCSI name, as a copied image does, is
// not served that machine's volume.
func TestAMachineThatGivesAnothersNameIsNotServedItsVolume(t *testing.T) {
	if os.Getenv("LUNBOOT_SOAK") == "" {
		t.Skip("LUNBOOT_SOAK=1 boots a machine under another's name")
	}
	b := start(t, 2*sectorLimit)
	other := b.sector("other", 94, area.PowerOff, "--auth", "none")
	c := b.sector("copied", 95, area.PowerOff, "--auth", "none")
	var m store.Machine
	b.must(b.appliance.JSON(b.ctx, &m, "machine", "show", other.Machine.Name))
	script := b.cli("script", "copied")
	san := sanboot.FindStringSubmatch(script)
	if san == nil {
		t.Fatal("no sanboot line in the script")
	}
	r := b.powerOn(c)
	b.must(r.Shell(b.ctx))
	b.must(r.Command(b.ctx, "set initiator-iqn "+string(m.Initiator)))
	b.must(r.Command(b.ctx, san[0]))
	a := b.attempt("copied")
	if a.Outcome != store.OutcomeFailed || len(a.Diagnoses) == 0 || a.Diagnoses[0].Code != "LB-TGT-07" || a.Diagnoses[0].Title != "copied logged in as other" {
		t.Fatalf("the attempt is %s, explained as %+v", a.Outcome, a.Diagnoses)
	}
	var live struct{ Items []store.Session }
	b.must(b.appliance.JSON(b.ctx, &live, "session", "list"))
	if len(live.Items) != 0 {
		t.Errorf("it is let in: %+v", live.Items)
	}
}
