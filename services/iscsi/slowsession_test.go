package iscsi_test

import (
	"bytes"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// Sessions that stop in the middle of everything there is to stop in hold little
// memory and write nothing, and another initiator of the very same volume goes
// on with its work and its resets.
func TestSlowSessionsHarmNobody(t *testing.T) {
	b := start(t)
	v := newMemory(32 << 20)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: v}})
	b.enroll(bob, map[store.LUN]disk{0: {id: 1, volume: v}})
	victim := b.login(t, bob, Linux(1), "InitialR2T", "No")
	victim.Timeout = 20 * time.Second
	victim.Must(t, Ready(0))
	evil := bytes.Repeat([]byte{0xee}, 256<<10)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	half := func(i *Initiator, p pdu.PDU, data []byte) {
		b := i.Bytes(p, data)
		_, _ = i.Conn.Write(b[:len(b)/2])
	}
	write := func(i *Initiator, blocks int) *pdu.SCSICommand {
		q := &pdu.SCSICommand{Final: true, Write: true, Attr: pdu.AttrSimple, InitiatorTaskTag: i.Tag(), CmdSN: i.CmdSN, ExpectedDataTransferLength: uint32(blocks) * 512}
		copy(q.CDB[:], []byte{0x2a, 0, 0, 0, 0, 0, 0, byte(blocks >> 8), byte(blocks)})
		i.CmdSN = i.CmdSN.Add(1)
		return q
	}
	var slow sync.WaitGroup
	const sessions = 63
	var conns []*Initiator
	for n := range sessions {
		i := b.login(t, alice, Linux(uint16(n)), "InitialR2T", "No", "MaxRecvDataSegmentLength", "262144", "MaxBurstLength", "1048576", "FirstBurstLength", "262144")
		i.Must(t, Ready(0))
		conns = append(conns, i)
		switch n % 7 {
		case 0:
			_, _ = i.Conn.Write(make([]byte, 24))
		case 1:
			half(i, write(i, 512), evil)
		case 2:
			half(i, &pdu.NOPOut{Immediate: true, InitiatorTaskTag: i.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: i.CmdSN}, evil)
		case 3:
			half(i, &pdu.TextRequest{Final: true, InitiatorTaskTag: i.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: i.CmdSN}, bytes.Repeat([]byte("X-a=b\x00"), 1000))
		case 4: // what it was asked for, but for the end
			q := write(i, 16384)
			if err := i.Send(q, nil); err != nil {
				t.Fatal(err)
			}
			a, _ := Expect[*pdu.R2T](t, i)
			half(i, &pdu.DataOut{InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag}, evil)
		case 5: // answers that it never reads
			_ = i.Conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			for range 20 {
				if _, err := i.Start(Read10(0, 0, 16384)); err != nil {
					break
				}
			}
		case 6: // a byte at a time
			b := i.Bytes(write(i, 512), evil)
			slow.Go(func() {
				for len(b) > 0 {
					if _, err := i.Conn.Write(b[:1]); err != nil {
						return
					}
					b = b[1:]
					time.Sleep(20 * time.Millisecond)
				}
			})
		}
	}
	time.Sleep(100 * time.Millisecond)
	var took []time.Duration
	for n := range 300 {
		data := bytes.Repeat([]byte{byte(n + 1)}, 64<<10)
		w := Write10(0, uint32(16<<20/512+n*128%16384), data)
		w.Immediate = 8192
		w.Unasked = 56 << 10 // FirstBurstLength, as it must be (RFC 7143 §11.4.7.2)
		at := time.Now()
		victim.Must(t, w)
		if r := victim.Must(t, Read10(0, uint32(16<<20/512+n*128%16384), 128)); !bytes.Equal(r.Data, data) {
			t.Fatal("other data than was written")
		}
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	grew := int64(heap()-before) >> 10
	t.Logf("a write and a read of 64 KiB take %s, the 99th percentile is %s; %d sessions hold %d KiB", took[len(took)/2], took[len(took)*99/100], sessions, grew)
	if d := took[len(took)*99/100]; d > 500*time.Millisecond {
		t.Errorf("the 99th percentile is %s", d)
	}
	// One initiator's part of the pool, and the sessions' own.
	if bound := int64(128<<10 + sessions*2048); grew > bound {
		t.Errorf("they hold %d KiB", grew)
	}
	at := time.Now()
	if err := victim.Send(&pdu.TaskRequest{Immediate: true, Function: pdu.FuncLogicalUnitReset, InitiatorTaskTag: victim.Tag(), CmdSN: victim.CmdSN}, nil); err != nil {
		t.Fatal(err)
	}
	if p, _ := Expect[*pdu.TaskResponse](t, victim); p.Response != pdu.TaskComplete {
		t.Errorf("the reset: %+v", p)
	}
	t.Logf("a reset takes %s", time.Since(at))
	for _, i := range conns {
		_ = i.Conn.Close()
	}
	slow.Wait()
	eventually(t, func() bool { return b.sessions(alice) == 0 }, "they are gone")
	if r := victim.Must(t, Read10(0, 0, 16384)); bytes.IndexByte(r.Data, 0xee) >= 0 {
		t.Error("a write that never came to its end is on the volume")
	}
}
