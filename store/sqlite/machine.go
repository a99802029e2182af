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
	"sync"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// machineColumns reads a machine with its MACs in one statement, so that no
// change can come between them.
const machineColumns = `SELECT id, revision, name, uuid, serial, asset_tag, initiator, auth,
	chap_user, chap_secret, reverse_user, reverse_secret, pinned, address, profile, once_profile, loader,
	tags, notes, quirks, firmware, arch, last_seen, port, port_seen, created, updated,
	bmc_protocol, bmc_address, bmc_user, bmc_secret, bmc_trust, bmc_fingerprint,
	(SELECT group_concat(mac, ' ' ORDER BY position) FROM machine_mac WHERE machine = machine.id)
	FROM machine `

func scanMachine(r dbfile.Row) (store.Machine, error) {
	var (
		m                         store.Machine
		uuid, address, once, macs sql.NullString
		tags, quirks              string
		seen, created, updated    int64
		portSeen                  int64
	)
	err := r.Scan(&m.ID, &m.Revision, &m.Name, &uuid, &m.Serial, &m.AssetTag, &m.Initiator, &m.Auth,
		&m.CHAP.User, &m.CHAP.Secret, &m.Reverse.User, &m.Reverse.Secret, &m.Pinned, &address, &m.Profile, &once, &m.Loader,
		&tags, &m.Notes, &quirks, &m.Firmware, &m.Arch, &seen, &m.Port, &portSeen, &created, &updated,
		&m.BMC.Protocol, &m.BMC.Address, &m.BMC.User, &m.BMC.Secret, &m.BMC.Trust, &m.BMC.Fingerprint, &macs)
	if err != nil {
		return store.Machine{}, err
	}
	m.OnceProfile = once.String
	m.LastSeen, m.PortSeen, m.Created, m.Updated = dbfile.Instant(seen), dbfile.Instant(portSeen), dbfile.Instant(created), dbfile.Instant(updated)
	var errs [5]error
	m.UUID, errs[0] = dbfile.ParseText(uuid, store.ParseUUID)
	m.Address, errs[1] = dbfile.ParseText(address, netip.ParseAddr)
	errs[2] = json.Unmarshal([]byte(tags), &m.Tags)
	errs[4] = json.Unmarshal([]byte(quirks), &m.Quirks)
	for s := range strings.FieldsSeq(macs.String) {
		mac, err := store.ParseMAC(s)
		if err != nil {
			errs[3] = err
		}
		m.MACs = append(m.MACs, mac)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return store.Machine{}, damaged("machine "+m.Name, err)
	}
	if len(m.Tags) == 0 {
		m.Tags = nil
	}
	if len(m.Quirks) == 0 {
		m.Quirks = nil
	}
	return m, nil
}

// damaged is the error of a row that this program cannot have written.
func damaged(subject string, err error) error {
	// The parsers call it invalid input; here it is our own file.
	return &store.Error{Kind: store.KindCorrupt, Op: "read", Subject: subject, Msg: "its row cannot be read; put back a backup", Err: err}
}

func machineBy(ctx context.Context, q dbfile.Querier, how, key, where string, args ...any) (store.Machine, error) {
	missing := store.NotFound("machine", key)
	if how != "" {
		missing = store.NotFound("machine with "+how, key)
	}
	return dbfile.One(ctx, q, scanMachine, missing, machineColumns+"WHERE "+where, args...)
}

// Machine returns the machine with this id.
func (db *DB) Machine(ctx context.Context, id store.MachineID) (store.Machine, error) {
	return machineBy(ctx, db.file.Reader(), "number", fmt.Sprint(id), "id = ?", int64(id))
}

// MachineByName returns the machine with this name, in either case.
func (db *DB) MachineByName(ctx context.Context, name string) (store.Machine, error) {
	return machineBy(ctx, db.file.Reader(), "", name, "name = ?", strings.ToLower(name))
}

// MachineByUUID returns the machine with this UUID. A placeholder is nobody's.
func (db *DB) MachineByUUID(ctx context.Context, u store.UUID) (store.Machine, error) {
	return machineBy(ctx, db.file.Reader(), "UUID", u.String(), "uuid = ?", u.String())
}

// MachineByMAC returns the machine that has this MAC.
func (db *DB) MachineByMAC(ctx context.Context, mac store.MAC) (store.Machine, error) {
	return machineBy(ctx, db.file.Reader(), "MAC", mac.String(), "id = (SELECT machine FROM machine_mac WHERE mac = ?)", mac.String())
}

// MachineByInitiator returns the machine with this initiator name, in either
// case (RFC 3722).
func (db *DB) MachineByInitiator(ctx context.Context, iqn store.IQN) (store.Machine, error) {
	return machineBy(ctx, db.file.Reader(), "initiator", string(iqn), "initiator = ?", strings.ToLower(string(iqn)))
}

// MachineBySerial returns the one machine with this serial number. A number
// that several machines have identifies none of them.
func (db *DB) MachineBySerial(ctx context.Context, serial string) (store.Machine, error) {
	return db.machineAlone(ctx, "serial number", "serial", serial)
}

// MachineByAssetTag returns the one machine with this asset tag. A tag that
// several machines have identifies none of them.
func (db *DB) MachineByAssetTag(ctx context.Context, tag string) (store.Machine, error) {
	return db.machineAlone(ctx, "asset tag", "asset_tag", tag)
}

func (db *DB) machineAlone(ctx context.Context, how, column, value string) (store.Machine, error) {
	missing := store.NotFound("machine with "+how, value)
	if value == "" {
		return store.Machine{}, missing
	}
	ms, err := dbfile.List(ctx, db.file.Reader(), scanMachine, machineColumns+"WHERE "+column+" = ? LIMIT 2", value)
	if err != nil {
		return store.Machine{}, err
	}
	if len(ms) > 1 {
		missing.Msg = fmt.Sprintf("the %s %q is no single machine's: %s and %s have it", how, value, ms[0].Name, ms[1].Name)
	}
	if len(ms) != 1 {
		return store.Machine{}, missing
	}
	return ms[0], nil
}

// Machines returns one page of the machines that match, by name, and how many
// match in all.
func (db *DB) Machines(ctx context.Context, f store.MachineFilter) ([]store.Machine, int, error) {
	where, args := "WHERE 1 ", []any{}
	if f.Tag != "" {
		where += "AND EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?) "
		args = append(args, f.Tag)
	}
	if f.Profile != "" {
		where += "AND profile = ? "
		args = append(args, f.Profile)
	}
	if f.MAC != "" {
		where += `AND EXISTS (SELECT 1 FROM machine_mac WHERE machine = machine.id AND replace(mac, ':', '') LIKE ? ESCAPE '\') `
		args = append(args, likePart(bareMAC(f.MAC)))
	}
	for _, s := range f.Words { // each word must fit
		s = strings.ToLower(s)
		like := likePart(s)
		where += `AND (name LIKE ? ESCAPE '\' OR initiator LIKE ? ESCAPE '\' OR uuid LIKE ? ESCAPE '\' OR address LIKE ? ESCAPE '\'
			OR EXISTS (SELECT 1 FROM json_each(tags) WHERE value LIKE ? ESCAPE '\')
			OR EXISTS (SELECT 1 FROM machine_mac WHERE machine = machine.id AND (mac LIKE ? ESCAPE '\' OR replace(mac, ':', '') LIKE ? ESCAPE '\'))) `
		bare := bareMAC(s)
		if bare == "" {
			bare = s
		}
		args = append(args, like, like, like, like, like, like, likePart(bare))
	}
	var (
		out   []store.Machine
		total int
	)
	limit, offset := dbfile.Page(f.Page)
	err := db.file.Read(ctx, func(q dbfile.Querier) (err error) {
		if total, err = dbfile.One(ctx, q, dbfile.Scalar[int], nil, "SELECT count(*) FROM machine "+where, args...); err != nil {
			return err
		}
		out, err = dbfile.List(ctx, q, scanMachine, machineColumns+where+"ORDER BY name LIMIT ? OFFSET ?", append(args, limit, offset)...)
		return err
	})
	return out, total, err
}

// MachineIDs returns the numbers of all machines: much less to read than the
// machines, for who only counts.
func (db *DB) MachineIDs(ctx context.Context) ([]store.MachineID, error) {
	return dbfile.List(ctx, db.file.Reader(), dbfile.Scalar[store.MachineID], "SELECT id FROM machine ORDER BY id")
}

// bareMAC is a part of a MAC without what stands between its digits: it is found
// in every spelling, 0007.e90f as 00:07:e9:0f.
func bareMAC(s string) string {
	return strings.NewReplacer(":", "", "-", "", ".", "").Replace(strings.ToLower(strings.TrimSpace(s)))
}

// likePart is the LIKE pattern for a part of a text.
func likePart(s string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(s) + "%"
}

// CreateMachine adds a machine. Unknown machines with its MACs are forgotten in
// the same transaction.
func (db *DB) CreateMachine(ctx context.Context, actor store.Actor, m store.Machine) (store.Machine, error) {
	m = tidyMachine(m)
	if err := m.Validate(); err != nil {
		return store.Machine{}, err
	}
	if err := db.write(ctx, "create machine", func(t *tx) error { return t.createMachine(actor, &m) }); err != nil {
		return store.Machine{}, err
	}
	return m, nil
}

func (t *tx) createMachine(actor store.Actor, m *store.Machine) error {
	m.ID, m.Revision, m.Created, m.Updated = 0, 1, t.now, t.now
	m.Port, m.PortSeen = "", time.Time{} // what the unknown machine's was, if it was one
	if err := t.checkMachine(m); err != nil {
		return err
	}
	n, err := t.Insert(`INSERT INTO machine (revision, name, uuid, serial, asset_tag, initiator, auth,
		chap_user, chap_secret, reverse_user, reverse_secret, pinned, address, profile, once_profile, loader,
		tags, notes, quirks, firmware, arch, last_seen, bmc_protocol, bmc_address, bmc_user, bmc_secret, bmc_trust, bmc_fingerprint, created, updated)
		VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		append(machineValues(m), dbfile.Nanos(m.Created), dbfile.Nanos(m.Updated))...)
	if err != nil {
		return err
	}
	m.ID = store.MachineID(n)
	if err := t.putMACs(m); err != nil {
		return err
	}
	t.move(enrolled)
	return t.auditDiff(actor, "machine.create", m.Name, machineChanges(&store.Machine{}, m))
}

// UpdateMachine changes a machine. A Revision that is not zero must be the
// present one.
func (db *DB) UpdateMachine(ctx context.Context, actor store.Actor, m store.Machine) (store.Machine, error) {
	m = tidyMachine(m)
	if err := m.Validate(); err != nil {
		return store.Machine{}, err
	}
	if err := db.write(ctx, "change machine", func(t *tx) error { return t.updateMachine(actor, &m) }); err != nil {
		return store.Machine{}, err
	}
	return m, nil
}

func (t *tx) updateMachine(actor store.Actor, m *store.Machine) error {
	old, err := machineBy(t.Ctx, t, "number", fmt.Sprint(m.ID), "id = ?", int64(m.ID))
	if err != nil {
		return err
	}
	if err := checkRevision("machine", old.Name, old.Revision, m.Revision); err != nil {
		return err
	}
	if err := t.checkMachine(m); err != nil {
		return err
	}
	// What was seen of the machine is not the editor's to set back.
	m.Created, m.LastSeen, m.Firmware, m.Arch = old.Created, old.LastSeen, old.Firmware, old.Arch
	m.Port, m.PortSeen = old.Port, old.PortSeen
	changes := machineChanges(&old, m)
	if changes.empty() {
		*m = old
		return nil
	}
	m.Revision, m.Updated = old.Revision+1, t.now
	_, err = t.Run(`UPDATE machine SET name = ?, uuid = ?, serial = ?, asset_tag = ?, initiator = ?, auth = ?,
		chap_user = ?, chap_secret = ?, reverse_user = ?, reverse_secret = ?, pinned = ?, address = ?, profile = ?, once_profile = ?, loader = ?,
		tags = ?, notes = ?, quirks = ?, firmware = ?, arch = ?, last_seen = ?,
		bmc_protocol = ?, bmc_address = ?, bmc_user = ?, bmc_secret = ?, bmc_trust = ?, bmc_fingerprint = ?, revision = ?, updated = ? WHERE id = ?`,
		append(machineValues(m), m.Revision, dbfile.Nanos(m.Updated), int64(m.ID))...)
	if err != nil {
		return err
	}
	if err := t.putMACs(m); err != nil {
		return err
	}
	t.move(enrolled)
	return t.auditDiff(actor, "machine.update", m.Name, changes)
}

// PutMachines adds the machines without an ID and changes the others, in their
// order: all of them, or none.
func (db *DB) PutMachines(ctx context.Context, actor store.Actor, ms []store.Machine) ([]store.Machine, error) {
	out := make([]store.Machine, len(ms))
	for i, m := range ms {
		out[i] = tidyMachine(m)
		if err := out[i].Validate(); err != nil {
			return nil, err
		}
	}
	err := db.write(ctx, "put machines", func(t *tx) error {
		for i := range out {
			put := t.updateMachine
			if out[i].ID == 0 {
				put = t.createMachine
			}
			if err := put(actor, &out[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteMachine removes a machine and its mappings.
func (db *DB) DeleteMachine(ctx context.Context, actor store.Actor, id store.MachineID) error {
	return db.write(ctx, "remove machine", func(t *tx) error {
		m, err := machineBy(t.Ctx, t, "number", fmt.Sprint(id), "id = ?", int64(id))
		if err != nil {
			return err
		}
		gone, err := dbfile.List(t.Ctx, t, dbfile.Scalar[string],
			"SELECT 'LUN ' || lun || ' was ' || volume.name FROM mapping JOIN volume ON volume.id = mapping.volume WHERE machine = ? ORDER BY lun", int64(id))
		if err != nil {
			return err
		}
		if _, err := t.Run("DELETE FROM machine WHERE id = ?", int64(id)); err != nil {
			return err
		}
		if _, err := t.Run("UPDATE lease SET machine = 0 WHERE machine = ?", int64(id)); err != nil {
			return err
		}
		t.move(enrolled | released)
		was := machineChanges(&m, &store.Machine{}).gone(append([]string{"MACs " + joinMACs(m.MACs)}, gone...)...)
		for _, lun := range gone {
			was.changes = append(was.changes, store.FieldChange{Field: "mapping", Before: lun})
		}
		return t.auditDiff(actor, "machine.delete", m.Name, was)
	})
}

// SeenMachine records that a machine spoke, and with which firmware. It changes
// no decision of anybody: there is no audit row, and the revision stays.
func (db *DB) SeenMachine(ctx context.Context, id store.MachineID, firmware, arch string, at time.Time) error {
	return db.batch.do(ctx, "record machine", func(t *tx) error {
		n, err := t.Run(`UPDATE machine SET last_seen = max(last_seen, ?),
			firmware = CASE WHEN ? = '' THEN firmware ELSE ? END, arch = CASE WHEN ? = '' THEN arch ELSE ? END WHERE id = ?`,
			dbfile.Nanos(at), firmware, firmware, arch, arch, int64(id))
		if err == nil && n == 0 {
			return store.NotFound("machine with number", fmt.Sprint(id))
		}
		t.move(changed)
		return err
	})
}

// ArmBoot notes that a machine was given a script that boots its volume. It is
// on disk when ArmBoot returns.
func (db *DB) ArmBoot(ctx context.Context, id store.MachineID) error {
	err := db.batch.do(ctx, "arm boot", func(t *tx) error {
		_, err := t.Run("UPDATE machine SET boot_armed = boot_fired + 1 WHERE id = ?", int64(id))
		return err
	})
	db.boots.forget(id)
	return err
}

// bootMemory remembers the boots of machines that log in again and again: none of
// them changes but through ArmBoot and BootGeneration.
type bootMemory struct {
	mu       sync.Mutex
	revision int64
	known    map[store.MachineID]bootState
}

type bootState struct{ armed, fired int64 }

// maxBoots bounds what is remembered.
const maxBoots = 4096

// get returns what is remembered, and the revision that put takes.
func (b *bootMemory) get(id store.MachineID) (s bootState, ok bool, revision int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok = b.known[id]
	return s, ok, b.revision
}

// put remembers what was read since get, unless something changed meanwhile.
func (b *bootMemory) put(id store.MachineID, s bootState, revision int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.revision != revision {
		return
	}
	if b.known == nil || len(b.known) >= maxBoots {
		b.known = map[store.MachineID]bootState{}
	}
	b.known[id] = s
}

// forget follows every change.
func (b *bootMemory) forget(id store.MachineID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.revision++
	delete(b.known, id)
}

// BootGeneration returns how many of a machine's boots have fired. With fire, an
// armed one fires first, which fired tells, and is on disk when BootGeneration
// returns; in the same step each of the machine's volumes that begin anew at a
// boot is due (see ResetsDue).
func (db *DB) BootGeneration(ctx context.Context, id store.MachineID, fire bool) (now int64, fired bool, err error) {
	b, ok, revision := db.boots.get(id)
	if !ok {
		b, err = dbfile.One(ctx, db.file.Reader(), func(r dbfile.Row) (b bootState, err error) { err = r.Scan(&b.armed, &b.fired); return b, err },
			store.NotFound("machine with number", fmt.Sprint(id)), "SELECT boot_armed, boot_fired FROM machine WHERE id = ?", int64(id))
		if err == nil {
			db.boots.put(id, b, revision)
		}
	}
	if err != nil || !fire || b.armed <= b.fired {
		return b.fired, false, err
	}
	err = db.batch.do(ctx, "fire boot", func(t *tx) error {
		n, err := t.Run("UPDATE machine SET boot_fired = boot_armed WHERE id = ? AND boot_armed > boot_fired", int64(id))
		if err == nil && n > 0 {
			fired = true
			_, err = t.Run(dueAtBoot, int64(id), int64(id))
		}
		if err == nil {
			now, err = dbfile.One(t.Ctx, t, dbfile.Scalar[int64], nil, "SELECT boot_fired FROM machine WHERE id = ?", int64(id))
		}
		return err
	})
	db.boots.forget(id)
	return now, fired && err == nil, err
}

// dueAtBoot marks what a machine's boot begins anew. Of a volume that several
// machines read none may take the bytes from the others.
const dueAtBoot = `UPDATE volume SET reset_due = 1 WHERE reset = 1 AND id IN (SELECT volume FROM mapping WHERE machine = ? AND read_only = 0
	UNION SELECT m.volume FROM mapping m WHERE m.machine = ? AND NOT EXISTS (SELECT 1 FROM mapping o WHERE o.volume = m.volume AND o.machine <> m.machine))`

// ResetsDue returns the volumes of a machine that are to begin anew before it
// has them again.
func (db *DB) ResetsDue(ctx context.Context, id store.MachineID) ([]store.VolumeID, error) {
	return dbfile.List(ctx, db.file.Reader(), dbfile.Scalar[store.VolumeID],
		"SELECT DISTINCT volume.id FROM volume JOIN mapping ON mapping.volume = volume.id WHERE volume.reset_due = 1 AND volume.reset = 1 AND mapping.machine = ? ORDER BY volume.id", int64(id))
}

// ResetDue reports whether a volume is to begin anew before a machine has it
// again.
func (db *DB) ResetDue(ctx context.Context, id store.VolumeID) (bool, error) {
	n, err := dbfile.One(ctx, db.file.Reader(), dbfile.Scalar[int64], store.NotFound("volume with number", fmt.Sprint(id)),
		"SELECT reset_due AND reset FROM volume WHERE id = ?", int64(id))
	return n != 0, err
}

// tidyMachine puts what people write in several ways into one.
func tidyMachine(m store.Machine) store.Machine {
	m.Name = strings.ToLower(m.Name)
	m.Initiator = store.IQN(strings.ToLower(string(m.Initiator)))
	m.MACs = slices.Clone(m.MACs)
	m.Tags = slices.Clone(m.Tags)
	if len(m.Tags) == 0 {
		m.Tags = nil
	}
	m.LastSeen = stored(m.LastSeen)
	m.Address = m.Address.Unmap()
	return m
}

// checkMachine refuses a machine that another one, or a missing profile, is in
// the way of. It names the other.
func (t *tx) checkMachine(m *store.Machine) error {
	uniques := []struct{ column, field, what, value string }{
		{"name", "name", "the name", m.Name},
		{"initiator", "initiator", "the initiator name", string(m.Initiator)},
	}
	if !m.UUID.IsZero() {
		uniques = append(uniques, struct{ column, field, what, value string }{"uuid", "uuid", "the UUID", m.UUID.String()})
	}
	if m.Address.IsValid() {
		uniques = append(uniques, struct{ column, field, what, value string }{"address", "address", "the reserved address", m.Address.String()})
	}
	for _, u := range uniques {
		other, err := dbfile.List(t.Ctx, t, dbfile.Scalar[string], "SELECT name FROM machine WHERE "+u.column+" = ? AND id <> ?", u.value, int64(m.ID))
		if err != nil {
			return err
		}
		switch {
		case len(other) > 0 && u.field == "name":
			return store.Conflict(u.field, "machine %s exists already; choose another name", u.value)
		case len(other) > 0:
			return store.Conflict(u.field, "machine %s has %s %s already", other[0], u.what, u.value)
		}
	}
	for _, mac := range m.MACs {
		other, err := dbfile.List(t.Ctx, t, dbfile.Scalar[string],
			"SELECT name FROM machine_mac JOIN machine ON machine.id = machine WHERE mac = ? AND machine <> ?", mac.String(), int64(m.ID))
		if err != nil {
			return err
		}
		if len(other) > 0 {
			return store.Conflict("mac", "machine %s has the MAC %s already", other[0], mac)
		}
	}
	for _, p := range [...]struct{ field, name string }{{"profile", m.Profile}, {"once_profile", m.OnceProfile}} {
		if p.name == "" {
			continue
		}
		n, err := dbfile.One(t.Ctx, t, dbfile.Scalar[int], nil, "SELECT count(*) FROM profile WHERE name = ?", p.name)
		if err != nil {
			return err
		}
		if n == 0 {
			return store.Invalid(p.field, "there is no profile %q", p.name)
		}
	}
	return nil
}

// putMACs replaces a machine's MACs and forgets unknown machines that had them.
func (t *tx) putMACs(m *store.Machine) error {
	if _, err := t.Run("DELETE FROM machine_mac WHERE machine = ?", int64(m.ID)); err != nil {
		return err
	}
	for i, mac := range m.MACs {
		seen, err := dbfile.List(t.Ctx, t, scanUnknown, unknownColumns+"WHERE mac = ?", mac.String())
		if err != nil {
			return err
		}
		if len(seen) > 0 && seen[0].PortSeen.After(m.PortSeen) {
			m.Port, m.PortSeen = seen[0].Port, seen[0].PortSeen
			if _, err := t.Run("UPDATE machine SET port = ?, port_seen = ? WHERE id = ?", m.Port, dbfile.Nanos(m.PortSeen), int64(m.ID)); err != nil {
				return err
			}
		}
		if _, err := t.Run("INSERT INTO machine_mac (mac, machine, position) VALUES (?, ?, ?)", mac.String(), int64(m.ID), i); err != nil {
			return err
		}
		if _, err := t.Run("DELETE FROM unknown_machine WHERE mac = ?", mac.String()); err != nil {
			return err
		}
	}
	return nil
}

func machineValues(m *store.Machine) []any {
	var once any
	if m.OnceProfile != "" {
		once = m.OnceProfile
	}
	return []any{m.Name, dbfile.Text(m.UUID), m.Serial, m.AssetTag, string(m.Initiator), string(m.Auth),
		m.CHAP.User, m.CHAP.Secret, m.Reverse.User, m.Reverse.Secret, m.Pinned, addrText(m.Address), m.Profile, once, m.Loader,
		jsonList(m.Tags), m.Notes, jsonList(m.Quirks), m.Firmware, m.Arch, dbfile.Nanos(m.LastSeen),
		string(m.BMC.Protocol), m.BMC.Address, m.BMC.User, m.BMC.Secret, string(m.BMC.Trust), m.BMC.Fingerprint}
}

// machineChanges says what differs, for the audit log. Secrets only ever say
// that they changed.
func machineChanges(a, b *store.Machine) diff {
	var d diff
	d.add("name", a.Name, b.Name)
	d.add("MACs", joinMACs(a.MACs), joinMACs(b.MACs))
	d.add("UUID", shown(a.UUID), shown(b.UUID))
	d.add("serial", a.Serial, b.Serial)
	d.add("asset tag", a.AssetTag, b.AssetTag)
	d.add("initiator", string(a.Initiator), string(b.Initiator))
	d.add("login", string(a.Auth), string(b.Auth))
	d.add("CHAP user", a.CHAP.User, b.CHAP.User)
	d.secret("CHAP secret", a.CHAP.Secret, b.CHAP.Secret)
	d.add("reverse CHAP user", a.Reverse.User, b.Reverse.User)
	d.secret("reverse CHAP secret", a.Reverse.Secret, b.Reverse.Secret)
	d.flag("pinned", a.Pinned, b.Pinned)
	d.add("address", addrShown(a.Address), addrShown(b.Address))
	d.add("profile", a.Profile, b.Profile)
	d.add("profile for one boot", a.OnceProfile, b.OnceProfile)
	d.add("loader", a.Loader, b.Loader)
	d.add("tags", strings.Join(a.Tags, ", "), strings.Join(b.Tags, ", "))
	d.long("notes", a.Notes, b.Notes)
	d.add("quirks", joinQuirks(a.Quirks), joinQuirks(b.Quirks))
	d.add("BMC", a.BMC.String(), b.BMC.String())
	d.secret("BMC secret", a.BMC.Secret, b.BMC.Secret)
	d.add("BMC trust", string(a.BMC.Trust), string(b.BMC.Trust))
	d.add("BMC fingerprint", a.BMC.Fingerprint, b.BMC.Fingerprint)
	return d
}
