package pages

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"lunboot/store"
	"lunboot/store/listing"
)

// tableQuery is a list as its URL names it, and what was found.
type tableQuery struct {
	Path   string
	Search string
	Sort   string
	From   int

	Total       int // that were found
	First, Last int // of them on this page
	Hint        string
}

// listed finds one page of a list for a request. A search that is none finds
// everything, and problem says why.
func listed[T any](l listing.List[T], path, hint string, r *http.Request, items []T) (q tableQuery, page []T, problem error) {
	u := r.URL.Query()
	if r.Method == http.MethodPost {
		u = url.Values{} // an act that failed shows the whole list
	}
	q = tableQuery{Path: path, Search: strings.TrimSpace(u.Get("search")), Sort: u.Get("sort"), Hint: hint}
	if !slices.Contains(l.Columns(), strings.TrimPrefix(q.Sort, "-")) {
		q.Sort = ""
	}
	if n, err := strconv.Atoi(u.Get("from")); err == nil && n > 0 {
		q.From = n
	}
	found, total, problem := l.Find(items, listing.Query{Search: q.Search, Sort: q.Sort})
	if problem != nil {
		found, total = items, len(items)
	}
	if q.From >= total { // some were removed meanwhile
		q.From = max(0, (total-1)/maxRows*maxRows)
	}
	page = listing.Cut(found, store.Page{Offset: q.From, Limit: maxRows})
	q.Total, q.First, q.Last = total, q.From+1, q.From+len(page)
	return q, page, problem
}

// URL is the list's own.
func (q tableQuery) URL() string {
	u := url.Values{}
	if q.Search != "" {
		u.Set("search", q.Search)
	}
	if q.Sort != "" {
		u.Set("sort", q.Sort)
	}
	if q.From > 0 {
		u.Set("from", strconv.Itoa(q.From))
	}
	return strings.TrimSuffix(q.Path+"?"+u.Encode(), "?")
}

// By is the list sorted by a column; a second time the other way.
func (q tableQuery) By(column string) string {
	if q.Sort == column {
		column = "-" + column
	}
	q.Sort, q.From = column, 0
	return q.URL()
}

// Order says how a column is sorted, for those who do not see the arrow.
func (q tableQuery) Order(column string) string { return listQuery{Sort: q.Sort}.Order(column) }

// Before is the page before this one, empty when there is none.
func (q tableQuery) Before() string {
	if q.From == 0 {
		return ""
	}
	q.From = max(0, q.From-maxRows)
	return q.URL()
}

// After is the next page, empty when there is none.
func (q tableQuery) After() string {
	if q.Last >= q.Total {
		return ""
	}
	q.From = q.Last
	return q.URL()
}

// refused puts what is wrong with a search above its list.
func refused(status int, problem string, bad error) (int, string) {
	if bad == nil || problem != "" {
		return status, problem
	}
	return explain(bad)
}
