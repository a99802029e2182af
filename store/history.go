package store

import "time"

// AttemptEnd is how one attempt ended, without the rest of it.
type AttemptEnd struct {
	Started time.Time `json:"started"`
	Outcome Outcome   `json:"outcome"`
}

// Throughput is what all machines together read and wrote in the time up to At.
type Throughput struct {
	At      time.Time `json:"at"`
	Read    float64   `json:"read"`    // bytes a second
	Written float64   `json:"written"` // bytes a second
}
