package lab_test

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"lunboot/store"
)

// copyBlocks is an EXTENDED COPY of the first MiB of one volume to another, both
// by the identifiers that their pages 83h have (SPC-4 §6.4.3.4, §6.4.4.2,
// §6.4.5.2), as a script that sends it to a disk.
func copyBlocks(t *testing.T, to, src, dst string) string {
	t.Helper()
	list := make([]byte, 16, 16+2*32+28)
	list[3], list[11] = 2*32, 28
	for _, wwid := range []string{src, dst} {
		name, err := hex.DecodeString(strings.TrimPrefix(wwid, "naa."))
		if err != nil || len(name) != 8 {
			t.Fatalf("the disk is called %q", wwid)
		}
		d := make([]byte, 32)
		d[0], d[4], d[5], d[7], d[30] = 0xe4, 1, 3, 8, 512>>8
		copy(d[8:], name)
		list = append(list, d...)
	}
	s := make([]byte, 28)
	s[0], s[3], s[7] = 2, 0x18, 1
	binary.BigEndian.PutUint16(s[10:], 1<<20/512)
	list = append(list, s...)
	return fmt.Sprintf("echo %s | base64 -d | sg_raw -s %d %s 83 00 00 00 00 00 00 00 00 00 00 00 00 %02x 00 00", base64.StdEncoding.EncodeToString(list), len(list), to, len(list))
}

// Two real machines: one resets, reserves, copies and overwrites whatever it
// can reach, and loses its power in the middle of a write. The other works on
// its own disk all the while and sees nothing of it but on the disk that both
// share.
func TestWhatOneMachineDoesReachesNothingOfTheOther(t *testing.T) {
	b := start(t, 2*linuxLimit)
	left := b.initiator("left", 94, []string{"usr/bin/sg_raw", "usr/bin/sg_reset", "usr/bin/sg_persist"}, "--auth", "none")
	right := b.initiator("right", 95, []string{"usr/bin/fio", "usr/bin/sg_persist"}, "--auth", "none")
	shared := left.volume(5, "32M")
	b.cli("volume", "set", shared, "--shared")
	b.cli("mapping", "add", right.name, shared, "--lun", "5")
	for _, i := range []*initiator{left, right} {
		i.volume(0, "64M")
		i.run(discover + " && iscsiadm -m node --login")
		i.waitDisk(0)
		i.waitDisk(5)
	}
	right.run("sg_persist -n -o -G -S 0xb0b " + disk(0) + " && sg_persist -n -o -R -K 0xb0b -T 3 " + disk(0))
	right.touch(5)
	session := func() (found store.Session) {
		var list struct{ Items []store.Session }
		b.must(b.appliance.JSON(b.ctx, &list, "session", "list"))
		for _, s := range list.Items {
			if s.Initiator == right.iqn {
				if found.ID != "" {
					t.Errorf("%s has two sessions", right.name)
				}
				found = s
			}
		}
		return found
	}
	before := session()
	held := right.run("sg_persist -n -k " + disk(0) + "; sg_persist -n -r " + disk(0))
	right.run("dmesg -c >/dev/null")
	right.run("(fio --name=work --filename=" + disk(0) + " --ioengine=libaio --direct=1 --rw=randwrite --bsrange=4k-64k --iodepth=16 --size=32m --verify=crc32c --verify_fatal=1 --verify_backlog=64 --fsync=64 --rate_iops=300 --time_based --runtime=600 >/tmp/said 2>&1; echo $? >/tmp/status) &")
	b.must(right.waitIO())

	wwid := func(i *initiator, lun int) string {
		return i.run(fmt.Sprintf("cat /sys/class/scsi_disk/*:%d/device/wwid", lun))
	}
	for _, lun := range []int{0, 5} {
		left.run("sg_reset -N -d " + disk(lun)) // LOGICAL UNIT RESET
		left.run("sg_reset -N -t " + disk(lun)) // TARGET WARM RESET
		for _, told := range []int{0, 5} {
			left.touch(told)
		}
		left.run("sg_persist -n -o -G -S 0xa " + disk(lun) + " && sg_persist -n -o -R -K 0xa -T 3 " + disk(lun))
		left.fails("sg_persist -n -o -P -K 0xa -S 0xb0b -T 3 " + disk(lun)) // no such key here
		left.fails("sg_persist -n -o -A -K 0xa -S 0xb0b -T 3 " + disk(lun))
		left.run("sg_persist -n -o -C -K 0xa " + disk(lun))
	}
	for _, way := range [][2]string{{wwid(right, 0), wwid(left, 0)}, {wwid(left, 0), wwid(right, 0)}} {
		if said := left.fails(copyBlocks(t, disk(0), way[0], way[1])); !strings.Contains(strings.ToLower(said), "copy target device not reachable") {
			t.Errorf("a copy of what is the other's says:\n%s", said)
		}
	}
	left.run(copyBlocks(t, disk(0), wwid(left, 0), wwid(left, 5))) // this is how it would go
	left.run("dd if=/dev/zero of=" + disk(0) + " bs=1M count=64 oflag=direct 2>/dev/null")
	left.run("dd if=/dev/zero of=" + disk(0) + " bs=1M oflag=direct 2>/dev/null &")
	b.must(left.waitIO())
	left.w.Kill()

	b.must(right.waitIO())
	if after := session(); after.ID != before.ID || after.Addr != before.Addr {
		t.Errorf("the other machine's session was %+v and is %+v", before, after)
	}
	if now := right.run("sg_persist -n -k " + disk(0) + "; sg_persist -n -r " + disk(0)); now != held {
		t.Errorf("the other machine's reservation was\n%s\nand is\n%s", held, now)
	}
	right.run("killall -INT fio; while ! [ -e /tmp/status ]; do sleep 0.2; done")
	if said := right.run("cat /tmp/said /tmp/status"); strings.Contains(said, "verify:") || !strings.Contains(said, "err= 0") {
		t.Errorf("the other machine's fio says:\n%s", said)
	}
	if said := right.run("dmesg | grep -e 'sd ' -e scsi -e connection -e error || true"); said != "" {
		t.Errorf("the other machine was told:\n%s", said)
	}
	right.touch(5)
	if said := right.run("dmesg"); !strings.Contains(said, ":5: Power-on or device reset occurred") {
		t.Errorf("nobody told the other machine of the reset of the shared disk:\n%s", said)
	}
}

// touch reads a block of a disk, and takes what the target has to tell of it.
func (i *initiator) touch(lun int) {
	i.t.Helper()
	i.run("dd if=" + disk(lun) + " of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null")
}
