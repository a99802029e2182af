package boot

import (
	"cmp"
	"strings"

	"lunboot/store"
	"lunboot/store/listing"
)

// LoaderInfo describes one loader, as pages and the CLI show it.
type LoaderInfo struct {
	Name     Loader           `json:"name"` // with its chain
	Chain    string           `json:"chain,omitempty"`
	Role     store.LoaderRole `json:"role,omitempty"`
	Firmware string           `json:"firmware"`
	Arch     string           `json:"arch"`
	Version  string           `json:"version"` // empty when the file does not say
	Features []string         `json:"features"`
	Opaque   bool             `json:"opaque"` // its features cannot be told from its bytes
	License  string           `json:"license"`
	Size     int64            `json:"size"` // bytes
	SHA256   string           `json:"sha256"`
	Source   string           `json:"source"`   // "embedded", "uploaded", a module's name or the file's path
	Supplied bool             `json:"supplied"` // uploaded, so that it can be removed
	Rung     int              `json:"rung"`     // its place on its platform's ladder from 1; 0 for none
	Use      string           `json:"use"`      // what it is for, in a sentence
	Worked   int              `json:"worked"`   // machines on which it fetched a script the last time
	Silent   int              `json:"silent"`   // machines on which it was sent and never spoke
}

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

// LoaderUpload is what the operator says of a loader that they give.
type LoaderUpload struct {
	Name  string // as it will be asked for; empty: File, or for a chain's second what its first asks for
	File  string // the name of the file that it comes from
	Chain string
	Role  store.LoaderRole
}
