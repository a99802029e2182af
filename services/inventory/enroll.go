package inventory

import (
	"context"
	"fmt"
	"strings"

	"lunboot/store"
)

// Enroll makes a machine of an unknown one. Without a name it is called what it
// calls itself, else by its maker and the end of its MAC. With replace it takes
// the place of that machine, whose board was swapped: name, volumes, profile,
// address and credentials stay, MAC and UUID are the new board's.
func (i *Inventory) Enroll(ctx context.Context, by store.Actor, mac store.MAC, name string, replace store.MachineID) (store.Machine, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	u, err := i.unknown(ctx, mac)
	if err != nil {
		return store.Machine{}, err
	}
	if u.UUID, err = i.freeUUID(ctx, u.UUID); err != nil {
		return store.Machine{}, err
	}
	if replace != 0 {
		return i.swapBoard(ctx, by, u, name, replace)
	}
	if name == "" {
		if name, err = i.freeName(ctx, suggestName(u)); err != nil {
			return store.Machine{}, err
		}
	}
	return i.addMachine(ctx, by, store.MachineSpec{Name: name, MACs: []store.MAC{mac}, UUID: u.UUID}, "enrolled")
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
// machine has already (boards of one batch may share theirs). Such a machine is
// known by its MAC.
func (i *Inventory) freeUUID(ctx context.Context, u store.UUID) (store.UUID, error) {
	if u.IsPlaceholder() {
		return store.UUID{}, nil
	}
	if _, err := i.db.MachineByUUID(ctx, u); err == nil {
		return store.UUID{}, nil
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
		return store.Machine{}, store.InUse("machine %s is logged in from %s, so it still runs; is it the one whose board was swapped?", old.Name, s.Addr)
	}
	m := old
	m.MACs, m.UUID, m.Serial = []store.MAC{u.MAC}, u.UUID, ""
	if name != "" {
		m.Name = name
	}
	return i.updateMachine(ctx, by, old, m, 0, "has a new board")
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
// something, else by the first word of its maker and the last two bytes of its
// MAC, which are printed on its label.
func suggestName(u store.UnknownMachine) string {
	host, _, _ := strings.Cut(u.Hostname, ".")
	if name := label(host, maxLabel); name != "" && !nameless[name] {
		return name
	}
	end := u.MAC.Hex12()[8:]
	vendor, _, _ := strings.Cut(strings.TrimSpace(u.Vendor), " ")
	if name := label(vendor, maxLabel-1-len(end)); name != "" && !nameless[name] {
		return name + "-" + end
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
func (i *Inventory) freeName(ctx context.Context, name string) (string, error) {
	for k, try := 2, name; ; k++ {
		_, err := i.db.MachineByName(ctx, try)
		if store.IsNotFound(err) {
			return try, nil
		}
		if err != nil {
			return "", err
		}
		end := fmt.Sprintf("-%d", k)
		try = strings.TrimRight(name[:min(len(name), maxLabel-len(end))], "-") + end
	}
}
