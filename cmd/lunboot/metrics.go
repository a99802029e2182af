package main

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"

	"lunboot/services/dhcp"
	"lunboot/services/dhcp/ledger"
	"lunboot/store"
	"lunboot/web/metrics"
)

// seen counts events on their way to the journal.
type seen struct {
	next          ledger.Emitter
	kinds         map[store.EventKind]*atomic.Int64 // never changes
	read, written atomic.Int64                      // bytes of sessions that ended
}

func newSeen(next ledger.Emitter) *seen {
	s := &seen{next: next, kinds: map[store.EventKind]*atomic.Int64{}}
	for _, k := range store.EventKinds() {
		s.kinds[k] = new(atomic.Int64)
	}
	return s
}

// Emit counts the event and passes it on.
func (s *seen) Emit(e store.Event) {
	if n := s.kinds[e.Kind]; n != nil {
		n.Add(1)
	}
	if e.Kind == store.EventISCSIClosed {
		s.read.Add(e.Detail.Bytes)
		s.written.Add(e.Detail.Written)
	}
	s.next.Emit(e)
}

// measure reads the values for a scrape. What cannot be read is left out, and
// said in the log.
func (a *appliance) measure(ctx context.Context) []metrics.Value {
	out := a.measureServices(ctx)
	add := func(m *metrics.Metric, v float64, labels ...string) {
		out = append(out, metrics.Value{Metric: m, Labels: labels, Value: v})
	}
	failed := func(what string, err error) bool {
		if err != nil {
			a.log.Error("a metric cannot be read", "what", what, "error", err)
		}
		return err != nil
	}
	if _, n, err := a.db.Machines(ctx, store.MachineFilter{Page: store.Page{Limit: 1}}); !failed("machines", err) {
		add(metrics.Machines, float64(n))
	}
	if all, err := a.db.Volumes(ctx); !failed("volumes", err) {
		states, size := map[store.VolumeState]int{store.VolumeReady: 0, store.VolumeFailed: 0}, int64(0)
		for _, v := range all {
			states[v.State]++
			size += v.Size
		}
		for state, n := range states {
			add(metrics.Volumes, float64(n), string(state))
		}
		add(metrics.VolumeBytes, float64(size))
	}
	if s, err := a.space.Space(ctx); !failed("room for volumes", err) {
		add(metrics.FreeBytes, float64(s.Free))
		add(metrics.DiskBytes, float64(s.Size))
		add(metrics.UsedBytes, float64(s.Used))
		add(metrics.LowBytes, float64(s.Low))
		add(metrics.FillRate, float64(s.Rate))
	}
	if all, err := a.db.Leases(ctx); !failed("leases", err) {
		states := map[store.LeaseState]int{store.LeaseOffered: 0, store.LeaseBound: 0, store.LeaseDeclined: 0}
		for _, l := range all {
			states[l.State]++
		}
		for state, n := range states {
			add(metrics.Leases, float64(n), string(state))
		}
	}
	for _, name := range []string{"inventory", "journal"} {
		size := int64(0)
		for _, end := range []string{".db", ".db-wal"} {
			if st, err := os.Stat(filepath.Join(a.dir, name+end)); err == nil {
				size += st.Size()
			}
		}
		add(metrics.FileBytes, float64(size), name)
	}
	return out
}

// measureServices reads what the services count themselves.
func (a *appliance) measureServices(ctx context.Context) (out []metrics.Value) {
	add := func(m *metrics.Metric, v float64, labels ...string) {
		out = append(out, metrics.Value{Metric: m, Labels: labels, Value: v})
	}
	add(metrics.BuildInfo, 1, version)
	for _, s := range a.running(ctx) {
		up := 0.0
		if s.Healthy {
			up = 1
		}
		add(metrics.ServiceUp, up, s.Name)
		add(metrics.ServiceRestarts, float64(s.Restarts), s.Name)
	}
	for at, d := range a.network.dropped() {
		subnet := "relayed"
		if at.prefix.IsValid() {
			subnet = at.prefix.String()
		}
		for reason, n := range map[string]int64{"malformed": d.Malformed, "limited": d.Limited, "crowded": d.Crowded, "unserved": d.Unserved} {
			add(metrics.DHCPDropped, float64(n), at.iface, subnet, reason)
		}
		add(metrics.DHCPUntold, float64(d.Untold), at.iface, subnet)
	}
	add(metrics.TFTPMalformed, float64(a.tftp.Malformed()))
	add(metrics.TFTPRefused, float64(a.tftp.Refused()))
	add(metrics.HTTPRefused, float64(a.boot.Refused()), "boot")
	add(metrics.HTTPRefused, float64(a.admin.Refused()), "admin")

	by := map[bool]int{}
	for _, s := range a.target.Sessions() {
		by[s.IPXE]++
	}
	read, written := a.moved()
	add(metrics.Sessions, float64(by[true]), "ipxe")
	add(metrics.Sessions, float64(by[false]), "os")
	add(metrics.ReadBytes, float64(read))
	add(metrics.WrittenBytes, float64(written))
	for kind, n := range a.seen.kinds {
		add(metrics.Events, float64(n.Load()), string(kind))
	}
	waiting, dropped := a.journal.Counts()
	add(metrics.EventsWaiting, float64(waiting))
	add(metrics.EventsDropped, float64(dropped))

	c := a.capture.State()
	add(metrics.CapturePackets, float64(c.Packets))
	add(metrics.CaptureDropped, float64(c.Dropped))
	add(metrics.CaptureBytes, float64(c.Bytes))
	n := a.notify.State()
	add(metrics.Notifications, float64(n.Delivered), "delivered")
	add(metrics.Notifications, float64(n.Lost), "lost")
	add(metrics.NotificationsQueue, float64(n.Waiting))
	return out
}

// servedOn names where a DHCP server listens.
type servedOn struct {
	iface  string
	prefix netip.Prefix
}

// dropped returns what each DHCP server did not answer, since it began.
func (n *network) dropped() map[servedOn]dhcp.Dropped {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[servedOn]dhcp.Dropped{}
	for _, s := range n.servers {
		for _, p := range s.parts {
			if d, ok := p.(interface{ Dropped() dhcp.Dropped }); ok {
				out[servedOn{s.subnet.Interface, s.subnet.Prefix}] = d.Dropped()
			}
		}
	}
	return out
}
