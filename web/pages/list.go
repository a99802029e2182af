package pages

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"lunboot/store"
	"lunboot/store/listing"
)

// listQuery is the list of machines as its URL names it.
type listQuery struct {
	Show   condition
	Search string
	Sort   string // a column, with "-" before it when it falls
	From   int
}

func readListQuery(q url.Values) listQuery {
	l := listQuery{Show: condition(q.Get("show")), Search: strings.TrimSpace(q.Get("search")), Sort: q.Get("sort")}
	if !l.Show.known() {
		l.Show = ""
	}
	if columns := listing.MachineColumns(); !slices.Contains(columns, strings.TrimPrefix(l.Sort, "-")) {
		l.Sort = columns[0]
	}
	if n, err := strconv.Atoi(q.Get("from")); err == nil && n > 0 {
		l.From = n
	}
	return l
}

// URL is the list's own.
func (l listQuery) URL() string { return l.path("/machines") }

func (l listQuery) path(base string) string {
	q := url.Values{}
	if l.Show != "" {
		q.Set("show", string(l.Show))
	}
	if l.Search != "" {
		q.Set("search", l.Search)
	}
	if l.Sort != listing.MachineColumns()[0] {
		q.Set("sort", l.Sort)
	}
	if l.From > 0 {
		q.Set("from", strconv.Itoa(l.From))
	}
	if len(q) == 0 {
		return base
	}
	return base + "?" + q.Encode()
}

// Export is where the same machines come as a table file that can be imported again.
func (l listQuery) Export() string { l.From = 0; return l.path("/machines/export") }

// JSON is where they come as objects.
func (l listQuery) JSON() string {
	l.From = 0
	path := l.path("/export/machines")
	if strings.Contains(path, "?") {
		return path + "&format=json"
	}
	return path + "?format=json"
}

// Labels is where the same machines come as labels to print.
func (l listQuery) Labels() string { l.From = 0; return l.path("/machines/labels") }

// With is the list with another condition, from its beginning.
func (l listQuery) With(show condition) string { l.Show, l.From = show, 0; return l.URL() }

// By is the list sorted by a column; a second time the other way.
func (l listQuery) By(column string) string {
	if l.Sort == column {
		column = "-" + column
	}
	l.Sort, l.From = column, 0
	return l.URL()
}

// Order says how a column is sorted, for those who do not see the arrow.
func (l listQuery) Order(column string) string {
	switch l.Sort {
	case column:
		return "ascending"
	case "-" + column:
		return "descending"
	}
	return "none"
}

// source is where the machines of a list come from.
func (s *site) source() listing.MachineSource {
	return listing.MachineSource{Machines: s.Inventory.Machines, Latest: s.Attempts.Latest}
}

// find returns the machines of a search, in the list's order, how many of them
// are in each condition, and how many there are.
func (s *site) find(ctx context.Context, l listQuery) (out []*listing.Machine, counts map[condition]int, total int, err error) {
	search, err := store.ParseMachineSearch(l.Search)
	if err != nil {
		return nil, nil, 0, err
	}
	all, err := s.source().Find(ctx, search)
	if err != nil {
		return nil, nil, 0, err
	}
	counts = map[condition]int{}
	for _, m := range all {
		counts[condition(m.State)]++
		if l.Show == "" || l.Show == condition(m.State) {
			out = append(out, m)
		}
	}
	return out, counts, len(all), listing.SortMachines(out, l.Sort)
}

func (s *site) listMachines(ctx context.Context, l listQuery) (machinesView, error) {
	v := machinesView{List: l, Filter: l.Show, Search: l.Search}
	asked, err := s.Inventory.UnknownMachines(ctx, true)
	if err != nil {
		return v, err
	}
	for _, u := range asked {
		if u.Ignored {
			v.Ignored++
		} else {
			v.Unknown = append(v.Unknown, u)
		}
	}
	all, counts, total, err := s.find(ctx, l)
	if err != nil {
		return v, err
	}
	v.Counts, v.Total, v.Match, v.Digest = counts, total, len(all), digest(all)
	if l.From >= len(all) { // machines were removed meanwhile
		l.From = max(0, (len(all)-1)/maxRows*maxRows)
		v.List.From = l.From
	}
	names, err := s.volumeNames(ctx)
	if err != nil {
		return v, err
	}
	for _, f := range all[l.From:min(len(all), l.From+maxRows)] {
		v.Rows = append(v.Rows, s.row(f, names))
	}
	v.First, v.Last = l.From+1, l.From+len(v.Rows)
	at := func(from int) string { l.From = from; return l.URL() }
	if v.First > 1 {
		v.Before = at(max(0, v.First-1-maxRows))
	}
	if v.Last < v.Match {
		v.After = at(v.Last)
	}
	v.Self = v.List.URL()
	if v.Goldens, _, err = s.goldens(ctx); err != nil {
		return v, err
	}
	v.Fresh = s.fresh(ctx)
	if v.Profiles, err = s.Inventory.Profiles(ctx); err != nil {
		return v, err
	}
	return v, nil
}
