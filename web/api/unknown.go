package api

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
	"lunboot/store/listing"
)

// UnknownMachine is an unknown machine as the API shows it.
type UnknownMachine struct {
	store.UnknownMachine
	Maker string `json:"maker,omitempty" doc:"who made its network card, by the MAC: Intel, QEMU virtual machine"`
}

// AutoEnroll is the list of rules, in their order.
type AutoEnroll struct {
	Rules store.AutoEnroll `json:"rules"`
}

// AutoEnrollView is the rules with their revision.
type AutoEnrollView struct {
	AutoEnroll
	Revision int64 `json:"revision"`
}

// CloneChoice says what a machine that is enrolled boots from.
type CloneChoice struct {
	CloneOf  string `json:"clone_of,omitempty" doc:"the golden volume that it gets a clone of, to boot from, or none; absent: that of the setting default-golden, else the only golden volume, and none where neither is there; default: the same, and refused where neither is there"`
	Reset    bool   `json:"reset_at_boot,omitempty" doc:"the clone begins anew at each boot; when clone_of is absent, as the setting fresh-clones says"`
	Volatile bool   `json:"volatile,omitempty" doc:"with reset_at_boot: nobody waits for the disk, which is faster; what its machine wrote is discarded after a crash of the appliance's machine"`
}

func (c CloneChoice) choice() store.CloneChoice {
	return store.CloneChoice{Of: c.CloneOf, Reset: c.Reset, Volatile: c.Volatile}
}

func (s *server) unknown(a huma.API) {
	register(a, http.MethodGet, "/unknown-machines", "list-unknown-machines", "List machines that asked to boot and are not enrolled", store.ScopeRead,
		func(ctx context.Context, in *struct {
			Ignored bool `query:"ignored" doc:"also those that are ignored"`
			ListQuery
		}) (*body[List[UnknownMachine]], error) {
			all, err := s.lists().Unknown(ctx, in.Ignored)
			if err != nil {
				return nil, problem(err)
			}
			page, total, err := listing.UnknownMachines().Find(all, in.query())
			out := make([]UnknownMachine, 0, len(page))
			for _, u := range page {
				out = append(out, UnknownMachine(u))
			}
			return listOf(out, total, err)
		})
	register(a, http.MethodPost, "/unknown-machines/{mac}/enroll", "enroll-machine", "Enroll an unknown machine", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			MAC  string `path:"mac"`
			Body struct {
				Name    string `json:"name,omitempty"`
				Replace string `json:"replace,omitempty" doc:"an enrolled machine whose hardware this is now"`
				CloneChoice
			}
		}) (*body[Machine], error) {
			mac, err := store.ParseMAC(in.MAC)
			if err != nil {
				return nil, problem(err)
			}
			if in.Body.Replace == "" {
				m, err := s.Acts.EnrollWithClone(ctx, actor(ctx), mac, in.Body.Name, in.Body.choice())
				return s.replyMachine(ctx, m, err)
			}
			if c := in.Body.choice(); c.Of != "" && c.Of != store.CloneOfNone || c.Reset || c.Volatile {
				return nil, problem(store.Invalid("clone_of", "a machine with a new board keeps its volumes; leave clone_of or replace out"))
			}
			old, err := s.Acts.FindMachine(ctx, in.Body.Replace)
			if err != nil {
				return nil, problem(named("replace", err))
			}
			m, err := s.Acts.Enroll(ctx, actor(ctx), mac, in.Body.Name, old.ID)
			return s.replyMachine(ctx, m, err)
		})
	register(a, http.MethodPut, "/unknown-machines/{mac}/ignored", "ignore-machine", "Ignore an unknown machine, or stop ignoring it", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			MAC  string `path:"mac"`
			Body struct {
				Ignored bool `json:"ignored"`
			}
		}) (*empty, error) {
			mac, err := store.ParseMAC(in.MAC)
			if err != nil {
				return nil, problem(err)
			}
			return done(s.Acts.Ignore(ctx, actor(ctx), mac, in.Body.Ignored))
		})
	register(a, http.MethodPost, "/unknown-machines/enroll", "enroll-all-machines", "Enroll every unknown machine that is not ignored, in the order in which they came", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			Body struct {
				Name    string   `json:"name,omitempty" doc:"pattern of the names, such as lab-{n}, rack-{nn} or pc-{mac}; empty: what each calls itself, else its maker"`
				Profile string   `json:"profile,omitempty"`
				MACs    []string `json:"macs,omitempty" doc:"only these; absent: all that wait"`
				CloneChoice
			}
		}) (*body[List[store.Enrolled]], error) {
			name, err := store.ParseNamePattern(in.Body.Name)
			if err != nil {
				return nil, problem(err)
			}
			spec := store.EnrollSpec{Name: name, Profile: in.Body.Profile, Clone: in.Body.choice()}
			for _, text := range in.Body.MACs {
				mac, err := store.ParseMAC(text)
				if err != nil {
					return nil, problem(err)
				}
				spec.MACs = append(spec.MACs, mac)
			}
			return all(s.Acts.EnrollAll(ctx, actor(ctx), spec))
		})
	register(a, http.MethodGet, "/auto-enroll", "show-auto-enroll", "The rules by which machines are enrolled by themselves", store.ScopeRead,
		func(ctx context.Context, _ *struct{}) (*body[AutoEnrollView], error) {
			revision, err := s.Store.SettingRevision(ctx, store.SettingAutoEnroll)
			if err != nil {
				return nil, problem(err)
			}
			rules, err := s.Acts.AutoEnroll(ctx)
			return reply(AutoEnrollView{AutoEnroll{notNil(rules)}, revision}, err)
		})
	register(a, http.MethodPut, "/auto-enroll", "set-auto-enroll", "Replace the rules by which machines are enrolled by themselves; without any, none is", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			Body AutoEnroll
		}) (*body[AutoEnrollView], error) {
			set, err := s.Acts.SetAutoEnroll(ctx, actor(ctx), in.Body.Rules)
			if err != nil {
				return nil, problem(err)
			}
			revision, err := s.Store.SettingRevision(ctx, store.SettingAutoEnroll)
			return reply(AutoEnrollView{AutoEnroll{notNil(set)}, revision}, err)
		})
}

func notNil(rules store.AutoEnroll) store.AutoEnroll {
	if rules == nil {
		return store.AutoEnroll{}
	}
	return rules
}

// dryRun adds what a machine would get now, enrolled or not.
func (s *server) dryRun(a huma.API) {
	register(a, http.MethodGet, "/machines/{machine}/explain", "explain-machine", "What a machine, or a MAC that is not enrolled, would get if it booted now, and what differs from its last attempt; nothing is changed", store.ScopeRead,
		func(ctx context.Context, in *struct {
			MachineKey
			MAC   string `query:"mac" doc:"which of its cards asks; empty: the first"`
			Arch  string `query:"arch" doc:"its firmware and architecture, such as bios, uefi-x64 or http-arm64, or a number of option 93; empty: as it was last seen"`
			Relay string `query:"relay" doc:"the relay agent that it asks through; empty: directly"`
		}) (*body[store.DryRun], error) {
			q := store.ExplainQuery{Arch: in.Arch}
			m, err := s.Acts.FindMachine(ctx, in.Machine)
			if mac, bad := store.ParseMAC(in.Machine); bad == nil && (err == nil || store.IsNotFound(err)) {
				q.MAC, err = mac, nil
			}
			if err == nil && in.MAC != "" {
				q.MAC, err = store.ParseMAC(in.MAC)
			}
			if err == nil && in.Relay != "" {
				if q.Relay, err = netip.ParseAddr(in.Relay); err != nil || !q.Relay.Is4() {
					err = store.Invalid("relay", "%q is not the IPv4 address of a relay", in.Relay)
				}
			}
			if err != nil {
				return nil, problem(err)
			}
			return reply(s.Explainer.Explain(ctx, m, q))
		})
}
