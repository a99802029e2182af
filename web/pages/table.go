package pages

import (
	"cmp"
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

	Show  string // the value that the list is narrowed to, empty for all
	Chips []chip

	Extra [][2]string // what the URL names besides
	Rows  int         // a page; 0: maxRows
	Table string      // under which it is exported, empty where it is not

	Total       int // that were found
	First, Last int // of them on this page
	Hint        string
}

// readTable reads a list from a request's URL, or from the form of an act on it.
func readTable(r *http.Request, path, hint string, columns []string) tableQuery {
	u := r.URL.Query()
	if r.Method == http.MethodPost {
		u = r.PostForm // an act on a list names it; another shows the whole list
	}
	q := tableQuery{Path: path, Search: strings.TrimSpace(u.Get("search")), Sort: u.Get("sort"), Show: u.Get("show"), Hint: hint}
	if store.CheckSort(q.Sort, columns) != nil {
		q.Sort = ""
	}
	if n, err := strconv.Atoi(u.Get("from")); err == nil && n > 0 {
		q.From = n
	}
	return q
}

// fetch finds one page of a list that is searched where it lies. A search that is
// none finds everything, and problem says why.
func fetch[T any](q tableQuery, find func(search string, p store.Page) ([]T, int, error)) (out tableQuery, page []T, problem, err error) {
	look := func() { page, q.Total, err = find(q.Search, store.Page{Offset: q.From, Limit: q.rows()}) }
	if look(); store.KindOf(err) == store.KindInvalid {
		problem = err
		typed := q.Search
		q.Search = ""
		look()
		q.Search = typed
	}
	if err == nil && len(page) == 0 && q.Total > 0 { // some were removed meanwhile
		q.From = (q.Total - 1) / q.rows() * q.rows()
		look()
	}
	q.First, q.Last = q.From+1, q.From+len(page)
	return q, page, problem, err
}

func (q tableQuery) rows() int { return cmp.Or(q.Rows, maxRows) }

// narrowing is the field by whose values a list is narrowed with a click, and
// the words for each.
type narrowing struct {
	Key    string
	Values [][2]string
}

// chip is one value that a list can be narrowed to.
type chip struct {
	Text, URL string
	Count     int // -1: not counted
	Current   bool
}

// uncounted makes the chips of a list that is searched where it lies, and drops a
// value that is none.
func (q *tableQuery) uncounted(values [][2]string) {
	to, shown := *q, false
	to.From, to.Show = 0, ""
	q.Chips = []chip{{Text: "All", URL: to.URL(), Count: -1}}
	for _, v := range values {
		to.Show = v[0]
		q.Chips = append(q.Chips, chip{Text: v[1], URL: to.URL(), Count: -1, Current: v[0] == q.Show})
		shown = shown || v[0] == q.Show
	}
	if !shown {
		q.Show, q.Chips[0].Current = "", true
	}
}

// listed finds one page of a list for a request. A search that is none finds
// everything, and problem says why.
func listed[T any](l listing.List[T], path, hint string, r *http.Request, items []T) (q tableQuery, page []T, problem error) {
	return listedBy(l, narrowing{}, path, hint, r, items)
}

// listedBy is listed for a list that is narrowed with a click, too.
func listedBy[T any](l listing.List[T], by narrowing, path, hint string, r *http.Request, items []T) (q tableQuery, page []T, problem error) {
	q = readTable(r, path, hint, l.Columns())
	show := q.Show
	q.Show = ""
	found, total, problem := l.Find(items, listing.Query{Search: q.Search, Sort: q.Sort})
	if problem != nil {
		found, total = items, len(items)
	}
	if by.Key != "" {
		found = narrowed(&q, l, by, show, found)
		total = len(found)
	}
	if q.From >= total { // some were removed meanwhile
		q.From = max(0, (total-1)/maxRows*maxRows)
	}
	page = listing.Cut(found, store.Page{Offset: q.From, Limit: maxRows})
	q.Total, q.First, q.Last = total, q.From+1, q.From+len(page)
	return q, page, problem
}

// narrowed makes the chips of what was found, and leaves what the chosen one
// stands for.
func narrowed[T any](q *tableQuery, l listing.List[T], by narrowing, show string, found []T) []T {
	counts := l.Count(found, by.Key)
	to := *q
	to.From, to.Show = 0, ""
	chips := []chip{{Text: "All", URL: to.URL(), Count: len(found), Current: true}}
	for _, v := range by.Values {
		if counts[v[0]] == 0 && v[0] != show {
			continue
		}
		to.Show = v[0]
		chips = append(chips, chip{Text: v[1], URL: to.URL(), Count: counts[v[0]], Current: v[0] == show})
		if v[0] == show {
			q.Show, chips[0].Current = show, false
		}
	}
	if q.Chips = chips; q.Show != "" {
		return l.With(found, by.Key, q.Show)
	}
	return found
}

// URL is the list's own.
func (q tableQuery) URL() string {
	u := url.Values{}
	for _, e := range q.Extra {
		if e[1] != "" {
			u.Set(e[0], e[1])
		}
	}
	if q.Show != "" {
		u.Set("show", q.Show)
	}
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

// Kept is what the form of an act sends again, so that the list stays as it is.
func (q tableQuery) Kept() (out [][2]string) {
	from := ""
	if q.From > 0 {
		from = strconv.Itoa(q.From)
	}
	for _, field := range [][2]string{{"show", q.Show}, {"search", q.Search}, {"sort", q.Sort}, {"from", from}} {
		if field[1] != "" {
			out = append(out, field)
		}
	}
	return out
}

// Narrowed reports whether something is looked for.
func (q tableQuery) Narrowed() bool {
	return q.Search != "" || q.Show != "" || slices.ContainsFunc(q.Extra, func(e [2]string) bool { return e[1] != "" })
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

// Exported is where all that the list shows comes as a table.
func (q tableQuery) Exported(format string) string {
	q.Path, q.From = "/export/"+q.Table, 0
	q.Extra = append(slices.Clone(q.Extra), [2]string{"format", format})
	return q.URL()
}

// Before is the page before this one, empty when there is none.
func (q tableQuery) Before() string {
	if q.From == 0 {
		return ""
	}
	q.From = max(0, q.From-q.rows())
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
