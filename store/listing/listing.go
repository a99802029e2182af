// Package listing searches, sorts and pages lists: every list of the appliance,
// in pages, API and command line, by one grammar.
//
// What a list can be searched and sorted by stands in one table a noun. Lists
// that grow with the inventory are held in memory meanwhile; what grows with
// time, the audit log and the journal, is searched where it lies.
package listing

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"lunboot/store"
)

// Query is what is asked of a list.
type Query struct {
	Search string
	Sort   string // a column, with "-" before it for the other way; empty: the usual order
	store.Page
}

// Field is one thing that the items of a list are searched or sorted by.
type Field[T any] struct {
	Name string
	// Texts are what the item has of it. A qualifier fits when its value is part
	// of one, in either case.
	Texts func(T) []string
	// Values, when there are any, are all that Texts can be; a qualifier then
	// names one of them.
	Values []string
	// Whole: a qualifier fits when its value is the whole of one: LUN 1 is not 10.
	Whole bool
	// Words: a word without a qualifier is looked for here too.
	Words bool
	// Order compares two items; nil: by the first text.
	Order func(a, b T) int
	// Column: the list can be sorted by it.
	Column bool
}

// List is what can be asked of the items of one noun.
type List[T any] struct {
	Fields []Field[T]
}

// Keys are the qualifiers.
func (l List[T]) Keys() (out []string) {
	for _, f := range l.Fields {
		if f.Texts != nil {
			out = append(out, f.Name)
		}
	}
	return out
}

// Columns are what the list can be sorted by.
func (l List[T]) Columns() (out []string) {
	for _, f := range l.Fields {
		if f.Column {
			out = append(out, f.Name)
		}
	}
	return out
}

func (l List[T]) field(name string) (Field[T], bool) {
	i := slices.IndexFunc(l.Fields, func(f Field[T]) bool { return f.Name == name })
	if i < 0 {
		return Field[T]{}, false
	}
	return l.Fields[i], true
}

// Find returns one page of the items that a query finds, and how many it finds
// in all. Items that compare alike stay in the order in which they came.
func (l List[T]) Find(items []T, q Query) (page []T, total int, err error) {
	fits, err := l.matcher(q.Search)
	if err != nil {
		return nil, 0, err
	}
	out := make([]T, 0, len(items))
	for _, item := range items {
		if fits(item) {
			out = append(out, item)
		}
	}
	if q.Sort != "" {
		if err := l.sort(out, q.Sort); err != nil {
			return nil, 0, err
		}
	}
	return Cut(out, q.Page), len(out), nil
}

// Cut is one page of what was found.
func Cut[T any](items []T, p store.Page) []T {
	from := min(max(p.Offset, 0), len(items))
	items = items[from:]
	if p.Limit > 0 && len(items) > p.Limit {
		items = items[:p.Limit]
	}
	return items
}

// Digest stands for a set of things, by what each is known by.
func Digest[T cmp.Ordered](ids []T) string {
	slices.Sort(ids)
	h := sha256.New()
	for _, id := range ids {
		fmt.Fprintln(h, id)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Count says how many of the items have each value of a field.
func (l List[T]) Count(items []T, key string) map[string]int {
	f, _ := l.field(key)
	out := make(map[string]int, len(f.Values))
	for _, item := range items {
		for _, text := range f.Texts(item) {
			out[text]++
		}
	}
	return out
}

// With returns those of the items that have a value of a field.
func (l List[T]) With(items []T, key, value string) (out []T) {
	f, _ := l.field(key)
	for _, item := range items {
		if f.has(item, value) {
			out = append(out, item)
		}
	}
	return out
}

func (l List[T]) sort(items []T, by string) error {
	name, falls := strings.CutPrefix(by, "-")
	if err := store.CheckSort(by, l.Columns()); err != nil {
		return err
	}
	f, _ := l.field(name)
	order := f.Order
	if order == nil {
		order = func(a, b T) int { return strings.Compare(first(f.Texts(a)), first(f.Texts(b))) }
	}
	slices.SortStableFunc(items, func(a, b T) int {
		if falls {
			return order(b, a)
		}
		return order(a, b)
	})
	return nil
}

func first(texts []string) string {
	if len(texts) == 0 {
		return ""
	}
	return strings.ToLower(texts[0])
}

// matcher is a search as a condition.
func (l List[T]) matcher(text string) (func(T) bool, error) {
	s, err := store.ParseSearch(text, l.Keys())
	if err != nil {
		return nil, err
	}
	var conds []func(T) bool
	for _, t := range s.Terms {
		f, _ := l.field(t.Key)
		want := strings.ToLower(t.Value)
		if f.Values != nil {
			if want, err = t.OneOf(f.Values); err != nil {
				return nil, err
			}
		}
		conds = append(conds, func(item T) bool { return f.has(item, want) })
	}
	for _, word := range s.Words {
		want := strings.ToLower(word)
		conds = append(conds, func(item T) bool {
			return slices.ContainsFunc(l.Fields, func(f Field[T]) bool { return f.Words && f.has(item, want) })
		})
	}
	return func(item T) bool {
		for _, c := range conds {
			if !c(item) {
				return false
			}
		}
		return true
	}, nil
}

func (f Field[T]) has(item T, want string) bool {
	return slices.ContainsFunc(f.Texts(item), func(text string) bool {
		if f.Values != nil || f.Whole {
			return strings.EqualFold(text, want)
		}
		return strings.Contains(strings.ToLower(text), want)
	})
}
