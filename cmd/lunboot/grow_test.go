package main

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"lunboot/services/iscsi/iscsitest"
)

// A clone grows while its machine is logged in: the machine is told by a unit
// attention, reads zero where nothing was, and what it writes there is there
// after the process was killed, with a snapshot taken in between.
func TestACloneGrowsUnderItsMachine(t *testing.T) {
	const mib = 1 << 20
	dir := dataDir(t)
	p := bear(t, dir, onLoopback...)
	same := []string{"--dhcp", "off", "--admin", p.up.Admin, "--boot", p.up.Boot, "--tftp", p.up.TFTP, "--iscsi", p.up.Portal, "--log-format", "json"}
	must := func(verbs ...string) {
		t.Helper()
		for _, verb := range verbs {
			if code, _, errs := cliIn(dir, strings.Fields(verb)...); code != exitDone {
				t.Fatalf("%s: %s", verb, errs)
			}
		}
	}
	must("machine add lab1 --mac 00:07:e9:0f:ea:f5 --auth none --iqn iqn.2026-11.test:lab1", "volume create golden --size 8M", "volume freeze golden", "volume clone golden --for lab1")
	login := func() *iscsitest.Initiator {
		i := iscsitest.Login(t, netip.MustParseAddrPort(p.up.Portal), iscsitest.Options{Name: "iqn.2026-11.test:lab1", Target: p.up.Target, ISID: iscsitest.Linux(1)})
		i.Must(t, iscsitest.Command{CDB: make([]byte, 6)})
		return i
	}
	capacity := func(i *iscsitest.Initiator) int64 {
		t.Helper()
		b := i.Must(t, iscsitest.Command{CDB: []byte{0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}, Read: 8}).Data
		return (int64(binary.BigEndian.Uint32(b)) + 1) * int64(binary.BigEndian.Uint32(b[4:]))
	}
	read := func(i *iscsitest.Initiator, lba uint32) []byte {
		t.Helper()
		cdb := binary.BigEndian.AppendUint32([]byte{0x28, 0}, lba)
		return i.Must(t, iscsitest.Command{CDB: append(cdb, 0, 0, 1, 0), Read: 512}).Data
	}
	told := func(i *iscsitest.Initiator) {
		t.Helper()
		r, err := i.Do(iscsitest.Command{CDB: make([]byte, 6)})
		if err != nil || r.Status != 0x02 || r.Key() != "06/2A/09" {
			t.Errorf("after it grew the machine is told status %02X, %s, %v; want CAPACITY DATA HAS CHANGED", r.Status, r.Key(), err)
		}
	}
	i := login()
	if got := capacity(i); got != 8*mib {
		t.Fatalf("it has %d bytes", got)
	}
	last := func(size int64) uint32 { return uint32(size/512) - 1 }
	text := bytes.Repeat([]byte("grown"), 103)[:512]
	i.Must(t, iscsitest.Write10(0, last(8*mib), text))
	must("volume resize lab1-golden 16M")
	told(i)
	if got := capacity(i); got != 16*mib {
		t.Errorf("it has %d bytes after it grew", got)
	}
	if b := read(i, last(16*mib)); !bytes.Equal(b, make([]byte, 512)) {
		t.Errorf("the new end holds %q", b[:16])
	}
	if !bytes.Equal(read(i, last(8*mib)), text) {
		t.Error("the old end is lost")
	}
	i.Must(t, iscsitest.Write10(0, last(16*mib), text))
	// A snapshot below, and once more.
	must("volume snapshot lab1-golden kept", "volume resize lab1-golden 24M")
	told(i)
	if !bytes.Equal(read(i, last(16*mib)), text) {
		t.Error("what was written before the snapshot is lost")
	}
	i.Must(t, iscsitest.Write10(0, last(24*mib), text))
	i.Must(t, iscsitest.Command{CDB: []byte{0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0}}) // SYNCHRONIZE CACHE
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
	_ = p.cmd.Wait()
	p = bear(t, dir, same...)
	i = login()
	if got := capacity(i); got != 24*mib {
		t.Errorf("it has %d bytes after the end", got)
	}
	for _, at := range []int64{8, 16, 24} {
		if !bytes.Equal(read(i, last(at*mib)), text) {
			t.Errorf("what was written at the end of %d MiB is lost", at)
		}
	}
	// Smaller it gets for nobody, and a golden volume never grows.
	for verb, why := range map[string]string{"volume resize lab1-golden 8M": "only grow", "volume resize golden 16M": "golden and never changes"} {
		if code, _, errs := cliIn(dir, strings.Fields(verb)...); code != exitFailed || !strings.Contains(errs, why) {
			t.Errorf("%s: %d %s", verb, code, errs)
		}
	}
}
