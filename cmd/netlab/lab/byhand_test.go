package lab_test

import (
	"encoding/base64"
	"os"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// A Linux that is started from the network for one boot, as an installer that somebody
// drives by hand, reports nothing to anybody. Interrupted, it is started again. When it
// has put a boot sector on the machine's volume, the machine boots that from then on.
func TestAnInstallationByHandIsSeenWhenItsMachineComesBack(t *testing.T) {
	soaking(t)
	b := start(t, 2*linuxLimit)
	k, err := b.BuildWorkbench(b.ctx)
	b.must(err)
	b.cli("media", "add", k.Image, "--name", "vmlinuz")
	b.cli("media", "add", k.Initrd, "--name", "workbench.gz")
	b.cli("profile", "set", "setup", "--kind", "install", "--field", "system=debian", "--field", "kernel=vmlinuz", "--field", "initrd=workbench.gz", "--field", "cmdline=console=ttyS0 loglevel=1 "+area.Workbench)
	d, err := b.SectorDisk("wanted", area.Hold)
	b.must(err)
	sector, err := os.ReadFile(d.Path)
	b.must(err)

	m := b.machine("byhand", lab.BIOS, 97)
	m.Memory = 1024
	b.cli("volume", "create", "byhand", "--size", "16M")
	b.cli("machine", "add", "byhand", "--mac", m.MAC.String(), "--auth", "none")
	b.cli("mapping", "add", "byhand", "byhand", "--lun", "2", "--boot")
	b.cli("machine", "boot", "byhand", "--once", "setup")
	row := func() (row store.Machine) {
		b.must(b.appliance.JSON(b.ctx, &row, "machine", "show", "byhand"))
		return row
	}
	on := func() *lab.Running {
		r, err := b.PowerOn(b.ctx, m)
		b.must(err)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("its console:\n%s", r.Console.Tail(60))
			}
		})
		return r
	}
	install := func() *lab.Workbench {
		w, err := lab.AtWorkbench(b.ctx, on(), "10.77.0.97", string(row().Initiator))
		b.must(err)
		return w
	}

	install().Kill() // before it did anything
	w := install()
	if p := row().OnceProfile; p != "setup" {
		t.Errorf("after an installer that was interrupted the profile for one boot is %q", p)
	}
	_, err = w.Must(b.ctx, discover+" && iscsiadm -m node --login && n=0; while ! [ -b "+disk(2)+" ]; do n=$((n+1)); [ $n -lt 100 ] || exit 1; sleep 0.1; done\n"+
		"echo "+base64.StdEncoding.EncodeToString(sector[:1024])+" | base64 -d | dd of="+disk(2)+" bs=512 conv=fsync && iscsiadm -m node --logout")
	b.must(err)
	w.Kill()

	r := on()
	t.Cleanup(r.Kill)
	found, err := r.Console.WaitFor(b.ctx, area.MarkWrote+` nonce=([0-9a-f]+)`)
	b.must(err)
	t.Logf("%v after its third power-on it runs what was installed", found.At.Round(100*time.Millisecond))
	if found.Groups[1] != d.Nonce.String() {
		t.Errorf("it started from a disk with %s, installed was %s", found.Groups[1], d.Nonce)
	}
	if p := row().OnceProfile; p != "" {
		t.Errorf("the profile for one boot is still %q", p)
	}
	seen := 0
	for _, e := range b.events() {
		if e.Kind == store.EventInstallSeen {
			seen++
			t.Log(e.Detail.Reason)
		}
	}
	if seen != 1 {
		t.Errorf("that it is installed was seen %d times", seen)
	}
}
