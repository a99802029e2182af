package httpboot

import (
	"context"
	"strings"
	"sync"

	"lunboot/scripts"
	"lunboot/services/boot"
	"lunboot/store"
)

// match is what an identity came to. Machine is zero when nobody is enrolled
// under it, and Claims is set when it names more than one machine.
type match struct {
	Machine store.Machine
	By      string // "hostname", "uuid", "mac", "serial", "asset"
	Claims  []scripts.Claim
}

// match finds the machine that an identity names: by hostname, UUID and MAC,
// which must agree, else by serial number and asset tag. Only
// store.KindNotFound is "nobody"; every other error is returned, so that an
// inventory that cannot be read never makes a machine unknown.
func (s *Server) match(ctx context.Context, id boot.Identity) (match, error) {
	var found match
	var claims []scripts.Claim
	differ := false
	try := func(by, field, value string, m store.Machine, err error) error {
		if store.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		claims = append(claims, scripts.Claim{Field: field, Value: value, Machine: m.Name})
		if found.By == "" {
			found.Machine, found.By = m, by
		} else if found.Machine.ID != m.ID {
			differ = true
		}
		return nil
	}
	inv := s.cfg.Inventory
	// Option 12 may hold a full domain name; a machine's name is one label.
	if host, _, _ := strings.Cut(id.Hostname, "."); host != "" {
		m, err := inv.MachineByName(ctx, host)
		if err := try("hostname", "hostname", host, m, err); err != nil {
			return match{}, err
		}
	}
	if s.uuids.identifies(id.UUID) {
		m, err := inv.MachineByUUID(ctx, id.UUID)
		if err := try("uuid", "UUID", id.UUID.String(), m, err); err != nil {
			return match{}, err
		}
	}
	if !id.MAC.IsZero() {
		m, err := inv.MachineByMAC(ctx, id.MAC)
		if err := try("mac", "MAC address", id.MAC.String(), m, err); err != nil {
			return match{}, err
		}
	}
	if differ {
		return match{Claims: claims}, nil
	}
	if found.By == "" && isSerial(id.Serial) {
		m, err := inv.MachineBySerial(ctx, id.Serial)
		if err := try("serial", "serial number", id.Serial, m, err); err != nil {
			return match{}, err
		}
	}
	if found.By == "" && isSerial(id.Asset) {
		m, err := inv.MachineByAssetTag(ctx, id.Asset)
		if err := try("asset", "asset tag", id.Asset, m, err); err != nil {
			return match{}, err
		}
	}
	return found, nil
}

// placeholders are what makers leave in SMBIOS when they set nothing (DSP0134
// strings; lower case).
var placeholders = map[string]bool{
	"": true, "0": true, "none": true, "n/a": true, "na": true, "unknown": true, "default": true, "default string": true,
	"not specified": true, "not available": true, "not applicable": true, "not settable": true, "system serial number": true,
	"chassis serial number": true, "to be filled by o.e.m.": true, "to be filled by oem": true, "o.e.m.": true, "oem": true,
	"invalid": true, "123456789": true, "1234567890": true, "empty": true, "no asset tag": true, "no asset information": true,
	"asset-1234567890": true, "default_string": true, "serial": true,
}

func isSerial(s string) bool {
	t := strings.ToLower(strings.TrimSpace(s))
	return !placeholders[t] && strings.Trim(t, "0 .-_xf") != ""
}

// learn notes that a UUID was said together with a MAC.
func (s *Server) learn(ctx context.Context, id boot.Identity) error {
	if id.MAC.IsZero() || id.UUID.IsPlaceholder() {
		return nil
	}
	m, err := s.cfg.Inventory.MachineByMAC(ctx, id.MAC)
	if err != nil && !store.IsNotFound(err) {
		return err
	}
	s.uuids.see(id.UUID, holder{machine: m.ID, mac: id.MAC})
	return nil
}

// maxUUIDs bounds the UUIDs that are remembered.
const maxUUIDs = 4096

// holder is who said a UUID: an enrolled machine, whichever of its MACs it
// used, or a MAC that nobody enrolled.
type holder struct {
	machine store.MachineID
	mac     store.MAC
}

func (h holder) same(o holder) bool {
	return h.mac == o.mac || h.machine != 0 && h.machine == o.machine
}

// uuidMemory remembers who said which UUID, since boards exist that all carry
// the same one. A UUID that two machines said identifies neither.
type uuidMemory struct {
	mu     sync.Mutex
	first  map[store.UUID]holder
	shared map[store.UUID]bool
	order  []store.UUID // oldest first
}

func newUUIDMemory() *uuidMemory {
	return &uuidMemory{first: map[store.UUID]holder{}, shared: map[store.UUID]bool{}}
}

func (u *uuidMemory) see(id store.UUID, by holder) {
	u.mu.Lock()
	defer u.mu.Unlock()
	was, known := u.first[id]
	switch {
	case !known:
		if len(u.order) >= maxUUIDs {
			oldest := u.order[0]
			u.order = u.order[1:]
			delete(u.first, oldest)
			delete(u.shared, oldest)
		}
		u.order = append(u.order, id)
		u.first[id] = by
	case was.same(by):
		u.first[id] = by // the MAC may have been enrolled or removed since
	default:
		u.shared[id] = true
	}
}

// identifies reports whether a UUID can name a machine.
func (u *uuidMemory) identifies(id store.UUID) bool {
	if id.IsPlaceholder() {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.shared[id]
}
