package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

// Power switches machines on.
type Power interface {
	// Wake sends the packet that wakes a machine, and returns the networks that it
	// went to.
	Wake(ctx context.Context, by store.Actor, m store.Machine) ([]string, error)
}

// Woken says where a machine was woken.
type Woken struct {
	Machine  string   `json:"machine"`
	Networks []string `json:"networks" doc:"interfaces, or networks behind a router"`
}

func (s *server) power(a huma.API) {
	wake := operation(a, http.MethodPost, "/machines/{machine}/wake", "wake-machine", "Wake a machine by Wake-on-LAN; whether it woke shows when it asks to boot", store.ScopeOperate)
	wake.DefaultStatus = http.StatusOK
	huma.Register(a, wake, func(ctx context.Context, in *MachineKey) (*body[Woken], error) {
		m, err := s.Acts.FindMachine(ctx, in.Machine)
		if err != nil {
			return nil, problem(err)
		}
		on, err := s.Power.Wake(ctx, actor(ctx), m)
		return reply(Woken{Machine: m.Name, Networks: on}, err)
	})
}
