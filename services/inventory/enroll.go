package inventory

import (
	"context"
	"fmt"
	"strings"

	"lunboot/services/boot/oui"
	"lunboot/store"
)

// Enroll makes a machine of an unknown one. Without a name it is called what it
// calls itself, else by its maker and the end of its MAC. It boots from a clone of
// the default golden volume where there is one. With replace it takes the place of
// that machine, whose board was swapped: name, volumes, profile, address and
// credentials stay, MAC and UUID are the new board's.
func (i *Inventory) Enroll(ctx context.Context, by store.Actor, mac store.MAC, name string, replace store.MachineID) (store.Machine, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	u, err := i.unknown(ctx, mac)
	if err != nil {
		return store.Machine{}, err
	}
	if replace == 0 {
		return i.enrollOne(ctx, by, u, store.EnrollSpec{}, name, numbers{})
	}
	if u.UUID, err = i.freeUUID(ctx, u.UUID, replace); err != nil {
		return store.Machine{}, err
	}
	return i.swapBoard(ctx, by, u, name, replace)
}

// enroll makes a machine of u, whose UUID is free. Without a name the pattern
// makes one.
func (i *Inventory) enroll(ctx context.Context, by store.Actor, u store.UnknownMachine, spec store.EnrollSpec, name string, from numbers) (store.Machine, error) {
	if name == "" {
		var err error
		if name, err = i.nameFor(ctx, spec.Name, u, from); err != nil {
			return store.Machine{}, err
		}
	}
	return i.addMachine(ctx, by, store.MachineSpec{Name: name, MACs: []store.MAC{u.MAC}, UUID: u.UUID, Profile: spec.Profile}, "enrolled")
}

// numbers remembers the last number that was given to each name, while machines
// are enrolled together: those below are taken, and looking at them again for
// each of a thousand would be most of the work.
type numbers map[string]int

// nameFor makes a name by the pattern that no machine has.
func (i *Inventory) nameFor(ctx context.Context, p store.NamePattern, u store.UnknownMachine, from numbers) (string, error) {
	switch {
	case p == "":
		return i.freeName(ctx, suggestName(u), from)
	case !p.Numbered():
		return i.freeName(ctx, p.Name(0, u.MAC), from)
	}
	key := p.Name(0, u.MAC)
	for n := max(1, from[key]); ; n++ {
		name := p.Name(n, u.MAC)
		if err := store.ValidateHostname(name); err != nil {
			return "", err
		}
		if _, err := i.db.MachineByName(ctx, name); store.IsNotFound(err) {
			from[key] = n
			return name, nil
		} else if err != nil {
			return "", err
		}
	}
}

func (i *Inventory) unknown(ctx context.Context, mac store.MAC) (store.UnknownMachine, error) {
	if m, err := i.db.MachineByMAC(ctx, mac); err == nil {
		return store.UnknownMachine{}, store.Conflict("mac", "the MAC %s is enrolled already, as machine %s", mac, m.Name)
	} else if !store.IsNotFound(err) {
		return store.UnknownMachine{}, err
	}
	u, err := i.db.UnknownMachine(ctx, mac)
	if store.IsNotFound(err) {
		e := store.NotFound("unknown machine", mac.String())
		e.Msg += "; it has not asked to boot yet, so add it by hand with its name"
		return store.UnknownMachine{}, e
	}
	return u, err
}

// freeUUID drops a UUID that identifies nobody: a placeholder, or one that a
// machine has already (boards of one batch may share theirs), other than the one
// that is replaced. Such a machine is known by its MAC.
func (i *Inventory) freeUUID(ctx context.Context, u store.UUID, replaced store.MachineID) (store.UUID, error) {
	if u.IsPlaceholder() {
		return store.UUID{}, nil
	}
	if m, err := i.db.MachineByUUID(ctx, u); err == nil && m.ID != replaced {
		return store.UUID{}, nil
	} else if err == nil {
		return u, nil
	} else if !store.IsNotFound(err) {
		return store.UUID{}, err
	}
	return u, nil
}

func (i *Inventory) swapBoard(ctx context.Context, by store.Actor, u store.UnknownMachine, name string, replace store.MachineID) (store.Machine, error) {
	old, err := i.db.Machine(ctx, replace)
	if err != nil {
		return store.Machine{}, err
	}
	if s, ok := i.session(old); ok {
		return store.Machine{}, store.InUse("machine %s is logged in from %s, so it still runs; is it the one whose board was swapped? A board that is gone is logged out within two minutes, or by 'lunboot session drop %s'", old.Name, s.Addr, s.ID)
	}
	m := old
	m.MACs, m.UUID, m.Serial = []store.MAC{u.MAC}, u.UUID, ""
	if name != "" {
		m.Name = name
	}
	m, err = i.updateMachine(ctx, by, old, m, 0, "has a new board")
	if err != nil {
		return store.Machine{}, err
	}
	// A machine without a reserved address keeps the one that it had.
	for _, gone := range old.MACs {
		if gone == u.MAC || m.Address.IsValid() {
			continue
		}
		if err := i.db.MoveLease(ctx, by, gone, u.MAC); err != nil && !store.IsNotFound(err) {
			i.log.Warn("a machine with a new board gets another address", "machine", m.Name, "mac", u.MAC, "err", err)
		}
	}
	return m, nil
}

// Ignore says that a MAC is not to be booted, or takes that back.
func (i *Inventory) Ignore(ctx context.Context, by store.Actor, mac store.MAC, ignored bool) error {
	if mac.IsZero() {
		return store.Invalid("mac", "a MAC address is needed")
	}
	return i.db.IgnoreUnknown(ctx, by, mac, ignored)
}

// maxLabel is the longest DNS label (RFC 1035 §2.3.4).
const maxLabel = 63

// suggestName names a machine by its own host name when it has one that says
// something, else by the first word of its maker, or of its network card's, and
// the last two bytes of its MAC, which are printed on its label.
func suggestName(u store.UnknownMachine) string {
	host, _, _ := strings.Cut(u.Hostname, ".")
	if name := label(host, maxLabel); name != "" && !nameless[name] {
		return name
	}
	end := u.MAC.Hex12()[8:]
	for _, maker := range []string{u.Vendor, oui.Of(u.MAC).Name} {
		first, _, _ := strings.Cut(strings.TrimSpace(maker), " ")
		if name := label(first, maxLabel-1-len(end)); name != "" && !nameless[name] {
			return name + "-" + end
		}
	}
	return "machine-" + end
}

// nameless are words that systems and boards carry when nobody named them.
var nameless = map[string]bool{
	"localhost": true, "none": true, "debian": true, "ubuntu": true, "minint": true, "pxe": true, "ipxe": true,
	"to": true, "default": true, "unknown": true, "system": true, "o-e-m": true, "not": true,
}

// label makes a DNS label of text, at most n bytes long; "" when nothing of it
// can be one.
func label(s string, n int) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	out := b.String()
	return strings.TrimRight(out[:min(len(out), n)], "-")
}

// freeName returns name, or the first of name-2, name-3 … that no machine has.
func (i *Inventory) freeName(ctx context.Context, name string, from numbers) (string, error) {
	for k := max(1, from[name]); ; k++ {
		try := name
		if k > 1 {
			end := fmt.Sprintf("-%d", k)
			try = strings.TrimRight(name[:min(len(name), maxLabel-len(end))], "-") + end
		}
		_, err := i.db.MachineByName(ctx, try)
		if store.IsNotFound(err) {
			from[name] = k
			return try, nil
		}
		if err != nil {
			return "", err
		}
	}
}
