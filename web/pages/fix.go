package pages

import (
	"net/http"
	"strings"

	"lunboot/store"
)

// Fixes that a button does; every other fix of a diagnosis is advice, and is
// shown as text.
const (
	fixProfileSAN = "use-profile-san" // boot by the profile whose script always names the LUN
	fixMapLUN     = "map-lun-"        // followed by the LUN that the boot volume shall have
	fixNewSecret  = "renew-secret"    // new CHAP secrets; the next script carries them
)

func doable(action string) bool {
	return action == fixProfileSAN || action == fixNewSecret || strings.HasPrefix(action, fixMapLUN)
}

// fix does what the button of a diagnosis says.
func (s *site) fix(w http.ResponseWriter, r *http.Request) {
	ctx, action := r.Context(), r.PostFormValue("action")
	s.change(w, r, func(m store.Machine) error {
		switch {
		case action == fixProfileSAN:
			name := store.DefaultProfile
			_, err := s.Machines.SetMachine(ctx, by(r), m.ID, store.MachinePatch{Profile: &name})
			return err
		case action == fixNewSecret:
			forward, reverse := m.CHAP, m.Reverse
			forward.Secret, reverse.Secret = store.NewSecret(), store.NewSecret()
			patch := store.MachinePatch{}
			if m.Auth != store.AuthNone {
				patch.CHAP = &forward
			}
			if m.Auth == store.AuthMutual {
				patch.Reverse = &reverse
			}
			_, err := s.Machines.SetMachine(ctx, by(r), m.ID, patch)
			return err
		case strings.HasPrefix(action, fixMapLUN):
			lun, err := store.ParseLUN(strings.TrimPrefix(action, fixMapLUN))
			if err != nil {
				return err
			}
			maps, err := s.Inventory.Mappings(ctx)
			if err != nil {
				return err
			}
			for _, mp := range maps {
				if mp.Machine == m.ID && mp.Boot {
					_, err := s.Volumes.SetMapping(ctx, by(r), m.ID, mp.LUN, store.MappingPatch{LUN: &lun})
					return err
				}
			}
			return store.NotFound("boot volume of machine", m.Name)
		}
		return store.Invalid("action", "there is no button for %q", action)
	})
}
