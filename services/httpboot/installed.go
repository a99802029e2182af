package httpboot

import (
	"cmp"
	"context"
	"fmt"

	"lunboot/services/boot"
	"lunboot/services/boot/attempt"
	"lunboot/store"
)

// keepBaseline notes what a machine's boot volume holds before the installer that was
// chosen for one boot, so that a later look can tell what that has done. Without it
// the machine boots all the same, and only the installer itself, or who drives it, can
// say that it is done.
func (s *Server) keepBaseline(ctx context.Context, m store.Machine, given store.AttemptID) {
	err := func() error {
		v, ok, err := s.bootVolume(ctx, m)
		if err != nil || !ok || s.cfg.Volumes == nil {
			return err
		}
		before, err := s.cfg.Inventory.Baseline(ctx, m.ID)
		if err == nil && before.Volume == v.ID && (given == 0 || before.Attempt <= given) || err != nil && !store.IsNotFound(err) {
			return err
		}
		found, err := s.look(ctx, v)
		if err != nil {
			return err
		}
		return s.cfg.Inventory.PutBaseline(ctx, m.ID, m.OnceProfile, store.Baseline{Volume: v.ID, Attempt: given, BIOS: found.BIOS.Chain, UEFI: found.UEFI.Chain})
	}()
	if err != nil {
		s.cfg.Log.Warn("what a volume holds before an installer was not noted: the profile for one boot stays until the installer, or an operator, says that it is done",
			"machine", m.Name, "profile", m.OnceProfile, "error", err)
	}
}

// afterInstall takes an installer that was chosen for one boot back when the machine's
// boot volume shows that it has done its work, and returns the machine as it is then,
// with words for that: the boot that is asked for now is that of what was installed.
// Somebody who looks, or a dry run, is answered the same, and changes nothing. When
// the installer ran and what it did cannot be seen, that is an error: it is not to be
// started over its own work.
func (s *Server) afterInstall(ctx context.Context, a ask, m store.Machine) (now store.Machine, seen string, err error) {
	if m.OnceProfile == "" || a.choice != "" || s.cfg.Volumes == nil {
		return m, "", nil
	}
	asked := s.cfg.Now()
	v, ok, err := s.installed(ctx, a, m)
	if err != nil || !ok {
		return m, "", err
	}
	seen = fmt.Sprintf("the installer of profile %s, chosen for one boot, has done its work: volume %s holds another boot loader than before it", m.OnceProfile, v.Name)
	now = m
	now.OnceProfile = ""
	if a.dry || !a.ipxe {
		return now, seen, nil
	}
	used, err := s.cfg.Inventory.ConsumeOnce(ctx, m.ID, m.OnceProfile, asked)
	switch {
	case err != nil:
		return m, "", unseen(m, err)
	case !used: // by another request of the machine, or somebody chose anew
		now, err = s.cfg.Inventory.Machine(ctx, m.ID)
		return now, "", err
	}
	s.emit(s.machineEvent(store.EventInstallSeen, a, m, store.Detail{Profile: m.OnceProfile, Volume: v.Name, Reason: seen}))
	return now, seen, nil
}

// unseen is what a machine is told while the appliance does not know whether it would
// be installed over what it was just installed with.
func unseen(m store.Machine, err error) error {
	return &store.Error{Kind: store.KindUnavailable, Err: err, Msg: fmt.Sprintf("Whether the installer of profile %s, chosen for one boot, has done its work cannot be seen, and it is not started over that. "+
		"Where that stays so, say on the machine’s page that the installation is done, or take the profile back and choose it anew.", m.OnceProfile)}
}

// installed reports whether an installer has made the machine's boot volume start: it
// was run, and what this firmware runs of the same volume is something, and is not
// what it was before. A volume that is only partitioned starts nothing.
func (s *Server) installed(ctx context.Context, a ask, m store.Machine) (v store.Volume, ok bool, err error) {
	before, err := s.cfg.Inventory.Baseline(ctx, m.ID)
	if store.IsNotFound(err) {
		return v, false, nil
	}
	if err != nil {
		return v, false, err
	}
	v, ok, err = s.bootVolume(ctx, m)
	if err != nil || !ok || v.ID != before.Volume {
		return v, false, err
	}
	if ok, err = s.ranInstaller(ctx, m, before.Attempt); err != nil || !ok {
		return v, false, err
	}
	if !a.trusted {
		if ok, _ = s.allowed(ctx, m, a.addr, a.reached); !ok {
			return v, false, nil // a name is soon said
		}
	}
	found, err := s.look(ctx, v)
	if err != nil {
		return v, false, unseen(m, err)
	}
	switch cmp.Or(firmware(a.id.Platform), m.Firmware) {
	case boot.BIOS.String():
		return v, found.BIOS.OK && found.BIOS.Chain != before.BIOS, nil
	case boot.UEFI.String():
		return v, found.UEFI.OK && found.UEFI.Chain != before.UEFI, nil
	}
	return v, false, nil
}

// ranInstaller reports whether a boot of the machine, from this one on, started the
// installer that was chosen for one boot, or one that the chosen menu offers. A boot
// that somebody else began in its name is none of the machine's: its volume changes
// meanwhile, as its own system goes on.
func (s *Server) ranInstaller(ctx context.Context, m store.Machine, from store.AttemptID) (bool, error) {
	once, err := s.cfg.Inventory.Profile(ctx, m.OnceProfile)
	if err != nil {
		return false, err
	}
	all, _, err := s.cfg.Attempts.Attempts(ctx, store.AttemptFilter{Machine: m.ID, Page: store.Page{Limit: maxNewer}})
	if err != nil {
		return false, err
	}
	for _, a := range all {
		given := attempt.ProfileOf(a)
		if a.ID < from || !a.Owned || given == "" || !once.Gives(given) || !attempt.StartedInstaller(a) {
			continue
		}
		p, err := s.cfg.Inventory.Profile(ctx, given)
		if err != nil && !store.IsNotFound(err) {
			return false, err
		}
		if err == nil && p.Kind.Installs() {
			return true, nil
		}
	}
	return false, nil
}

// bootVolume returns the volume that a machine boots from, when there is one and it
// is ready.
func (s *Server) bootVolume(ctx context.Context, m store.Machine) (v store.Volume, ok bool, err error) {
	maps, err := s.cfg.Inventory.MappingsOf(ctx, m.ID)
	if err != nil {
		return v, false, err
	}
	for _, mp := range maps {
		if mp.Boot {
			v, err = s.cfg.Inventory.Volume(ctx, mp.Volume)
			return v, err == nil && v.State == store.VolumeReady, err
		}
	}
	return v, false, nil
}
