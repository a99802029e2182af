package main

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
)

// A classroom that is switched on logs in all at once: logins and logouts of
// eight machines through the whole appliance, its inventory and its journal.
func BenchmarkLogins(b *testing.B) {
	const machines = 8
	a := started(b, dataDir(b))
	for k := range machines {
		name, disk := fmt.Sprintf("lab-%02d", k), fmt.Sprintf("disk-%02d", k)
		a.must(b, "volume", "create", disk, "--size", "16M")
		a.must(b, "machine", "add", name, "--mac", fmt.Sprintf("02:00:00:00:00:%02x", k), "--auth", "none", "--iqn", "iqn.2026-11.test:"+name)
		a.must(b, "mapping", "add", name, disk)
	}
	portal := netip.MustParseAddrPort(a.Portal)
	var next atomic.Uint32
	b.ReportAllocs()
	b.SetParallelism(4)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		k := next.Add(1) % machines
		for p.Next() {
			i, err := Dial(portal, Options{Name: fmt.Sprintf("iqn.2026-11.test:lab-%02d", k), Target: a.Target, ISID: Linux(1)})
			if err != nil {
				b.Error(err)
				return
			}
			if err := i.Send(&pdu.LogoutRequest{Immediate: true, InitiatorTaskTag: 1, CID: 1, CmdSN: i.CmdSN}, nil); err != nil {
				b.Error(err)
				return
			}
			if _, _, err := i.Recv(); err != nil {
				b.Error(err)
				return
			}
			i.Conn.Close()
		}
	})
}
