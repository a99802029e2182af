package pages

import (
	"context"
	"net/http"

	"lunboot/store"
)

// Power switches machines on.
type Power interface {
	// Wake sends the packet that wakes a machine, and returns the networks that it
	// went to.
	Wake(ctx context.Context, by store.Actor, m store.Machine) ([]string, error)
}

func (s *site) wake(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, func(m store.Machine) error {
		_, err := s.Power.Wake(r.Context(), by(r), m)
		return err
	})
}
