package boot

import (
	"cmp"
	"strings"

	"lunboot/store/listing"
)

// LoaderList is what can be asked of loaders.
func LoaderList() listing.List[LoaderInfo] {
	type l = LoaderInfo
	one := func(text func(l) string) func(l) []string {
		return func(x l) []string { return []string{text(x)} }
	}
	return listing.List[l]{Fields: []listing.Field[l]{
		{Name: "name", Texts: one(func(x l) string { return string(x.Name) }), Words: true, Column: true},
		{Name: "firmware", Texts: one(func(x l) string { return strings.TrimSpace(x.Firmware + " " + x.Arch) }), Words: true, Column: true},
		{Name: "version", Texts: one(func(x l) string { return x.Version }), Words: true},
		{Name: "inside", Texts: func(x l) []string { return x.Features }, Words: true},
		{Name: "source", Texts: one(func(x l) string { return x.Source }), Words: true, Column: true},
		{Name: "supplied", Texts: one(func(x l) string {
			if x.Supplied {
				return "yes"
			}
			return "no"
		}), Values: []string{"yes", "no"}},
		{Name: "chain", Texts: one(func(x l) string { return x.Chain }), Words: true},
		{Name: "rung", Order: func(a, b l) int { return cmp.Compare(a.Rung, b.Rung) }, Column: true},
		{Name: "worked", Order: func(a, b l) int { return cmp.Compare(b.Worked, a.Worked) }, Column: true}, // the most often first
		{Name: "size", Order: func(a, b l) int { return cmp.Compare(a.Size, b.Size) }, Column: true},
	}}
}
