package session_test

import (
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
	"lunboot/services/iscsi/pdu"
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

	f.Fuzz(func(t *testing.T, program []byte, digests bool) {
		p := params()
		p.HeaderDigest, p.DataDigest = digests, digests
		server, client := loopback(t)
		r := rigWith(t, p, server, client, fuzzVolume, slog.New(alarm{t}))
		var before [2][]byte
		for k, v := range r.volumes {
			for i := range v.b {
				v.b[i] = byte(i*31 + k)
			}
			before[k] = bytes.Clone(v.b)
		}
		go io.Copy(io.Discard, client) // ends with the connection
		var start, end runtime.MemStats
		runtime.ReadMemStats(&start)
		allowed := send(t, r, p, client, program)
		_ = client.Close()
		select {
		case <-r.session.Done():
		case <-time.After(20 * time.Second):
			t.Fatal("the session does not end")
		}
		runtime.ReadMemStats(&end)
		// The bound of a session: its window's buffers and the burst memory.
		if grew := int64(end.TotalAlloc - start.TotalAlloc); grew > 64<<20+int64(len(program))*64 {
			t.Errorf("%d bytes were allocated for %d", grew, len(program))
		}
		for k, v := range r.volumes {
			v.mu.Lock()
			for i := range v.b {
				if v.b[i] != before[k][i] && !allowed(k, i) {
					t.Fatalf("byte %d of LUN %d changed, and no command named it", i, k)
				}
			}
			v.mu.Unlock()
		}
	})
}

// send plays the program and returns what it may have changed.
func send(t *testing.T, r *rig, p login.Params, w io.Writer, program []byte) func(lun, at int) bool {
	type extent struct{ lun, from, to int }
	var extents []extent
	everything := false
	cmdSN := pdu.Serial(1)
	for len(program) > 1+pdu.BHSLength+2 {
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
			from, to, all := named(h[32:48])
			everything = everything || all
			for lun := range r.volumes {
				extents = append(extents, extent{lun, from * 512, to * 512})
			}
		}
		out := append([]byte(nil), h[:]...)
		if p.HeaderDigest {
			out = pdu.AppendDigest(out, pdu.Digest(h[:]))
		}
		out = append(out, data...)
		out = append(out, make([]byte, pdu.Pad(len(data)))...)
		if p.DataDigest && len(data) > 0 {
			out = pdu.AppendDigest(out, pdu.Digest(data))
		}
		if _, err := w.Write(out); err != nil {
			break // the target has ended the session
		}
	}
	if len(program) > 0 {
		_, _ = w.Write(program) // something that is cut off
	}
	return func(lun, at int) bool {
		if everything {
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

// named says which blocks a CDB may change: from, to, or all when the parameter
// list says which.
func named(cdb []byte) (from, to int, all bool) {
	lba, blocks := uint64(0), uint64(0)
	switch cdb[0] {
	case 0x0a:
		lba, blocks = uint64(cdb[1]&0x1f)<<16|uint64(cdb[2])<<8|uint64(cdb[3]), uint64(cdb[4])
		if blocks == 0 {
			blocks = 256
		}
	case 0x2a, 0x2e, 0x41:
		lba, blocks = uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint16(cdb[7:]))
	case 0xaa, 0xae:
		lba, blocks = uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint32(cdb[6:]))
	case 0x8a, 0x8b, 0x8e, 0x93:
		lba, blocks = binary.BigEndian.Uint64(cdb[2:]), uint64(binary.BigEndian.Uint32(cdb[10:]))
	case 0x89:
		lba, blocks = binary.BigEndian.Uint64(cdb[2:]), uint64(cdb[13])
	case 0x42, 0x83: // UNMAP and EXTENDED COPY
		return 0, 0, true
	default:
		return 0, 0, false
	}
	const most = fuzzVolume / 512
	return int(min(lba, most)), int(min(min(lba, most)+min(blocks, most), most)), false
}
