package boot

import "lunboot/store"

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

// LoaderUpload is what the operator says of a loader that they give.
type LoaderUpload struct {
	Name  string // as it will be asked for; empty: File, or for a chain's second what its first asks for
	File  string // the name of the file that it comes from
	Chain string
	Role  store.LoaderRole
}
