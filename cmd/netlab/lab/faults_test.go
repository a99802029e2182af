package lab_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// fault makes one machine fail in one way.
type fault struct {
	name string
	code string
	says string // in the title
	// script is the machine's own script, when that is what is wrong.
	script string
	auth   string // of the machine; mutual when empty
	// spoil does what else goes wrong, before the machine is switched on.
	spoil func(b *bench, c *lab.Client)
	// fix is the action of the first fix; empty where the cause lies outside the
	// appliance. passes is the stage that the next boot then passes.
	fix    string
	passes store.StageName
	always bool // also without LUNBOOT_SOAK
}

const (
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

func faults() []fault {
	return []fault{
		{name: "no-lun", code: "LB-LUN-01", says: "asked for LUN 0, but its volume", script: noAddress, fix: "use-profile-san", passes: store.StageRead, always: true},
		{name: "decimal-lun", code: "LB-LUN-01", says: "asked for LUN 16, but its volume", script: "sanboot iscsi:{{portal_ip}}:::10:{{target}}\n", fix: "use-profile-san", passes: store.StageRead},
		{name: "wrong-secret", code: "LB-CHAP-01", says: "gave the wrong password", script: "set password not-the-password\n" + rightAddress, fix: "use-profile-san", passes: store.StageLogin, always: true},
		{name: "no-secret", code: "LB-CHAP-02", says: "offered no password", script: "clear username\nclear password\nclear reverse-username\nclear reverse-password\n" + rightAddress, fix: "use-profile-san", passes: store.StageLogin},
		{name: "one-way", code: "LB-CHAP-02", says: "offered no password", script: "clear reverse-username\nclear reverse-password\n" + rightAddress, fix: "use-profile-san", passes: store.StageLogin},
		{name: "wrong-reverse", code: "LB-TGT-05", says: "broke off its login", script: "set reverse-password not-the-password\n" + rightAddress, fix: "use-profile-san", passes: store.StageLogin},
		{name: "asks-for-proof", code: "LB-CHAP-04", says: "asked the appliance to prove itself", auth: "chap", script: "set reverse-username lunboot\nset reverse-password some-secret-of-it\n" + rightAddress,
			fix: "set-auth-mutual"},
		{name: "other-name", code: "LB-TGT-03", says: "an iSCSI name that no machine has here", script: "set initiator-iqn iqn.2020-01.org.example:nobody\n" + rightAddress, fix: "use-profile-san", passes: store.StageLogin},
		{name: "other-target", code: "LB-TGT-04", says: "which is not here", script: "sanboot iscsi:{{portal_ip}}:::2:iqn.2020-01.org.example:gone\n", fix: "use-profile-san", passes: store.StageLogin},
		{name: "bad-address", code: "LB-TGT-02", says: "never tried to reach its volume", script: "sanboot iscsi:nonsense\n", fix: "use-profile-san", passes: store.StageLogin},
		{name: "missing-kernel", code: "LB-SCR-07", says: "could not fetch its kernel", spoil: func(b *bench, c *lab.Client) {
			b.cli("profile", "set", "missing-kernel", "--kind", "kernel", "--field", "kernel=http://"+lab.ServerAddr.String()+":1/vmlinuz")
			b.cli("machine", "set", c.Machine.Name, "--profile", "missing-kernel")
		}},
		{name: "nothing-mapped", code: "LB-LUN-02", says: "has nothing to boot", spoil: remap(), fix: "map-volume-nothing-mapped-disk", passes: store.StageRead, always: true},
		{name: "none-marked", code: "LB-SCR-05", says: "none of them is its boot volume", spoil: func(b *bench, c *lab.Client) {
			b.cli("mapping", "set", c.Machine.Name, "2", "--no-boot")
		}, fix: "boot-lun-2", passes: store.StageRead},
		{name: "too-small", code: "LB-VOL-04", says: "smaller than any disk", spoil: swap("32K", "--no-boot"), script: rightAddress, fix: "grow-volume", passes: store.StageRead},
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
		{name: "read-only", code: "LB-VOL-10", says: "may not write to", spoil: func(b *bench, c *lab.Client) {
			remap(c.Volume, "--lun", "2", "--boot", "--read-only")(b, c)
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
	a := b.fails(c, f.code)
	d := a.Diagnoses[0]
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
	if f.passes != "" {
		b.passes(c, f.passes)
	}
}

// fails switches a machine on and waits until its boot has failed and is called
// by a code.
func (b *bench) fails(c *lab.Client, code string) store.Attempt {
	b.t.Helper()
	r := b.powerOn(c)
	defer r.Kill()
	ctx, cancel := context.WithTimeout(b.ctx, sectorLimit)
	defer cancel()
	a, err := b.appliance.WaitAttempt(ctx, c.Machine.Name, func(a store.Attempt) bool {
		return a.Outcome == store.OutcomeFailed && len(a.Diagnoses) > 0 && a.Diagnoses[0].Code == code
	})
	if err != nil {
		b.t.Fatalf("%v; it is explained as %+v", err, a.Diagnoses)
	}
	return a
}

// passes switches a machine on again and waits until its newest boot is past the
// stage that failed. A boot that found no address goes on as the same attempt.
func (b *bench) passes(c *lab.Client, name store.StageName) {
	b.t.Helper()
	r := b.powerOn(c)
	defer r.Kill()
	ctx, cancel := context.WithTimeout(b.ctx, sectorLimit)
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

// A packet filter between the machine and the appliance is not ours to change:
// the diagnosis says what to do, and Check again turns green when it is done.
func TestAClosedPortIsFoundAndCheckedAgain(t *testing.T) {
	soaking(t)
	b := start(t, 4*sectorLimit)
	b.shell(b.Network.Server, "nft add table inet gate\nnft 'add chain inet gate in { type filter hook input priority 0; }'\nnft add rule inet gate in tcp dport 3260 reject with tcp reset")
	c := b.sector("walled", 210, area.PowerOff)
	a := b.fails(c, "LB-TGT-01")
	d := a.Diagnoses[0]
	if d.Fixes[0].Action != string(store.FixCheckAgain) {
		t.Fatalf("%+v", d.Fixes)
	}
	if out, err := b.appliance.CLI(b.ctx, "attempt", "fix", fmt.Sprint(a.ID), "check-again"); err == nil || !strings.Contains(err.Error(), "3260") {
		t.Errorf("the check says %q, %v", out, err)
	}
	b.shell(b.Network.Server, "nft delete table inet gate")
	b.cli("attempt", "fix", fmt.Sprint(a.ID), "check-again")
	b.passes(c, store.StageRead)
}

// soaking skips what takes long unless everything is asked for.
func soaking(t *testing.T) {
	t.Helper()
	if os.Getenv("LUNBOOT_SOAK") == "" {
		t.Skip("takes a minute; LUNBOOT_SOAK=1 runs it")
	}
}
