package store

import "time"

// Wipe is a SANITIZE that an initiator began on a volume and that has not come to
// its end.
type Wipe struct {
	// ID tells it from the next wipe of the same volume: one whose bytes were taken from
	// the volume may come to its end when another has begun on those that it has now.
	ID           UUID   `json:"id,omitzero"`
	Passes       int    `json:"passes"`       // how often the pattern is written; 0: all blocks are given back
	Pattern      []byte `json:"pattern"`      // repeated in each block, at most one block
	Invert       bool   `json:"invert"`       // every other pass writes the inverse, and the last one does not
	Unrestricted bool   `json:"unrestricted"` // when it has failed, its initiator may leave it at that
	Failed       bool   `json:"failed"`
	Bytes        string `json:"bytes"` // which file or device was to be wiped: no other one is
	// Left is when the file was changed last as the appliance left it, while it does not
	// run; zero when it had no time to say so.
	Left time.Time `json:"left,omitzero"`
}
