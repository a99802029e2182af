package dhcp

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRecentIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	r := newRecent[int, int](10)
	r.put(-1, 1)
	for i := range 1000 {
		r.put(i, i)
		r.change(-1, func(n int) int { return n + 1 })
		assert.LessOrEqual(t, len(r.now)+len(r.old), 20)
	}
	n, _ := r.get(-1)
	assert.Equal(t, 1001, n, "a key that is used stays")
	_, ok := r.get(5)
	assert.False(t, ok)
	v, ok := r.get(999)
	assert.True(t, ok)
	assert.Equal(t, 999, v)
}
