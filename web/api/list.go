package api

import (
	"context"
	"time"

	"lunboot/store"
	"lunboot/store/listing"
)

// ListQuery is which items of a list, in which order.
type ListQuery struct {
	Search string `query:"search" doc:"words and qualifiers, such as state:ready, all of which must fit; quotation marks keep words together"`
	Sort   string `query:"sort" doc:"a column; with a hyphen before it the other way"`
	Limit  int    `query:"limit" minimum:"0" maximum:"5000" doc:"0: all"`
	Offset int    `query:"offset" minimum:"0"`
}

func (q ListQuery) query() listing.Query {
	return listing.Query{Search: q.Search, Sort: q.Sort, Page: store.Page{Limit: q.Limit, Offset: q.Offset}}
}

// found answers one page of a list.
func found[T any](l listing.List[T], q ListQuery, items []T, err error) (*body[List[T]], error) {
	if err != nil {
		return nil, problem(err)
	}
	return listOf(l.Find(items, q.query()))
}

// allVolumes are all volumes, with who has them and what they take.
func (s *server) allVolumes(ctx context.Context) ([]listing.Volume, error) {
	vols, err := s.Store.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	maps, err := s.Store.Mappings(ctx)
	if err != nil {
		return nil, err
	}
	names, err := s.machineNames(ctx)
	if err != nil {
		return nil, err
	}
	takes, err := s.Volumes.Takes(ctx)
	return listing.VolumesOf(vols, maps, takes, func(id store.MachineID) string { return names[id] }), err
}

// machineNames are the names of all machines.
func (s *server) machineNames(ctx context.Context) (map[store.MachineID]string, error) {
	ms, _, err := s.Store.Machines(ctx, store.MachineFilter{})
	names := make(map[store.MachineID]string, len(ms))
	for _, m := range ms {
		names[m.ID] = m.Name
	}
	return names, err
}

// foundVolumes answers one page of the volumes.
func (s *server) foundVolumes(ctx context.Context, q ListQuery) (*body[List[VolumeLine]], error) {
	all, err := s.allVolumes(ctx)
	if err != nil {
		return nil, problem(err)
	}
	page, total, err := listing.Volumes().Find(all, q.query())
	out := make([]VolumeLine, 0, len(page))
	for _, v := range page {
		out = append(out, VolumeLine{v.Volume, v.Takes})
	}
	return listOf(out, total, err)
}

// leases are all leases, with the machines that have them.
func (s *server) leases(ctx context.Context) ([]listing.Lease, error) {
	leases, err := s.Store.Leases(ctx)
	if err != nil {
		return nil, err
	}
	ms, _, err := s.Store.Machines(ctx, store.MachineFilter{})
	return listing.LeasesOf(leases, ms, time.Now()), err
}

// liveSessions are all sessions, with the names of their machines.
func (s *server) liveSessions(ctx context.Context) ([]listing.Session, error) {
	names, err := s.machineNames(ctx)
	return listing.SessionsOf(s.Sessions.Sessions(), func(id store.MachineID) string { return names[id] }), err
}
