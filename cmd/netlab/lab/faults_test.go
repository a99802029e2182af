package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/services/boot/diagnose"
	"lunboot/store"
	"lunboot/store/volume/preflight"
)

// fault makes one machine fail in one way.
type fault struct {
	name string
	code string
	says string // in the title
	// script is the machine's own script, when that is what is wrong.
	script string
	auth   string // of the machine; mutual when empty
	// spoil does what else goes wrong, before the machine is switched on; during,
	// once it has its script.
	spoil, during func(b *bench, c *lab.Client)
	// fix is the action of the first fix; empty where the cause lies outside the
	// appliance. passes is the stage that the next boot then passes.
	fix    string
	passes store.StageName
	wrote  bool // it also wrote to its volume then
	always bool // also without LUNBOOT_SOAK
}

const (
	// lateBoot lets somebody do something in between.
	lateBoot     = "sleep 6\nsanboot {{san_uri}}\n"
	rightAddress = "sanboot iscsi:{{portal_ip}}:::2:{{target}}\n"
	noAddress    = "sanboot iscsi:{{portal_ip}}::::{{target}}\n"
)

// remap takes the machine's volume away and maps it in another way.
func remap(flags ...string) func(b *bench, c *lab.Client) {
	return func(b *bench, c *lab.Client) {
		b.cli("mapping", "remove", c.Machine.Name, "2")
		if len(flags) > 0 {
			b.cli(append([]string{"mapping", "add", c.Machine.Name}, flags...)...)
		}
	}
}

// swap maps a new, empty volume in place of the machine's.
func swap(size, boot string, flags ...string) func(b *bench, c *lab.Client) {
	return func(b *bench, c *lab.Client) {
		name := c.Machine.Name + "-other"
		b.cli(append([]string{"volume", "create", name, "--size", size}, flags...)...)
		remap(name, "--lun", "2", boot)(b, c)
	}
}

// small maps a volume of 64 blocks in place of the machine's, with the boot sector
// and what that reads.
func small(b *bench, c *lab.Client) {
	from, err := b.appliance.VolumeFile(b.ctx, c.Volume)
	b.must(err)
	swap("32K", "--no-boot")(b, c)
	into, err := b.appliance.VolumeFile(b.ctx, c.Machine.Name+"-other")
	b.must(err)
	disk, err := os.Open(from)
	b.must(err)
	defer disk.Close()
	start := make([]byte, 2*512)
	_, err = disk.ReadAt(start, 0)
	b.must(err)
	f, err := os.OpenFile(into, os.O_WRONLY, 0)
	b.must(err)
	_, err = f.WriteAt(start, 0)
	b.must(errors.Join(err, f.Close()))
}

func faults() []fault {
	return []fault{
		{name: "no-lun", code: "LB-LUN-01", says: "asked for LUN 0, but its volume", script: noAddress, fix: "use-profile-san", passes: store.StageRead, always: true},
		{name: "decimal-lun", code: "LB-LUN-01", says: "asked for LUN 16, but its volume", script: "sanboot iscsi:{{portal_ip}}:::10:{{target}}\n", fix: "use-profile-san", passes: store.StageRead},
		{name: "wrong-secret", code: "LB-CHAP-01", says: "gave the wrong password", script: "set password not-the-password\n" + rightAddress, fix: "use-profile-san", passes: store.StageLogin, always: true},
		{name: "no-secret", code: "LB-CHAP-02", says: "offered no password", script: "clear username\nclear password\nclear reverse-username\nclear reverse-password\n" + rightAddress, fix: "use-profile-san", passes: store.StageLogin},
		{name: "one-way", code: "LB-CHAP-02", says: "offered no password", script: "clear reverse-username\nclear reverse-password\n" + rightAddress, fix: "use-profile-san", passes: store.StageLogin},
		{name: "half-secrets", code: "LB-CHAP-05", says: "has only parts of the passwords", script: "clear username\n" + rightAddress, fix: "use-profile-san", passes: store.StageLogin},
		{name: "wrong-reverse", code: "LB-CHAP-03", says: "did not accept the appliance’s own password", script: "set reverse-password not-the-password\n" + rightAddress, fix: "use-profile-san", passes: store.StageLogin},
		{name: "asks-for-proof", code: "LB-CHAP-04", says: "asked the appliance to prove itself", auth: "chap", script: "set reverse-username lunboot\nset reverse-password some-secret-of-it\n" + rightAddress,
			fix: "set-auth-mutual"},
		{name: "other-name", code: "LB-TGT-03", says: "an iSCSI name that no machine has here", script: "set initiator-iqn iqn.2020-01.org.example:nobody\n" + rightAddress, fix: "use-profile-san", passes: store.StageLogin},
		{name: "other-target", code: "LB-TGT-04", says: "which is not here", script: "sanboot iscsi:{{portal_ip}}:::2:iqn.2020-01.org.example:gone\n", fix: "use-profile-san", passes: store.StageLogin},
		{name: "bad-address", code: "LB-SCR-09", says: "could not read the address of its volume", script: "sanboot iscsi:nonsense\n", fix: "use-profile-san", passes: store.StageLogin},
		{name: "missing-kernel", code: "LB-SCR-07", says: "could not fetch its kernel", spoil: func(b *bench, c *lab.Client) {
			b.cli("profile", "set", "missing-kernel", "--kind", "kernel", "--field", "kernel=http://"+lab.ServerAddr.String()+":1/vmlinuz")
			b.cli("machine", "set", c.Machine.Name, "--profile", "missing-kernel")
		}},
		{name: "nothing-mapped", code: "LB-LUN-02", says: "has nothing to boot", spoil: remap(), fix: "map-volume-nothing-mapped-disk", passes: store.StageRead, always: true},
		{name: "none-marked", code: "LB-SCR-05", says: "none of them is its boot volume", spoil: func(b *bench, c *lab.Client) {
			b.cli("mapping", "set", c.Machine.Name, "2", "--no-boot")
		}, fix: "boot-lun-2", passes: store.StageRead},
		{name: "too-small", code: "LB-VOL-04", says: "smaller than any disk", spoil: small, script: rightAddress, fix: "grow-volume", passes: store.StageRead},
		{name: "empty", code: "LB-VOL-05", says: "is empty", spoil: swap("8M", "--boot")},
		{name: "large-blocks", code: "LB-VOL-03", says: "blocks that BIOS cannot read", spoil: swap("8M", "--no-boot", "--block-size", "4096"), script: rightAddress},
		{name: "file-gone", code: "LB-VOL-02", says: "because its storage failed", always: true, spoil: func(b *bench, c *lab.Client) {
			path, err := b.appliance.VolumeFile(b.ctx, c.Volume)
			b.must(err)
			b.must(os.Remove(path))
		}},
		{name: "nothing-there", code: "LB-SCR-10", says: "and there is nothing here", script: "chain http://{{portal_ip}}/rescue.ipxe\n", fix: "use-profile-san", passes: store.StageRead},
		{name: "no-own-disk", code: "LB-OS-04", says: "could not start from its own disk", spoil: func(b *bench, c *lab.Client) {
			b.cli("machine", "set", c.Machine.Name, "--profile", "local")
		}, fix: "use-profile-san", passes: store.StageRead},
		{name: "other-address", code: "LB-TGT-01", says: "could not reach its volume", script: "sanboot iscsi:10.77.0.9:::2:{{target}}\n", fix: "use-profile-san", passes: store.StageLogin},
		{name: "bad-line", code: "LB-SCR-07", says: "stopped at line 1 of its script", script: "bot-from-disk now\n" + rightAddress},
		{name: "read-only", code: "LB-VOL-10", says: "may only read", spoil: func(b *bench, c *lab.Client) {
			remap(c.Volume, "--lun", "2", "--boot", "--read-only")(b, c)
		}, fix: "allow-writes-2", wrote: true},
		{name: "no-label", code: "LB-SCR-07", says: "stopped at line 1 of its script", script: "goto nowhere\n" + rightAddress},
		{name: "no-dns", code: "LB-SCR-07", says: "could not find the address of what line 1 of its script names", script: "chain http://boot.example.invalid/menu.ipxe\n"},
		{name: "script-ends", code: "LB-SCR-12", says: "came to the end of its script", script: "isset ${nothing} && sanboot {{san_uri}} ||\n", fix: "use-profile-san", passes: store.StageRead, always: true},
		{name: "no-volume-and-nothing-there", code: "LB-SCR-10", says: "and there is nothing here", script: "chain http://{{portal_ip}}/rescue.ipxe\n", spoil: remap()},
		{name: "no-initrd", code: "LB-SCR-07", says: "could not fetch its initial RAM disk", spoil: func(b *bench, c *lab.Client) {
			b.cli("media", "add", b.file("a-kernel", "a small file, which BIOS takes for a program"))
			b.kernel(c, "kernel=a-kernel", "initrd=nosuch.img")
		}},
		{name: "text-kernel", code: "LB-SCR-14", says: "was given a text file as its kernel", spoil: func(b *bench, c *lab.Client) {
			b.cli("media", "add", b.file("a-page", "<html><body>Please log in</body></html>\n"))
			b.kernel(c, "kernel=a-page")
		}},
		{name: "little-memory", code: "LB-SCR-13", says: "has too little memory for its initial RAM disk", spoil: func(b *bench, c *lab.Client) {
			b.cli("media", "add", b.file("another-kernel", "another small file"))
			big := b.file("large", "")
			b.must(os.Truncate(big, 100<<20))
			b.cli("media", "add", big)
			c.Machine.Memory = 64
			b.kernel(c, "kernel=another-kernel", "initrd=large")
		}},
		{name: "unreadable", code: "LB-SCR-07", says: "could not fetch its kernel, because the appliance could not read it", spoil: func(b *bench, c *lab.Client) {
			b.cli("media", "add", b.file("unreadable-kernel", "a file that is gone by the time that it is asked for"))
			var m store.Media
			b.must(b.appliance.JSON(b.ctx, &m, "media", "show", "unreadable-kernel"))
			b.must(os.Remove(filepath.Join(b.appliance.Data, "media", m.SHA256)))
			b.kernel(c, "kernel=unreadable-kernel")
		}},
		{name: "gives-up", code: "LB-VOL-12", says: "which gave up", spoil: func(b *bench, c *lab.Client) {
			path, err := b.appliance.VolumeFile(b.ctx, c.Volume)
			b.must(err)
			sector := make([]byte, 512)
			copy(sector, []byte{0xcd, 0x18}) // int 18h: there is nothing to boot
			sector[510], sector[511] = 0x55, 0xaa
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			b.must(err)
			_, err = f.WriteAt(sector, 0)
			b.must(errors.Join(err, f.Close()))
		}},
		{name: "cut-short", code: "LB-VOL-02", says: "because its storage failed", spoil: func(b *bench, c *lab.Client) {
			path, err := b.appliance.VolumeFile(b.ctx, c.Volume)
			b.must(err)
			b.must(os.Truncate(path, 512))
		}},
		{name: "parent-gone", code: "LB-VOL-02", says: "because its storage failed", spoil: func(b *bench, c *lab.Client) {
			path, err := b.appliance.VolumeFile(b.ctx, c.Volume)
			b.must(err)
			remap()(b, c)
			b.cli("volume", "freeze", c.Volume)
			b.cli("volume", "clone", c.Volume, "orphan", "--reset-at-boot")
			b.cli("mapping", "add", c.Machine.Name, "orphan", "--lun", "2", "--boot")
			b.must(os.Remove(path))
		}},
		{name: "unmapped-meanwhile", code: "LB-LUN-02", says: "has nothing to boot", script: lateBoot, during: remap(), fix: "map-volume-unmapped-meanwhile-disk", passes: store.StageRead},
		{name: "renamed-meanwhile", code: "LB-TGT-09", says: "had before it was changed here", script: lateBoot, during: func(b *bench, c *lab.Client) {
			b.cli("machine", "set", c.Machine.Name, "--iqn", "iqn.2020-01.org.example:renamed")
		}},
		{name: "two-names", code: "LB-SCR-01", says: "its names belong to different machines", spoil: func(b *bench, c *lab.Client) {
			b.cli("machine", "set", c.Machine.Name, "--uuid", store.NewUUID().String())
			b.cli("machine", "add", "twin", "--mac", lab.MAC(250).String(), "--uuid", c.Machine.UUID.String())
		}},
	}
}

// Each fault is called by its name, and the button of the first fix lets the
// next boot pass the stage that failed.
func TestEachFaultIsNamedAndItsFirstFixMendsIt(t *testing.T) {
	soak := os.Getenv("LUNBOOT_SOAK") != ""
	all := faults()
	if !soak {
		all = slices.DeleteFunc(all, func(f fault) bool { return !f.always })
	}
	b := start(t, time.Duration(len(all)+1)*sectorLimit)
	for i, f := range all {
		t.Run(f.name, func(t *testing.T) {
			b := &bench{b.Lab, b.appliance, b.ctx, t}
			f.run(b, byte(100+i))
		})
	}
}

func (f fault) run(b *bench, n byte) {
	t := b.t
	var flags []string
	if f.auth != "" {
		flags = []string{"--auth", f.auth}
	}
	c := b.sector(f.name, n, area.PowerOff, flags...)
	if f.spoil != nil {
		f.spoil(b, c)
	}
	if f.script != "" {
		file := filepath.Join(b.Dir, f.name+".ipxe")
		b.must(os.WriteFile(file, []byte(f.script), 0o600))
		b.cli("profile", "set", f.name, "--file", file)
		b.cli("machine", "set", f.name, "--profile", f.name)
	}
	r := b.powerOn(c)
	if f.during != nil {
		_, err := b.appliance.WaitAttempt(b.ctx, f.name, func(a store.Attempt) bool { return stage(a, store.StageScript).State == store.StageDone })
		b.must(err)
		f.during(b, c)
	}
	a := b.failed(c, r, f.code)
	d := a.Diagnoses[0]
	b.record(f.name, c.Machine.Name, a)
	b.picture(f.name, c.Machine.Name)
	if !strings.Contains(d.Title, f.says) {
		t.Errorf("the title is %q, and does not say %q", d.Title, f.says)
	}
	first := ""
	if len(d.Fixes) > 0 {
		first = d.Fixes[0].Action
	}
	if first != f.fix {
		t.Fatalf("the first fix is %q, want %q: %+v", first, f.fix, d.Fixes)
	}
	if f.fix == "" {
		return
	}
	b.cli("attempt", "fix", fmt.Sprint(a.ID), f.fix)
	switch {
	case f.wrote:
		r := b.powerOn(c)
		defer r.Kill()
		_, err := c.WaitUp(b.ctx, r)
		b.must(err)
		b.must(r.Wait(b.ctx))
		b.must(c.CheckSector())
	case f.passes != "":
		b.passes(c, f.passes)
	}
}

// fails switches a machine on and waits until its boot has failed and is called
// by a code.
func (b *bench) fails(c *lab.Client, code string) store.Attempt {
	b.t.Helper()
	return b.failed(c, b.powerOn(c), code)
}

// failed is fails for a machine that is on already.
func (b *bench) failed(c *lab.Client, r *lab.Running, code string) store.Attempt {
	b.t.Helper()
	defer r.Kill()
	ctx, cancel := context.WithTimeout(b.ctx, patience(c))
	defer cancel()
	a, err := b.appliance.WaitAttempt(ctx, c.Machine.Name, func(a store.Attempt) bool {
		return a.Outcome == store.OutcomeFailed && len(a.Diagnoses) > 0 && a.Diagnoses[0].Code == code
	})
	if err != nil {
		b.t.Fatalf("%v; it is explained as %+v", err, a.Diagnoses)
	}
	return a
}

// file makes a file of the lab's own.
func (b *bench) file(name, content string) string {
	b.t.Helper()
	path := filepath.Join(b.Dir, name)
	b.must(os.WriteFile(path, []byte(content), 0o600))
	return path
}

// kernel gives a machine a profile of its own that starts a kernel.
func (b *bench) kernel(c *lab.Client, fields ...string) {
	b.t.Helper()
	args := []string{"profile", "set", c.Machine.Name, "--kind", "kernel"}
	for _, f := range fields {
		args = append(args, "--field", f)
	}
	b.cli(args...)
	b.cli("machine", "set", c.Machine.Name, "--profile", c.Machine.Name)
}

// patience is how long a machine may take to fail or to boot: UEFI takes its time.
func patience(c *lab.Client) time.Duration {
	if c.Machine.Firmware == lab.UEFI {
		return linuxLimit
	}
	return sectorLimit
}

// passes switches a machine on again and waits until its newest boot is past the
// stage that failed. A boot that found no address goes on as the same attempt.
func (b *bench) passes(c *lab.Client, name store.StageName) {
	b.t.Helper()
	r := b.powerOn(c)
	defer r.Kill()
	ctx, cancel := context.WithTimeout(b.ctx, patience(c))
	defer cancel()
	a, err := b.appliance.WaitAttempt(ctx, c.Machine.Name, func(a store.Attempt) bool {
		s := stage(a, name)
		return s.State == store.StageDone || s.State == store.StageSlow
	})
	if err != nil {
		b.t.Errorf("%v; it is explained as %+v", err, a.Diagnoses)
	}
}

// No address is left, and one button makes room.
func TestARangeThatIsUsedUpIsMadeLarger(t *testing.T) {
	soaking(t)
	b := bare(t, 3*sectorLimit)
	b.serve("--interface", lab.ServerInterface, "--dhcp", "auto")
	b.cli("subnet", "add", "--interface", lab.ServerInterface, "--prefix", lab.ServerPrefix.String(), "--mode", "full", "--range", "10.77.0.100-10.77.0.100")
	// An enrolled machine has the only address.
	b.cli("machine", "add", "owner", "--mac", lab.MAC(200).String(), "--address", "10.77.0.100")
	c := b.sector("late", 201, area.PowerOff)
	a := b.fails(c, "LB-DHCP-01")
	if want := "extend-range-" + lab.ServerInterface; a.Diagnoses[0].Fixes[0].Action != want {
		t.Fatalf("%+v", a.Diagnoses[0].Fixes)
	}
	b.cli("attempt", "fix", fmt.Sprint(a.ID), a.Diagnoses[0].Fixes[0].Action)
	b.passes(c, store.StageAddress)
}

// outside is a cause that is not ours to change: the diagnosis says exactly what
// to do, and Check again turns green when it is done.
type outside struct {
	name     string
	filter   string // of nftables, in the appliance's namespace
	code     string
	says     string // in the title
	instruct string // in a fix without a button
	check    string // what Check again says while the cause is there
	firmware lab.Firmware
	passes   store.StageName
}

func outsiders() []outside {
	return []outside{
		{"iscsi-refused", "in tcp dport 3260 reject with tcp reset", "LB-TGT-01", "could not reach its volume", "Let TCP port 3260 to 10.77.0.1 through", "3260", lab.BIOS, store.StageRead},
		{"iscsi-dropped", "in tcp dport 3260 drop", "LB-TGT-01", "could not reach its volume", "Let TCP port 3260 to 10.77.0.1 through", "3260", lab.BIOS, store.StageRead},
		{"boot-port-refused", "in tcp dport 80 reject with tcp reset", "LB-SCR-08", "could not reach the appliance’s boot port", "Let TCP port 80 to 10.77.0.1 through", ":80", lab.BIOS, store.StageScript},
		{"boot-port-dropped", "in tcp dport 80 drop", "LB-SCR-08", "could not reach the appliance’s boot port", "Let TCP port 80 to 10.77.0.1 through", ":80", lab.BIOS, store.StageScript},
		{"tftp-dropped", "in udp dport 69 drop", "LB-LOAD-04", "never asked for the boot loader", "Let UDP port 69 to", "TFTP", lab.UEFI, store.StageLoader},
	}
}

func TestACauseOutsideIsSaidExactlyAndCheckedAgain(t *testing.T) {
	soaking(t)
	all := outsiders()
	b := start(t, time.Duration(2*len(all))*sectorLimit+2*linuxLimit)
	for i, o := range all {
		t.Run(o.name, func(t *testing.T) {
			b := &bench{b.Lab, b.appliance, b.ctx, t}
			b.filter(o.filter)
			defer b.filter("")
			c := b.sector(o.name, byte(210+i), area.PowerOff)
			c.Machine.Firmware, c.Machine.OnlyIPv4 = o.firmware, o.firmware == lab.UEFI
			a := b.fails(c, o.code)
			b.record(o.name, c.Machine.Name, a)
			d := a.Diagnoses[0]
			if !strings.Contains(d.Title, o.says) {
				t.Errorf("the title is %q", d.Title)
			}
			if d.Fixes[0].Action != string(store.FixCheckAgain) || !slices.ContainsFunc(d.Fixes, func(f store.Fix) bool { return f.Action == "" && strings.Contains(f.Label, o.instruct) }) {
				t.Fatalf("%+v", d.Fixes)
			}
			if out, err := b.appliance.CLI(b.ctx, "attempt", "fix", fmt.Sprint(a.ID), "check-again"); err == nil || !strings.Contains(err.Error(), o.check) {
				t.Errorf("the check says %q, %v", out, err)
			}
			b.filter("")
			b.cli("attempt", "fix", fmt.Sprint(a.ID), "check-again")
			b.passes(c, o.passes)
		})
	}
}

// filter makes one rule of nftables the only one in the appliance's namespace.
func (b *bench) filter(rule string) {
	b.t.Helper()
	script := "nft flush ruleset\n"
	if rule != "" {
		script += "nft add table inet gate\nnft 'add chain inet gate in { type filter hook input priority 0; }'\nnft 'add chain inet gate out { type filter hook output priority 0; }'\nnft add rule inet gate " + rule
	}
	b.shell(b.Network.Server, script)
}

// A link on the way that swallows large packets and says nothing: DHCP and
// logins come through, and nothing else does.
func TestLargePacketsThatAreLostAreNamed(t *testing.T) {
	soaking(t)
	b := start(t, 4*sectorLimit)
	for i, o := range []struct{ name, filter, says string }{
		{"lost-scripts", "out ip length 1000-65535 drop", "Our answers are not reaching lost-scripts"},
		{"lost-reads", "out tcp sport 3260 ip length 1000-65535 drop", "Our answers to the reads of lost-reads are lost"},
	} {
		t.Run(o.name, func(t *testing.T) {
			b := &bench{b.Lab, b.appliance, b.ctx, t}
			b.filter(o.filter)
			defer b.filter("")
			c := b.sector(o.name, byte(220+i), area.PowerOff)
			a := b.fails(c, "LB-NET-02")
			b.record(o.name, c.Machine.Name, a)
			if d := a.Diagnoses[0]; !strings.Contains(d.Title, o.says) || !strings.Contains(d.Fixes[0].Label, "1500 everywhere") {
				t.Errorf("%+v", d)
			}
			b.filter("")
			b.passes(c, store.StageRead)
		})
	}
}

// One way of a VLAN or port: what the machine asks comes in, and no offer goes out
// to it.
func TestOffersThatNeverArriveAreNamed(t *testing.T) {
	soaking(t)
	b := start(t, 3*sectorLimit)
	b.shell(b.Network.LAN, "nft add table bridge gate\nnft 'add chain bridge gate f { type filter hook forward priority 0; }'\nnft add rule bridge gate f udp sport 67 drop")
	c := b.sector("one-way-port", 230, area.PowerOff)
	a := b.fails(c, "LB-DHCP-03")
	b.record("one-way-port", c.Machine.Name, a)
	if d := a.Diagnoses[0]; !strings.Contains(d.Title, "Our answers are not reaching one-way-port") {
		t.Errorf("%+v", d)
	}
	b.shell(b.Network.LAN, "nft delete table bridge gate")
	b.passes(c, store.StageRead)
}

// A machine that nobody enrolled is enrolled by one button and given a volume by
// the next, while it waits: it needs no second power-on.
func TestAnUnknownMachineIsBroughtUpByTwoButtons(t *testing.T) {
	soaking(t)
	b := start(t, 2*sectorLimit)
	d, err := b.SectorDisk("newcomer", area.PowerOff)
	b.must(err)
	b.cli("volume", "import", "newcomer-disk", d.Path)
	r, err := b.PowerOn(b.ctx, b.machine("newcomer", lab.BIOS, 232))
	b.must(err)
	defer r.Kill()
	explained := func(id, code string) store.Attempt {
		for {
			var a store.Attempt
			if out, err := b.appliance.CLI(b.ctx, "--json", "attempt", "show", id); err == nil {
				b.must(json.Unmarshal([]byte(out), &a))
			}
			if len(a.Diagnoses) > 0 && a.Diagnoses[0].Code == code {
				return a
			}
			select {
			case <-b.ctx.Done():
				t.Fatalf("it is never explained as %s; %+v", code, a.Diagnoses)
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	a := explained("1", "LB-SCR-04")
	b.record("newcomer", "", a)
	if !strings.Contains(a.Diagnoses[0].Title, "is waiting to be enrolled") || a.Diagnoses[0].Fixes[0].Action != "enroll" {
		t.Fatalf("%+v", a.Diagnoses)
	}
	b.cli("attempt", "fix", "1", "enroll")
	a = explained("1", "LB-LUN-02")
	if a.Diagnoses[0].Fixes[0].Action != "map-volume-newcomer-disk" {
		t.Fatalf("%+v", a.Diagnoses)
	}
	b.cli("attempt", "fix", "1", "map-volume-newcomer-disk")
	found, err := r.Console.WaitFor(b.ctx, "LUNBOOT-UP (?:found=. )?nonce=([0-9a-f]+)")
	b.must(err)
	if found.Groups[1] != d.Nonce.String() {
		t.Errorf("it read %s", found.Groups[1])
	}
}

// What was ignored is told by name too, and comes back by a button.
func TestAnIgnoredMachineIsTakenOffTheList(t *testing.T) {
	soaking(t)
	b := start(t, 3*sectorLimit)
	m := b.machine("ignored", lab.BIOS, 233)
	r, err := b.PowerOn(b.ctx, m)
	b.must(err)
	_, err = r.Console.WaitFor(b.ctx, "Its MAC address is")
	b.must(err)
	b.cli("machine", "ignore", m.MAC.String())
	r.Kill()
	r, err = b.PowerOn(b.ctx, m)
	b.must(err)
	_, err = r.Console.WaitFor(b.ctx, "Nothing to boot")
	b.must(err)
	r.Kill()
	var a store.Attempt
	b.must(b.appliance.JSON(b.ctx, &a, "attempt", "show", "2"))
	if a.Outcome != store.OutcomeFailed || len(a.Diagnoses) != 1 || a.Diagnoses[0].Code != "LB-SCR-02" || !strings.Contains(a.Diagnoses[0].Title, "was left alone") || a.Diagnoses[0].Fixes[0].Action != "unignore" {
		t.Fatalf("%s: %+v", a.Outcome, a.Diagnoses)
	}
	b.record("ignored", "", a)
	b.cli("attempt", "fix", "2", "unignore")
	r, err = b.PowerOn(b.ctx, m)
	b.must(err)
	_, err = r.Console.WaitFor(b.ctx, "Its MAC address is")
	b.must(err)
	r.Kill()
}

// A loader that somebody named for the machine, and that dies on it.
func TestALoaderOfItsOwnThatDiesIsLeftToTheAppliance(t *testing.T) {
	soaking(t)
	b := start(t, 2*linuxLimit)
	b.cli("loader", "add", broken(t, 0xeb, 0xfe), "--name", "mine.efi") // jmp $
	c := b.sector("own-loader", 234, area.PowerOff, "--loader", "mine.efi")
	c.Machine.Firmware, c.Machine.OnlyIPv4 = lab.UEFI, true
	r := b.powerOn(c)
	a, err := b.appliance.WaitAttempt(b.ctx, "own-loader", func(a store.Attempt) bool { return a.Outcome == store.OutcomeFailed && len(a.Diagnoses) > 0 })
	b.must(err)
	r.Kill()
	b.record("own-loader", "own-loader", a)
	d := a.Diagnoses[0]
	if d.Code != "LB-LOAD-05" || !strings.Contains(d.Title, "downloaded mine.efi but did not start it") || d.Fixes[0].Action != "loader-auto" {
		t.Fatalf("%+v", d)
	}
	b.cli("attempt", "fix", fmt.Sprint(a.ID), "loader-auto")
	b.passes(c, store.StageScript)
}

// Secrets and mappings that change under a machine that runs.
func TestWhatChangesUnderARunningMachineIsSaid(t *testing.T) {
	soaking(t)
	b := start(t, 4*sectorLimit)
	hold := func(name string, n byte) (*lab.Client, *lab.Running) {
		c := b.sector(name, n, area.Hold)
		r := b.powerOn(c)
		_, err := c.WaitUp(b.ctx, r)
		b.must(err)
		b.must(r.WaitTick(b.ctx))
		return c, r
	}
	wait := func(name, code, says string) store.Attempt {
		a, err := b.appliance.WaitAttempt(b.ctx, name, func(a store.Attempt) bool { return len(a.Diagnoses) > 0 && a.Diagnoses[0].Code == code })
		b.must(err)
		if !strings.Contains(a.Diagnoses[0].Title, says) {
			t.Errorf("%+v", a.Diagnoses[0])
		}
		b.record(name, name, a)
		return a
	}
	c, r := hold("new-secret", 235)
	b.cli("machine", "set", "new-secret", "--chap-secret", "another-secret-16")
	b.must(b.appliance.Stop(15 * time.Second))
	b.must(b.appliance.Start(b.ctx))
	a := wait("new-secret", "LB-CHAP-01", "gave the wrong password")
	if !strings.Contains(a.Diagnoses[0].Fixes[0].Label, "Boot it again") {
		t.Errorf("%+v", a.Diagnoses[0].Fixes)
	}
	r.Kill()
	b.passes(c, store.StageRead)

	c, r = hold("taken-away", 236)
	b.cli("mapping", "remove", "taken-away", "2")
	a = wait("taken-away", "LB-LUN-02", "lost its volume while it used it")
	r.Kill()
	b.cli("attempt", "fix", fmt.Sprint(a.ID), a.Diagnoses[0].Fixes[0].Action)
	b.passes(c, store.StageRead)
}

// A UEFI machine with a volume that only BIOS starts.
func TestAVolumeOfTheOtherFirmwareIsNamed(t *testing.T) {
	soaking(t)
	b := start(t, linuxLimit)
	c := b.sector("other-firmware", 237, area.PowerOff)
	c.Machine.Firmware, c.Machine.OnlyIPv4 = lab.UEFI, true
	a := b.fails(c, "LB-VOL-06")
	b.record("other-firmware", c.Machine.Name, a)
	if d := a.Diagnoses[0]; !strings.Contains(d.Title, "starts in UEFI mode, and its volume “"+c.Volume+"” starts only in BIOS mode") {
		t.Errorf("%+v", d)
	}
}

// soaking skips what takes long unless everything is asked for.
func soaking(t *testing.T) {
	t.Helper()
	if os.Getenv("LUNBOOT_SOAK") == "" {
		t.Skip("takes minutes; LUNBOOT_SOAK=1 runs it")
	}
}

// recorded is how a boot that failed is kept for services/boot/diagnose, whose
// tests replay it.
type recorded struct {
	From  string         `json:"from"`
	Code  string         `json:"code"`
	Title string         `json:"title"`
	Asked time.Time      `json:"asked"` // when it had failed
	Facts diagnose.Facts `json:"facts"`
}

// events are those of the journal, the oldest first.
func (b *bench) events() (all []store.Event) {
	b.t.Helper()
	lines := json.NewDecoder(strings.NewReader(b.cli("--json", "event", "list")))
	for {
		var e store.Event
		if err := lines.Decode(&e); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			b.t.Fatal(err)
		}
		all = append(all, e)
	}
}

// record keeps a boot's events in the folder that LUNBOOT_REPLAYS names.
func (b *bench) record(name, machine string, a store.Attempt) {
	b.t.Helper()
	dir := os.Getenv("LUNBOOT_REPLAYS")
	if dir == "" {
		return
	}
	head := recorded{From: "a QEMU machine of cmd/netlab/lab", Code: a.Diagnoses[0].Code, Title: a.Diagnoses[0].Title, Asked: a.Updated}
	if machine != "" {
		var m struct {
			store.Machine
			Mappings []struct {
				store.Mapping
				VolumeName string `json:"volume_name"`
			} `json:"mappings"`
		}
		b.must(b.appliance.JSON(b.ctx, &m, "machine", "show", machine))
		head.Facts = diagnose.Facts{Own: []netip.Addr{lab.ServerAddr}, UUID: m.UUID, MACs: m.MACs, Name: m.Name, Initiator: m.Initiator, Auth: m.Auth, Profile: m.Profile, OwnLoader: m.Loader}
		for _, x := range m.Mappings {
			var v store.Volume
			b.must(b.appliance.JSON(b.ctx, &v, "volume", "show", fmt.Sprint(x.Volume)))
			one := diagnose.Mapping{LUN: x.LUN, Volume: v.Name, Boot: x.Boot, BlockSize: v.BlockSize, Size: v.Size, State: v.State, ReadOnly: x.ReadOnly, Frozen: v.ReadOnly}
			if path, err := b.appliance.VolumeFile(b.ctx, v.Name); err == nil {
				if f, err := os.Open(path); err == nil { // else it is the fault
					found, err := preflight.Look(f, v.Size, v.BlockSize)
					b.must(errors.Join(err, f.Close()))
					one.Contents = &found
				}
			}
			head.Facts.Mappings = append(head.Facts.Mappings, one)
		}
	}
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	b.must(lines.Encode(head))
	for _, e := range b.events() {
		mine := e.MAC == a.MAC || e.Addr.IsValid() && e.MAC.IsZero() && e.Addr.String() == a.Address
		if mine && e.Seq >= a.FirstSeq && e.Seq <= a.LastSeq {
			e.Detail.Key = ""
			b.must(lines.Encode(e))
		}
	}
	b.must(os.WriteFile(filepath.Join(dir, name+".jsonl"), out.Bytes(), 0o644))
}
