package lab_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// What operators do to a network and to machines that boot, each with its own name
// and none of them taken for a fault of what is well.

// explained waits until a boot of a MAC is explained by a code.
func (b *bench) explained(mac store.MAC, code string) (store.Attempt, store.Diagnosis) {
	b.t.Helper()
	for {
		var all struct{ Items []store.Attempt }
		b.must(b.appliance.JSON(b.ctx, &all, "attempt", "list"))
		for _, one := range all.Items {
			if one.MAC != mac {
				continue
			}
			var a store.Attempt
			b.must(b.appliance.JSON(b.ctx, &a, "attempt", "show", fmt.Sprint(one.ID)))
			if i := slices.IndexFunc(a.Diagnoses, func(d store.Diagnosis) bool { return d.Code == code }); i >= 0 {
				return a, a.Diagnoses[i]
			}
		}
		select {
		case <-b.ctx.Done():
			b.t.Fatalf("no boot of %s is explained by %s; there are %+v", mac, code, all.Items)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func TestAMachineThatIsRemovedWhileItBootsIsToldSo(t *testing.T) {
	soaking(t)
	b := start(t, 2*sectorLimit)
	c := b.sector("removed", 150, area.PowerOff)
	b.cli("profile", "set", "late", "--file", b.file("late.ipxe", lateBoot))
	b.cli("machine", "set", "removed", "--profile", "late")
	r := b.powerOn(c)
	_, err := b.appliance.WaitAttempt(b.ctx, "removed", func(a store.Attempt) bool { return stage(a, store.StageScript).State == store.StageDone })
	b.must(err)
	b.cli("machine", "remove", "removed", "--force")
	a, d := b.explained(c.Machine.MAC, "LB-TGT-08")
	if !strings.Contains(d.Title, "was removed from the appliance while it logged in") || d.Fixes[0].Action != string(store.FixEnroll) {
		t.Errorf("%+v", d)
	}
	_, err = r.Console.WaitFor(b.ctx, "was removed from the appliance")
	b.must(err)
	b.record("removed", "", a)
	b.cli("attempt", "fix", fmt.Sprint(a.ID), "enroll")
	// It asks again by itself, under the name that it has now.
	_, d = b.explained(c.Machine.MAC, "LB-LUN-02")
	b.cli("attempt", "fix", fmt.Sprint(b.newest(c.Machine.MAC)), d.Fixes[0].Action)
	_, err = r.Console.WaitFor(b.ctx, area.MarkUp)
	b.must(err)
}

// newest is the number of the newest boot of a MAC.
func (b *bench) newest(mac store.MAC) store.AttemptID {
	b.t.Helper()
	var all struct{ Items []store.Attempt }
	b.must(b.appliance.JSON(b.ctx, &all, "attempt", "list"))
	i := slices.IndexFunc(all.Items, func(a store.Attempt) bool { return a.MAC == mac })
	if i < 0 {
		b.t.Fatalf("no boot of %s", mac)
	}
	return all.Items[i].ID
}

func TestAnAddressThatTheApplianceDoesNotHaveIsNamed(t *testing.T) {
	soaking(t)
	b := bare(t, 3*sectorLimit)
	b.serve(append(lab.DefaultFlags(), "--advertise", "10.77.0.99")...)
	c := b.sector("advertised", 151, area.PowerOff)
	a := b.fails(c, "LB-NET-04")
	b.record("advertised", "advertised", a)
	if d := a.Diagnoses[0]; !strings.Contains(d.Title, "at 10.77.0.99, which is not its address") || !strings.Contains(d.Fixes[0].Label, "without --advertise") {
		t.Errorf("%+v", d)
	}
	b.must(b.appliance.Stop(15 * time.Second))
	b.appliance.Flags = lab.DefaultFlags()
	b.must(b.appliance.Start(b.ctx))
	b.passes(c, store.StageRead)
}

func TestAGatewayThatLeadsNowhereIsNamed(t *testing.T) {
	soaking(t)
	b := start(t, 4*sectorLimit)
	agent, err := b.Network.Route(b.ctx, lab.Dhcrelay)
	b.must(err)
	t.Cleanup(agent.Kill)
	network := lab.RoutedPrefix.String()
	b.cli("subnet", "add", "--prefix", network, "--range", "10.88.0.100-10.88.0.199")
	c := b.sector("no-gateway", 152, area.PowerOff)
	for _, o := range []struct{ name, router, says string }{
		{"no-gateway", "", "it was given no gateway"},
		{"wrong-gateway", "10.88.0.77", "its gateway 10.88.0.77 may lead nowhere"},
	} {
		if o.router != "" {
			b.cli("subnet", "set", network, "--router", o.router)
		}
		r := b.powerOn(c)
		_, err := b.appliance.WaitAttempt(b.ctx, "no-gateway", func(a store.Attempt) bool {
			return len(a.Diagnoses) > 0 && a.Diagnoses[0].Code == "LB-NET-03" && strings.Contains(a.Diagnoses[0].Title, o.says)
		})
		b.must(err)
		a, _, err := b.appliance.Attempt(b.ctx, "no-gateway")
		b.must(err)
		r.Kill()
		b.record(o.name, "no-gateway", a)
		if fix := a.Diagnoses[0].Fixes[0].Label; !strings.Contains(fix, "--router 10.88.0.1") {
			t.Errorf("%s: %s", o.name, fix)
		}
	}
	b.cli("subnet", "set", network, "--router", "10.88.0.1")
	b.passes(c, store.StageRead)
}

// The address that is reserved for a machine is somebody else's by a setting of its
// own: that is said, whatever becomes of the boot, and the next one has another.
func TestAReservedAddressThatSomebodyElseUsesIsSaid(t *testing.T) {
	soaking(t)
	b := start(t, 3*sectorLimit)
	b.shell(b.Network.LAN, "ip addr add 10.77.0.60/24 dev br0")
	c := b.sector("reserved-twice", 153, area.PowerOff, "--address", "10.77.0.60")
	r := b.powerOn(c)
	_, err := c.WaitUp(b.ctx, r)
	b.must(err)
	b.must(r.Wait(b.ctx))
	a, d := b.explained(c.Machine.MAC, "LB-DHCP-09")
	b.record("reserved-twice", "reserved-twice", a)
	if !d.Aside || !strings.Contains(d.Title, "10.77.0.60, the address of reserved-twice, is used by another device") {
		t.Errorf("%+v", d)
	}
	b.cli("attempt", "fix", fmt.Sprint(a.ID), d.Fixes[0].Action)
	before := a.ID
	r = b.powerOn(c)
	_, err = c.WaitUp(b.ctx, r)
	b.must(err)
	b.must(r.Wait(b.ctx))
	if a, _, err = b.appliance.Attempt(b.ctx, "reserved-twice"); err != nil || a.ID == before || len(a.Diagnoses) != 0 {
		t.Errorf("with the address %s it is explained as %+v, %v", a.Address, a.Diagnoses, err)
	}
}

func TestASecondMachineWithTheSameMACIsSaid(t *testing.T) {
	soaking(t)
	b := start(t, 2*sectorLimit)
	c := b.sector("one-mac", 154, area.PowerOff)
	c.Machine.UUID = store.NewUUID() // it was enrolled with another
	r := b.powerOn(c)
	_, err := c.WaitUp(b.ctx, r)
	b.must(err)
	a, d := b.explained(c.Machine.MAC, "LB-SCR-15")
	b.record("one-mac", "one-mac", a)
	if !d.Aside || !strings.Contains(d.Fixes[0].Label, "--uuid "+c.Machine.UUID.String()) {
		t.Errorf("%+v", d)
	}
	r.Kill()
}

func TestAMistypedMACIsFoundByWhoeverAsks(t *testing.T) {
	soaking(t)
	b := start(t, 2*sectorLimit)
	c := b.sector("mistyped", 0xa0, area.PowerOff)
	c.Machine.MAC, c.Machine.UUID = lab.MAC(0x0a), store.NewUUID()
	r := b.powerOn(c)
	defer r.Kill()
	a, d := b.explained(c.Machine.MAC, "LB-SCR-04")
	b.record("mistyped", "", a)
	if !strings.Contains(d.Cause, "mistyped ("+lab.MAC(0xa0).String()+")") || len(d.Fixes) != 2 {
		t.Fatalf("%+v", d)
	}
	b.cli("machine", "set", "mistyped", "--mac", c.Machine.MAC.String())
	_, err := c.WaitUp(b.ctx, r)
	b.must(err)
}

// A packet filter that knows port 69 and nothing of how TFTP answers.
func TestTFTPAnswersThatAreHeldBackAreNamed(t *testing.T) {
	soaking(t)
	b := start(t, 2*linuxLimit)
	b.filter("out udp sport != { 67, 69, 4011 } udp dport != { 67, 68 } drop")
	c := b.sector("answers-held", 155, area.PowerOff)
	c.Machine.Firmware, c.Machine.OnlyIPv4 = lab.UEFI, true
	a := b.fails(c, "LB-LOAD-03")
	b.record("answers-held", "answers-held", a)
	if d := a.Diagnoses[0]; d.Title != "Our answers over TFTP are not reaching answers-held" || !strings.Contains(d.Fixes[0].Label, "Let UDP answers") {
		t.Errorf("%+v", d)
	}
	b.filter("")
	b.passes(c, store.StageScript)
}

// The appliance is stopped in the middle of a transfer, on a slow link.
func TestALoaderThatTheApplianceStoppedSendingIsNoFaultOfTheLink(t *testing.T) {
	soaking(t)
	b := start(t, 2*linuxLimit)
	c := b.sector("stopped", 156, area.PowerOff)
	c.Machine.Firmware, c.Machine.OnlyIPv4 = lab.UEFI, true
	b.shell(b.Network.Server, "tc qdisc add dev srv0 root tbf rate 64kbit burst 3000 latency 2s")
	r := b.powerOn(c)
	_, err := b.appliance.WaitAttempt(b.ctx, "stopped", func(a store.Attempt) bool { return strings.Contains(stage(a, store.StageLoader).Detail, "%") })
	b.must(err)
	b.must(b.appliance.Stop(15 * time.Second))
	b.must(b.appliance.Start(b.ctx))
	a := b.failed(c, r, "LB-LOAD-03")
	b.record("stopped", "stopped", a)
	if d := a.Diagnoses[0]; !strings.Contains(d.Title, "because the appliance was stopped") || d.Confidence != store.Certain {
		t.Errorf("%+v", d)
	}
	b.shell(b.Network.Server, "tc qdisc del dev srv0 root")
	b.passes(c, store.StageScript)
}

// A loader of which only the beginning was uploaded hangs nobody.
func TestALoaderThatIsCutShortIsNotTaken(t *testing.T) {
	soaking(t)
	b := start(t, sectorLimit)
	data, err := os.ReadFile("/usr/lib/ipxe/snponly.efi")
	b.must(err)
	out, err := b.appliance.CLI(b.ctx, "loader", "add", b.file("cut.efi", string(data[:40<<10])))
	if err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("%s, %v", out, err)
	}
}

// A machine that is known by its UUID, and boots from a card that nobody named.
func TestAMachineThatBootsFromItsSecondCardIsGivenItByAButton(t *testing.T) {
	soaking(t)
	b := start(t, 2*sectorLimit)
	c := b.sector("second-card", 157, area.PowerOff)
	c.Machine.MAC = lab.MAC(158)
	r := b.powerOn(c)
	a, d := b.explained(c.Machine.MAC, "LB-SCR-16")
	b.record("second-card", "second-card", a)
	if !strings.Contains(d.Title, "from a network card that is not among its own") || d.Fixes[0].Action != "add-card-"+c.Machine.MAC.String() {
		t.Fatalf("%+v", d)
	}
	b.cli("attempt", "fix", fmt.Sprint(a.ID), d.Fixes[0].Action)
	_, err := c.WaitUp(b.ctx, r) // it asks again by itself
	b.must(err)
}
