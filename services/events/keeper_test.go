package events

import (
	"context"
	"errors"
	"testing"
	"time"

	"lunboot/store"
)

type pruned chan int

func (p pruned) Prune(_ context.Context, keep store.Retention) error {
	if age := time.Since(keep.Since); age < 30*24*time.Hour || age > 400*24*time.Hour || keep.Bytes != 70 {
		keep.Events = -1
	}
	p <- keep.Events
	return errors.New("the disk is full")
}

func TestTheLogIsKeptFromGrowing(t *testing.T) {
	log := make(pruned)
	k := NewKeeper(log, quiet())
	if k.keep.Events < 100000 || k.keep.Bytes < 64<<20 || k.keep.Bytes > 1<<30 || k.every < time.Minute || k.every > time.Hour {
		t.Errorf("it keeps %+v, and looks every %s", k.keep, k.every)
	}
	k.keep, k.every = store.Retention{Events: 7, Bytes: 70}, time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Serve(ctx) }()
	for range 3 { // a failure is no reason to give up
		select {
		case keep := <-log:
			if keep != 7 {
				t.Errorf("it keeps %d", keep)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("nothing is forgotten")
		}
	}
	cancel()
	for {
		select {
		case <-log:
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		}
	}
}
