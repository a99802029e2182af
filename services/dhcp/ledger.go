package dhcp

import "sync"

// Ledger is what the servers of one appliance share, one on each interface:
// what was offered, and whose turn it is to decide. A relay may send one request
// to several addresses of ours, and a relayed subnet is answered from every
// interface; none of them may give what another is giving.
type Ledger struct {
	book *book

	deciding sync.Mutex   // one request at a time is decided; writing its lease is outside
	reserved reservations // guarded by deciding
}

// NewLedger makes an empty ledger.
func NewLedger() *Ledger { return &Ledger{book: newBook()} }
