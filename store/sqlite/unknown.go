package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

const unknownColumns = `SELECT mac, uuid, hostname, vendor, firmware, arch, nic, chip, address, first_seen, last_seen, port, port_seen, count, ignored FROM unknown_machine `

func scanUnknown(r dbfile.Row) (store.UnknownMachine, error) {
	var (
		u             store.UnknownMachine
		mac           string
		uuid, address sql.NullString
		first, last   int64
		portSeen      int64
	)
	err := r.Scan(&mac, &uuid, &u.Hostname, &u.Vendor, &u.Firmware, &u.Arch, &u.NIC, &u.Chip, &address, &first, &last, &u.Port, &portSeen, &u.Count, &u.Ignored)
	if err != nil {
		return store.UnknownMachine{}, err
	}
	u.FirstSeen, u.LastSeen, u.PortSeen = dbfile.Instant(first), dbfile.Instant(last), dbfile.Instant(portSeen)
	var errs [3]error
	u.MAC, errs[0] = store.ParseMAC(mac)
	u.UUID, errs[1] = dbfile.ParseText(uuid, store.ParseUUID)
	u.Address, errs[2] = dbfile.ParseText(address, netip.ParseAddr)
	if err := errors.Join(errs[:]...); err != nil {
		return store.UnknownMachine{}, damaged("unknown machine "+mac, err)
	}
	return u, nil
}

// UnknownMachine returns what is known of a MAC that is not enrolled.
func (db *DB) UnknownMachine(ctx context.Context, mac store.MAC) (store.UnknownMachine, error) {
	return dbfile.One(ctx, db.file.Reader(), scanUnknown, store.NotFound("unknown machine", mac.String()), unknownColumns+"WHERE mac = ?", mac.String())
}

// UnknownMachines returns the unknown machines, the one seen last first.
func (db *DB) UnknownMachines(ctx context.Context, includeIgnored bool) ([]store.UnknownMachine, error) {
	return dbfile.List(ctx, db.file.Reader(), scanUnknown, unknownColumns+"WHERE ignored = 0 OR ? ORDER BY last_seen DESC, mac", includeIgnored)
}

// IgnoredMACs returns the MACs of the unknown machines that are ignored.
func (db *DB) IgnoredMACs(ctx context.Context) ([]store.MAC, error) {
	all, err := dbfile.List(ctx, db.file.Reader(), dbfile.Scalar[string], "SELECT mac FROM unknown_machine WHERE ignored = 1")
	if err != nil {
		return nil, err
	}
	out := make([]store.MAC, len(all))
	for i, text := range all {
		if err := out[i].UnmarshalText([]byte(text)); err != nil {
			return nil, damaged("unknown machine "+text, err)
		}
	}
	return out, nil
}

// SeeUnknown records that computers which are not enrolled asked to boot. What
// each says is added to what was known; a MAC that a machine has is left alone,
// since it was enrolled in the meantime.
func (db *DB) SeeUnknown(ctx context.Context, some ...store.UnknownMachine) error {
	some = slices.Clone(some)
	for i := range some {
		u := &some[i]
		if u.MAC.IsZero() {
			return store.Invalid("mac", "an unknown machine is known by its MAC")
		}
		for _, s := range []*string{&u.Hostname, &u.Vendor, &u.Firmware, &u.Arch, &u.NIC, &u.Chip, &u.Port} {
			*s = clip(*s)
		}
	}
	return db.batch.do(ctx, "record unknown machine", func(t *tx) error {
		for i := range some {
			if err := t.seeUnknown(&some[i]); err != nil {
				return err
			}
		}
		return t.boundUnknown()
	})
}

func (t *tx) seeUnknown(u *store.UnknownMachine) error {
	enrolled, err := dbfile.One(t.Ctx, t, dbfile.Scalar[int], nil, "SELECT count(*) FROM machine_mac WHERE mac = ?", u.MAC.String())
	if err != nil || enrolled > 0 {
		return err
	}
	seen, first := dbfile.Nanos(u.LastSeen), dbfile.Nanos(u.FirstSeen)
	if seen == 0 {
		seen = dbfile.Nanos(t.now)
	}
	if first == 0 {
		first = seen
	}
	_, err = t.Run(`INSERT INTO unknown_machine (mac, uuid, hostname, vendor, firmware, arch, nic, chip, address, first_seen, last_seen, port, port_seen, count, ignored)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 0)
		ON CONFLICT (mac) DO UPDATE SET
			uuid = coalesce(excluded.uuid, uuid), address = coalesce(excluded.address, address),
			hostname = coalesce(nullif(excluded.hostname, ''), hostname), vendor = coalesce(nullif(excluded.vendor, ''), vendor),
			firmware = coalesce(nullif(excluded.firmware, ''), firmware), arch = coalesce(nullif(excluded.arch, ''), arch),
			nic = coalesce(nullif(excluded.nic, ''), nic), chip = coalesce(nullif(excluded.chip, ''), chip),
			port = CASE WHEN excluded.port_seen > port_seen THEN excluded.port ELSE port END, port_seen = max(excluded.port_seen, port_seen),
			last_seen = max(excluded.last_seen, last_seen), count = count + 1`,
		u.MAC.String(), dbfile.Text(u.UUID), u.Hostname, u.Vendor, u.Firmware, u.Arch, u.NIC, u.Chip, addrText(u.Address), first, seen, u.Port, dbfile.Nanos(u.PortSeen))
	if err == nil {
		t.move(changed)
	}
	return err
}

// boundUnknown removes the unknown machines above the bound, those not seen for
// longest first. Somebody decided to ignore a machine, so those go last.
func (t *tx) boundUnknown() error {
	n, err := dbfile.One(t.Ctx, t, dbfile.Scalar[int], nil, "SELECT count(*) FROM unknown_machine")
	if err != nil || n <= store.MaxUnknownMachines {
		return err
	}
	_, err = t.Run("DELETE FROM unknown_machine WHERE mac IN (SELECT mac FROM unknown_machine ORDER BY ignored, last_seen LIMIT ?)", n-store.MaxUnknownMachines)
	return err
}

// IgnoreUnknown says that a MAC is not to be booted, also before it was ever
// seen, or takes that back.
func (db *DB) IgnoreUnknown(ctx context.Context, actor store.Actor, mac store.MAC, ignored bool) error {
	if mac.IsZero() {
		return store.Invalid("mac", "an unknown machine is known by its MAC")
	}
	return db.write(ctx, "ignore machine", func(t *tx) error {
		m, err := machineBy(t.Ctx, t, "MAC", mac.String(), "id = (SELECT machine FROM machine_mac WHERE mac = ?)", mac.String())
		if err == nil {
			return store.Conflict("mac", "the MAC %s is enrolled as machine %s; remove the machine first", mac, m.Name)
		}
		if !store.IsNotFound(err) {
			return err
		}
		u, err := dbfile.One(t.Ctx, t, scanUnknown, store.NotFound("unknown machine", mac.String()), unknownColumns+"WHERE mac = ?", mac.String())
		switch {
		case err == nil && u.Ignored == ignored:
			return nil
		case err == nil:
			_, err = t.Run("UPDATE unknown_machine SET ignored = ? WHERE mac = ?", ignored, mac.String())
		case store.IsNotFound(err) && ignored:
			_, err = t.Run(`INSERT INTO unknown_machine (mac, hostname, vendor, firmware, arch, first_seen, last_seen, count, ignored)
				VALUES (?, '', '', '', '', ?, ?, 0, 1)`, mac.String(), dbfile.Nanos(t.now), dbfile.Nanos(t.now))
			if err == nil {
				err = t.boundUnknown()
			}
		}
		if err != nil {
			return err
		}
		t.move(barred)
		action := "machine.ignore"
		if !ignored {
			action = "machine.unignore"
		}
		return t.audit(actor, action, mac.String(), "")
	})
}

// maxHeard bounds a text that a computer said of itself.
const maxHeard = 255

// clip bounds a text from the network and drops what is not text.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
	if len(s) <= maxHeard {
		return s
	}
	n := maxHeard
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
