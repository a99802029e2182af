package api

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
	"lunboot/store/listing"
)

// SubnetKey is the path parameter of one subnet.
type SubnetKey struct {
	Subnet int64 `path:"subnet" doc:"id"`
}

// SubnetLine is a subnet of the list.
type SubnetLine struct {
	store.Subnet
	Given int `json:"given" doc:"addresses of it that are leased now"`
}

// subnetInput is what POST and PATCH take; absent members keep their value.
type subnetInput struct {
	Revision   *int64    `json:"revision,omitempty" doc:"refuse the change when the subnet has another revision"`
	Interface  *string   `json:"interface,omitempty" doc:"the interface that it is on; empty for a subnet behind a relay"`
	Prefix     *string   `json:"prefix,omitempty" doc:"its network, such as 192.168.40.0/24; may be left out with an interface"`
	Mode       *string   `json:"mode,omitempty" doc:"off, full or proxy; full for a new subnet"`
	Range      *string   `json:"range,omitempty" doc:"addresses to give, such as 192.168.40.100-192.168.40.199; empty for none"`
	Router     *string   `json:"router,omitempty" doc:"empty for none"`
	DNS        *[]string `json:"dns,omitempty"`
	Domain     *string   `json:"domain,omitempty"`
	Search     *[]string `json:"search,omitempty" doc:"domains to look names up in"`
	NTP        *[]string `json:"ntp,omitempty" doc:"time servers"`
	LeaseTime  *int64    `json:"lease_time,omitempty" doc:"nanoseconds"`
	NextServer *string   `json:"next_server,omitempty" doc:"the address of the appliance that machines there are told to boot from; empty for the one by which they reach it"`
}

// apply changes s as the input says.
func (in subnetInput) apply(s *store.Subnet) error {
	var errs []error
	if in.Revision != nil {
		s.Revision = *in.Revision
	}
	if in.Interface != nil {
		s.Interface = *in.Interface
	}
	if in.Mode != nil {
		s.Mode = store.DHCPMode(*in.Mode)
	}
	if in.Domain != nil {
		s.Domain = *in.Domain
	}
	if in.Search != nil {
		s.Search = *in.Search
	}
	if in.LeaseTime != nil {
		s.LeaseTime = time.Duration(*in.LeaseTime)
	}
	if in.Prefix != nil {
		p, err := netip.ParsePrefix(*in.Prefix)
		if err != nil {
			errs = append(errs, store.Invalid("prefix", "%q is not a network, such as 192.168.40.0/24", *in.Prefix))
		}
		s.Prefix = p
	}
	if in.Range != nil {
		errs = append(errs, s.Range.UnmarshalText([]byte(*in.Range)))
	}
	errs = append(errs, address("router", in.Router, &s.Router), address("next_server", in.NextServer, &s.NextServer),
		addresses("dns", in.DNS, &s.DNS), addresses("ntp", in.NTP, &s.NTP))
	return errors.Join(errs...)
}

func address(field string, text *string, a *netip.Addr) error {
	if text == nil {
		return nil
	}
	*a = netip.Addr{}
	if *text == "" {
		return nil
	}
	v, err := netip.ParseAddr(*text)
	if err != nil {
		return store.Invalid(field, "%q is not an address", *text)
	}
	*a = v
	return nil
}

func addresses(field string, texts *[]string, all *[]netip.Addr) error {
	if texts == nil {
		return nil
	}
	*all = nil
	for _, t := range *texts {
		var a netip.Addr
		if err := address(field, &t, &a); err != nil {
			return err
		}
		*all = append(*all, a)
	}
	return nil
}

func (s *server) subnet(ctx context.Context, id int64) (store.Subnet, error) {
	all, err := s.Store.Subnets(ctx)
	if err != nil {
		return store.Subnet{}, err
	}
	for _, n := range all {
		if n.ID == id {
			return n, nil
		}
	}
	return store.Subnet{}, store.NotFound("subnet with number", strconv.FormatInt(id, 10))
}

func (s *server) subnets(a huma.API) {
	register(a, http.MethodGet, "/subnets", "list-subnets", "List subnets, with how many addresses of each are leased now", store.ScopeRead,
		func(ctx context.Context, in *ListQuery) (*body[List[SubnetLine]], error) {
			items, err := s.lists().Subnets(ctx)
			if err != nil {
				return nil, problem(err)
			}
			page, total, err := listing.Subnets().Find(items, in.query())
			out := make([]SubnetLine, 0, len(page))
			for _, n := range page {
				out = append(out, SubnetLine{n.Subnet, n.Given})
			}
			return listOf(out, total, err)
		})
	register(a, http.MethodPost, "/subnets", "add-subnet", "Add a subnet: on an interface, or behind a relay", store.ScopeAdmin,
		func(ctx context.Context, in *body[subnetInput]) (*body[store.Subnet], error) {
			n := store.Subnet{Mode: store.DHCPFull}
			if err := in.Body.apply(&n); err != nil {
				return nil, problem(err)
			}
			n.Revision = 0
			return reply(s.Acts.PutSubnet(ctx, actor(ctx), n))
		})
	register(a, http.MethodGet, "/subnets/{subnet}", "show-subnet", "Show a subnet", store.ScopeRead,
		func(ctx context.Context, in *SubnetKey) (*body[store.Subnet], error) {
			return reply(s.subnet(ctx, in.Subnet))
		})
	register(a, http.MethodPatch, "/subnets/{subnet}", "set-subnet", "Change a subnet", store.ScopeAdmin,
		func(ctx context.Context, in *struct {
			SubnetKey
			Body subnetInput
		}) (*body[store.Subnet], error) {
			n, err := s.subnet(ctx, in.Subnet)
			if err != nil {
				return nil, problem(err)
			}
			if err := in.Body.apply(&n); err != nil {
				return nil, problem(err)
			}
			return reply(s.Acts.PutSubnet(ctx, actor(ctx), n))
		})
	register(a, http.MethodDelete, "/subnets/{subnet}", "remove-subnet", "Remove a subnet; its leases stay until they end", store.ScopeAdmin,
		func(ctx context.Context, in *SubnetKey) (*empty, error) {
			return done(s.Acts.DeleteSubnet(ctx, actor(ctx), in.Subnet))
		})
}
