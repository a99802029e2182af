package iscsi_test

import (
	"testing"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// A task management function ends the tasks that it is meant for, tells those
// who lost them or their unit's state, and leaves everybody else alone (SAM-5
// §7, RFC 7143 §11.5).
func TestTaskManagementAmongMachines(t *testing.T) {
	const carol = store.IQN("iqn.2026-11.test:carol")
	// Each of these has a WRITE under way; shared is one volume.
	type nexus struct {
		who  string // which session
		lun  byte
		name string
	}
	nexuses := []nexus{
		{"asker", 0, "the asker on the shared volume"}, {"asker", 1, "the asker on its own volume"},
		{"twin", 0, "the asker's other session on the shared volume"}, {"twin", 1, "the asker's other session on its own volume"},
		{"sharer", 4, "a machine that shares the volume"}, {"stranger", 0, "a stranger"},
	}
	type fate struct {
		ended bool
		told  string // the unit attention condition
	}
	for _, c := range []struct {
		f     pdu.TaskFunction
		fates []fate
	}{
		{pdu.FuncAbortTask, []fate{{true, ""}, {}, {}, {}, {}, {}}},
		{pdu.FuncAbortTaskSet, []fate{{true, ""}, {}, {}, {}, {}, {}}},
		{pdu.FuncClearTaskSet, []fate{{true, ""}, {}, {true, "06/2F/00"}, {}, {true, "06/2F/00"}, {}}},
		{pdu.FuncLogicalUnitReset, []fate{{true, "06/29/03"}, {}, {true, "06/29/03"}, {}, {true, "06/29/03"}, {}}},
		{pdu.FuncTargetWarmReset, []fate{{true, "06/29/02"}, {true, "06/29/02"}, {true, "06/29/02"}, {true, "06/29/02"}, {true, "06/29/02"}, {}}},
		{pdu.FuncTargetColdReset, []fate{{true, "gone"}, {true, "gone"}, {true, "gone"}, {true, "gone"}, {true, "06/29/02"}, {}}},
	} {
		t.Run(c.f.String(), func(t *testing.T) {
			b := start(t)
			shared := disk{id: 1, volume: newMemory(1 << 20)}
			b.enroll(alice, map[store.LUN]disk{0: shared, 1: {id: 2, volume: newMemory(1 << 20)}})
			b.enroll(bob, map[store.LUN]disk{4: shared})
			b.enroll(carol, map[store.LUN]disk{0: {id: 3, volume: newMemory(1 << 20)}})
			by := map[string]*Initiator{
				"asker": b.login(t, alice, Linux(1), "InitialR2T", "Yes"), "twin": b.login(t, alice, Linux(2), "InitialR2T", "Yes"),
				"sharer": b.login(t, bob, Linux(1), "InitialR2T", "Yes"), "stranger": b.login(t, carol, Linux(1), "InitialR2T", "Yes"),
			}
			asks := make([]*pdu.R2T, len(nexuses))
			for k, n := range nexuses {
				by[n.who].Must(t, Ready(n.lun))
				if _, err := by[n.who].Start(Write10(n.lun, uint32(k), make([]byte, 512))); err != nil {
					t.Fatal(err)
				}
				asks[k], _ = Expect[*pdu.R2T](t, by[n.who])
			}
			asker := by["asker"]
			q := &pdu.TaskRequest{Immediate: true, Function: c.f, InitiatorTaskTag: asker.Tag(), ReferencedTaskTag: pdu.ReservedTag, CmdSN: asker.CmdSN}
			if c.f == pdu.FuncAbortTask {
				q.ReferencedTaskTag, q.RefCmdSN = asks[0].InitiatorTaskTag, asker.CmdSN-2
			}
			if err := asker.Send(q, nil); err != nil {
				t.Fatal(err)
			}
			if p, _ := Expect[*pdu.TaskResponse](t, asker); p.Response != pdu.TaskComplete || p.InitiatorTaskTag != q.InitiatorTaskTag {
				t.Fatalf("%+v", p)
			}
			for k, n := range nexuses {
				i, want := by[n.who], c.fates[k]
				if want.told == "gone" {
					i.Closed(t)
					continue
				}
				// The data that was asked for comes: who has lost its task gets
				// nothing for it.
				d := &pdu.DataOut{Final: true, LUN: LUN(n.lun), InitiatorTaskTag: asks[k].InitiatorTaskTag, TargetTransferTag: asks[k].TargetTransferTag}
				if err := i.Send(d, make([]byte, 512)); err != nil {
					t.Fatal(err)
				}
				if !want.ended {
					if p, _ := Expect[*pdu.SCSIResponse](t, i); p.InitiatorTaskTag != d.InitiatorTaskTag || p.Status != 0 {
						t.Errorf("%s: %+v", n.name, p)
					}
				}
				r, err := i.Do(Ready(n.lun))
				if err != nil || r.Key() != want.told {
					t.Errorf("%s is told %v %q, want %q", n.name, err, r.Key(), want.told)
				}
				if r, err := i.Do(Read10(n.lun, 0, 1)); err != nil || r.Status != 0 {
					t.Errorf("%s goes on with %v %s", n.name, err, r.Key())
				}
			}
		})
	}
}
