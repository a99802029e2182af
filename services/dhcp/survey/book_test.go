package survey

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/store"
)

func TestWhoAsksAtTheSameTimeGetsTheSameAnswer(t *testing.T) {
	b := NewBook(time.Now)
	asked := make(chan string, 10)
	let := make(chan struct{})
	b.ask = func(_ context.Context, name string) ([]store.Heard, error) {
		asked <- name
		<-let
		return []store.Heard{{As: store.ClientPlain}}, nil
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			s, err := b.Ask(t.Context(), "eth1")
			assert.NoError(t, err)
			assert.Len(t, s.Heard, 1)
		})
	}
	<-asked
	time.Sleep(20 * time.Millisecond) // the others wait
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Ask(ctx, "eth1")
	assert.ErrorIs(t, err, context.Canceled)
	wg.Go(func() {
		_, err := b.Ask(t.Context(), "eth2")
		assert.NoError(t, err)
	})
	assert.Equal(t, "eth2", <-asked, "another network is asked meanwhile")
	close(let)
	wg.Wait()
	assert.Empty(t, asked, "one question for three askers")
	s, ok := b.Last("eth1")
	assert.True(t, ok)
	assert.Equal(t, "eth1", s.Interface)
}

func TestAQuestionThatFailedIsRememberedAsThat(t *testing.T) {
	b := NewBook(time.Now)
	b.ask = func(context.Context, string) ([]store.Heard, error) { return nil, errors.New("it is down") }
	_, err := b.Ask(t.Context(), "eth1")
	assert.EqualError(t, err, "it is down")
	s, ok := b.Last("eth1")
	require.True(t, ok)
	assert.Equal(t, store.VerdictUnknown, s.Verdict())
	b.ask = func(context.Context, string) ([]store.Heard, error) { return nil, store.NotFound("interface", "nope0") }
	_, err = b.Ask(t.Context(), "nope0")
	assert.Error(t, err)
	_, ok = b.Last("nope0")
	assert.False(t, ok)
}
