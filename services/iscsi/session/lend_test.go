package session_test

import (
	"bytes"
	"net"
	"os"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/pdu"
)

// lending is a rig whose LUN 0 lends its bytes, each block telling its place.
func lending(t testing.TB, p login.Params) *rig {
	r := newRig(t, p).ready(t)
	v := r.volumes[0]
	for i := range v.b {
		v.b[i] = byte(i>>9) ^ byte(i>>17)*31
	}
	v.lendable(t)
	t.Cleanup(func() { // the last byte arrives before its loan ends
		eventually(t, func() bool { return v.loans.Load() == 0 }, "all loans are returned")
	})
	return r
}

// What comes straight from the file is what a copy would have been, in the same
// PDUs.
func TestLentDataIsCutAsAgreed(t *testing.T) {
	for _, tc := range []struct {
		name           string
		segment, burst int
		header, data   bool
		lent           bool
	}{
		{"large segments", 256 << 10, 1 << 20, false, false, true},
		{"bursts that end inside a segment", 192 << 10, 256 << 10, false, false, true},
		{"a header digest", 128 << 10, 1 << 20, true, false, true},
		{"a data digest needs a copy", 128 << 10, 1 << 20, true, true, false},
		{"small segments are not worth it", 8 << 10, 256 << 10, false, false, false},
		{"segments with padding", 65<<10 + 2, 1 << 20, false, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := params()
			p.MaxRecvDataSegmentLength, p.MaxBurstLength, p.HeaderDigest, p.DataDigest = tc.segment, tc.burst, tc.header, tc.data
			r := lending(t, p)
			for k, blocks := range []int{129, 256, 511, 512, 2048, 4095} {
				q := r.command(0x28, blocks, nil)
				q.CDB[5] = byte(k) // the LBA's last byte
				r.send(t, q, nil)
				at := k * 512
				for total, sn := 0, 0; ; sn++ {
					d, data := Expect[*pdu.DataIn](t, r.Initiator)
					most := min(tc.segment, tc.burst-total%tc.burst, blocks*512-total)
					if (total+most)%tc.burst != 0 && total+most < blocks*512 {
						most &^= 3
					}
					if len(data) != most || int(d.BufferOffset) != total || int(d.DataSN) != sn || !bytes.Equal(data, r.volumes[0].b[at+total:at+total+len(data)]) {
						t.Fatalf("%d blocks: Data-In %d: %+v with %d bytes", blocks, sn, d, len(data))
					}
					total += len(data)
					if last := total == blocks*512; d.StatusFlag != last || d.Final != (last || total%tc.burst == 0) {
						t.Fatalf("%d blocks: Data-In up to %d: %+v", blocks, total, d)
					}
					if d.StatusFlag {
						break
					}
				}
			}
			if lent := r.volumes[0].lent.Load() > 0; lent != tc.lent {
				t.Errorf("lent: %v", lent)
			}
		})
	}
}

func TestLentDataHasResiduals(t *testing.T) {
	r := lending(t, params())
	for _, expected := range []int{256 << 10, 300 << 10, 200 << 10} {
		res, err := r.Do(Command{CDB: []byte{0x28, 0, 0, 0, 0, 0, 0, 2, 0, 0}, Read: expected})
		if err != nil || res.Status != 0 {
			t.Fatalf("%v, %+v", err, res)
		}
		moves := 256 << 10
		if res.Overflow != (moves > expected) || res.Underflow != (moves < expected) || int(res.Residual) != max(moves-expected, expected-moves) || !bytes.Equal(res.Data, r.volumes[0].b[:min(moves, expected)]) {
			t.Errorf("%d expected: %d bytes, over %v, under %v, residual %d", expected, len(res.Data), res.Overflow, res.Underflow, res.Residual)
		}
	}
}

// An ORDERED write runs when what older READs have lent has left: the pages are
// the volume's own. From then on the session gets copies.
func TestOrderedWritesWaitForWhatWasLent(t *testing.T) {
	server, client := loopback(t)
	// What the initiator has not read stays on the target's side.
	if err := client.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil {
		t.Fatal(err)
	}
	r := rigOn(t, params(), server, client, 32<<20).ready(t)
	r.volumes[0].lendable(t)
	q := r.command(0x28, 512, nil)
	r.send(t, q, nil)
	eventually(t, func() bool { return r.volumes[0].lent.Load() == 1 && r.volumes[0].loans.Load() == 0 }, "256 KiB are lent and wait in the socket")
	w := r.command(0x2a, 512, func(q *pdu.SCSICommand) { q.Attr = pdu.AttrOrdered })
	r.send(t, w, bytes.Repeat([]byte{0xee}, 256<<10))
	time.Sleep(50 * time.Millisecond)
	if r.volumes[0].wrote.Load() != 0 {
		t.Error("the write did not wait")
	}
	if _, data := Expect[*pdu.DataIn](t, r.Initiator); bytes.IndexByte(data[:192<<10], 0xee) >= 0 {
		t.Error("the READ has bytes of the ORDERED write after it")
	}
	r.status(t, w.InitiatorTaskTag, "")
	r.send(t, r.command(0x28, 512, nil), nil)
	if _, data := Expect[*pdu.DataIn](t, r.Initiator); bytes.Count(data, []byte{0xee}) != 256<<10 {
		t.Error("the READ after it has others")
	}
	if n := r.volumes[0].lent.Load(); n != 1 {
		t.Errorf("%d loans in a session that uses ORDERED", n)
	}
}

// An initiator that does not read what was lent to it holds up neither the end
// of its session nor the volume.
func TestLoansEndWithTheSession(t *testing.T) {
	r := lending(t, params())
	for range 8 {
		r.send(t, r.command(0x28, 16384, nil), nil) // 8 MiB each, and nobody reads
	}
	eventually(t, func() bool { return r.volumes[0].loans.Load() == 1 }, "the socket is full")
	at := time.Now()
	r.session.Close("test")
	<-r.session.Done()
	if d := time.Since(at); d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
}

// A file that became shorter under its volume, by somebody's hand, ends the
// session: its header has left, and no sense data can follow.
func TestAFileThatEndsEarlyEndsTheSession(t *testing.T) {
	r := lending(t, params())
	if err := os.Truncate(r.volumes[0].file.Name(), 100<<10); err != nil {
		t.Fatal(err)
	}
	r.send(t, r.command(0x28, 512, nil), nil)
	if why := r.reason(t); why != "the volume's bytes could not be read while they were sent" {
		t.Errorf("the session ended because %s", why)
	}
}
