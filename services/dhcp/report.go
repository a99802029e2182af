package dhcp

import (
	"context"
	"time"

	"lunboot/services/dhcp/message"
	"lunboot/store"
)

// Bounds of writing down who asks to boot and is not enrolled.
const (
	reportInterval = 5 * time.Second // how often one that goes on asking is written down again
	reports        = 1024            // that wait for the disk; what is above is told when its machine asks again
	reporters      = 8               // that are written at a time: they share commits
)

// report has it written down that an unknown machine asks to boot. It does not
// wait for the disk: the next machine wants its answer.
func (s *Server) report(r message.Request, ans Answer, now time.Time) {
	if at, ok := s.waiting.get(r.MAC); ok && now.Sub(at) < reportInterval {
		return
	}
	u := store.UnknownMachine{MAC: r.MAC, Hostname: r.Hostname, Address: ans.Address, FirstSeen: now, LastSeen: now, Count: 1}
	if !r.UUID.IsPlaceholder() {
		u.UUID = r.UUID
	}
	if u.Port = r.Agent.Switch.String(); u.Port != "" {
		u.PortSeen = now
	}
	u.NIC = r.NIC.String()
	if p, ok := r.Platform(); ok {
		u.Firmware, u.Arch = p.Firmware.String(), p.Arch.String()
	}
	select {
	case s.reports <- u:
		s.waiting.put(r.MAC, now)
	default:
		s.counters.untold.Add(1)
	}
}

// writeReports writes down what report was told, until ctx ends.
func (s *Server) writeReports(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-s.reports:
			if err := s.cfg.Machines.SeeUnknown(ctx, u); err != nil && ctx.Err() == nil {
				s.cfg.Log.Error("an unknown machine was not written down", "mac", u.MAC, "error", err)
			}
		}
	}
}
