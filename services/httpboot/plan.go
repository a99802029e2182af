package httpboot

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"lunboot/scripts"
	"lunboot/services/boot"
	"lunboot/store"
)

// plan is everything that a machine's script is made from.
type plan struct {
	profile store.Profile
	facts   scripts.Facts
}

// blockedError says why a machine cannot boot now; it is told to the machine.
type blockedError struct {
	why   string
	cause store.Cause // empty when it is for want of a disk
}

func (e *blockedError) Error() string { return e.why }

// plan gathers a machine's profile and facts. profile overrides the machine's
// own when it is not empty.
func (s *Server) plan(ctx context.Context, m store.Machine, profile string, a ask) (plan, error) {
	name := m.Profile
	if profile != "" {
		name = profile
	}
	kept, err := s.cfg.Inventory.Profile(ctx, name)
	if store.IsNotFound(err) {
		p := s.facts(m, a)
		p.profile.Name = name
		return p, &blockedError{fmt.Sprintf("its profile %q does not exist. Choose another.", name), store.CauseNoProfile}
	}
	if err != nil {
		return s.facts(m, a), err
	}
	return s.planBy(ctx, m, kept, a)
}

// facts is a plan with what is known without a look at anything else.
func (s *Server) facts(m store.Machine, a ask) plan {
	return plan{facts: scripts.Facts{
		Machine: m.Name, MAC: s.macOf(a, m), UUID: m.UUID, Serial: m.Serial, Asset: m.AssetTag,
		Initiator: m.Initiator, Auth: m.Auth, CHAP: m.CHAP, Reverse: m.Reverse,
		Target: s.cfg.Target, Portal: netip.AddrPortFrom(a.boot.Addr(), s.cfg.ISCSIPort()), Boot: a.boot,
		Admin: s.cfg.AdminURL(a.boot.Addr()), Platform: a.id.Platform, Address: a.addr,
	}}
}

// planBy is plan by a profile that need not be kept.
func (s *Server) planBy(ctx context.Context, m store.Machine, by store.Profile, a ask) (plan, error) {
	p := s.facts(m, a)
	p.profile = by
	name := by.Name
	var err error
	if k := p.profile.Kind; k.Installs() || k == store.ProfileKernel {
		if p.facts.Media, err = s.cfg.Inventory.AllMedia(ctx); err != nil {
			return p, err
		}
	}
	reason, err := s.disks(ctx, m, &p.facts)
	if err != nil {
		return p, err
	}
	_, err = scripts.Render(p.profile, p.facts)
	switch {
	case errors.Is(err, scripts.ErrNoDisk):
		return p, &blockedError{why: reason}
	case store.KindOf(err) == store.KindInvalid:
		var e *store.Error
		errors.As(err, &e)
		return p, &blockedError{fmt.Sprintf("its profile %q is wrong: %s.", name, e.Msg), store.CauseProfile}
	case err != nil:
		return p, err
	}
	return p, nil
}

// disks fills in the machine's mappings. reason says why there is no disk to
// boot from, when there is none.
func (s *Server) disks(ctx context.Context, m store.Machine, f *scripts.Facts) (reason string, err error) {
	maps, err := s.cfg.Inventory.MappingsOf(ctx, m.ID)
	if err != nil {
		return "", err
	}
	reason = "no volume is mapped to it."
	if len(maps) > 0 {
		reason = "none of its volumes is marked as the one to boot from."
	}
	for _, mp := range maps {
		v, err := s.cfg.Inventory.Volume(ctx, mp.Volume)
		if err != nil {
			return "", err
		}
		d := scripts.Disk{LUN: mp.LUN, Volume: v.Name}
		switch {
		case !mp.Boot:
			f.Others = append(f.Others, d)
		case v.State == store.VolumeReady:
			f.Disk = &d
		case v.State == store.VolumeFailed:
			reason = fmt.Sprintf("its volume %s failed: %s", v.Name, v.Reason)
		case v.State == store.VolumeImporting:
			reason = fmt.Sprintf("its volume %s is being imported, %d %% so far.", v.Name, v.Progress)
		default:
			reason = fmt.Sprintf("its volume %s is not ready yet (%s).", v.Name, v.State)
		}
	}
	return reason, nil
}

// Preview makes the script that a machine would be given now at the boot
// address at, with its secrets replaced. It mints and changes nothing. profile
// overrides the machine's own when it is not empty.
func (s *Server) Preview(ctx context.Context, m store.Machine, profile string, at netip.AddrPort) (string, error) {
	a := ask{boot: s.advertised(at), dry: true, trusted: true, addr: m.Address}
	if profile == "" {
		var err error
		if m, _, err = s.afterInstall(ctx, a, m); err != nil {
			return "", err
		}
		profile = m.OnceProfile
	}
	p, err := s.plan(ctx, m, profile, a)
	return s.preview(a, m, p, err)
}

// Draft is Preview by a profile that is being written. An error names the field,
// and the line, that is at fault.
func (s *Server) Draft(ctx context.Context, m store.Machine, by store.Profile, at netip.AddrPort) (string, error) {
	a := ask{boot: s.advertised(at), dry: true, addr: m.Address}
	p, err := s.planBy(ctx, m, by, a)
	var blocked *blockedError
	if errors.As(err, &blocked) && blocked.cause == store.CauseProfile {
		_, err = scripts.Render(p.profile, p.facts)
	}
	return s.preview(a, m, p, err)
}

func (s *Server) preview(a ask, m store.Machine, p plan, err error) (string, error) {
	var blocked *blockedError
	switch {
	case errors.As(err, &blocked):
		return scripts.NoDisk(a.boot, m.Name, blocked.why, scripts.Help{Admin: p.facts.Admin}), nil
	case err != nil:
		return "", err
	}
	text, err := scripts.Render(p.profile, p.facts)
	if err != nil {
		return "", err
	}
	return scripts.Redact(text, p.facts), nil
}

// explained says by what a script is made, for dry runs.
func (p plan) explained(by string) store.ScriptExplanation {
	is := store.ScriptExplanation{MatchedBy: by, Profile: p.profile.Name, Portal: p.facts.Portal, Guarded: scripts.NeedsSecret(p.profile, p.facts)}
	if p.facts.Disk != nil && bootsVolume(p.profile.Kind) {
		is.SAN = boot.SANURI(p.facts.Portal, p.facts.Disk.LUN, p.facts.Target)
	}
	return is
}

// Explain answers as if a machine with this identity asked now from addr at the
// boot address at. It mints, learns and says nothing. The address counts as the
// machine's own: it would have its lease by then.
func (s *Server) Explain(ctx context.Context, id boot.Identity, at netip.AddrPort, addr netip.Addr) store.ScriptExplanation {
	at = s.advertised(at)
	return s.answer(ctx, ask{id: id, addr: addr, boot: at, reached: at.Addr(), dry: true, trusted: true, ipxe: true}, false).is
}
