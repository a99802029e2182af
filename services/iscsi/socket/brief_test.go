//go:build !race

package socket

import (
	"testing"
	"time"
)

// What comes during a vigil is received, and what comes after one too; the place is
// given back either way.
func TestAVigilEndsWithInputOrWithTime(t *testing.T) {
	for _, late := range []time.Duration{0, vigilTime / 5, 20 * time.Millisecond} {
		c, peer := pair(t)
		c.habit = after(leastQuick, 0, false)
		go func() {
			for start := time.Now(); time.Since(start) < late; {
			}
			_, _ = peer.Write([]byte("next"))
		}()
		p := make([]byte, 16)
		if n, err := c.Recv(p, true); err != nil || string(p[:n]) != "next" {
			t.Fatalf("%s: %q, %v", late, p[:n], err)
		}
		if now := c.vigils.now.Load(); now != 0 {
			t.Errorf("%s: %d vigils go on", late, now)
		}
		if late > quickTime && (c.habit.quickly() || c.habit.need == 0) {
			t.Errorf("%s: a vigil in vain taught nothing: %+v", late, c.habit)
		}
	}
}
