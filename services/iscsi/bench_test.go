package iscsi_test

import (
	"fmt"
	"testing"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// A storm of boots is a storm of logins: one login, one logout, beside the
// sessions of the machines that have started already.
func BenchmarkLogin(b *testing.B) {
	for _, others := range []int{0, 1000} {
		b.Run(fmt.Sprintf("beside %d sessions", others), func(b *testing.B) { benchmarkLogin(b, others) })
	}
}

func benchmarkLogin(b *testing.B, others int) {
	s := start(b)
	s.journal.deaf = true
	disks := map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}}
	s.enroll(alice, disks)
	for n := range others {
		name := store.IQN(fmt.Sprintf("iqn.2026-11.test:other-%d", n/10))
		if n%10 == 0 {
			s.enroll(name, disks)
		}
		s.login(b, name, Linux(uint16(n)))
	}
	b.ReportAllocs()
	for b.Loop() {
		i, err := Dial(s.Addr(), Options{Name: string(alice), Target: string(target), ISID: Linux(1)})
		if err != nil {
			b.Fatal(err)
		}
		if err := i.Send(&pdu.LogoutRequest{Immediate: true, InitiatorTaskTag: 1, CID: 1, CmdSN: i.CmdSN}, nil); err != nil {
			b.Fatal(err)
		}
		if _, _, err := i.Recv(); err != nil {
			b.Fatal(err)
		}
		if err := i.Conn.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
