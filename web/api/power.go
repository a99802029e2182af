package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

// Power switches machines on and off.
type Power interface {
	// PowerState asks a machine's BMC whether the machine is on.
	PowerState(context.Context, store.Machine) (store.PowerReport, error)
	// Power gives an order to a machine's BMC.
	Power(ctx context.Context, by store.Actor, m store.Machine, o store.PowerOrder) (store.PowerReport, error)
	// Wake sends the packet that wakes a machine, and returns the networks that it
	// went to.
	Wake(ctx context.Context, by store.Actor, m store.Machine) ([]string, error)
}

// Woken says where a machine was woken.
type Woken struct {
	Machine  string   `json:"machine"`
	Networks []string `json:"networks" doc:"interfaces, or networks behind a router"`
}

// powerInput is an order.
type powerInput struct {
	Act     string `json:"act" enum:"on,off,shutdown,cycle,reset" doc:"off, cycle and reset cut a running system off from what it has not written yet; shutdown asks it to end"`
	Once    string `json:"once,omitempty" enum:"pxe," doc:"pxe: the boot that follows, and no other, is one from the network"`
	Profile string `json:"profile,omitempty" doc:"profile of that boot only; needs once"`
	Force   bool   `json:"force,omitempty" doc:"also when the machine runs from a volume of this appliance now"`
}

func (in powerInput) order() (store.PowerOrder, error) {
	act, err := store.ParsePowerAct(in.Act)
	if err != nil {
		return store.PowerOrder{}, err
	}
	boots := act != store.PowerOff && act != store.PowerShutdown
	switch {
	case in.Once != "" && !boots:
		return store.PowerOrder{}, store.Invalid("once", "no boot follows when a machine is switched off; choose on, cycle or reset")
	case in.Profile != "" && in.Once == "":
		return store.PowerOrder{}, store.Invalid("profile", "a profile for one boot is of use when that boot is one from the network: once has to be pxe")
	}
	return store.PowerOrder{Act: act, Network: in.Once == "pxe", Profile: in.Profile, Force: in.Force}, nil
}

func (s *server) power(a huma.API) {
	register(a, http.MethodGet, "/machines/{machine}/power", "show-power", "Ask a machine's BMC whether the machine is on", store.ScopeRead,
		func(ctx context.Context, in *MachineKey) (*body[store.PowerReport], error) {
			m, err := s.Acts.FindMachine(ctx, in.Machine)
			if err != nil {
				return nil, problem(err)
			}
			return reply(s.Power.PowerState(ctx, m))
		})
	order := operation(a, http.MethodPost, "/machines/{machine}/power", "set-power", "Switch a machine on or off by its BMC, and choose where its next boot is from", store.ScopeOperate)
	order.DefaultStatus = http.StatusOK
	huma.Register(a, order, func(ctx context.Context, in *struct {
		MachineKey
		Body powerInput
	}) (*body[store.PowerReport], error) {
		m, err := s.Acts.FindMachine(ctx, in.Machine)
		if err != nil {
			return nil, problem(err)
		}
		o, err := in.Body.order()
		if err != nil {
			return nil, problem(err)
		}
		return reply(s.Power.Power(ctx, actor(ctx), m, o))
	})
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
