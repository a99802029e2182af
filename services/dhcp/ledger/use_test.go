package ledger

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/store"
)

// past is a journal that was written before, and goes on.
type past []store.Event

func (p *past) Emit(e store.Event) {
	e.Seq = int64(len(*p) + 1)
	*p = append(*p, e)
}

func (p *past) LastSeq(context.Context) (int64, error) { return int64(len(*p)), nil }

func (p *past) Events(_ context.Context, f store.EventFilter) ([]store.Event, error) {
	all := (*p)[f.After:]
	return all[:min(len(all), f.Limit)], nil
}

func TestAnAddressIsInUseForAnHourAfterItsLastSession(t *testing.T) {
	now := noon
	journal := &past{}
	u := NewUse(journal, func() time.Time { return now })
	a, b := ip("10.77.0.100"), ip("10.77.0.101")
	session := func(kind store.EventKind, session string) {
		u.Emit(store.Event{Kind: kind, Addr: a, Detail: store.Detail{Session: session}})
	}
	session(store.EventISCSILogin, "1")
	session(store.EventISCSILogin, "2")
	session(store.EventISCSILogin, "2") // told twice
	session(store.EventISCSIClosed, "1")
	now = now.Add(25 * time.Hour)
	assert.True(t, u.AddressInUse(a), "a session is there, however quiet")
	assert.False(t, u.AddressInUse(b))
	session(store.EventISCSILogout, "2")
	now = now.Add(59 * time.Minute)
	assert.True(t, u.AddressInUse(a))
	assert.Len(t, *journal, 5, "events are passed on")

	again := NewUse(journal, func() time.Time { return now })
	told := 0
	require.NoError(t, again.Remember(t.Context(), journal, func(store.Event) { told++ }))
	assert.Equal(t, 1, told, "of the last hour alone")
	assert.True(t, again.AddressInUse(a), "a restart forgets no machine that still runs")
	now = now.Add(time.Minute)
	assert.False(t, u.AddressInUse(a))
	assert.False(t, again.AddressInUse(a))
}
