package inventory

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"lunboot/store"
)

// FindMachine finds a machine by what people call it: its name, one of its
// MACs, its UUID or its number.
func (i *Inventory) FindMachine(ctx context.Context, key string) (store.Machine, error) {
	m, err := i.db.MachineByName(ctx, key)
	if mac, bad := store.ParseMAC(key); bad == nil && store.IsNotFound(err) {
		m, err = i.db.MachineByMAC(ctx, mac)
	}
	if u, bad := store.ParseUUID(key); bad == nil && store.IsNotFound(err) {
		m, err = i.db.MachineByUUID(ctx, u)
	}
	if id, bad := strconv.ParseInt(key, 10, 64); bad == nil && store.IsNotFound(err) {
		m, err = i.db.Machine(ctx, store.MachineID(id))
	}
	if store.IsNotFound(err) {
		return store.Machine{}, store.NotFound("machine", key)
	}
	return m, err
}

// AddMachine adds a machine. What the operator does not say is chosen: an
// initiator name that stays for good, mutual CHAP with generated secrets, the
// default profile.
func (i *Inventory) AddMachine(ctx context.Context, by store.Actor, spec store.MachineSpec) (store.Machine, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	return i.addMachine(ctx, by, spec, "added")
}

func (i *Inventory) addMachine(ctx context.Context, by store.Actor, spec store.MachineSpec, what string) (store.Machine, error) {
	m, err := i.newMachine(spec)
	if err != nil {
		return store.Machine{}, err
	}
	if err := i.checkAddress(ctx, &m); err != nil {
		return store.Machine{}, err
	}
	if err := i.checkLoader(m); err != nil {
		return store.Machine{}, err
	}
	m, err = i.db.CreateMachine(ctx, by, m)
	if err != nil {
		return store.Machine{}, err
	}
	i.changed(m, what)
	return m, nil
}

// newMachine is a machine as the operator says it, with what they do not say.
func (i *Inventory) newMachine(spec store.MachineSpec) (store.Machine, error) {
	m := store.Machine{
		Name: strings.ToLower(spec.Name), MACs: slices.Clone(spec.MACs), UUID: spec.UUID, Serial: spec.Serial, AssetTag: spec.AssetTag,
		Initiator: spec.Initiator, Auth: spec.Auth, CHAP: spec.CHAP, Reverse: spec.Reverse,
		Address: spec.Address, Profile: spec.Profile, Loader: loaderName(spec.Loader), Tags: slices.Clone(spec.Tags), Notes: spec.Notes, Quirks: slices.Clone(spec.Quirks),
		BMC: trusting(spec.BMC),
	}
	if err := store.ValidateHostname(m.Name); err != nil {
		return store.Machine{}, err
	}
	if m.Profile == "" {
		m.Profile = store.DefaultProfile
	}
	if m.Auth == "" {
		m.Auth = store.AuthMutual
	}
	if m.Initiator == "" {
		m.Initiator = i.newInitiator(m.Name)
	}
	if err := credentials(&m, !spec.CHAP.IsZero(), !spec.Reverse.IsZero()); err != nil {
		return store.Machine{}, err
	}
	return m, m.Validate()
}

// newInitiator names an initiator after its machine. The random end keeps a
// later machine of the same name from being taken for this one by an initiator
// that still has the old name on its disk.
func (i *Inventory) newInitiator(name string) store.IQN {
	var b [3]byte
	rand.Read(b[:])
	return store.IQN(fmt.Sprintf("%s:%s-%s", i.prefix, name, hex.EncodeToString(b[:])))
}

// targetUser is the name that the target proves itself by in mutual CHAP.
const targetUser = "lunboot"

// credentials completes a machine's CHAP credentials for its mode: what is
// missing is generated, what the mode does not use goes. A secret given by hand
// pins the pair: it is never rotated.
func credentials(m *store.Machine, chapGiven, reverseGiven bool) error {
	if chapGiven && m.Auth == store.AuthNone {
		return store.Invalid("auth", "CHAP credentials are of no use with auth none; choose chap or mutual")
	}
	if reverseGiven && m.Auth != store.AuthMutual {
		return store.Invalid("auth", "reverse CHAP credentials are of no use with auth %s; choose mutual", m.Auth)
	}
	m.Pinned = m.Pinned || chapGiven && m.CHAP.Secret != "" || reverseGiven && m.Reverse.Secret != ""
	if m.Auth == store.AuthNone {
		m.CHAP, m.Reverse, m.Pinned = store.Credential{}, store.Credential{}, false
		return nil
	}
	complete(&m.CHAP, m.Name)
	if m.Auth == store.AuthMutual {
		complete(&m.Reverse, targetUser)
	} else {
		m.Reverse = store.Credential{}
	}
	return nil
}

func complete(c *store.Credential, user string) {
	if c.User == "" {
		c.User = user
	}
	if c.Secret == "" {
		c.Secret = store.NewSecret()
	}
}

// SetMachine changes the fields of a machine that the patch names.
func (i *Inventory) SetMachine(ctx context.Context, by store.Actor, id store.MachineID, p store.MachinePatch) (store.Machine, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	old, err := i.db.Machine(ctx, id)
	if err != nil {
		return store.Machine{}, err
	}
	m, err := patched(old, p)
	if err != nil {
		return store.Machine{}, err
	}
	return i.updateMachine(ctx, by, old, m, p.Revision, "changed")
}

// patched is a machine with the fields that a patch names.
func patched(old store.Machine, p store.MachinePatch) (store.Machine, error) {
	m := old
	set(&m.Name, p.Name)
	set(&m.MACs, p.MACs)
	set(&m.UUID, p.UUID)
	set(&m.Serial, p.Serial)
	set(&m.AssetTag, p.AssetTag)
	set(&m.Initiator, p.Initiator)
	set(&m.Auth, p.Auth)
	set(&m.Address, p.Address)
	set(&m.Profile, p.Profile)
	set(&m.OnceProfile, p.OnceProfile)
	if p.Loader != nil {
		m.Loader = loaderName(*p.Loader)
	}
	set(&m.Tags, p.Tags)
	set(&m.Notes, p.Notes)
	set(&m.Quirks, p.Quirks)
	if p.BMC != nil {
		m.BMC = mergeBMC(old.BMC, *p.BMC)
	}
	merge(&m.CHAP, p.CHAP)
	merge(&m.Reverse, p.Reverse)
	if p.Auth != nil || p.CHAP != nil || p.Reverse != nil {
		if err := credentials(&m, p.CHAP != nil && !p.CHAP.IsZero(), p.Reverse != nil && !p.Reverse.IsZero()); err != nil {
			return store.Machine{}, err
		}
	}
	return m, nil
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

// merge takes the halves of a credential that are given.
func merge(c *store.Credential, given *store.Credential) {
	if given == nil {
		return
	}
	if given.User != "" {
		c.User = given.User
	}
	if given.Secret != "" {
		c.Secret = given.Secret
	}
}

// mergeBMC keeps of the present BMC what a new one does not say. Another address or
// user is another BMC: it is never sent the password of the one before. At another
// address it is to be trusted anew, whatever was agreed to for the one before.
func mergeBMC(now, given store.BMC) store.BMC {
	if given.IsZero() {
		return given
	}
	same := given.Protocol == now.Protocol && given.HostPort() == now.HostPort()
	if same && given.Trust == "" {
		given.Trust = now.Trust
	}
	if same && given.User == now.User && given.Secret == "" {
		given.Secret = now.Secret
	}
	if same && given.Trust == store.BMCPinned && given.Fingerprint == "" {
		given.Fingerprint = now.Fingerprint
	}
	return trusting(given)
}

// trusting pins the certificate of a Redfish BMC unless something else is chosen:
// BMCs make theirs themselves.
func trusting(b store.BMC) store.BMC {
	if b.Protocol == store.BMCRedfish && b.Trust == "" {
		b.Trust = store.BMCPinned
	}
	return b
}

// updateMachine checks and writes m in place of old. Without a revision of the
// caller's, the one that was read is used, so that a change that came between
// is not undone.
func (i *Inventory) updateMachine(ctx context.Context, by store.Actor, old, m store.Machine, revision int64, what string) (store.Machine, error) {
	if err := store.CheckExpected(ctx, "machine", fmt.Sprint(old.ID), old.Name, old.Revision); err != nil {
		return store.Machine{}, err
	}
	m.Revision = old.Revision
	if revision != 0 {
		m.Revision = revision
	}
	if err := m.Validate(); err != nil {
		return store.Machine{}, err
	}
	if m.Address != old.Address {
		if err := i.checkAddress(ctx, &m); err != nil {
			return store.Machine{}, err
		}
	}
	if m.Loader != old.Loader {
		if err := i.checkLoader(m); err != nil {
			return store.Machine{}, err
		}
	}
	m, err := i.db.UpdateMachine(ctx, by, m)
	if err != nil {
		return store.Machine{}, err
	}
	i.freeReserved(ctx, by, old, m)
	i.changed(m, what)
	return m, nil
}

// loaderName takes "auto" for no choice of its own.
func loaderName(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	if s == "auto" {
		return ""
	}
	return s
}

// checkLoader refuses a loader that there is not, or that the machine, as it
// was last seen, cannot start.
func (i *Inventory) checkLoader(m store.Machine) error {
	if m.Loader == "" || i.loaders == nil {
		return nil
	}
	return i.loaders.Fits(m.Loader, m.Firmware, m.Arch)
}

// freeReserved ends the lease of a MAC that left the machine on the address
// that stays with it: the machine's new board is to have it at once.
func (i *Inventory) freeReserved(ctx context.Context, by store.Actor, old, m store.Machine) {
	if !m.Address.IsValid() || m.Address != old.Address {
		return
	}
	l, err := i.db.LeaseByAddress(ctx, m.Address)
	if err == nil && slices.Contains(old.MACs, l.MAC) && !slices.Contains(m.MACs, l.MAC) {
		err = i.db.DropLease(ctx, by, m.Address)
	}
	if err != nil && !store.IsNotFound(err) {
		i.log.Warn("the lease of a machine's former board stays until it ends", "machine", m.Name, "address", m.Address, "err", err)
	}
}

// RemoveMachine removes a machine; its mappings go with it, its volumes stay.
// While it runs from a volume only force removes it.
func (i *Inventory) RemoveMachine(ctx context.Context, by store.Actor, id store.MachineID, force bool) error {
	i.acts.Lock()
	defer i.acts.Unlock()
	m, err := i.db.Machine(ctx, id)
	if err != nil {
		return err
	}
	if err := store.CheckExpected(ctx, "machine", fmt.Sprint(m.ID), m.Name, m.Revision); err != nil {
		return err
	}
	if s, ok := i.session(m); ok && !force {
		return store.InUse("machine %s is logged in from %s; shut it down first, or force the removal", m.Name, s.Addr)
	}
	if err := i.db.DeleteMachine(ctx, by, id); err != nil {
		return err
	}
	i.changed(m, removed)
	return nil
}

// session returns a live session of the machine.
func (i *Inventory) session(m store.Machine) (store.Session, bool) {
	if i.sessions == nil {
		return store.Session{}, false
	}
	for _, s := range i.sessions.Sessions() {
		if s.Machine == m.ID || s.Initiator == m.Initiator {
			return s, true
		}
	}
	return store.Session{}, false
}
