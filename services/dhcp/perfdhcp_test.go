package dhcp

import (
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Kea's own load generator, as a relay with a hundred clients behind it.
func TestPerfdhcpIsAnswered(t *testing.T) {
	if !alone(t) {
		return
	}
	perfdhcp := need(t, "perfdhcp")
	w := wire2(t)
	w.over(t, "ip", "addr", "add", "10.77.0.2/24", "dev", "cli0")
	_, v := serve(t, func(c *Config) { c.Subnet.Range = mustRange("10.77.0.10-10.77.0.249") }) // strangers have half of it
	// A relay's port; -u: whether no address is given twice. An answer of the last
	// six seconds counts: how fast they come is no matter here.
	out := w.over(t, perfdhcp, "-4", "-l", "10.77.0.2", "-L", "67", "-r", "50", "-R", "100", "-n", "100", "-W", "6000000", "-d", "6", "-u", "10.77.0.1")
	figures := func(name string) (all []int) {
		for _, m := range regexp.MustCompile(name+`: (\d+)`).FindAllStringSubmatch(out, -1) {
			n, err := strconv.Atoi(m[1])
			require.NoError(t, err)
			all = append(all, n)
		}
		return all
	}
	assert.Equal(t, []int{100, 100}, figures("received packets"), "offers, and acknowledgements:\n%s", out)
	assert.Equal(t, []int{0, 0}, figures("drops"), out)
	assert.Equal(t, []int{0, 0}, figures("orphans"), out)
	v.mu.Lock()
	defer v.mu.Unlock()
	assert.Len(t, v.leases, 100)
	for _, l := range v.leases {
		assert.True(t, l.Expires.After(time.Now()))
	}
}
