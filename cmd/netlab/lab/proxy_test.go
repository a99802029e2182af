package lab_test

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// besideRouter makes a lab with somebody else's DHCP server, and an appliance
// beside it.
func besideRouter(t *testing.T, limit time.Duration, router []string, flags ...string) (*bench, *lab.Router) {
	t.Helper()
	b := bare(t, limit)
	r, err := b.StartRouter(b.ctx, router...)
	b.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the router's log:\n%s", r.Log())
		}
	})
	b.serve(flags...)
	return b, r
}

func proxyFlags() []string { return []string{"--interface", lab.ServerInterface, "--dhcp", "proxy"} }

// followed checks what the appliance says of a boot whose address the router
// gave: it came through the stages, and nothing of it needs to be explained.
func (b *bench) followed(machine string, stages ...store.StageName) {
	b.t.Helper()
	a, ok, err := b.appliance.Attempt(b.ctx, machine)
	b.must(err)
	if !ok || len(a.Diagnoses) != 0 {
		b.t.Errorf("the appliance calls it %s, with %v", a.Outcome, a.Diagnoses)
	}
	for _, name := range stages {
		if s := stage(a, name); s.State != store.StageDone && s.State != store.StageSlow {
			b.t.Errorf("stage %s is %s: %s", name, s.State, s.Detail)
		}
	}
	if s := stage(a, store.StageAddress); !strings.Contains(s.Detail, lab.RouterAddr.String()) {
		b.t.Errorf("the address's stage says %q, and does not name the router", s.Detail)
	}
	var leases struct{ Items []store.Lease }
	b.must(b.appliance.JSON(b.ctx, &leases, "lease", "list"))
	if len(leases.Items) != 0 {
		b.t.Errorf("it gave addresses beside the router: %v", leases.Items)
	}
}

// elsewhere makes the router name a boot file of its own, that nobody has.
func elsewhere() []string { return []string{"--dhcp-boot=nosuch.0"} }

func TestABIOSMachineBootsBesideARouterThatGivesTheAddresses(t *testing.T) {
	b, _ := besideRouter(t, 2*sectorLimit, elsewhere(), proxyFlags()...)
	c := b.sector("beside", 90, area.PowerOff)
	for _, way := range []string{"by the ROM's iPXE", "by a loader"} {
		r := b.powerOn(c)
		if way == "by a loader" {
			b.must(r.ChainLoader(b.ctx))
		}
		up, err := c.WaitUp(b.ctx, r)
		b.must(err)
		b.must(r.Wait(b.ctx))
		b.must(c.CheckSector())
		t.Logf("%s: up after %.1f s", way, up.At.Seconds())
	}
	b.followed("beside", store.StageAsk, store.StageAddress, store.StageScript, store.StageLogin, store.StageRead)
}

// The appliance is started without a word on the mode: it asks the wire.
func TestAUEFIMachineBootsBesideARouterThatTheApplianceFoundItself(t *testing.T) {
	b, _ := besideRouter(t, linuxLimit, elsewhere(), "--interface", lab.ServerInterface, "--dhcp", "auto", "--dhcp-range", "10.77.0.100-10.77.0.199")
	c := b.linux("beside", lab.UEFI, 91, area.PowerOff)
	r := b.powerOn(c)
	up, err := c.WaitUp(b.ctx, r)
	b.must(err)
	b.must(r.Wait(b.ctx))
	b.must(c.CheckLinux(b.ctx))
	t.Logf("up after %.1f s", up.At.Seconds())
	b.attempt("beside")
	b.followed("beside", store.StageAsk, store.StageAddress, store.StageLoader, store.StageScript, store.StageLogin, store.StageRead, store.StageUp)
	if !b.happened(store.EventDHCPBootServer, "") {
		t.Error("the firmware did not ask the boot server on port 4011")
	}
}

// happened reports whether the journal has an event of the kind whose loader or
// URL ends so.
func (b *bench) happened(kind store.EventKind, next string) bool {
	b.t.Helper()
	out := json.NewDecoder(strings.NewReader(b.cli("--json", "event", "list")))
	for {
		var e store.Event
		if err := out.Decode(&e); errors.Is(err, io.EOF) {
			return false
		} else if err != nil {
			b.t.Fatal(err)
		}
		if e.Kind == kind && (strings.HasSuffix(e.Detail.Loader, next) || strings.HasSuffix(e.Detail.URL, next)) {
			return true
		}
	}
}

// await waits until the journal has an event of the kind.
func (b *bench) await(kind store.EventKind, next string) {
	b.t.Helper()
	for !b.happened(kind, next) {
		select {
		case <-b.ctx.Done():
			b.t.Fatalf("no %s of %q: %v", kind, next, b.ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Firmware that boots over HTTP takes a URL from a server that gives no address,
// and firmware with a quirk fetches its loader without asking port 4011.
func TestUEFIMachinesFetchTheirLoadersBesideARouterInEveryWay(t *testing.T) {
	b, _ := besideRouter(t, linuxLimit, elsewhere(), proxyFlags()...)
	c := b.sector("ways", 92, area.PowerOff)
	c.Machine.Firmware = lab.UEFI

	b.cli("machine", "set", "ways", "--quirk", "option-43")
	r := b.powerOn(c)
	b.await(store.EventTFTPSent, "snponly.efi")
	r.Kill()
	if b.happened(store.EventDHCPBootServer, "") {
		t.Error("it was told to fetch its loader at once, and asked port 4011 all the same")
	}

	b.cli("machine", "set", "ways", "--quirk", "none")
	c.Machine.HTTPBoot = true
	r = b.powerOn(c)
	b.await(store.EventLoaderSent, "snponly.efi")
	b.await(store.EventScriptSent, "")
	r.Kill()
}

// A server that names the loader to everybody, also to the iPXE that it is,
// sends a machine round in circles. Here nothing is known of its DHCP, not even
// overheard, and it boots all the same. The router advertises itself on IPv6, as
// most do: without it each round would take 16 s longer.
func TestAMachineBootsAlthoughAnotherServerNamesTheLoaderForEver(t *testing.T) {
	names := []string{"--dhcp-boot=undionly.kpxe,," + lab.ServerAddr.String(), "--enable-ra", "--dhcp-range=fd00:77::,ra-only,64"}
	b, _ := besideRouter(t, 2*sectorLimit, names, "--dhcp", "off")
	c := b.sector("circle", 93, area.PowerOff)
	r := b.powerOn(c)
	up, err := c.WaitUp(b.ctx, r)
	b.must(err)
	b.must(r.Wait(b.ctx))
	b.must(c.CheckSector())
	t.Logf("up after %.1f s", up.At.Seconds())
}

// An iPXE of 2021 and later looks for autoexec.ipxe beside the loader that it
// was, whatever DHCP says. The ROM's is older, and does so by hand.
func TestAMachineBootsByAutoexec(t *testing.T) {
	b, _ := besideRouter(t, sectorLimit, nil, "--dhcp", "off")
	c := b.sector("autoexec", 94, area.PowerOff)
	r := b.powerOn(c)
	b.must(r.Shell(b.ctx))
	b.must(r.Enter(b.ctx, "chain tftp://"+lab.ServerAddr.String()+"/"+c.Machine.MAC.Hex12()+"/autoexec.ipxe"))
	_, err := c.WaitUp(b.ctx, r)
	b.must(err)
	b.must(r.Wait(b.ctx))
	b.must(c.CheckSector())
}
