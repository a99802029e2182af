package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"lunboot/services/attempts"
	"lunboot/services/capture"
	"lunboot/services/doctor"
	"lunboot/store"
	"lunboot/store/sqlite"
)

// newCapture makes the recorder of what machines and appliance say to each
// other.
func newCapture(a *appliance) *capture.Server {
	log := a.log.With("part", "capture")
	return capture.New(capture.Config{
		Ports: func() capture.Ports {
			return capture.Ports{TFTP: a.tftp.Addr().Port(), HTTP: a.boot.Addr().Port(), ISCSI: a.target.Addr().Port()}
		},
		On: func() bool {
			v, err := store.SettingValue(context.Background(), a.db, store.SettingCapture)
			if err != nil {
				log.Error("read a setting", "setting", store.SettingCapture, "error", err)
			}
			return v == "on"
		},
		Lookup: func(addr netip.Addr) (store.MAC, bool) {
			l, err := a.db.LeaseByAddress(context.Background(), addr)
			return l.MAC, err == nil && !l.MAC.IsZero()
		},
		Log: log, Now: time.Now,
	})
}

// captures finds the packets of an attempt: by the machine's MACs, or by its
// address, from its beginning to that of the next one.
type captures struct {
	rec    *capture.Server
	runner *attempts.Runner
	db     *sqlite.DB
}

func (a *appliance) captures() captures { return captures{a.capture, a.runner, a.db} }

// beforeEvent is how long before its first event an attempt's first packet may
// be: a router solicitation goes out before the DISCOVER.
const beforeEvent = 2 * time.Second

func (c captures) query(ctx context.Context, a store.Attempt) capture.Query {
	q := capture.Query{From: a.Started.Add(-beforeEvent)}
	if !a.MAC.IsZero() {
		q.MACs = append(q.MACs, a.MAC)
	}
	if a.Machine != 0 {
		if m, err := c.db.Machine(ctx, a.Machine); err == nil {
			q.MACs = append(q.MACs, m.MACs...)
		}
	}
	if addr, err := netip.ParseAddr(a.Address); err == nil {
		q.Addrs = append(q.Addrs, addr)
	}
	return q
}

// Captured reports whether packets of an attempt are kept.
func (c captures) Captured(ctx context.Context, a store.Attempt) bool {
	q := c.query(ctx, a)
	q.To = a.Updated.Add(time.Second)
	return c.rec.Has(q)
}

// Capture returns an attempt's packets as a pcapng file, and a name for it.
func (c captures) Capture(ctx context.Context, id store.AttemptID) (file []byte, name string, err error) {
	a, err := c.runner.Attempt(ctx, id)
	if err != nil {
		return nil, "", err
	}
	q := c.query(ctx, a)
	f := store.AttemptFilter{Machine: a.Machine, MAC: a.MAC, Page: store.Page{Limit: 1000}}
	if a.Machine != 0 {
		f.MAC = store.MAC{}
	}
	all, _, err := c.runner.Attempts(ctx, f)
	if err != nil {
		return nil, "", err
	}
	for _, next := range all { // newest first: the last match is the one that followed
		if next.ID > a.ID {
			q.To = next.Started.Add(-beforeEvent)
		}
	}
	who := a.Name
	if who == "" {
		who = a.MAC.String()
	}
	q.About = fmt.Sprintf("Boot attempt %d of %s, which began %s and is %s (lunboot %s).", a.ID, who, a.Started.Format(time.RFC3339), a.Outcome, version)
	file, err = c.rec.File(q)
	return file, fmt.Sprintf("%s-attempt-%d.pcapng", strings.ReplaceAll(who, ":", ""), a.ID), err
}

// captureCheck says whether packets are recorded. That they are not is no fault
// of the appliance.
func captureCheck(s *capture.Server) doctor.Check {
	return doctor.Check{Name: "recorded packets", Run: func(context.Context) (string, error) {
		st := s.State()
		if st.Reason != "" {
			return "off: " + st.Reason, nil
		}
		missed := ""
		if st.Dropped > 0 {
			missed = fmt.Sprintf(", %d came too fast", st.Dropped)
		}
		return fmt.Sprintf("on %s: %d machines, %s in memory%s", strings.Join(st.Links, ", "), st.Machines, store.Bytes(st.Bytes), missed), nil
	}}
}
