package inventory

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lunboot/store"
)

// walked are layers that count how often it is asked where their files lie.
type walked struct {
	Layers
	can   bool
	looks atomic.Int32
	busy  atomic.Int32
	look  func(context.Context) (int64, error)
}

func (w *walked) Shares(store.Volume) bool { return w.can }

func (w *walked) Reflinked(ctx context.Context, _ store.Volume) (int64, error) {
	w.looks.Add(1)
	if w.busy.Add(1) > 1 {
		panic("two looks at a time")
	}
	defer w.busy.Add(-1)
	return w.look(ctx)
}

// A page of a volume is live: it asks several times a second, in each browser.
func TestWhereAVolumesFilesLieIsLookedAtNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &walked{can: true, look: func(ctx context.Context) (int64, error) {
			select {
			case <-time.After(2 * time.Second):
				return 4096, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}}
		i, err := New(Config{Layers: w, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		want := func(what string, got, want int64, looks int32) {
			t.Helper()
			if n := w.looks.Load(); got != want || n != looks {
				t.Errorf("%s: %d bytes and %d looks, want %d and %d", what, got, n, want, looks)
			}
		}
		v := store.Volume{ID: 1}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if n := i.shared(t.Context(), v); n != 4096 {
					t.Errorf("one of eight is told %d", n)
				}
			})
		}
		wg.Wait()
		want("eight at a time", 4096, 4096, 1)
		time.Sleep(sharedFor - time.Millisecond)
		want("half a minute later", i.shared(t.Context(), v), 4096, 1)
		time.Sleep(time.Millisecond)
		want("and then", i.shared(t.Context(), v), 4096, 2)
		want("another volume", i.shared(t.Context(), store.Volume{ID: 2}), 4096, 3)

		// Whoever goes is not looked for any longer, neither in their turn nor before,
		// and the next one gets an answer of their own.
		third := store.Volume{ID: 3}
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		wg.Go(func() { i.shared(ctx, third) })
		synctest.Wait()
		began := time.Now()
		want("behind a look", i.shared(ctx, store.Volume{ID: 4}), -1, 4)
		wg.Wait()
		if took := time.Since(began); took != time.Second {
			t.Errorf("who left was served for %v", took)
		}
		want("after one who left", i.shared(t.Context(), third), 4096, 5)

		// A file system that does not tell is not asked again at once either.
		w.look = func(context.Context) (int64, error) { return 0, errors.ErrUnsupported }
		fifth := store.Volume{ID: 5}
		want("no answer", i.shared(t.Context(), fifth), -1, 6)
		want("no answer, again", i.shared(t.Context(), fifth), -1, 6)
		time.Sleep(sharedFor)
		i.shared(t.Context(), fifth)
		if len(i.sharing.said) != 1 {
			t.Errorf("%d answers are kept", len(i.sharing.said))
		}
		w.can = false
		want("a file system that shares nothing", i.shared(t.Context(), store.Volume{ID: 6}), -1, 7)
	})
}
