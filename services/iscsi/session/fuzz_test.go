package session_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/memory"
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/scsi"
	"lunboot/services/iscsi/session"
	"lunboot/store"
)

// alarm is a log that fails a test when something was recovered from.
type alarm struct{ t *testing.T }

func (a alarm) Enabled(context.Context, slog.Level) bool { return true }
func (a alarm) WithAttrs([]slog.Attr) slog.Handler       { return a }
func (a alarm) WithGroup(string) slog.Handler            { return a }

func (a alarm) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "panic") {
		var all []string
		r.Attrs(func(x slog.Attr) bool { all = append(all, x.String()); return true })
		a.t.Errorf("%s: %s", r.Message, strings.Join(all, " "))
	}
	return nil
}

// fuzzVolume is the size of the fuzzed session's volumes.
const fuzzVolume = 64 << 10

// Whatever an initiator sends after its login, in whatever order, the target
// does not panic, ends, allocates within bounds, and changes no byte that a
// command did not name.
//
// The input is a program: records of a kind, a header and data. Most kinds mend
// what would otherwise end every session at its first byte, so that the rest of
// the input is met by a session that lives.
func FuzzOverAVolume(f *testing.F) {
	record := func(kind byte, p pdu.PDU, data []byte) []byte {
		var h pdu.Header
		p.Encode(&h)
		return append(append(append([]byte{kind}, h[:]...), byte(len(data)>>8), byte(len(data))), data...)
	}
	cmd := func(op byte, lba uint32, blocks byte, write bool) *pdu.SCSICommand {
		q := &pdu.SCSICommand{Final: true, Read: !write, Write: write, Attr: pdu.AttrSimple, InitiatorTaskTag: 7, ExpectedDataTransferLength: uint32(blocks) * 512}
		q.CDB[0], q.CDB[8] = op, blocks
		binary.BigEndian.PutUint32(q.CDB[2:], lba)
		return q
	}
	block := bytes.Repeat([]byte{0xaa}, 512)
	f.Add(record(1, cmd(0x00, 0, 0, false), nil), false)
	f.Add(bytes.Join([][]byte{record(1, cmd(0, 0, 0, false), nil), record(1, cmd(0x28, 3, 2, false), nil), record(1, cmd(0x2a, 5, 1, true), block)}, nil), false)
	f.Add(bytes.Join([][]byte{record(1, cmd(0, 0, 0, false), nil), record(1, cmd(0x2a, 5, 2, true), block),
		record(1, &pdu.DataOut{Final: true, InitiatorTaskTag: 7, TargetTransferTag: 1, BufferOffset: 512}, block)}, nil), true)
	f.Add(bytes.Join([][]byte{record(1, cmd(0, 0, 0, false), nil), record(1, cmd(0x2a, 5, 1, true), nil),
		record(2, &pdu.TaskRequest{Immediate: true, Function: pdu.FuncAbortTask, InitiatorTaskTag: 8, ReferencedTaskTag: 7}, nil),
		record(2, &pdu.TaskRequest{Immediate: true, Function: pdu.FuncTargetWarmReset, InitiatorTaskTag: 9}, nil)}, nil), false)
	f.Add(record(2, &pdu.NOPOut{Immediate: true, InitiatorTaskTag: 3, TargetTransferTag: pdu.ReservedTag}, []byte("hello")), true)
	f.Add(record(1, &pdu.TextRequest{Final: true, InitiatorTaskTag: 3, TargetTransferTag: pdu.ReservedTag}, []byte("SendTargets=All\x00")), false)
	f.Add(record(2, &pdu.LogoutRequest{Immediate: true, InitiatorTaskTag: 4, CID: 1}, nil), false)
	f.Add([]byte("\x00anything at all"), false)
	// More than the session's own memory, by R2T, some of it sent; and READs
	// that wait for what is left.
	greedy := []byte{}
	for n := range 6 {
		q := cmd(0x2a, 0, 128, true)
		q.InitiatorTaskTag = pdu.TaskTag(20 + n)
		greedy = append(greedy, record(1, q, block)...)
		q = cmd(0x28, 0, 128, false)
		q.InitiatorTaskTag = pdu.TaskTag(40 + n)
		greedy = append(greedy, record(1, q, nil)...)
		greedy = append(greedy, record(2, &pdu.DataOut{Final: true, InitiatorTaskTag: 20, TargetTransferTag: 1, BufferOffset: 512 * uint32(n+1)}, block)...)
	}
	f.Add(greedy, true)
	// Pipelined behind one that is rejected, which is in both directions.
	both := cmd(0x28, 0, 1, false)
	both.Write = true
	f.Add(bytes.Join([][]byte{record(1, cmd(0, 0, 0, false), nil), record(1, both, nil), record(1, cmd(0x2a, 5, 1, true), block), record(1, cmd(0x28, 5, 1, false), nil),
		record(1, &pdu.NOPOut{InitiatorTaskTag: 9, TargetTransferTag: pdu.ReservedTag}, []byte("hello"))}, nil), true)
	// A copy from one unit to the other, and one that names none.
	units := [2][]byte{naa(f, 0), naa(f, 1)}
	for _, to := range [][]byte{units[1], bytes.Repeat([]byte{0x61}, len(units[1]))} {
		list := make([]byte, 16, 16+2*32+28)
		list[3], list[11] = 2*32, 28
		for _, id := range [][]byte{units[0], to} {
			d := make([]byte, 32)
			d[0], d[4], d[5], d[7], d[30] = 0xe4, 1, 3, byte(len(id)), 512>>8
			copy(d[8:], id)
			list = append(list, d...)
		}
		s := make([]byte, 28)
		s[0], s[3], s[7], s[11] = 2, 0x18, 1, 8
		list = append(list, s...)
		q := cmd(0x83, 0, 0, true)
		q.CDB[13], q.ExpectedDataTransferLength = byte(len(list)), uint32(len(list))
		f.Add(bytes.Join([][]byte{record(1, cmd(0, 0, 0, false), nil), record(0x82, cmd(0, 0, 0, false), nil), record(1, q, list)}, nil), false)
	}

	f.Fuzz(func(t *testing.T, program []byte, digests bool) {
		p := params()
		p.HeaderDigest, p.DataDigest = digests, digests
		// So small that a command of the volume's size needs R2Ts, waits for
		// memory, or finds none.
		p.MaxRecvDataSegmentLength, p.FirstBurstLength, p.MaxBurstLength = 4096, 4096, 8192
		shared := session.NewSharedWithin(memory.Limits{Own: 16 << 10, Pool: 160 << 10, Initiator: 160 << 10, Patience: time.Hour})
		server, client := loopback(t)
		r := rigOf(t, p, server, client, fuzzVolume, slog.New(alarm{t}), "iqn.2026-11.test:a", shared)
		var before [2][]byte
		for k, v := range r.volumes {
			for i := range v.b {
				v.b[i] = byte(i*31 + k)
			}
			before[k] = bytes.Clone(v.b)
		}
		gaps := make(chan pdu.Serial, 1024)
		go listen(client, p, gaps) // ends with the connection
		var start, end runtime.MemStats
		runtime.ReadMemStats(&start)
		allowed := send(r, p, client, program, gaps, units)
		_ = client.Close()
		select {
		case <-r.session.Done():
		case <-time.After(20 * time.Second):
			t.Fatal("the session does not end")
		}
		runtime.ReadMemStats(&end)
		// Buffers are used again, so that all that was ever allocated stays
		// near to what may be held at a time. The race detector has them thrown
		// away now and then.
		bound := int64(4<<20 + len(program)*64)
		if raceEnabled {
			bound += 60 << 20
		}
		if grew := int64(end.TotalAlloc - start.TotalAlloc); grew > bound {
			t.Errorf("%d bytes were allocated for %d", grew, len(program))
		}
		if pool, all := r.session.Held(); pool != 0 || all != 0 || shared.Free() != 160<<10 {
			t.Errorf("%d bytes are kept, %d of the pool, of which %d are left", all, pool, shared.Free())
		}
		for k, v := range r.volumes {
			v.mu.Lock()
			for i := range v.b {
				if v.b[i] != before[k][i] && !allowed(k, i, v.b[i]) {
					t.Fatalf("byte %d of LUN %d changed to %02X, and no command said so", i, k, v.b[i])
				}
			}
			v.mu.Unlock()
		}
	})
}

// naa is the identifier by which a copy names the n-th volume of a rig (SPC-4
// §7.8.6).
func naa(t testing.TB, n byte) []byte {
	t.Helper()
	nexus := scsi.NewNexus(scsi.NexusConfig{})
	nexus.SetMap(map[store.LUN]scsi.MapEntry{0: {Unit: scsi.NewUnit(scsi.UnitConfig{UUID: store.UUID{15: n}, BlockSize: 512, Volume: &volume{b: make([]byte, fuzzVolume)}})}})
	c := scsi.Command{CDB: [16]byte{0x12, 1, 0x83, 1, 0}, Expected: 256}
	nexus.Execute(t.Context(), &c)
	for d := c.In[4:]; len(d) > 4; d = d[4+int(d[3]):] {
		if d[1] == 3 {
			return d[4 : 4+int(d[3])]
		}
	}
	t.Fatalf("no NAA designator in % X", c.In)
	return nil
}

// listen reads what the target says, and tells of each CmdSN that was not received
// because its request was rejected (RFC 7143 §7.3).
func listen(from io.Reader, p login.Params, gaps chan<- pdu.Serial) {
	in := bufio.NewReader(from)
	var h, rejected pdu.Header
	var said pdu.Reject
	for {
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return
		}
		rest := h.DataSegmentLength()
		rest += pdu.Pad(rest)
		if p.DataDigest && rest > 0 {
			rest += pdu.DigestLength
		}
		if p.HeaderDigest {
			if _, err := in.Discard(pdu.DigestLength); err != nil {
				return
			}
		}
		if said.Decode(&h) == nil && h.DataSegmentLength() == pdu.BHSLength {
			if _, err := io.ReadFull(in, rejected[:]); err != nil {
				return
			}
			rest -= pdu.BHSLength
			if sn := rejected.CmdSN(); !rejected.Immediate() && rejected.Opcode() != pdu.OpDataOut && !sn.Less(said.SN.ExpCmdSN) {
				select {
				case gaps <- sn:
				default:
				}
			}
		}
		if _, err := in.Discard(rest); err != nil {
			return
		}
	}
}

// send plays the program and returns what it may have changed. What the target
// rejects leaves a gap, which a ping fills.
func send(r *rig, p login.Params, w io.Writer, program []byte, gaps <-chan pdu.Serial, units [2][]byte) func(lun, at int, now byte) bool {
	type extent struct{ lun, from, to int }
	var extents []extent
	copies, brought := false, map[pdu.TaskTag][]byte{} // data, by the tag of its command
	var unmapped [2]bool
	cmdSN := pdu.Serial(1)
	put := func(h *pdu.Header, data []byte) error {
		out := append([]byte(nil), h[:]...)
		if p.HeaderDigest {
			out = pdu.AppendDigest(out, pdu.Digest(h[:]))
		}
		out = append(out, data...)
		out = append(out, make([]byte, pdu.Pad(len(data)))...)
		if p.DataDigest && len(data) > 0 {
			out = pdu.AppendDigest(out, pdu.Digest(data))
		}
		_, err := w.Write(out)
		return err
	}
	fill := func(sn pdu.Serial) error {
		var h pdu.Header
		(&pdu.NOPOut{InitiatorTaskTag: 0x70000000 | pdu.TaskTag(sn), TargetTransferTag: pdu.ReservedTag, CmdSN: sn}).Encode(&h)
		return put(&h, nil)
	}
	var err error
	for err == nil && len(program) > 1+pdu.BHSLength+2 {
		select {
		case sn := <-gaps:
			err = fill(sn)
			continue
		default:
		}
		kind := program[0]
		var h pdu.Header
		copy(h[:], program[1:])
		n := int(binary.BigEndian.Uint16(program[1+pdu.BHSLength:])) % 2048
		program = program[1+pdu.BHSLength+2:]
		data := program[:min(n, len(program))]
		program = program[len(data):]
		if kind != 0 {
			h.SetAHSLength(0)
			h.SetDataSegmentLength(len(data))
			binary.BigEndian.PutUint32(h[24:], uint32(cmdSN))
			// A LUN that is there, as a rule.
			copy(h[8:16], make([]byte, 8))
			h[9] = kind&1 ^ 1
			if h.Opcode() == pdu.OpDataOut {
				copy(h[8:16], make([]byte, 8))
			} else if !h.Immediate() {
				cmdSN = cmdSN.Add(1)
			}
		}
		if h.Opcode() == pdu.OpSCSICommand {
			if lun, ok := scsi.ParseLUN([8]byte(h[8:16])); ok && int(lun) < len(r.volumes) {
				from, to := named(&h)
				extents = append(extents, extent{int(lun), from, to})
				copies = copies || h[32] == 0x83 // its list says from where to where
				unmapped[lun] = unmapped[lun] || h[32] == 0x42
			}
		}
		brought[h.InitiatorTaskTag()] = append(brought[h.InitiatorTaskTag()], data...)
		err = put(&h, data) // the target may have ended the session
	}
	for more := err == nil; more; {
		select {
		case sn := <-gaps:
			more = fill(sn) == nil
		case <-time.After(500 * time.Microsecond):
			more = false
		}
	}
	if len(program) > 0 {
		_, _ = w.Write(program) // something that is cut off
	}
	var copied [2]bool
	for k := range copied {
		for _, data := range brought {
			copied[k] = copied[k] || copies && bytes.Contains(data, units[k])
		}
	}
	return func(lun, at int, now byte) bool {
		if copied[lun] || unmapped[lun] && now == 0 {
			return true
		}
		for _, e := range extents {
			if e.lun == lun && at >= e.from && at < e.to {
				return true
			}
		}
		return false
	}
}

// named says which bytes a command may change: no more than its CDB names, and,
// when it brings the data, no more than its initiator announced.
func named(h *pdu.Header) (from, to int) {
	cdb := h[32:48]
	lba, blocks, brings := uint64(0), uint64(0), true
	switch cdb[0] {
	case 0x0a:
		lba, blocks = uint64(cdb[1]&0x1f)<<16|uint64(cdb[2])<<8|uint64(cdb[3]), uint64(cdb[4])
		if blocks == 0 {
			blocks = 256
		}
	case 0x2a, 0x2e, 0x41:
		lba, blocks = uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint16(cdb[7:]))
		brings = cdb[0] != 0x41
	case 0xaa, 0xae:
		lba, blocks = uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint32(cdb[6:]))
	case 0x8a, 0x8b, 0x8e, 0x93:
		lba, blocks = binary.BigEndian.Uint64(cdb[2:]), uint64(binary.BigEndian.Uint32(cdb[10:]))
		brings = cdb[0] != 0x93
	case 0x89:
		lba, blocks = binary.BigEndian.Uint64(cdb[2:]), uint64(cdb[13])
	default:
		return 0, 0
	}
	const most = fuzzVolume / 512
	if lba > most || blocks > most-lba {
		return 0, 0 // all or nothing
	}
	n := blocks * 512
	if brings {
		n = min(n, uint64(binary.BigEndian.Uint32(h[20:])))
		if h[1]&0x20 == 0 { // W
			n = 0
		}
	}
	return int(lba * 512), int(lba*512 + n)
}
