package api

import (
	"context"
	"net/http"
	"net/netip"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
	"lunboot/store/listing"
)

// leaseDrop is which leases are to be dropped.
type leaseDrop struct {
	Addresses *[]string `json:"addresses,omitempty" doc:"the leases of these addresses"`
	Search    *string   `json:"search,omitempty" doc:"all leases that this finds, as in their list: state:expired; empty: all that there are. Not with addresses"`
	InUse     bool      `json:"in_use,omitempty" doc:"those too that are in use: their machines go on using the addresses until they ask again, and others may be given them meanwhile"`
	DryRun    bool      `json:"dry_run,omitempty" doc:"only say what would become of each"`
	Match     string    `json:"match,omitempty" doc:"what a dry run answered: when other leases are meant by now, or these changed, nothing is dropped"`
}

// LeaseDrops is what became of leases that were to be dropped.
type LeaseDrops struct {
	Match   string               `json:"match" doc:"stands for the leases that were meant, as they were"`
	Done    bool                 `json:"done" doc:"it was no dry run"`
	Dropped int                  `json:"dropped"`
	Items   []store.LeaseDropped `json:"items"`
}

// meant are the leases that a request names.
func (in leaseDrop) meant(all []listing.Lease) ([]listing.Lease, error) {
	switch {
	case (in.Addresses == nil) == (in.Search == nil), in.Addresses != nil && len(*in.Addresses) == 0:
		return nil, store.Invalid("addresses", "name the leases that are to be dropped by addresses, or by a search")
	case in.Search != nil:
		found, _, err := listing.Leases().Find(all, listing.Query{Search: *in.Search})
		return found, err
	}
	var out []listing.Lease
	for _, text := range *in.Addresses {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, store.Invalid("addresses", "%q is not an address", text)
		}
		is := func(l listing.Lease) bool { return l.Address == addr.Unmap() }
		i := slices.IndexFunc(all, is)
		if i < 0 {
			return nil, store.NotFound("lease of", text)
		}
		if !slices.ContainsFunc(out, is) {
			out = append(out, all[i])
		}
	}
	return out, nil
}

// dropLeases drops many, when they are those that a dry run spoke of.
func (s *server) dropLeases(ctx context.Context, in leaseDrop) (LeaseDrops, error) {
	out := LeaseDrops{Done: !in.DryRun, Items: []store.LeaseDropped{}}
	all, err := s.lists().Leases(ctx)
	if err != nil {
		return out, err
	}
	meant, err := in.meant(all)
	if err != nil {
		return out, err
	}
	if out.Match = listing.LeaseDigest(meant); in.Match != "" && in.Match != out.Match {
		return out, store.Conflict("match", "nothing was dropped: the leases that are meant are not those of the dry run, or they changed; make another one")
	}
	if len(meant) == 0 { // a search that finds none
		return out, nil
	}
	spec := store.LeaseDropSpec{InUse: in.InUse, DryRun: in.DryRun}
	for _, l := range meant {
		spec.Leases = append(spec.Leases, l.Lease)
	}
	done, err := s.Acts.DropLeases(ctx, actor(ctx), spec)
	out.Items = append(out.Items, done...)
	for _, d := range done {
		if d.Dropped {
			out.Dropped++
		}
	}
	return out, err
}

func (s *server) leases(a huma.API) {
	register(a, http.MethodGet, "/leases", "list-leases", "List leases", store.ScopeRead,
		func(ctx context.Context, in *ListQuery) (*body[List[listing.Lease]], error) {
			items, err := s.lists().Leases(ctx)
			return found(listing.Leases(), *in, items, err)
		})
	register(a, http.MethodDelete, "/leases/{address}", "drop-lease", "Forget a lease; not one of a machine whose volume is open from the address", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			Address string `path:"address"`
		}) (*empty, error) {
			addr, err := netip.ParseAddr(in.Address)
			if err != nil {
				return nil, problem(store.Invalid("address", "%q is not an address", in.Address))
			}
			return done(s.Acts.DropLease(ctx, actor(ctx), addr))
		})
	op := operation(a, http.MethodPost, "/leases/drop", "drop-leases", "Forget many leases, or say what would become of each; those of machines whose volumes are open from the addresses stay", store.ScopeOperate)
	op.DefaultStatus = http.StatusOK
	huma.Register(a, op, func(ctx context.Context, in *body[leaseDrop]) (*body[LeaseDrops], error) {
		return reply(s.dropLeases(ctx, in.Body))
	})
}
