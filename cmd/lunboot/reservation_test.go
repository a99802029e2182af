package main

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
)

// persistentOut is PERSISTENT RESERVE OUT with a key, a new key and flags.
func persistentOut(lun pdu.LUN, action, kind byte, key, next uint64, flags byte) iscsitest.Command {
	list := binary.BigEndian.AppendUint64(nil, key)
	list = binary.BigEndian.AppendUint64(list, next)
	list = append(list, 0, 0, 0, 0, flags, 0, 0, 0)
	return iscsitest.Command{LUN: lun, CDB: []byte{0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0}, Write: list, Immediate: len(list)}
}

// What an initiator asked to survive a power loss (APTPL) is there after every
// end of the process, before anybody else can write; what it did not ask for is
// not. One of the two machines has the volume at a LUN above 255, which is found
// in REPORT LUNS as it is addressed.
func TestAReservationOutlivesTheProcess(t *testing.T) {
	const aptpl, conflict = 0x01, 0x18
	dir := dataDir(t)
	p := bear(t, dir, onLoopback...)
	same := []string{"--dhcp", "off", "--admin", p.up.Admin, "--boot", p.up.Boot, "--tftp", p.up.TFTP, "--iscsi", p.up.Portal, "--log-format", "json"}
	for _, verb := range []string{
		"machine add lab1 --mac 00:07:e9:0f:ea:f5 --auth none --iqn iqn.2026-11.test:lab1",
		"machine add lab2 --mac 00:07:e9:0f:ea:f6 --auth none --iqn iqn.2026-11.test:lab2",
		"volume create v1 --size 64M", "volume set v1 --shared", "mapping add lab1 v1 --lun 300", "mapping add lab2 v1 --lun 0",
	} {
		if code, _, errs := cliIn(dir, strings.Fields(verb)...); code != exitDone {
			t.Fatalf("%s: %s", verb, errs)
		}
	}
	far, near := pdu.LUN{0x41, 0x2c}, pdu.LUN{}
	login := func(name string, lun pdu.LUN) *iscsitest.Initiator {
		i := iscsitest.Login(t, netip.MustParseAddrPort(p.up.Portal), iscsitest.Options{Name: "iqn.2026-11.test:" + name, Target: p.up.Target, ISID: iscsitest.Linux(1)})
		i.Must(t, iscsitest.Command{LUN: lun, CDB: make([]byte, 6)})
		return i
	}
	read := func(lun pdu.LUN) iscsitest.Command {
		return iscsitest.Command{LUN: lun, CDB: []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, Read: 512}
	}
	keys := iscsitest.Command{CDB: []byte{0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0}, Read: 256}
	again := func(sig syscall.Signal) (a, b *iscsitest.Initiator) {
		_ = p.cmd.Process.Signal(sig)
		<-p.done
		_ = p.cmd.Wait()
		p = bear(t, dir, same...)
		return login("lab1", far), login("lab2", near)
	}
	status := func(i *iscsitest.Initiator, c iscsitest.Command, want byte) {
		t.Helper()
		if r, err := i.Do(c); err != nil || r.Status != want {
			t.Fatalf("%X: status %02X, sense %s, %v; want %02X", c.CDB, r.Status, r.Key(), err, want)
		}
	}

	a, b := login("lab1", far), login("lab2", near)
	luns := a.Must(t, iscsitest.Command{LUN: far, CDB: []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, Read: 256}).Data
	if got := hex.EncodeToString(luns); got != "0000000800000000412c000000000000" {
		t.Errorf("REPORT LUNS: %s", got)
	}
	a.Must(t, persistentOut(far, 0, 0, 0, 0xa, aptpl))
	b.Must(t, persistentOut(near, 0, 0, 0, 0xb, aptpl))
	a.Must(t, persistentOut(far, 1, 3, 0xa, 0, 0)) // RESERVE, exclusive access
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		a, b = again(sig)
		status(b, read(near), conflict)
		status(b, iscsitest.Write10(0, 0, make([]byte, 512)), conflict)
		status(a, read(far), 0)
		if got := hex.EncodeToString(b.Must(t, keys).Data); got != "0000000000000010000000000000000a000000000000000b" {
			t.Errorf("after %s the keys are %s", sig, got)
		}
	}
	// The last who registers without APTPL takes it back for all of them.
	b.Must(t, persistentOut(near, 0, 0, 0xb, 0xb2, 0))
	status(b, read(near), conflict)
	_, b = again(syscall.SIGKILL)
	status(b, read(near), 0)
	if got := hex.EncodeToString(b.Must(t, keys).Data); got != "0000000000000000" {
		t.Errorf("what was not to survive did: %s", got)
	}
}
