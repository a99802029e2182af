package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

const subnetColumns = `SELECT id, revision, interface, prefix, mode, range, router, dns, domain, lease_time, search, ntp, next_server FROM subnet `

func scanSubnet(r dbfile.Row) (store.Subnet, error) {
	var (
		s                  store.Subnet
		prefix, pool, dns  string
		search, ntp        string
		router, next       sql.NullString
		leaseTime          int64
		errPrefix, errRest error
		errNext            error
	)
	err := r.Scan(&s.ID, &s.Revision, &s.Interface, &prefix, &s.Mode, &pool, &router, &dns, &s.Domain, &leaseTime, &search, &ntp, &next)
	if err != nil {
		return store.Subnet{}, err
	}
	s.LeaseTime = time.Duration(leaseTime)
	s.Prefix, errPrefix = netip.ParsePrefix(prefix)
	s.Router, errRest = dbfile.ParseText(router, netip.ParseAddr)
	s.NextServer, errNext = dbfile.ParseText(next, netip.ParseAddr)
	if err := errors.Join(errPrefix, errRest, errNext, s.Range.UnmarshalText([]byte(pool)), json.Unmarshal([]byte(dns), &s.DNS),
		json.Unmarshal([]byte(search), &s.Search), json.Unmarshal([]byte(ntp), &s.NTP)); err != nil {
		return store.Subnet{}, damaged("subnet "+prefix, err)
	}
	s.DNS, s.NTP, s.Search = orNil(s.DNS), orNil(s.NTP), orNil(s.Search)
	return s, nil
}

// orNil makes one of the two empty lists of it.
func orNil[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}

// Subnets returns every subnet, by interface and network.
func (db *DB) Subnets(ctx context.Context) ([]store.Subnet, error) {
	return dbfile.List(ctx, db.file.Reader(), scanSubnet, subnetColumns+"ORDER BY interface, prefix")
}

// PutSubnet adds a subnet, or changes the one with its ID, or the one with its
// interface and prefix when the ID is zero.
func (db *DB) PutSubnet(ctx context.Context, actor store.Actor, s store.Subnet) (store.Subnet, error) {
	s.Prefix = s.Prefix.Masked()
	s.DNS, s.NTP, s.Search = orNil(slices.Clone(s.DNS)), orNil(slices.Clone(s.NTP)), orNil(slices.Clone(s.Search))
	if err := s.Validate(); err != nil {
		return store.Subnet{}, err
	}
	err := db.write(ctx, "set subnet", func(t *tx) error {
		same, err := dbfile.List(t.Ctx, t, scanSubnet, subnetColumns+"WHERE interface = ? AND prefix = ?", s.Interface, s.Prefix.String())
		if err != nil {
			return err
		}
		var old store.Subnet
		switch {
		case s.ID != 0:
			old, err = dbfile.One(t.Ctx, t, scanSubnet, store.NotFound("subnet with number", fmt.Sprint(s.ID)), subnetColumns+"WHERE id = ?", s.ID)
			if err != nil {
				return err
			}
			if len(same) > 0 && same[0].ID != s.ID {
				return store.Conflict("prefix", "there is a subnet %s already", s.Name())
			}
		case len(same) > 0:
			old = same[0]
		}
		if err := checkRevision("subnet", s.Name(), old.Revision, s.Revision); err != nil {
			return err
		}
		s.ID, s.Revision = old.ID, old.Revision
		changes := subnetChanges(&old, &s)
		if changes.empty() {
			return nil
		}
		s.Revision++
		pool, err := s.Range.MarshalText()
		if err != nil {
			return err
		}
		values := []any{s.Revision, s.Interface, s.Prefix.String(), string(s.Mode), string(pool), addrText(s.Router), jsonList(s.DNS), s.Domain, int64(s.LeaseTime), jsonList(s.Search), jsonList(s.NTP), addrText(s.NextServer)}
		if s.ID == 0 {
			s.ID, err = t.Insert("INSERT INTO subnet (revision, interface, prefix, mode, range, router, dns, domain, lease_time, search, ntp, next_server) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values...)
		} else {
			_, err = t.Run("UPDATE subnet SET revision = ?, interface = ?, prefix = ?, mode = ?, range = ?, router = ?, dns = ?, domain = ?, lease_time = ?, search = ?, ntp = ?, next_server = ? WHERE id = ?", append(values, s.ID)...)
		}
		if err != nil {
			return err
		}
		t.move(served)
		return t.auditDiff(actor, "subnet.put", s.Name(), changes)
	})
	if err != nil {
		return store.Subnet{}, err
	}
	return s, nil
}

// DeleteSubnet removes a subnet. Its leases stay until they end.
func (db *DB) DeleteSubnet(ctx context.Context, actor store.Actor, id int64) error {
	return db.write(ctx, "remove subnet", func(t *tx) error {
		s, err := dbfile.One(t.Ctx, t, scanSubnet, store.NotFound("subnet with number", fmt.Sprint(id)), subnetColumns+"WHERE id = ?", id)
		if err != nil {
			return err
		}
		if _, err := t.Run("DELETE FROM subnet WHERE id = ?", id); err != nil {
			return err
		}
		t.move(served)
		return t.auditDiff(actor, "subnet.delete", s.Name(), subnetChanges(&s, &store.Subnet{}).gone("mode "+string(s.Mode)))
	})
}

func subnetChanges(a, b *store.Subnet) diff {
	var d diff
	pool := func(s *store.Subnet) string {
		if !s.Range.From.IsValid() {
			return ""
		}
		return s.Range.String()
	}
	prefix := func(s *store.Subnet) string {
		if !s.Prefix.IsValid() {
			return ""
		}
		return s.Prefix.String()
	}
	lease := func(s *store.Subnet) string { return strings.TrimPrefix(s.LeaseTime.String(), "0s") }
	d.add("interface", a.Interface, b.Interface)
	d.add("network", prefix(a), prefix(b))
	d.add("mode", string(a.Mode), string(b.Mode))
	d.add("range", pool(a), pool(b))
	d.add("router", addrShown(a.Router), addrShown(b.Router))
	d.add("DNS", joinAddrs(a.DNS), joinAddrs(b.DNS))
	d.add("domain", a.Domain, b.Domain)
	d.add("search list", strings.Join(a.Search, ", "), strings.Join(b.Search, ", "))
	d.add("time servers", joinAddrs(a.NTP), joinAddrs(b.NTP))
	d.add("next server", addrShown(a.NextServer), addrShown(b.NextServer))
	d.add("lease time", lease(a), lease(b))
	return d
}

func joinAddrs(addrs []netip.Addr) string {
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.String()
	}
	return strings.Join(s, ", ")
}

const leaseColumns = `SELECT address, mac, client_id, hostname, machine, interface, relay, port, port_seen, state, expires, updated FROM lease `

func scanLease(r dbfile.Row) (store.Lease, error) {
	var (
		l                store.Lease
		address, mac     string
		relay            sql.NullString
		expires, updated int64
		seen             int64
		errs             [3]error
	)
	err := r.Scan(&address, &mac, &l.ClientID, &l.Hostname, &l.Machine, &l.Interface, &relay, &l.Port, &seen, &l.State, &expires, &updated)
	if err != nil {
		return store.Lease{}, err
	}
	l.Expires, l.Updated, l.PortSeen = dbfile.Instant(expires), dbfile.Instant(updated), dbfile.Instant(seen)
	l.Address, errs[0] = netip.ParseAddr(address)
	errs[1] = l.MAC.UnmarshalText([]byte(mac))
	l.Relay, errs[2] = dbfile.ParseText(relay, netip.ParseAddr)
	if err := errors.Join(errs[:]...); err != nil {
		return store.Lease{}, damaged("lease "+address, err)
	}
	return l, nil
}

// Leases returns every lease, by address.
func (db *DB) Leases(ctx context.Context) ([]store.Lease, error) {
	ls, err := dbfile.List(ctx, db.file.Reader(), scanLease, leaseColumns)
	slices.SortFunc(ls, func(a, b store.Lease) int { return a.Address.Compare(b.Address) })
	return ls, err
}

// LeaseByMAC returns the lease that a MAC has, a bound one before an offer. An
// address that it declined is not its lease.
func (db *DB) LeaseByMAC(ctx context.Context, mac store.MAC) (store.Lease, error) {
	return dbfile.One(ctx, db.file.Reader(), scanLease, store.NotFound("lease of", mac.String()),
		leaseColumns+"WHERE mac = ? AND state <> 'declined' ORDER BY state = 'bound' DESC, updated DESC, address LIMIT 1", mac.String())
}

// LeaseByAddress returns the lease of an address.
func (db *DB) LeaseByAddress(ctx context.Context, a netip.Addr) (store.Lease, error) {
	return dbfile.One(ctx, db.file.Reader(), scanLease, store.NotFound("lease of", a.String()), leaseColumns+"WHERE address = ?", a.Unmap().String())
}

// PutLease writes a lease, which is on disk when it returns nil. An address that
// is bound to another MAC and has not expired is refused. A MAC that is bound to
// an address gives up the others that it had in the lease's network: there, one
// machine has one address. The switch port that a lease names is kept for its
// machine, too.
func (db *DB) PutLease(ctx context.Context, l store.Lease) error {
	l.Address = l.Address.Unmap()
	if err := l.Validate(); err != nil {
		return err
	}
	l.Hostname, l.ClientID, l.Port = clip(l.Hostname), clip(l.ClientID), clip(l.Port)
	return db.batch.doWhole(ctx, "write lease", func(t *tx) error {
		address, mac, now := l.Address.String(), l.MAC.String(), dbfile.Nanos(t.now)
		updated := dbfile.Nanos(l.Updated)
		if updated == 0 {
			updated = now
		}
		n, err := t.Run(`INSERT INTO lease (address, mac, client_id, hostname, machine, interface, relay, port, port_seen, state, expires, updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (address) DO UPDATE SET mac = excluded.mac, client_id = excluded.client_id, hostname = excluded.hostname,
				machine = excluded.machine, interface = excluded.interface, relay = excluded.relay, port = excluded.port, port_seen = excluded.port_seen,
				state = excluded.state, expires = excluded.expires, updated = excluded.updated
			WHERE lease.state <> 'bound' OR lease.mac = excluded.mac OR lease.expires <= ?`,
			address, mac, l.ClientID, l.Hostname, int64(l.Machine), l.Interface, addrText(l.Relay), l.Port, dbfile.Nanos(l.PortSeen), string(l.State), dbfile.Nanos(l.Expires), updated, now)
		if err != nil {
			return err
		}
		if n == 0 {
			holder, err := dbfile.One(t.Ctx, t, dbfile.Scalar[string], nil, "SELECT mac FROM lease WHERE address = ?", address)
			if err != nil {
				return err
			}
			return store.Conflict("address", "the address %s is leased to %s", address, holder)
		}
		if l.State == store.LeaseBound {
			err = t.endOthers(l)
		}
		if err == nil && l.Port != "" && l.Machine != 0 {
			_, err = t.Run("UPDATE machine SET port = ?, port_seen = ? WHERE id = ? AND port_seen < ?", l.Port, dbfile.Nanos(l.PortSeen), int64(l.Machine), dbfile.Nanos(l.PortSeen))
		}
		t.move(changed)
		return err
	})
}

// ProlongLease sets when a lease ends, and when that was written. It is refused
// with KindNotFound when its MAC no longer holds the address; nothing else is
// changed by it.
func (db *DB) ProlongLease(ctx context.Context, l store.Lease) error {
	address := l.Address.Unmap().String()
	return db.batch.doWhole(ctx, "prolong lease", func(t *tx) error {
		n, err := t.Run("UPDATE lease SET expires = ?, updated = ? WHERE address = ? AND mac = ? AND state = 'bound'", dbfile.Nanos(l.Expires), dbfile.Nanos(l.Updated), address, l.MAC.String())
		if err != nil {
			return err
		}
		if n == 0 {
			return store.NotFound("lease of "+l.MAC.String()+" for", address)
		}
		t.move(changed)
		return nil
	})
}

// endOthers removes the other leases that a MAC has in a lease's network. Mostly
// there are none.
func (t *tx) endOthers(l store.Lease) error {
	others, err := dbfile.List(t.Ctx, t, dbfile.Scalar[string], "SELECT address FROM lease WHERE mac = ? AND address <> ? AND state <> 'declined'", l.MAC.String(), l.Address.String())
	if err != nil {
		return err
	}
	for _, text := range others {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return damaged("lease "+text, err)
		}
		if l.Network.IsValid() && !l.Network.Contains(a) {
			continue
		}
		if _, err := t.Run("DELETE FROM lease WHERE address = ?", text); err != nil {
			return err
		}
	}
	return nil
}

// DeleteLease forgets the lease of an address. It is no error when there is
// none.
func (db *DB) DeleteLease(ctx context.Context, a netip.Addr) error {
	return db.batch.do(ctx, "remove lease", func(t *tx) error {
		n, err := t.Run("DELETE FROM lease WHERE address = ?", a.Unmap().String())
		if n > 0 {
			t.move(released)
		}
		return err
	})
}

// DropLease forgets the lease of an address on an operator's word.
func (db *DB) DropLease(ctx context.Context, actor store.Actor, a netip.Addr) error {
	return db.DropLeaseIf(ctx, actor, a, nil)
}

// DropLeaseIf forgets the lease of an address on an operator's word, unless may,
// which is shown the lease as it is in that moment, returns an error; nil asks
// nobody.
func (db *DB) DropLeaseIf(ctx context.Context, actor store.Actor, a netip.Addr, may func(store.Lease) error) error {
	a = a.Unmap()
	return db.write(ctx, "drop lease", func(t *tx) error {
		l, err := dbfile.One(t.Ctx, t, scanLease, store.NotFound("lease of", a.String()), leaseColumns+"WHERE address = ?", a.String())
		if err == nil && may != nil {
			err = may(l)
		}
		if err != nil {
			return err
		}
		if _, err := t.Run("DELETE FROM lease WHERE address = ?", a.String()); err != nil {
			return err
		}
		t.move(released)
		return t.audit(actor, "lease.drop", a.String(), fmt.Sprintf("%s by %s", l.State, l.MAC))
	})
}

// MoveLease gives the address that one MAC holds, or held last, to another: the
// next time that the other asks, it is what it gets. What the other holds
// meanwhile is left alone.
func (db *DB) MoveLease(ctx context.Context, actor store.Actor, from, to store.MAC) error {
	if to.IsZero() {
		return store.Invalid("mac", "a lease belongs to a MAC")
	}
	return db.write(ctx, "move lease", func(t *tx) error {
		l, err := dbfile.One(t.Ctx, t, scanLease, store.NotFound("lease of", from.String()),
			leaseColumns+"WHERE mac = ? AND state = 'bound' ORDER BY updated DESC, address LIMIT 1", from.String())
		if err != nil || from == to {
			return err
		}
		// The newest lease of a MAC is the one that it is offered.
		_, err = t.Run(`UPDATE lease SET mac = ?, client_id = '', updated = max(?, 1 + (SELECT max(updated) FROM lease WHERE mac IN (?, ?))) WHERE address = ?`,
			to.String(), dbfile.Nanos(t.now), from.String(), to.String(), l.Address.String())
		if err != nil {
			return err
		}
		t.move(released)
		return t.audit(actor, "lease.move", l.Address.String(), "from "+from.String()+" to "+to.String())
	})
}
