package lab_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/store"
)

// initiator is a workbench whose machine the appliance knows.
type initiator struct {
	*bench
	w    *lab.Workbench
	name string
	iqn  store.IQN
}

// initiator enrolls a machine and starts Linux on it, with tools besides its
// initiator. Its address ends in n.
func (b *bench) initiator(name string, n byte, tools []string, flags ...string) *initiator {
	b.t.Helper()
	for _, tool := range tools {
		if _, err := os.Stat("/" + tool); err != nil {
			if os.Getenv("CI") == "true" {
				b.t.Fatal(err)
			}
			b.t.Skip(err)
		}
	}
	machine := b.machine(name, lab.BIOS, n)
	b.cli(append([]string{"machine", "add", name, "--mac", machine.MAC.String()}, flags...)...)
	var m store.Machine
	b.must(b.appliance.JSON(b.ctx, &m, "machine", "show", name))
	w, err := b.StartWorkbench(b.ctx, machine, fmt.Sprintf("10.77.0.%d", n), string(m.Initiator), tools...)
	b.must(err)
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("%s's console:\n%s", name, w.Console.Tail(60))
		}
	})
	return &initiator{bench: b, w: w, name: name, iqn: m.Initiator}
}

// workbench is an initiator with one empty volume as LUN 2 and another as LUN
// 300.
func (b *bench) workbench(name string, n byte, flags ...string) *initiator {
	b.t.Helper()
	i := b.initiator(name, n, nil, flags...)
	i.volume(2, "64M")
	i.volume(300, "64M")
	return i
}

// volume makes an empty volume and maps it; it is called like the machine, with
// the LUN behind.
func (i *initiator) volume(lun int, size string, flags ...string) string {
	i.t.Helper()
	name := fmt.Sprintf("%s%d", i.name, lun)
	i.cli(append([]string{"volume", "create", name, "--size", size}, flags...)...)
	i.cli("mapping", "add", i.name, name, "--lun", fmt.Sprint(lun))
	return name
}

// run runs a script that has to succeed.
func (i *initiator) run(script string) string {
	i.t.Helper()
	out, err := i.w.Must(i.ctx, script)
	i.must(err)
	return out
}

// fails runs a script that must not succeed.
func (i *initiator) fails(script string) string {
	i.t.Helper()
	out, status, err := i.w.Do(i.ctx, script)
	i.must(err)
	if status == 0 {
		i.t.Errorf("%s succeeded:\n%s", script, out)
	}
	return out
}

// set changes a setting of the node that discovery found.
func (i *initiator) set(settings ...string) {
	i.t.Helper()
	var script strings.Builder
	for _, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		fmt.Fprintf(&script, "iscsiadm -m node -o update -n %s -v %s || exit 1\n", key, value)
	}
	i.run(script.String())
}

// disk is the shell's way to the disk of a LUN, as Linux numbers it.
func disk(lun int) string {
	if lun > 255 {
		lun |= 0x4000 // flat space addressing (SAM-5 §4.7.7.3)
	}
	return fmt.Sprintf("/dev/$(ls /sys/class/scsi_disk/*:%d/device/block)", lun)
}

// waitDisk waits until Linux has the disk of a LUN.
func (i *initiator) waitDisk(lun int) {
	i.t.Helper()
	i.run("n=0; while ! [ -b " + disk(lun) + " ]; do n=$((n+1)); [ $n -lt 100 ] || exit 1; sleep 0.1; done")
}

const discover = "iscsiadm -m discovery -t sendtargets -p 10.77.0.1"

// Linux's own initiator: what it finds, and what it can do with it.
func TestLinuxsInitiatorUsesItsDisks(t *testing.T) {
	b := start(t, linuxLimit)
	i := b.workbench("linux", 90, "--auth", "none")
	if out := i.run(discover); !strings.Contains(out, "10.77.0.1:3260,1 iqn.") {
		t.Errorf("discovery says %q", out)
	}
	for _, digest := range []struct{ header, data string }{{"CRC32C", "None"}, {"None", "CRC32C"}, {"CRC32C", "CRC32C"}, {"None", "None"}} {
		i.set("node.conn[0].iscsi.HeaderDigest="+digest.header, "node.conn[0].iscsi.DataDigest="+digest.data)
		i.run("iscsiadm -m node --login")
		said := i.run("iscsiadm -m session -P3")
		for _, want := range []string{"HeaderDigest: " + digest.header, "DataDigest: " + digest.data} {
			if !strings.Contains(said, want) {
				t.Errorf("the session lacks %q:\n%s", want, said)
			}
		}
		i.waitDisk(300)
		i.run("dd if=/dev/urandom of=/tmp/r bs=64k count=16 2>/dev/null; dd if=/tmp/r of=" + disk(300) + " bs=64k oflag=direct 2>/dev/null; dd if=" + disk(300) + " bs=64k count=16 iflag=direct 2>/dev/null | cmp - /tmp/r")
		if digest.header+digest.data != "NoneNone" {
			i.run("iscsiadm -m node --logout")
			if out := b.cli("session", "list"); strings.Contains(out, i.name) {
				t.Errorf("a session is left after the logout:\n%s", out)
			}
		}
	}
	luns := i.run("for d in /sys/class/scsi_disk/*; do echo ${d##*:}; done | sort -n | tr '\\n' ' '")
	if luns != "2 16684" {
		t.Errorf("Linux sees the LUNs %q", luns)
	}
	if size := i.run("blockdev --getsize64 " + disk(2) + "; d=" + disk(2) + "; cat /sys/class/block/${d#/dev/}/queue/logical_block_size /sys/class/block/${d#/dev/}/queue/physical_block_size"); size != "67108864\n512\n4096" {
		t.Errorf("size and blocks are %q", size)
	}
	i.run("/sbin/mke2fs -q -t ext4 " + disk(2) + " && mount -t ext4 " + disk(2) + " /mnt && dd if=/dev/urandom of=/mnt/f bs=1M count=8 2>/dev/null && sync && umount /mnt && /sbin/e2fsck -f -n " + disk(2))
	b.cli("volume", "create", "later", "--size", "32M")
	b.cli("mapping", "add", i.name, "later", "--lun", "5")
	b.cli("volume", "resize", "linux2", "96M")
	// Its session lives on, and its next commands are told, as soon as the target
	// has looked at the inventory again.
	for _, want := range []string{"LUN assignments on this target have changed", "Capacity data has changed"} {
		told := ""
		for tries := 0; tries < 30 && !strings.Contains(told, want); tries++ {
			i.touch(2)
			told = i.run("sleep 0.1; dmesg")
		}
		if !strings.Contains(told, want) {
			t.Errorf("Linux does not say %q:\n%s", want, told)
		}
	}
	i.run("iscsiadm -m session --rescan; for n in $(seq 50); do [ -b " + disk(5) + " ] && break; sleep 0.1; done") // Linux makes the device by and by
	if size := i.run("blockdev --getsize64 " + disk(2) + " " + "; blockdev --getsize64 " + disk(5)); size != "100663296\n33554432" {
		t.Errorf("after the rescan the sizes are %q", size)
	}
	i.run("iscsiadm -m node --logout")
}

// Each side proves itself, and neither takes the other's false word.
func TestLinuxsInitiatorProvesItselfAndAsksForProof(t *testing.T) {
	b := start(t, linuxLimit)
	i := b.workbench("chap", 91, "--auth", "chap", "--chap-user", "alice", "--chap-secret", "alicealicealice1")
	// Discovery asks for the same proof as a login, and has records of its own.
	const db = "iscsiadm -m discoverydb -t sendtargets -p 10.77.0.1 "
	proof := func(settings ...string) {
		for _, s := range settings {
			key, value, _ := strings.Cut(s, "=")
			i.run(db + "-o update -n discovery.sendtargets.auth." + key + " -v " + value)
		}
	}
	refused := func(why string) {
		t.Helper()
		if said := i.fails(db + "--discover"); strings.Contains(said, "iqn.") {
			t.Errorf("discovery with %s says %q", why, said)
		}
	}
	if said := i.fails(discover); !strings.Contains(said, "authorization failure") {
		t.Errorf("discovery without CHAP says %q", said)
	}
	i.run(db + "-o new")
	proof("authmethod=CHAP", "username=alice", "password=alicealicealice2")
	refused("a wrong secret")
	proof("password=alicealicealice1")
	if said := i.run(db + "--discover"); !strings.Contains(said, "10.77.0.1:3260,1 iqn.") {
		t.Errorf("discovery with CHAP says %q", said)
	}
	i.fails("iscsiadm -m node --login")
	i.set("node.session.auth.authmethod=CHAP", "node.session.auth.username=alice", "node.session.auth.password=alicealicealice2")
	i.fails("iscsiadm -m node --login")
	i.set("node.session.auth.password=alicealicealice1")
	i.run("iscsiadm -m node --login && iscsiadm -m node --logout")
	b.cli("machine", "set", i.name, "--auth", "mutual", "--reverse-user", "target", "--reverse-secret", "targettargettar1")
	i.fails("iscsiadm -m node --login") // one-way is not enough now
	refused("one-way CHAP")
	proof("username_in=target", "password_in=targettargettar2")
	refused("a target that proves another secret")
	proof("password_in=targettargettar1")
	i.run(db + "--discover") // makes the node's record anew
	i.set("node.session.auth.authmethod=CHAP", "node.session.auth.username=alice", "node.session.auth.password=alicealicealice1",
		"node.session.auth.username_in=target", "node.session.auth.password_in=targettargettar2")
	i.fails("iscsiadm -m node --login")
	i.set("node.session.auth.password_in=targettargettar1")
	i.run("iscsiadm -m node --login && iscsiadm -m node --logout")
	time.Sleep(100 * time.Millisecond)
	if out := b.cli("session", "list"); strings.Contains(out, i.name) {
		t.Errorf("a session is left after the logout:\n%s", out)
	}
}
