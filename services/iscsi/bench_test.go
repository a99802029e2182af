package iscsi_test

import (
	"testing"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// A storm of boots is a storm of logins: one login, one logout.
func BenchmarkLogin(b *testing.B) {
	s := start(b)
	s.journal.deaf = true
	s.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
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
