package store

import "net/netip"

// LeaseDropSpec names the leases that are to be dropped.
type LeaseDropSpec struct {
	// Leases are those, as they were seen: one that was given to another machine or
	// renewed since then stays.
	Leases []Lease
	// InUse drops those too that are good still: their machines go on using the
	// addresses until they ask again, and others may be given them meanwhile.
	InUse  bool
	DryRun bool // nothing is dropped; the answer is what would become of each
}

// LeaseDropped is what became of one lease that was to be dropped.
type LeaseDropped struct {
	Address netip.Addr `json:"address"`
	MAC     MAC        `json:"mac"`
	Dropped bool       `json:"dropped" doc:"it is gone; of a dry run: it would be"`
	InUse   bool       `json:"in_use,omitempty" doc:"its machine goes on using the address until it asks again, and another may be given it meanwhile"`
	Problem string     `json:"problem,omitempty" doc:"why it stays"`
}
