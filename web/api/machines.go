package api

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/web/auth"
)

// Machine is a machine as the API shows it, with what it is mapped to. Secrets
// are there only for ?secrets=true with the scope admin.
type Machine struct {
	store.Machine
	Mappings []Mapping `json:"mappings"`
}

// MachineKey is the path parameter of one machine.
type MachineKey struct {
	Machine string `path:"machine" doc:"name, MAC, UUID or id; a name of digits wins over an id"`
}

// machineInput is what POST and PATCH take; absent members keep their value.
type machineInput struct {
	Revision    *int64    `json:"revision,omitempty" doc:"refuse the change when the machine has another revision"`
	Name        *string   `json:"name,omitempty"`
	MACs        *[]string `json:"macs,omitempty"`
	UUID        *string   `json:"uuid,omitempty"`
	Serial      *string   `json:"serial,omitempty"`
	AssetTag    *string   `json:"asset_tag,omitempty"`
	Initiator   *string   `json:"initiator,omitempty"`
	Auth        *string   `json:"auth,omitempty" doc:"none, chap or mutual"`
	CHAPUser    *string   `json:"chap_user,omitempty"`
	CHAPSecret  *string   `json:"chap_secret,omitempty"`
	RevUser     *string   `json:"reverse_user,omitempty"`
	RevSecret   *string   `json:"reverse_secret,omitempty"`
	Address     *string   `json:"address,omitempty" doc:"reserved IPv4 address; empty for none"`
	Profile     *string   `json:"profile,omitempty"`
	OnceProfile *string   `json:"once_profile,omitempty" doc:"profile of the next boot only; empty: none, which also says that an installation is done whose end neither its installer reports nor its volume shows"`
	Loader      *string   `json:"loader,omitempty" doc:"its own loader or chain; auto or empty: the appliance chooses"`
	Tags        *[]string `json:"tags,omitempty"`
	Notes       *string   `json:"notes,omitempty"`
	Quirks      *[]string `json:"quirks,omitempty" doc:"what its firmware needs: no-proxy-offer, no-option-43, option-43; an empty list for nothing"`
	BMC         *string   `json:"bmc,omitempty" doc:"what switches it on and off: redfish://user@host or ipmi://user@host; none or empty for nothing"`
	BMCSecret   *string   `json:"bmc_secret,omitempty" doc:"the password of the BMC's user; it is never shown"`
	BMCTrust    *string   `json:"bmc_trust,omitempty" doc:"how a Redfish BMC proves itself: verify, pinned (the default) or none"`
	BMCPrint    *string   `json:"bmc_fingerprint,omitempty" doc:"SHA-256 of the certificate that is pinned"`
}

// MachineQuery is which machines, in which order.
type MachineQuery struct {
	Search string `query:"search" doc:"words and the qualifiers tag:, profile:, mac: and state: (failed, booting, lost, slow, up, never), all of which must fit; a word is part of a name, MAC, UUID, address, tag or initiator"`
	Tag    string `query:"tag" doc:"as the qualifier tag:"`
	Sort   string `query:"sort" doc:"name (default), attention, profile, address or seen; with a hyphen before it the other way"`
}

// findMachines returns one page of the machines that a query finds, and how many
// it finds in all.
func (s *server) findMachines(ctx context.Context, q MachineQuery, page store.Page) ([]*listing.Machine, int, error) {
	search, err := store.ParseMachineSearch(q.Search)
	if err != nil {
		return nil, 0, err
	}
	if q.Tag != "" {
		search.Tag = q.Tag
	}
	by := cmp.Or(q.Sort, "name")
	total := 0
	source := listing.MachineSource{Latest: s.Attempts.Latest, Machines: func(ctx context.Context, f store.MachineFilter) (ms []store.Machine, n int, err error) {
		ms, total, err = s.Store.Machines(ctx, f)
		return ms, total, err
	}}
	// The usual order is that of the rows: one page of them is enough.
	rows := by == "name" && search.State == ""
	if rows {
		search.Page = page
	}
	found, err := source.Find(ctx, search)
	if err != nil || rows {
		return found, total, err
	}
	if err := listing.SortMachines(found, by); err != nil {
		return nil, 0, err
	}
	return listing.Cut(found, page), len(found), nil
}

func (s *server) machines(a huma.API) {
	s.sheets(a)
	register(a, http.MethodGet, "/machines", "list-machines", "List machines", store.ScopeRead,
		func(ctx context.Context, in *struct {
			MachineQuery
			Limit  int `query:"limit" minimum:"0" maximum:"1000" default:"100"`
			Offset int `query:"offset" minimum:"0"`
		}) (*body[List[Machine]], error) {
			ms, total, err := s.findMachines(ctx, in.MachineQuery, store.Page{Limit: in.Limit, Offset: in.Offset})
			if err != nil {
				return nil, problem(err)
			}
			maps, err := s.Store.MappingViews(ctx, 0)
			if err != nil {
				return nil, problem(err)
			}
			of := make(map[store.MachineID][]Mapping, len(ms))
			for _, mp := range maps {
				of[mp.Machine] = append(of[mp.Machine], mp)
			}
			out := make([]Machine, 0, len(ms))
			for _, m := range ms {
				out = append(out, machineView(m.Machine, of[m.ID], false))
			}
			return listOf(out, total, nil)
		})
	register(a, http.MethodPost, "/machines", "add-machine", "Add a machine", store.ScopeOperate,
		func(ctx context.Context, in *body[machineInput]) (*body[Machine], error) {
			spec, err := in.Body.spec()
			if err != nil {
				return nil, problem(err)
			}
			m, err := s.Acts.AddMachine(ctx, actor(ctx), spec)
			return s.replyMachine(ctx, m, err)
		})
	register(a, http.MethodGet, "/machines/{machine}", "show-machine", "Show a machine", store.ScopeRead,
		func(ctx context.Context, in *struct {
			MachineKey
			Secrets bool `query:"secrets" doc:"show the CHAP secrets; needs the scope admin"`
		}) (*body[Machine], error) {
			m, err := s.Acts.FindMachine(ctx, in.Machine)
			if err != nil {
				return nil, problem(err)
			}
			if in.Secrets && !auth.From(ctx).May(store.ScopeAdmin) {
				return nil, huma.Error403Forbidden("CHAP secrets need the scope admin")
			}
			v, err := s.machineView(ctx, m, in.Secrets)
			return reply(v, err)
		})
	register(a, http.MethodPatch, "/machines/{machine}", "set-machine", "Change a machine", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			MachineKey
			Body machineInput
		}) (*body[Machine], error) {
			m, err := s.Acts.FindMachine(ctx, in.Machine)
			if err != nil {
				return nil, problem(err)
			}
			patch, err := in.Body.patch(m)
			if err != nil {
				return nil, problem(err)
			}
			m, err = s.Acts.SetMachine(ctx, actor(ctx), m.ID, patch)
			return s.replyMachine(ctx, m, err)
		})
	register(a, http.MethodDelete, "/machines/{machine}", "remove-machine", "Remove a machine and its mappings", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			MachineKey
			Force bool `query:"force" doc:"also when it has a live session"`
		}) (*empty, error) {
			m, err := s.Acts.FindMachine(ctx, in.Machine)
			if err != nil {
				return nil, problem(err)
			}
			return done(s.Acts.RemoveMachine(ctx, actor(ctx), m.ID, in.Force))
		})
	register(a, http.MethodGet, "/machines/{machine}/script", "preview-script", "The script that the machine would be given now", store.ScopeRead,
		func(ctx context.Context, in *struct {
			MachineKey
			Profile string `query:"profile" doc:"as if the machine had this profile"`
		}) (*body[Script], error) {
			m, err := s.Acts.FindMachine(ctx, in.Machine)
			if err != nil {
				return nil, problem(err)
			}
			var p *store.Profile
			if in.Profile != "" {
				v, err := s.Store.Profile(ctx, in.Profile)
				if err != nil {
					return nil, problem(named("profile", err))
				}
				p = &v
			}
			text, err := s.Scripts.Preview(ctx, m, p)
			return reply(Script{Text: text}, err)
		})
}

// Script is a script's text, its secrets replaced.
type Script struct {
	Text string `json:"text"`
}

func (s *server) machineView(ctx context.Context, m store.Machine, secrets bool) (Machine, error) {
	maps, err := s.Store.MappingViews(ctx, m.ID)
	return machineView(m, maps, secrets), err
}

func machineView(m store.Machine, maps []Mapping, secrets bool) Machine {
	if !secrets {
		m.CHAP.Secret, m.Reverse.Secret = "", ""
	}
	if maps == nil {
		maps = []Mapping{}
	}
	return Machine{Machine: m, Mappings: maps}
}

func (s *server) replyMachine(ctx context.Context, m store.Machine, err error) (*body[Machine], error) {
	if err != nil {
		return nil, problem(err)
	}
	v, err := s.machineView(ctx, m, false)
	return reply(v, err)
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// parsed reads the members that are more than text.
type parsed struct {
	macs    *[]store.MAC
	uuid    *store.UUID
	iqn     *store.IQN
	auth    *store.AuthMode
	address *netip.Addr
	quirks  *[]store.Quirk
}

func (in *machineInput) parse() (p parsed, err error) {
	if in.MACs != nil {
		macs := []store.MAC{}
		for _, t := range *in.MACs {
			m, err := store.ParseMAC(t)
			if err != nil {
				return p, err
			}
			macs = append(macs, m)
		}
		p.macs = &macs
	}
	if in.UUID != nil {
		var u store.UUID
		if err := u.UnmarshalText([]byte(*in.UUID)); err != nil {
			return p, err
		}
		p.uuid = &u
	}
	if in.Initiator != nil && *in.Initiator != "" {
		q, err := store.ParseIQN(*in.Initiator)
		if err != nil {
			return p, err
		}
		p.iqn = &q
	}
	if in.Auth != nil && *in.Auth != "" {
		m, err := store.ParseAuthMode(*in.Auth)
		if err != nil {
			return p, err
		}
		p.auth = &m
	}
	if in.Address != nil {
		var addr netip.Addr
		if *in.Address != "" {
			if addr, err = netip.ParseAddr(*in.Address); err != nil {
				return p, store.Invalid("address", "%q is not an IPv4 address", *in.Address)
			}
		}
		p.address = &addr
	}
	if in.Quirks != nil {
		quirks := []store.Quirk{}
		for _, t := range *in.Quirks {
			q, err := store.ParseQuirk(t)
			if err != nil {
				return p, err
			}
			quirks = append(quirks, q)
		}
		p.quirks = &quirks
	}
	return p, nil
}

func (in *machineInput) spec() (store.MachineSpec, error) {
	p, err := in.parse()
	if err != nil {
		return store.MachineSpec{}, err
	}
	bmc, err := in.bmc(store.BMC{})
	if err != nil {
		return store.MachineSpec{}, err
	}
	return store.MachineSpec{
		Name: deref(in.Name), MACs: deref(p.macs), UUID: deref(p.uuid), Serial: deref(in.Serial), AssetTag: deref(in.AssetTag),
		Initiator: deref(p.iqn), Auth: deref(p.auth),
		CHAP:    store.Credential{User: deref(in.CHAPUser), Secret: deref(in.CHAPSecret)},
		Reverse: store.Credential{User: deref(in.RevUser), Secret: deref(in.RevSecret)},
		Address: deref(p.address), Profile: deref(in.Profile), Loader: deref(in.Loader), Tags: deref(in.Tags), Notes: deref(in.Notes), Quirks: deref(p.quirks), BMC: deref(bmc),
	}, nil
}

func (in *machineInput) patch(m store.Machine) (store.MachinePatch, error) {
	p, err := in.parse()
	if err != nil {
		return store.MachinePatch{}, err
	}
	out := store.MachinePatch{
		Revision: deref(in.Revision), Name: in.Name, MACs: p.macs, UUID: p.uuid, Serial: in.Serial, AssetTag: in.AssetTag,
		Initiator: p.iqn, Auth: p.auth, Address: p.address, Profile: in.Profile, OnceProfile: in.OnceProfile, Loader: in.Loader, Tags: in.Tags, Notes: in.Notes, Quirks: p.quirks,
	}
	if out.BMC, err = in.bmc(m.BMC); err != nil {
		return store.MachinePatch{}, err
	}
	out.CHAP = mergeCredential(m.CHAP, in.CHAPUser, in.CHAPSecret)
	out.Reverse = mergeCredential(m.Reverse, in.RevUser, in.RevSecret)
	return out, nil
}

// bmc lays what is given over the present BMC; nil when nothing is.
func (in *machineInput) bmc(now store.BMC) (*store.BMC, error) {
	if in.BMC == nil && in.BMCSecret == nil && in.BMCTrust == nil && in.BMCPrint == nil {
		return nil, nil
	}
	b := now
	if in.BMC != nil {
		var err error
		if b, err = store.ParseBMC(*in.BMC); err != nil {
			return nil, err
		}
	}
	if b.IsZero() && in.BMC == nil {
		return nil, store.Invalid("bmc", "the machine has no BMC yet; say how it is reached: redfish://user@host or ipmi://user@host")
	}
	if in.BMCSecret != nil {
		b.Secret = *in.BMCSecret
	}
	if in.BMCTrust != nil {
		b.Trust = store.BMCTrust(*in.BMCTrust)
		if b.Trust != store.BMCPinned {
			b.Fingerprint = ""
		}
	}
	if in.BMCPrint != nil {
		var err error
		if b.Fingerprint, err = store.ParseFingerprint(*in.BMCPrint); err != nil {
			return nil, err
		}
	}
	return &b, nil
}

// mergeCredential lays a given name or secret over the present pair.
func mergeCredential(now store.Credential, user, secret *string) *store.Credential {
	if user == nil && secret == nil {
		return nil
	}
	if user != nil {
		now.User = *user
	}
	if secret != nil {
		now.Secret = *secret
	}
	return &now
}
