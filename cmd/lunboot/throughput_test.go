package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestThroughputIsRememberedForAnHour(t *testing.T) {
	now, read, written := time.Date(2026, 11, 30, 1, 0, 0, 0, time.UTC), int64(1000), int64(0)
	w := &throughput{moved: func() (int64, int64) { return read, written }, now: func() time.Time { return now }}
	w.look()
	require.Empty(t, w.Throughput(), "what was moved before the first look was moved in an unknown time")
	for n := range 200 {
		now, read, written = now.Add(30*time.Second), read+3000, written+int64(n)*30
		w.look()
	}
	all := w.Throughput()
	require.Len(t, all, 120)
	require.Equal(t, now.Add(-119*30*time.Second), all[0].At, "the oldest is an hour old")
	require.Equal(t, 100.0, all[0].Read)
	require.Equal(t, 199.0, all[119].Written)

	// A session that is just ending is in neither sum for a moment.
	now, read = now.Add(30*time.Second), read-1500
	w.look()
	require.Zero(t, w.Throughput()[119].Read)
	now, read = now.Add(30*time.Second), read+1500+600
	w.look()
	require.Equal(t, 20.0, w.Throughput()[119].Read, "what came back was not moved again")
}
