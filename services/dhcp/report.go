package dhcp

import (
	"context"
	"time"

	"lunboot/services/dhcp/message"
	"lunboot/store"
)

// Bounds of writing down who asks to boot and is not enrolled.
const (
	reportInterval  = 5 * time.Second        // how often one that goes on asking is written down again
	reports         = 1024                   // that wait for the disk; what is above is told when its machine asks again
	reportsTogether = 64                     // that are written in one commit, which no lease should notice
	reportsGather   = 100 * time.Millisecond // how long one waits for others
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

// writeReports writes down what report was told, until ctx ends. A machine's lease is
// on its way to the disk when it is told of, and would wait for a commit of its
// own; so reports gather first: nobody sees a tenth of a second on a page.
func (s *Server) writeReports(ctx context.Context) {
	for {
		some := s.gatherReports(ctx)
		if len(some) == 0 {
			return
		}
		if err := s.cfg.Machines.SeeUnknown(ctx, some...); err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("unknown machines were not written down", "first", some[0].MAC, "machines", len(some), "error", err)
		}
	}
}

// gatherReports waits for reports that are written together; none when ctx ends.
func (s *Server) gatherReports(ctx context.Context) (some []store.UnknownMachine) {
	var over <-chan time.Time // starts with the first
	for len(some) < reportsTogether {
		select {
		case <-ctx.Done():
			return nil
		case u := <-s.reports:
			some = append(some, u)
			if over == nil {
				over = time.After(reportsGather)
			}
		case <-over:
			return some
		}
	}
	return some
}
