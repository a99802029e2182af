package inventory

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"lunboot/store"
)

// Checker looks whether causes outside the appliance are gone: ports that are
// blocked, networks with two servers.
type Checker func(ctx context.Context) store.FixResult

// Fix does what a button of a diagnosis says. The diagnosis is one of the
// attempt's: nothing else can be asked for by this way.
func (i *Inventory) Fix(ctx context.Context, by store.Actor, a store.Attempt, action string) (store.FixResult, error) {
	f, err := store.ParseFix(action)
	if err != nil {
		return store.FixResult{}, err
	}
	if !slices.ContainsFunc(a.Diagnoses, func(d store.Diagnosis) bool { return d.Offers(f) }) {
		return store.FixResult{}, store.Conflict("action", "the boot of %s is not explained by anything that %q mends; look at it again", a.Subject(), action)
	}
	switch f.Kind {
	case store.FixEnroll:
		m, err := i.Enroll(ctx, by, a.MAC, "", 0)
		if store.IsNotFound(err) {
			m, err = i.enrollAgain(ctx, by, a)
		}
		return done(err, "%s is enrolled as %s", a.MAC, m.Name)
	case store.FixUnignore:
		return done(i.Ignore(ctx, by, a.MAC, false), "%s is not ignored any more", a.MAC)
	case store.FixExtendRange:
		return i.extendRange(ctx, by, f.Argument)
	case store.FixProxyMode:
		return i.proxyMode(ctx, by, f.Argument)
	case store.FixTrustSubnet:
		return i.trustSubnet(ctx, by, f.Argument)
	case store.FixCheckAgain:
		if i.check == nil {
			return store.FixResult{}, store.Invalid("action", "nothing can be checked here")
		}
		return i.check(ctx), nil
	}
	if a.Machine == 0 {
		return store.FixResult{}, store.Conflict("action", "%s is not enrolled; enroll it first", a.MAC)
	}
	m, err := i.db.Machine(ctx, a.Machine)
	if err != nil {
		return store.FixResult{}, err
	}
	switch f.Kind {
	case store.FixOwnCopy:
		return i.ownCopy(ctx, by, m, f.Argument)
	case store.FixMapLUN, store.FixBootLUN, store.FixMapVolume, store.FixGrowVolume, store.FixAllowWrites:
		return i.fixMapping(ctx, by, m, f)
	}
	return i.fixMachine(ctx, by, m, f)
}

// enrollAgain enrolls the machine of a boot that has not asked anew since it was
// removed, under the name that it had if nobody has that by now.
func (i *Inventory) enrollAgain(ctx context.Context, by store.Actor, a store.Attempt) (store.Machine, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	u := store.UnknownMachine{MAC: a.MAC, Firmware: a.Firmware, Arch: a.Arch}
	name := a.Name
	if name == "" {
		name = suggestName(u)
	}
	name, err := i.freeName(ctx, name, numbers{})
	if err != nil {
		return store.Machine{}, err
	}
	return i.enrollOne(ctx, by, u, store.EnrollSpec{}, name, numbers{})
}

func done(err error, format string, args ...any) (store.FixResult, error) {
	if err != nil {
		return store.FixResult{}, err
	}
	return store.FixResult{OK: true, Says: fmt.Sprintf(format, args...)}, nil
}

// fixMachine changes the machine itself.
func (i *Inventory) fixMachine(ctx context.Context, by store.Actor, m store.Machine, f store.FixAction) (store.FixResult, error) {
	switch f.Kind {
	case store.FixProfileSAN:
		name := store.DefaultProfile
		_, err := i.SetMachine(ctx, by, m.ID, store.MachinePatch{Profile: &name})
		return done(err, "%s boots by the profile %s", m.Name, name)
	case store.FixClearOnce:
		none := ""
		_, err := i.SetMachine(ctx, by, m.ID, store.MachinePatch{OnceProfile: &none})
		return done(err, "%s boots by the profile %s", m.Name, m.Profile)
	case store.FixMutual:
		mode := store.AuthMutual
		_, err := i.SetMachine(ctx, by, m.ID, store.MachinePatch{Auth: &mode})
		return done(err, "%s and the appliance prove themselves to each other", m.Name)
	case store.FixLoader, store.FixLoaderAuto:
		_, err := i.SetMachine(ctx, by, m.ID, store.MachinePatch{Loader: &f.Argument})
		if f.Argument == "" {
			return done(err, "the loader of %s is chosen for it", m.Name)
		}
		return done(err, "%s is given %s at its next boot", m.Name, f.Argument)
	case store.FixQuirk:
		q, err := store.ParseQuirk(f.Argument)
		if err != nil {
			return store.FixResult{}, err
		}
		quirks := slices.Clone(m.Quirks)
		if !slices.Contains(quirks, q) {
			quirks = append(quirks, q)
		}
		_, err = i.SetMachine(ctx, by, m.ID, store.MachinePatch{Quirks: &quirks})
		return done(err, "%s %s", m.Name, q.Does())
	case store.FixSecret:
		return i.renewSecret(ctx, by, m.ID)
	case store.FixAddCard:
		mac, err := store.ParseMAC(f.Argument)
		if err != nil {
			return store.FixResult{}, err
		}
		macs := append(slices.Clone(m.MACs), mac)
		_, err = i.SetMachine(ctx, by, m.ID, store.MachinePatch{MACs: &macs})
		return done(err, "%s is a network card of %s", mac, m.Name)
	case store.FixOtherAddress:
		return i.otherAddress(ctx, by, m, f.Argument)
	}
	return store.FixResult{}, store.Invalid("action", "there is no button for %q", f)
}

// renewSecret makes new CHAP secrets of the machine's mode. They are not given
// by hand, so nothing is pinned.
func (i *Inventory) renewSecret(ctx context.Context, by store.Actor, id store.MachineID) (store.FixResult, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	old, err := i.db.Machine(ctx, id)
	if err != nil {
		return store.FixResult{}, err
	}
	if old.Pinned {
		return store.FixResult{}, store.Conflict("chap", "the secrets of %s were given by hand and are kept; change them with: lunboot machine set %s --chap-secret … --reverse-secret …", old.Name, old.Name)
	}
	if l, ok := i.session(old); ok && !l.IPXE {
		return store.FixResult{}, store.InUse("the operating system of %s is logged in with the secrets that it has; shut it down first", old.Name)
	}
	m := old
	m.CHAP.Secret, m.Reverse.Secret = "", ""
	if err := credentials(&m, false, false); err != nil {
		return store.FixResult{}, err
	}
	m, err = i.updateMachine(ctx, by, old, m, 0, "changed")
	return done(err, "the next script of %s carries new secrets", m.Name)
}

// otherAddress reserves the first address that nobody has, of the network of the
// one that was found taken.
func (i *Inventory) otherAddress(ctx context.Context, by store.Actor, m store.Machine, taken string) (store.FixResult, error) {
	not, err := netip.ParseAddr(taken)
	if err != nil {
		return store.FixResult{}, store.Invalid("action", "%q is no address", taken)
	}
	subnets, err := i.db.Subnets(ctx)
	if err != nil {
		return store.FixResult{}, err
	}
	for _, s := range subnets {
		if s.Mode != store.DHCPFull || !s.Range.From.IsValid() || !s.Prefix.Contains(not) {
			continue
		}
		for a := s.Range.From; s.Range.Contains(a); a = a.Next() {
			if a == not || a == m.Address {
				continue
			}
			if _, err := i.db.LeaseByAddress(ctx, a); !store.IsNotFound(err) {
				if err != nil {
					return store.FixResult{}, err
				}
				continue
			}
			_, err := i.SetMachine(ctx, by, m.ID, store.MachinePatch{Address: &a})
			if k := store.KindOf(err); k == store.KindConflict || k == store.KindInvalid {
				continue // ours, the router's, or reserved for another
			}
			return done(err, "%s has the reserved address %s", m.Name, a)
		}
	}
	return store.FixResult{}, store.Conflict("address", "no address of the range is free for %s; extend the range", m.Name)
}

// fixMapping changes what the machine boots from.
func (i *Inventory) fixMapping(ctx context.Context, by store.Actor, m store.Machine, f store.FixAction) (store.FixResult, error) {
	maps, err := i.db.MappingsOf(ctx, m.ID)
	if err != nil {
		return store.FixResult{}, err
	}
	at := slices.IndexFunc(maps, func(x store.Mapping) bool { return x.Boot })
	if at < 0 && len(maps) == 1 {
		at = 0
	}
	yes := true
	switch f.Kind {
	case store.FixMapVolume:
		v, err := i.FindVolume(ctx, f.Argument)
		if err != nil {
			return store.FixResult{}, err
		}
		x, err := i.Map(ctx, by, store.MappingSpec{Machine: m.ID, Volume: v.ID, Boot: &yes})
		return done(err, "%s boots from %s, which is LUN %d", m.Name, v.Name, x.LUN)
	case store.FixBootLUN:
		lun, err := store.ParseLUN(f.Argument)
		if err != nil {
			return store.FixResult{}, err
		}
		_, err = i.SetMapping(ctx, by, m.ID, lun, store.MappingPatch{Boot: &yes})
		return done(err, "%s boots from LUN %d", m.Name, lun)
	}
	if f.Kind == store.FixAllowWrites {
		lun, err := store.ParseLUN(f.Argument)
		if err != nil {
			return store.FixResult{}, err
		}
		no := false
		_, err = i.SetMapping(ctx, by, m.ID, lun, store.MappingPatch{ReadOnly: &no})
		return done(err, "%s may write to LUN %d", m.Name, lun)
	}
	if at < 0 {
		return store.FixResult{}, store.NotFound("boot volume of machine", m.Name)
	}
	if f.Kind == store.FixMapLUN {
		lun, err := store.ParseLUN(f.Argument)
		if err != nil {
			return store.FixResult{}, err
		}
		_, err = i.SetMapping(ctx, by, m.ID, maps[at].LUN, store.MappingPatch{LUN: &lun})
		return done(err, "the boot volume of %s is LUN %d", m.Name, lun)
	}
	v, err := i.db.Volume(ctx, maps[at].Volume)
	if err != nil {
		return store.FixResult{}, err
	}
	v, err = i.ResizeVolume(ctx, by, v.ID, grown)
	return done(err, "%s has %s", v.Name, store.Bytes(v.Size))
}

// grown is the size of a volume that was too small to boot from.
const grown = 1 << 20

// extendRange makes the range on an interface twice as large, upwards first,
// within its network.
func (i *Inventory) extendRange(ctx context.Context, by store.Actor, on string) (store.FixResult, error) {
	s, err := i.subnetOn(ctx, on)
	if err != nil {
		return store.FixResult{}, err
	}
	if s.Mode != store.DHCPFull {
		return store.FixResult{}, store.Conflict("mode", "no addresses are given on %s", on)
	}
	more := 0
	for a := s.Range.From; s.Range.Contains(a); a = a.Next() {
		more++
	}
	room := func(a netip.Addr) bool {
		return s.Prefix.Contains(a) && a != s.Prefix.Masked().Addr() && s.Prefix.Contains(a.Next())
	}
	taken := append(i.own(), s.Router)
	before := s.Range
	for up := true; more > 0; {
		a := s.Range.To.Next()
		if !up {
			a = s.Range.From.Prev()
		}
		switch {
		case room(a) && !slices.Contains(taken, a):
			if more--; up {
				s.Range.To = a
			} else {
				s.Range.From = a
			}
		case up:
			up = false
		default:
			more = 0
		}
	}
	if s.Range == before {
		return store.FixResult{}, store.Conflict("range", "the range %s has no room to grow in %s", before, s.Prefix)
	}
	s, err = i.serve(ctx, by, s)
	return done(err, "addresses are given from %s", s.Range)
}

// proxyMode leaves the addresses on an interface to the other server.
func (i *Inventory) proxyMode(ctx context.Context, by store.Actor, on string) (store.FixResult, error) {
	s, err := i.subnetOn(ctx, on)
	if err != nil {
		return store.FixResult{}, err
	}
	if s.Mode == store.DHCPOff {
		return store.FixResult{}, store.Conflict("mode", "nobody chose that this appliance takes part in DHCP on %s", on)
	}
	s.Mode = store.DHCPProxy
	_, err = i.serve(ctx, by, s)
	return done(err, "the other server gives the addresses on %s, and this appliance says what to boot", on)
}

func (i *Inventory) subnetOn(ctx context.Context, name string) (store.Subnet, error) {
	all, err := i.db.Subnets(ctx)
	if err != nil {
		return store.Subnet{}, err
	}
	at := slices.IndexFunc(all, func(s store.Subnet) bool { return s.Interface == name })
	if at < 0 {
		return store.Subnet{}, store.NotFound("subnet on interface", name)
	}
	return all[at], nil
}
