package api

import (
	"context"

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

// foundVolumes answers one page of the volumes.
func (s *server) foundVolumes(ctx context.Context, q ListQuery) (*body[List[VolumeLine]], error) {
	all, err := s.lists().Volumes(ctx)
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
