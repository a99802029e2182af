package dhcp

import (
	"time"

	"golang.org/x/time/rate"

	"lunboot/store"
)

// What is written down of MACs that are no machine's. An event and an unknown
// machine are for people, who want the first thousand of a hall that is switched
// on and can do nothing with a million invented ones; and each costs the disk,
// where an offer costs nothing but memory that is bounded anyway. So strangers
// are let into the story one by one, and who is in it is told of in full: half a
// boot would be explained wrongly.
const (
	strangersAtOnce = 1024           // new ones at once
	strangersRate   = rate.Limit(16) // and as many a second
	exchangesAtOnce = 4096           // packets of theirs that are told of at once
	exchangesRate   = rate.Limit(64) // and as many a second
)

// audience chooses which strangers' packets are told of.
type audience struct {
	in        *recent[store.MAC, struct{}]
	strangers *rate.Limiter
	exchanges *rate.Limiter
}

func newAudience() audience {
	return audience{newRecent[store.MAC, struct{}](maxMACs), rate.NewLimiter(strangersRate, strangersAtOnce), rate.NewLimiter(exchangesRate, exchangesAtOnce)}
}

// hears reports whether a packet of a stranger is told of.
func (a audience) hears(mac store.MAC, now time.Time) bool {
	if _, in := a.in.get(mac); !in {
		if !a.strangers.AllowN(now, 1) {
			return false
		}
	}
	a.in.put(mac, struct{}{}) // who goes on asking stays in
	return a.exchanges.AllowN(now, 1)
}

// bucket lets one MAC send so many packets a second.
type bucket struct {
	left float64
	at   time.Time
}

// take takes one packet out, when there is one.
func (b bucket) take(now time.Time) (bucket, bool) {
	if b.at.IsZero() {
		b = bucket{macBurst, now}
	}
	if d := now.Sub(b.at); d > 0 {
		b.left = min(macBurst, b.left+d.Seconds()*macRate)
	}
	b.at = now
	if b.left < 1 {
		return b, false
	}
	b.left--
	return b, true
}
