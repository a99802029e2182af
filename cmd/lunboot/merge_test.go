package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lunboot/services/iscsi/iscsitest"
	"lunboot/store"
	"lunboot/store/volume/volumetest"
)

// A machine is logged in while its volume gets many snapshots, and its layers are
// merged behind its back: WRITE, WRITE SAME, UNMAP and GET LBA STATUS mean the same
// through all of them, and after a kill as well.
func TestAChainIsMergedUnderItsMachine(t *testing.T) {
	const size, snapshots = 8 << 20, 9
	dir := dataDir(t)
	p := bear(t, dir, onLoopback...)
	same := []string{"--dhcp", "off", "--admin", p.up.Admin, "--boot", p.up.Boot, "--tftp", p.up.TFTP, "--iscsi", p.up.Portal, "--log-format", "json"}
	must := func(verb string) string {
		t.Helper()
		code, out, errs := cliIn(dir, strings.Fields(verb)...)
		if code != exitDone {
			t.Fatalf("%s: %s", verb, errs)
		}
		return out
	}
	model := volumetest.Pattern(make([]byte, size), 1)
	clear(model[4<<20 : 5<<20])
	image := filepath.Join(t.TempDir(), "golden.raw")
	if err := os.WriteFile(image, model, 0o600); err != nil {
		t.Fatal(err)
	}
	must("machine add lab1 --mac 00:07:e9:0f:ea:f5 --auth none --iqn iqn.2026-11.test:lab1")
	must("volume import golden " + image)
	must("volume freeze golden")
	must("volume clone golden --for lab1")
	login := func() *iscsitest.Initiator {
		i := iscsitest.Login(t, netip.MustParseAddrPort(p.up.Portal), iscsitest.Options{Name: "iqn.2026-11.test:lab1", Target: p.up.Target, ISID: iscsitest.Linux(1)})
		i.Must(t, iscsitest.Command{CDB: make([]byte, 6)})
		return i
	}
	i := login()
	write := func(lba uint32, b []byte) {
		t.Helper()
		i.Must(t, iscsitest.Write10(0, lba, b))
		copy(model[lba*512:], b)
	}
	writeSame := func(lba, blocks uint32, block []byte, unmap bool) {
		t.Helper()
		cdb := make([]byte, 16) // WRITE SAME(16), SBC-4 §5.52
		cdb[0] = 0x93
		if unmap {
			cdb[1] = 0x08
		}
		binary.BigEndian.PutUint64(cdb[2:], uint64(lba))
		binary.BigEndian.PutUint32(cdb[10:], blocks)
		i.Must(t, iscsitest.Command{LUN: iscsitest.LUN(0), CDB: cdb, Write: block})
		for k := range blocks {
			copy(model[(lba+k)*512:], block)
		}
	}
	unmap := func(lba, blocks uint32) {
		t.Helper()
		b := make([]byte, 24)
		binary.BigEndian.PutUint16(b, 22)
		binary.BigEndian.PutUint16(b[2:], 16)
		binary.BigEndian.PutUint64(b[8:], uint64(lba))
		binary.BigEndian.PutUint32(b[16:], blocks)
		i.Must(t, iscsitest.Command{LUN: iscsitest.LUN(0), CDB: []byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, Write: b})
		clear(model[lba*512 : (lba+blocks)*512])
	}
	flush := func() { i.Must(t, iscsitest.Sync10(0)) }
	holds := func(when string) {
		t.Helper()
		for lba := uint32(0); lba < size/512; lba += 128 {
			if got := i.Must(t, iscsitest.Read10(0, lba, 128)).Data; !bytes.Equal(got, model[lba*512:(lba+128)*512]) {
				t.Fatalf("%s: blocks from %d hold other bytes than were written", when, lba)
			}
		}
	}
	// status is what GET LBA STATUS says of a block (SBC-4 §5.9): 0 mapped, 1 not.
	status := func(lba uint32) byte {
		t.Helper()
		cdb := make([]byte, 16)
		cdb[0], cdb[1] = 0x9e, 0x12
		binary.BigEndian.PutUint64(cdb[2:], uint64(lba))
		binary.BigEndian.PutUint32(cdb[10:], 24)
		b := i.Must(t, iscsitest.Command{LUN: iscsitest.LUN(0), CDB: cdb, Read: 24}).Data
		return b[20] & 0x0f
	}
	block := bytes.Repeat([]byte("same"), 128)
	for n := range uint32(snapshots) {
		at := n * 512
		write(at+3, volumetest.Pattern(make([]byte, 13*512), uint64(n)+10)) // no whole granules at its ends
		writeSame(at+64, 24, block, false)
		writeSame(at+96, 8, make([]byte, 512), true)
		unmap(at+128, 64)
		flush()
		must(fmt.Sprintf("volume snapshot lab1-golden s%d", n))
		write(at+130, volumetest.Pattern(make([]byte, 2*512), uint64(n)+50)) // into what was unmapped a layer below
		holds(fmt.Sprintf("after snapshot %d", n))
	}
	layers := func() int {
		t.Helper()
		var v store.VolumeDetail
		if err := json.Unmarshal([]byte(must("volume show lab1-golden --json")), &v); err != nil {
			t.Fatal(err)
		}
		return len(v.Chain)
	}
	for end := time.Now().Add(time.Minute); layers() > store.LongChain; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after a minute the volume lies in %d layers: %s", layers(), must("job list"))
		}
	}
	if jobs := must("job list"); !strings.Contains(jobs, "volume.merge") || strings.Contains(jobs, "failed") {
		t.Errorf("the jobs are\n%s", jobs)
	}
	holds("merged")
	for n := range uint32(snapshots) {
		for _, c := range []struct {
			lba  uint32
			want byte
		}{{n*512 + 64, 0}, {n*512 + 96, 1}, {n*512 + 144, 1}, {n*512 + 130, 0}, {n*512 + 256, 0}} {
			if got := status(c.lba); got != c.want {
				t.Errorf("block %d has the provisioning status %d, want %d", c.lba, got, c.want)
			}
		}
	}
	if got := status(4<<20/512 + 1024); got != 1 {
		t.Errorf("a hole of the golden volume has the provisioning status %d", got)
	}
	unmap(0, 4096) // over all that was merged
	holds("after UNMAP over merged layers")
	flush()
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
	_ = p.cmd.Wait()
	p = bear(t, dir, same...)
	i = login()
	holds("after a kill")
	must("volume check lab1-golden")
}
