package iscsi

import (
	"net"
	"net/netip"
	"time"
)

// Bounds of connections that have not logged in yet. Anybody may open them, so
// that they must not keep the machines out: one that is there for nothing makes
// room for one that comes.
const (
	maxLogins        = 256
	maxLoginsPerHost = maxLogins / 2
	loginGrace       = 2 * time.Second // for a login that nothing is wrong with
)

// arrival is a connection before it belongs to a session.
type arrival struct {
	nc    net.Conn
	host  netip.Addr
	order int64
	at    time.Time
	kept  bool // the initiator has proved itself: its session is being made
	done  bool // it was refused, and may read why
}

// door holds the arrivals. The server's lock guards it.
type door struct {
	arrivals map[*arrival]struct{}
	hosts    map[netip.Addr]int
	order    int64
}

// enter takes a connection in. Another one may have to go for it: one of the
// address that has most, or one that takes its time. It returns nil when there
// is no room.
func (d *door) enter(nc net.Conn, now time.Time) (in, gone *arrival) {
	host := hostOf(nc)
	switch {
	case d.hosts[host] >= maxLoginsPerHost:
		gone = d.oldest(func(a *arrival) bool { return a.host == host && a.idle(now) })
	case len(d.arrivals) >= maxLogins:
		most := 0
		for _, n := range d.hosts {
			most = max(most, n)
		}
		if most > d.hosts[host]+1 {
			gone = d.oldest(func(a *arrival) bool { return d.hosts[a.host] == most })
		}
		if gone == nil {
			gone = d.oldest(func(a *arrival) bool { return a.idle(now) })
		}
	default:
		return d.add(nc, host, now), nil
	}
	if gone == nil {
		return nil, nil
	}
	d.leave(gone)
	return d.add(nc, host, now), gone
}

// idle says whether a connection is there for nothing.
func (a *arrival) idle(now time.Time) bool { return a.done || now.Sub(a.at) >= loginGrace }

// oldest returns the arrival that came first among those that fit and may go.
func (d *door) oldest(fits func(*arrival) bool) (old *arrival) {
	for a := range d.arrivals {
		if !a.kept && (old == nil || a.order < old.order) && fits(a) {
			old = a
		}
	}
	return old
}

func (d *door) add(nc net.Conn, host netip.Addr, now time.Time) *arrival {
	d.order++
	a := &arrival{nc: nc, host: host, order: d.order, at: now}
	d.arrivals[a] = struct{}{}
	d.hosts[host]++
	return a
}

// leave forgets an arrival; once is enough.
func (d *door) leave(a *arrival) {
	if _, in := d.arrivals[a]; !in {
		return
	}
	delete(d.arrivals, a)
	if d.hosts[a.host]--; d.hosts[a.host] == 0 {
		delete(d.hosts, a.host)
	}
}

func hostOf(nc net.Conn) netip.Addr {
	a, _ := nc.RemoteAddr().(*net.TCPAddr) // the listener is TCP
	return a.AddrPort().Addr().Unmap()
}
