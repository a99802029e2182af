package lab_test

import (
	"os"
	"strings"
	"testing"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// Everything that the machine is told leads across the router: the script, and
// the volume. The script carries its secrets, so that it was believed to come
// from the machine's own address.
func TestAMachineBehindARelayBootsItsVolumeAcrossTheRouter(t *testing.T) {
	for name, relay := range map[string]lab.Relay{"dhcrelay": lab.Dhcrelay, "dnsmasq": lab.Dnsmasq} {
		t.Run(name, func(t *testing.T) {
			if name == "dnsmasq" && os.Getenv("LUNBOOT_SOAK") != "1" {
				t.Skip("one relay is enough for each change; LUNBOOT_SOAK=1 has both")
			}
			b := start(t, 2*sectorLimit)
			agent, err := b.Network.Route(b.ctx, relay)
			b.must(err)
			t.Cleanup(agent.Kill)
			b.cli("subnet", "add", "--prefix", lab.RoutedPrefix.String(), "--range", "10.88.0.100-10.88.0.199", "--router", "10.88.0.1")
			c := b.sector("routed", 90, area.PowerOff)
			r := b.powerOn(c)
			if name == "dnsmasq" {
				b.must(r.ChainLoader(b.ctx)) // TFTP across the router, too
			}
			up, err := c.WaitUp(b.ctx, r)
			b.must(err)
			_, err = r.WaitWrote(b.ctx)
			b.must(err)
			b.must(r.Wait(b.ctx))
			b.must(c.CheckSector())
			t.Logf("up after %.1f s", up.At.Seconds())

			var leases struct{ Items []store.Lease }
			b.must(b.appliance.JSON(b.ctx, &leases, "lease", "list"))
			if len(leases.Items) != 1 || !lab.RoutedPrefix.Contains(leases.Items[0].Address) || leases.Items[0].Relay.String() != "10.88.0.1" {
				t.Errorf("the leases are %+v", leases.Items)
			}
			_, err = b.appliance.WaitAttempt(b.ctx, "routed", func(a store.Attempt) bool { return stage(a, store.StageRead).State == store.StageDone })
			b.must(err)
			said := b.cli("machine", "show", "routed")
			if plugged := strings.Contains(said, "port br0"); plugged != (name == "dhcrelay") {
				t.Errorf("the machine is %s", said)
			}
		})
	}
}

// The server that gives the addresses is on the machine's own wire; the appliance,
// beyond the router, hears of it through a relay and only says what to boot. The ROM
// asks for no broadcast, and the offer carries no address that the relay could send
// it to: without the flag dnsmasq sends it to nobody.
func TestAMachineBehindARelayIsToldWhatToBootBesideAnotherServer(t *testing.T) {
	b := bare(t, sectorLimit)
	r, err := b.StartRouter(b.ctx)
	b.must(err)
	r.Stop()
	b.shell(r.Namespace, "ip -4 addr flush dev rtr0 && ip addr add 10.88.0.254/24 dev rtr0")
	b.must(r.Start(b.ctx, "--dhcp-range=10.88.0.50,10.88.0.59,1h", "--dhcp-option=3,10.88.0.1", "--enable-ra", "--dhcp-range=fd00:77::,ra-only,64"))
	b.serve("--dhcp", "auto")
	agent, err := b.Network.Route(b.ctx, lab.Dnsmasq)
	b.must(err)
	t.Cleanup(agent.Kill)
	b.cli("subnet", "add", "--prefix", lab.RoutedPrefix.String(), "--mode", "proxy")
	c := b.sector("beyond", 95, area.PowerOff)
	m := b.powerOn(c)
	up, err := c.WaitUp(b.ctx, m)
	b.must(err)
	b.must(m.Wait(b.ctx))
	b.must(c.CheckSector())
	t.Logf("up after %.1f s", up.At.Seconds())
	var leases struct{ Items []store.Lease }
	b.must(b.appliance.JSON(b.ctx, &leases, "lease", "list"))
	if len(leases.Items) != 0 {
		t.Errorf("it gave addresses beside the other server: %v", leases.Items)
	}
}
