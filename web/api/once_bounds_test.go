package api

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lunboot/store"
	"lunboot/web/auth"
)

// onceKit counts what is really done, and answers with as many bytes as it is
// told.
type onceKit struct {
	*once
	done   int
	size   int
	status int
	now    time.Time
}

// noRows forget everything, as a restart did before there were any.
type noRows struct{}

func (noRows) Under(ctx context.Context, _, _ string, _ [sha256.Size]byte) context.Context {
	return ctx
}
func (noRows) DoneUnder(context.Context, string, string) (sum [sha256.Size]byte, did string, found bool, err error) {
	return sum, "", false, nil
}
func (noRows) NotDone(context.Context, string, string) error { return nil }

func newOnceKit() *onceKit {
	k := &onceKit{status: http.StatusCreated, now: time.Unix(1_800_000_000, 0)}
	k.once = newOnce(func() time.Time { return k.now }, noRows{}, slog.New(slog.DiscardHandler))
	return k
}

func (k *onceKit) post(who, key string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/things", strings.NewReader("{}"))
	r.Header.Set(onceHeader, key)
	r = r.WithContext(auth.With(r.Context(), auth.Identity{Actor: store.Actor(who), Scope: store.ScopeOperate}))
	w := httptest.NewRecorder()
	k.middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		k.done++
		w.WriteHeader(k.status)
		fmt.Fprint(w, strings.Repeat("x", k.size))
	})).ServeHTTP(w, r)
	return w
}

// sound checks what the parts say of each other.
func (k *onceKit) sound(t *testing.T) {
	t.Helper()
	bytes, of := 0, 0
	for _, id := range k.order {
		if c := k.by[id]; c == nil {
			t.Fatalf("%v stands in the order alone", id)
		} else if !c.gone {
			bytes += len(c.body) + headerRoom
		}
	}
	for _, n := range k.of {
		of += n
	}
	if len(k.order) != len(k.by) || of != len(k.by) || bytes != k.bytes || bytes > maxAnswers || len(k.by) > maxOnce {
		t.Fatalf("%d in the order, %d keys, %d counted, %d bytes of which %d are counted", len(k.order), len(k.by), of, bytes, k.bytes)
	}
}

// changedRows remember that a request made its first change, as store/sqlite does.
type changedRows struct {
	request [sha256.Size]byte
	changed bool
	left    chan struct{} // whoever reads that it did waits for it to close
}

func (c *changedRows) Under(ctx context.Context, _, _ string, request [sha256.Size]byte) context.Context {
	c.request = request
	return ctx
}

func (c *changedRows) DoneUnder(context.Context, string, string) (request [sha256.Size]byte, did string, found bool, err error) {
	if !c.changed {
		return request, "", false, nil
	}
	<-c.left
	return c.request, "a thing was made", true, nil
}

func (c *changedRows) NotDone(context.Context, string, string) error {
	c.changed = false
	return nil
}

// A request that makes a change and fails is undone, and may be tried again: whoever
// sends it again meanwhile is told so, and not that it was done.
func TestARequestThatFailsAfterItsFirstChangeIsNotCalledDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows, fail := &changedRows{left: make(chan struct{})}, make(chan struct{})
		o := newOnce(time.Now, rows, slog.New(slog.DiscardHandler))
		post := func() *httptest.ResponseRecorder {
			r := httptest.NewRequest("POST", "/things", strings.NewReader("{}"))
			r.Header.Set(onceHeader, "k")
			w := httptest.NewRecorder()
			o.middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				rows.changed = true
				<-fail
				w.WriteHeader(http.StatusServiceUnavailable)
			})).ServeHTTP(w, r.WithContext(auth.With(r.Context(), auth.Identity{Actor: "ann", Scope: store.ScopeOperate})))
			return w
		}
		go post()
		synctest.Wait() // it made its change
		repeated := make(chan *httptest.ResponseRecorder, 1)
		go func() { repeated <- post() }()
		synctest.Wait() // and is sent again
		close(fail)
		synctest.Wait()
		close(rows.left)
		if w := <-repeated; w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("the repeat is answered %d %s", w.Code, w.Body)
		}
		if len(o.by) != 0 {
			t.Errorf("%d keys are kept", len(o.by))
		}
	})
}

func TestALongAnswerIsNotKeptAndNotMadeTwice(t *testing.T) {
	k := newOnceKit()
	k.size = maxAnswer + 1
	if w := k.post("ann", "long"); w.Code != 201 || w.Body.Len() != k.size {
		t.Errorf("the first is answered %d with %d bytes", w.Code, w.Body.Len())
	}
	if w := k.post("ann", "long"); w.Code != 409 || k.done != 1 || !strings.Contains(w.Body.String(), "was done and answered with the status 201") {
		t.Errorf("the second is answered %d %s; done %d times", w.Code, w.Body, k.done)
	}
	k.size = maxAnswer
	k.post("ann", "just")
	if w := k.post("ann", "just"); w.Code != 201 || w.Body.Len() != maxAnswer || k.done != 2 {
		t.Errorf("an answer that just fits comes again as %d with %d bytes; done %d times", w.Code, w.Body.Len(), k.done)
	}
	k.sound(t)
}

func TestAnswersThatAreKeptAreBounded(t *testing.T) {
	k := newOnceKit()
	k.size = maxAnswer
	const n = maxAnswers/maxAnswer + 10
	for i := range n {
		k.post(fmt.Sprint("who", i%8), fmt.Sprint(i))
		k.sound(t)
	}
	if w := k.post("who0", "0"); w.Code != 409 || k.done != n {
		t.Errorf("the oldest is answered %d, done %d times", w.Code, k.done)
	}
	if w := k.post(fmt.Sprint("who", (n-1)%8), fmt.Sprint(n-1)); w.Code != 201 || k.done != n {
		t.Errorf("the newest is answered %d, done %d times", w.Code, k.done)
	}
	// Nobody pushes others out.
	k = newOnceKit()
	k.post("bob", "his")
	for i := range 2 * maxOnceOf {
		k.post("ann", fmt.Sprint(i))
	}
	k.sound(t)
	if k.post("bob", "his"); k.done != 1+2*maxOnceOf || len(k.by) != 1+maxOnceOf {
		t.Errorf("done %d times, %d keys are kept", k.done, len(k.by))
	}
	// What failed leaves nothing.
	k = newOnceKit()
	k.status = http.StatusServiceUnavailable
	k.post("ann", "x")
	k.post("ann", "x")
	if k.sound(t); k.done != 2 || len(k.order) != 0 {
		t.Errorf("done %d times, %d are kept", k.done, len(k.order))
	}
	k.status = http.StatusCreated
	k.post("ann", "x")
	k.now = k.now.Add(onceLife)
	k.post("ann", "y")
	if k.sound(t); len(k.order) != 1 || k.bytes != headerRoom {
		t.Errorf("after a day %d keys and %d bytes are kept", len(k.order), k.bytes)
	}
}
