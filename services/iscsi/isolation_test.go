package iscsi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"testing"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// neighbours are two machines on one target: alice has her own volume as LUN 0,
// bob has his as LUN 0 and another as LUN 1, and both share one as LUN 5.
type neighbours struct {
	*bench
	alice, bob           *Initiator
	hers, his, hisSecond *memory
}

// What bob's volumes hold, and the place where his write is to arrive.
const (
	bobsByte, bobsNext = 0xb0, 0xb1
	bobsBlock          = 5
)

func bobsVolume() *memory {
	m := newMemory(1 << 20)
	for k := range m.b {
		m.b[k] = bobsByte
	}
	return m
}

func meet(t *testing.T) *neighbours {
	t.Helper()
	n := &neighbours{bench: start(t), hers: newMemory(1 << 20), his: bobsVolume(), hisSecond: bobsVolume()}
	shared := newMemory(1 << 20)
	n.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: n.hers, sanitize: true}, 5: {id: 4, volume: shared}})
	n.enroll(bob, map[store.LUN]disk{0: {id: 2, volume: n.his}, 1: {id: 3, volume: n.hisSecond}, 5: {id: 4, volume: shared}})
	n.alice, n.bob = n.login(t, alice, Linux(1)), n.login(t, bob, Linux(1))
	for _, lun := range []byte{0, 5} {
		n.alice.Must(t, Ready(lun))
		n.bob.Must(t, Ready(lun))
	}
	n.bob.Must(t, Ready(1))
	n.bob.Must(t, prout(prRegister, 0, 0, 0xb0b))
	n.bob.Must(t, prout(prReserve, exclusive, 0xb0b, 0))
	return n
}

// PERSISTENT RESERVE OUT's service actions, and a type (SPC-4 §6.14).
const (
	prRegister, prReserve, prClear, prPreempt, prPreemptAbort = 0, 1, 3, 4, 5
	exclusive                                                 = 3 // Exclusive Access
)

func prout(action, kind byte, key, next uint64) Command {
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], next)
	return Command{CDB: []byte{0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0}, Write: list}
}

// prin reads what the volume at LUN 0 says of its keys and its reservation.
func prin(t *testing.T, i *Initiator) (all []byte) {
	t.Helper()
	for action := range byte(2) {
		all = append(all, i.Must(t, Command{CDB: []byte{0x5e, action, 0, 0, 0, 0, 0, 1, 0, 0}, Read: 256}).Data...)
	}
	return all
}

// name is the identifier by which a copy names a volume: the NAA designator of
// its page 83h (SPC-4 §7.8.6).
func name(t *testing.T, i *Initiator, lun byte) []byte {
	t.Helper()
	page := i.Must(t, Command{LUN: LUN(lun), CDB: []byte{0x12, 1, 0x83, 1, 0, 0}, Read: 256}).Data
	for d := page[4:]; len(d) > 4; d = d[4+int(d[3]):] {
		if d[1] == 3 {
			return d[4 : 4+int(d[3])]
		}
	}
	t.Fatalf("no NAA designator in % X", page)
	return nil
}

// copyBlocks is an EXTENDED COPY of eight blocks from the beginning of one
// volume to the beginning of another (SPC-4 §6.4.3.4, §6.4.4.2, §6.4.5.2).
func copyBlocks(src, dst []byte) Command {
	list := make([]byte, 16, 16+2*32+28)
	list[3], list[11] = 2*32, 28
	for _, name := range [][]byte{src, dst} {
		d := make([]byte, 32)
		d[0], d[4], d[5], d[7], d[30] = 0xe4, 1, 3, byte(len(name)), 512>>8
		copy(d[8:], name)
		list = append(list, d...)
	}
	s := make([]byte, 28)
	s[0], s[3], s[7], s[11] = 2, 0x18, 1, 8
	list = append(list, s...)
	return Command{CDB: []byte{0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(list)), 0, 0}, Write: list}
}

// manage runs a task management function and returns what came of it.
func manage(t *testing.T, i *Initiator, f pdu.TaskFunction, lun byte, referenced pdu.TaskTag) pdu.TaskResult {
	t.Helper()
	q := &pdu.TaskRequest{Immediate: true, Function: f, LUN: LUN(lun), InitiatorTaskTag: i.Tag(), ReferencedTaskTag: referenced, CmdSN: i.CmdSN, RefCmdSN: i.CmdSN - 1}
	if err := i.Send(q, nil); err != nil {
		t.Fatal(err)
	}
	r, _ := Expect[*pdu.TaskResponse](t, i)
	return r.Response
}

// Whatever a machine does to what it has, and whatever it tries with what it
// has not: another machine's write goes on, its session stays, it is told of
// nothing, and its reservation and every byte of it are what they were.
func TestWhatAMachineDoesReachesNothingThatIsAnothers(t *testing.T) {
	function := func(f pdu.TaskFunction, lun byte, want pdu.TaskResult) func(*testing.T, *neighbours, pdu.TaskTag) {
		return func(t *testing.T, n *neighbours, running pdu.TaskTag) {
			if got := manage(t, n.alice, f, lun, running); got != want {
				t.Errorf("%s on LUN %d: response %d, want %d", f, lun, got, want)
			}
		}
	}
	refused := func(t *testing.T, i *Initiator, c Command, key string) {
		t.Helper()
		if r, err := i.Do(c); err != nil || r.Key() != key {
			t.Errorf("command % X: %v, status %02X %s, want %s", c.CDB, err, r.Status, r.Key(), key)
		}
	}
	for _, c := range []struct {
		name   string
		shared string // what bob is told at the volume that is both machines'
		act    func(t *testing.T, n *neighbours, running pdu.TaskTag)
	}{
		{"LOGICAL UNIT RESET of its volume", "", function(pdu.FuncLogicalUnitReset, 0, pdu.TaskComplete)},
		{"LOGICAL UNIT RESET of the shared volume", "06/29/03", function(pdu.FuncLogicalUnitReset, 5, pdu.TaskComplete)},
		{"LOGICAL UNIT RESET of a LUN that only another has", "", function(pdu.FuncLogicalUnitReset, 1, pdu.TaskLUNDoesNotExist)},
		{"TARGET WARM RESET", "06/29/02", function(pdu.FuncTargetWarmReset, 0, pdu.TaskComplete)},
		{"TARGET COLD RESET", "06/29/02", func(t *testing.T, n *neighbours, running pdu.TaskTag) {
			function(pdu.FuncTargetColdReset, 0, pdu.TaskComplete)(t, n, running)
			n.alice.Closed(t)
		}},
		{"CLEAR TASK SET of its volume", "", function(pdu.FuncClearTaskSet, 0, pdu.TaskComplete)},
		{"CLEAR TASK SET of the shared volume", "", function(pdu.FuncClearTaskSet, 5, pdu.TaskComplete)},
		{"CLEAR TASK SET of a LUN that only another has", "", function(pdu.FuncClearTaskSet, 1, pdu.TaskLUNDoesNotExist)},
		{"ABORT TASK SET", "", function(pdu.FuncAbortTaskSet, 0, pdu.TaskComplete)},
		{"ABORT TASK of another's tag", "", func(t *testing.T, n *neighbours, running pdu.TaskTag) {
			if got := manage(t, n.alice, pdu.FuncAbortTask, 0, running+1000); got != pdu.TaskDoesNotExist {
				t.Errorf("response %d", got)
			}
			manage(t, n.alice, pdu.FuncAbortTask, 0, running) // alice may have had such a tag
		}},
		{"another's ISID, and its TSIH", "", func(t *testing.T, n *neighbours, _ pdu.TaskTag) {
			if _, err := n.alice.Do(Ready(0)); err != nil {
				t.Fatal(err)
			}
			n.login(t, alice, Linux(1)).Must(t, Ready(0)) // reinstates her own, which has bob's ISID
			var no *LoginError
			if _, err := Dial(n.Addr(), Options{Name: string(alice), Target: string(target), ISID: Linux(1), TSIH: n.bob.TSIH}); !errors.As(err, &no) {
				t.Errorf("a login into another's session: %v", err)
			}
		}},
		{"PERSISTENT RESERVE of its volume, and against another's key", "", func(t *testing.T, n *neighbours, _ pdu.TaskTag) {
			n.alice.Must(t, prout(prRegister, 0, 0, 0xa))
			n.alice.Must(t, prout(prReserve, exclusive, 0xa, 0))
			for _, action := range []byte{prPreempt, prPreemptAbort} {
				if r, err := n.alice.Do(prout(action, exclusive, 0xa, 0xb0b)); err != nil || r.Status != 0x18 {
					t.Errorf("preempting a key that is not her volume's: %v, status %02X %s", err, r.Status, r.Key())
				}
			}
			n.alice.Must(t, prout(prClear, 0, 0xa, 0))
		}},
		{"PERSISTENT RESERVE of the shared volume", "", func(t *testing.T, n *neighbours, _ pdu.TaskTag) {
			for _, c := range []Command{prout(prRegister, 0, 0, 0xa), prout(prReserve, exclusive, 0xa, 0), prout(prClear, 0, 0xa, 0)} {
				c.LUN = LUN(5)
				n.alice.Must(t, c)
			}
		}},
		{"RESERVE(6) of its volume", "", func(t *testing.T, n *neighbours, _ pdu.TaskTag) {
			n.alice.Must(t, Command{CDB: []byte{0x16, 0, 0, 0, 0, 0}})
		}},
		{"EXTENDED COPY from another's volume", "", func(t *testing.T, n *neighbours, _ pdu.TaskTag) {
			refused(t, n.alice, copyBlocks(name(t, n.bob, 1), name(t, n.alice, 0)), "0A/0D/02")
			if bytes.IndexByte(n.hers.b, bobsByte) >= 0 {
				t.Error("alice has a copy of what is bob's")
			}
		}},
		{"EXTENDED COPY to another's volume", "", func(t *testing.T, n *neighbours, _ pdu.TaskTag) {
			refused(t, n.alice, copyBlocks(name(t, n.alice, 0), name(t, n.bob, 1)), "0A/0D/02")
			n.alice.Must(t, copyBlocks(name(t, n.alice, 0), name(t, n.alice, 5))) // and this is how it would go
		}},
		{"everything is unmapped, overwritten and erased", "", func(t *testing.T, n *neighbours, _ pdu.TaskTag) {
			unmap := make([]byte, 24)
			unmap[1], unmap[3] = 22, 16
			binary.BigEndian.PutUint32(unmap[16:], uint32(len(n.hers.b)/512))
			n.alice.Must(t, Command{CDB: []byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, Write: unmap})
			n.alice.Must(t, Command{CDB: []byte{0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0}, Write: make([]byte, 512)})
			n.alice.Must(t, Command{CDB: []byte{0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0}})
		}},
		{"MODE SELECT of write protection", "", func(t *testing.T, n *neighbours, _ pdu.TaskTag) {
			n.alice.Must(t, Command{CDB: []byte{0x15, 0x10, 0, 0, 16, 0}, Write: []byte{0, 0, 0, 0, 0x0a, 0x0a, 0x02, 0x10, 0x08, 0, 0, 0, 0xff, 0xff, 0, 0}})
			if r, err := n.alice.Do(Write10(0, 0, make([]byte, 512))); err != nil || r.Key() != "07/27/02" {
				t.Errorf("alice may still write: %v %s", err, r.Key())
			}
		}},
		{"the end of its connection in the middle of a write", "", func(t *testing.T, n *neighbours, _ pdu.TaskTag) {
			if _, err := n.alice.Start(Write10(0, 0, make([]byte, 8192))); err != nil {
				t.Fatal(err)
			}
			if err := n.alice.Conn.Close(); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool { return n.sessions(alice) == 0 }, "her session ends")
		}},
		{"its removal", "", func(t *testing.T, n *neighbours, _ pdu.TaskTag) {
			n.catalog.change(func() { delete(n.catalog.access, alice) })
			n.alice.Closed(t)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := meet(t)
			reservations := prin(t, n.bob)
			n.his.syncing = make(chan struct{}) // nothing of his has synced yet
			synced := sync.OnceFunc(func() { close(n.his.syncing) })
			defer synced()
			want := bytes.Clone(n.his.b)
			copy(want[bobsBlock*512:], bytes.Repeat([]byte{bobsNext}, 512))
			write := Write10(0, bobsBlock, bytes.Repeat([]byte{bobsNext}, 512))
			write.CDB[1], write.Immediate = 0x08, 512 // FUA
			tag, err := n.bob.Start(write)
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool { return n.his.syncs.Load() == 1 }, "bob's write waits for its disk")

			c.act(t, n, tag)

			// Nothing has come to him: the answer to a ping is the next PDU.
			ping := &pdu.NOPOut{Immediate: true, InitiatorTaskTag: n.bob.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: n.bob.CmdSN}
			if err := n.bob.Send(ping, nil); err != nil {
				t.Fatal(err)
			}
			if p, _ := Expect[*pdu.NOPIn](t, n.bob); p.InitiatorTaskTag != ping.InitiatorTaskTag {
				t.Errorf("bob got %+v", p)
			}
			synced()
			if r, err := n.bob.Finish(write, tag); err != nil || r.Status != 0 {
				t.Errorf("bob's write ended with %v, status %02X %s", err, r.Status, r.Key())
			}
			for lun, told := range map[byte]string{0: "", 1: "", 5: c.shared} {
				if r, err := n.bob.Do(Ready(lun)); err != nil || r.Key() != told {
					t.Errorf("bob is told %v %q at LUN %d, want %q", err, r.Key(), lun, told)
				}
			}
			if got := prin(t, n.bob); !bytes.Equal(got, reservations) {
				t.Errorf("bob's reservation was\n% X\nand is\n% X", reservations, got)
			}
			if !bytes.Equal(n.his.b, want) || bytes.Count(n.hisSecond.b, []byte{bobsByte}) != len(n.hisSecond.b) {
				t.Error("bob's bytes have changed")
			}
			n.bob.Must(t, Write10(0, bobsBlock, make([]byte, 512)))
			if n.sessions(bob) != 1 {
				t.Errorf("bob has %d sessions", n.sessions(bob))
			}
			for _, kind := range []store.EventKind{store.EventISCSIClosed, store.EventISCSILogout, store.EventISCSIIOFailed} {
				for _, e := range n.journal.all(kind) {
					if e.Detail.Initiator == string(bob) {
						t.Errorf("%s: %+v", kind, e.Detail)
					}
				}
			}
		})
	}
}
