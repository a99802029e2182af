package session_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/pdu"
)

// digests runs a test with each digest alone, both and none (RFC 7143 §13.1).
func digests(t *testing.T, header, data func(bool) bool, test func(t *testing.T, p login.Params)) {
	for _, c := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
		if !header(c[0]) || !data(c[1]) {
			continue
		}
		t.Run(fmt.Sprintf("header %v, data %v", c[0], c[1]), func(t *testing.T) {
			p := params()
			p.HeaderDigest, p.DataDigest = c[0], c[1]
			test(t, p)
		})
	}
}

func either(bool) bool  { return true }
func must(is bool) bool { return is }

// Every kind of PDU, of odd lengths too, carries what was agreed on, both ways:
// the initiator checks what comes, and the bytes say what went.
func TestDigestsOfEveryPDU(t *testing.T) {
	digests(t, either, either, func(t *testing.T, p login.Params) {
		p.MaxRecvDataSegmentLength = 8191
		r := newRig(t, p).ready(t)
		block := bytes.Repeat([]byte("digest me"), 512*1024/9+1)[:512*1024]
		for _, c := range []Command{
			{Immediate: 512}, {Immediate: 256 << 10}, {Immediate: 8192, Unasked: 248 << 10, Segment: 5000}, {Unasked: 256 << 10}, {},
		} {
			for _, n := range []int{512, 4096, 512 << 10} {
				w := Write10(0, 3, block[:n])
				w.Immediate, w.Unasked, w.Segment = min(c.Immediate, n), min(c.Unasked, n-min(c.Immediate, n)), c.Segment
				clear(r.volumes[0].b[:1<<20])
				r.Must(t, w)
				if !bytes.Equal(r.volumes[0].b[3*512:3*512+n], block[:n]) {
					t.Fatalf("%d bytes, %+v: other bytes were written", n, c)
				}
				for _, cold := range []bool{false, true} {
					r.volumes[0].cold.Store(cold)
					if res := r.Must(t, Read10(0, 3, uint16(n/512))); !bytes.Equal(res.Data, block[:n]) {
						t.Fatalf("%d bytes: other bytes were read", n)
					}
				}
			}
		}
		if res, err := r.Do(Read10(0, 1<<24, 1)); err != nil || res.Key() != "05/21/00" { // sense data
			t.Errorf("%v %s", err, res.Key())
		}
		for _, n := range []int{0, 1, 2, 3, 4, 511} {
			q := &pdu.NOPOut{Immediate: true, InitiatorTaskTag: r.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: r.CmdSN}
			r.send(t, q, block[:n])
			if _, got := Expect[*pdu.NOPIn](t, r.Initiator); !bytes.Equal(got, block[:n]) {
				t.Errorf("a ping of %d bytes came back with %d", n, len(got))
			}
		}
		r.ask(t, pdu.TextRequest{Final: true, InitiatorTaskTag: 7, TargetTransferTag: pdu.ReservedTag}, pdu.AppendText(nil, "X-a", "b"))
		if _, got := Expect[*pdu.TextResponse](t, r.Initiator); string(got) != "X-a=NotUnderstood\x00" {
			t.Errorf("text: %q", got)
		}
		r.send(t, &pdu.SNACK{InitiatorTaskTag: 1}, nil)
		if _, got := Expect[*pdu.Reject](t, r.Initiator); len(got) != pdu.BHSLength {
			t.Errorf("a Reject with %d bytes", len(got))
		}
		r.session.Ping()
		Expect[*pdu.NOPIn](t, r.Initiator)
		r.send(t, &pdu.LogoutRequest{Immediate: true, InitiatorTaskTag: r.Tag(), CID: 1, CmdSN: r.CmdSN}, nil)
		Expect[*pdu.LogoutResponse](t, r.Initiator)
	})
}

// The digests of a large READ fit the PDUs that its data leaves in, however those
// are cut, and whichever of it is wanted.
func TestDigestsOfLargeReads(t *testing.T) {
	for _, segment := range []int{64 << 10, 64<<10 + 2, 100_000, 256 << 10, 1 << 20} {
		for _, burst := range []int{64 << 10, 192<<10 + 512, 1 << 20} {
			p := params()
			p.MaxRecvDataSegmentLength, p.MaxBurstLength, p.DataDigest = segment, burst, true
			r := newRig(t, p).ready(t)
			v := r.volumes[0]
			for i := range v.b[:2<<20] {
				v.b[i] = byte(i * 31 >> 8 * i)
			}
			for _, blocks := range []int{129, 512, 1000, 2048} {
				for _, less := range []int{0, 1, 514, blocks*512 - 1, blocks * 512} {
					for _, cold := range []bool{false, true} {
						v.cold.Store(cold)
						c := Read10(0, 3, uint16(blocks))
						if c.Read -= less; c.Read == 0 {
							continue
						}
						res, err := r.Do(c)
						if err != nil || res.Status != 0 || !bytes.Equal(res.Data, v.b[3*512:3*512+c.Read]) || int(res.Residual) != less {
							t.Fatalf("%d of %d blocks in segments of %d and bursts of %d, cold %v: %v, status %d, %d bytes, residual %d", c.Read, blocks, segment, burst, cold, err, res.Status, len(res.Data), res.Residual)
						}
					}
				}
			}
		}
	}
}

// §7.7: after a damaged header nothing can be found again.
func TestADamagedHeaderOfAnyPDUEndsTheSession(t *testing.T) {
	digests(t, must, either, func(t *testing.T, p login.Params) {
		for _, q := range []pdu.PDU{
			&pdu.SCSICommand{Final: true, Read: true, ExpectedDataTransferLength: 512, InitiatorTaskTag: 70, CmdSN: 5, CDB: [16]byte{0x28, 8: 1}},
			&pdu.DataOut{Final: true, InitiatorTaskTag: 70, TargetTransferTag: 1},
			&pdu.NOPOut{Immediate: true, InitiatorTaskTag: 70, TargetTransferTag: pdu.ReservedTag},
			&pdu.LogoutRequest{Immediate: true, InitiatorTaskTag: 70, CID: 1},
		} {
			for _, bit := range []int{9, 8*pdu.BHSLength - 1, 8 * pdu.BHSLength, 8*(pdu.BHSLength+pdu.DigestLength) - 1} { // of the header, and of its digest
				r := newRig(t, p).ready(t)
				b := r.Bytes(q, nil)
				b[bit/8] ^= 1 << (bit % 8)
				if _, err := r.Conn.Write(b); err != nil {
					t.Fatal(err)
				}
				if p, _, err := r.Recv(); err == nil {
					t.Errorf("%s with bit %d changed was answered with %s", q.Opcode(), bit, p.Opcode())
				}
				if s := r.reason(t); !strings.Contains(s, "header digest") {
					t.Errorf("%s: the reason is %q", q.Opcode(), s)
				}
			}
		}
	})
}

// §7.8: damaged data is rejected. A request that is none of SCSI's was not
// received, and comes again; a SCSI command ends, since nothing would ask for its
// data again.
func TestDamagedDataOfAnyPDU(t *testing.T) {
	digests(t, either, must, func(t *testing.T, p login.Params) {
		r := newRig(t, p).ready(t)
		damaged := func(q pdu.PDU, data []byte) {
			t.Helper()
			b := r.Bytes(q, data)
			b[len(b)-1] ^= 0x80
			if _, err := r.Conn.Write(b); err != nil {
				t.Fatal(err)
			}
			if p, h := Expect[*pdu.Reject](t, r.Initiator); p.Reason != pdu.ReasonDataDigestError || !bytes.Equal(h, b[:pdu.BHSLength]) {
				t.Errorf("%s was rejected for %s", q.Opcode(), p.Reason)
			}
		}
		ping := &pdu.NOPOut{InitiatorTaskTag: 60, TargetTransferTag: pdu.ReservedTag, CmdSN: r.CmdSN}
		damaged(ping, []byte("ping!"))
		r.send(t, ping, []byte("ping!"))
		if p, data := Expect[*pdu.NOPIn](t, r.Initiator); string(data) != "ping!" || p.SN.ExpCmdSN != r.CmdSN+1 {
			t.Errorf("%+v %q", p, data)
		}
		r.CmdSN++
		ask := &pdu.TextRequest{Final: true, InitiatorTaskTag: 61, TargetTransferTag: pdu.ReservedTag, CmdSN: r.CmdSN}
		text := pdu.AppendText(nil, "X-abc", "1")
		damaged(ask, text)
		r.send(t, ask, text)
		if p, data := Expect[*pdu.TextResponse](t, r.Initiator); string(data) != "X-abc=NotUnderstood\x00" || p.SN.ExpCmdSN != r.CmdSN+1 {
			t.Errorf("%+v %q", p, data)
		}
		r.CmdSN++
		// Data that is due is waited for before the command is answered.
		q := r.command(0x2a, 8, func(q *pdu.SCSICommand) { q.Final = false })
		damaged(q, make([]byte, 512))
		r.quiet(t)
		d := &pdu.DataOut{InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, BufferOffset: 512}
		r.send(t, d, make([]byte, 512))
		r.quiet(t)
		d.Final, d.DataSN, d.BufferOffset = true, 1, 1024
		r.send(t, d, make([]byte, 3072))
		r.status(t, q.InitiatorTaskTag, "0B/47/05")
		// In the middle of what was asked for.
		q = r.command(0x2a, 8, nil)
		r.send(t, q, nil)
		a, _ := Expect[*pdu.R2T](t, r.Initiator)
		d = &pdu.DataOut{InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag}
		damaged(d, make([]byte, 2048))
		r.quiet(t)
		d.Final, d.DataSN, d.BufferOffset = true, 1, 2048
		r.send(t, d, make([]byte, 2048))
		r.status(t, q.InitiatorTaskTag, "0B/47/05")
		if n := r.volumes[0].wrote.Load(); n != 0 {
			t.Errorf("%d writes", n)
		}
		r.Must(t, Write10(0, 0, make([]byte, 4096)))
	})
}

// §13.1: padding is zero when it is sent well, and counts as it came.
func TestPaddingThatIsNotZero(t *testing.T) {
	digests(t, either, must, func(t *testing.T, p login.Params) {
		for _, c := range []struct {
			q    pdu.PDU
			data string
		}{
			{&pdu.NOPOut{Immediate: true, InitiatorTaskTag: 60, TargetTransferTag: pdu.ReservedTag}, "ping!"},
			{&pdu.TextRequest{Immediate: true, Final: true, InitiatorTaskTag: 61, TargetTransferTag: pdu.ReservedTag}, "X-abc=1\x00\x00"},
		} {
			r := newRig(t, p).ready(t)
			b := r.Bytes(c.q, []byte(c.data))
			end := len(b) - pdu.DigestLength
			data := b[end-len(c.data)-pdu.Pad(len(c.data)) : end]
			for i := len(c.data); i < len(data); i++ {
				data[i] = 0xee
			}
			b = pdu.AppendDigest(b[:end], pdu.DigestMore(0, data))
			if _, err := r.Conn.Write(b); err != nil {
				t.Fatal(err)
			}
			if p, _, err := r.Recv(); err != nil || p.Opcode() == pdu.OpReject {
				t.Errorf("%s: %v, %+v", c.q.Opcode(), err, p)
			}
		}
	})
}
