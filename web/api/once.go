package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lunboot/web/auth"
)

// A create that is sent again, because its answer was lost, must not make a
// second thing. A client that sends Idempotency-Key with a POST gets the first
// answer again for the same request under the same key, for a day. Answers are
// kept in memory: some hold a secret that is kept nowhere else. That a request was
// done is kept with what it did, in one transaction: after a restart it is not done
// again, and whoever sends it is told so.
// (draft-ietf-httpapi-idempotency-key-header)
const (
	onceHeader = "Idempotency-Key"
	onceLife   = 24 * time.Hour
	maxOnce    = 4096     // keys that are remembered, the oldest go first
	maxOnceOf  = 256      // of one who asks
	maxOnceKey = 255      // bytes of a key
	maxRequest = 1 << 20  // bytes of a request that can have a key
	maxAnswer  = 64 << 10 // bytes of an answer that is kept; of a longer one the key is
	maxAnswers = 32 << 20 // bytes of all answers; the oldest go first, and leave their keys
	headerRoom = 1 << 10  // what a kept answer is counted for besides its body
)

// onceID is one key of one who asks.
type onceID struct {
	who auth.Identity
	key string
}

// outcome is a request under a key, and its answer once done is closed.
type outcome struct {
	request [sha256.Size]byte
	began   time.Time
	done    chan struct{}
	kept    bool              // it was done: it is not done again
	gone    bool              // its answer is not kept, or no longer
	did     string            // what it did, when only that is known: before a restart
	was     [sha256.Size]byte // and which request that was
	status  int
	header  http.Header
	body    []byte
}

// once remembers answers by key.
type once struct {
	mu    sync.Mutex
	by    map[onceID]*outcome
	order []onceID // of by, the oldest first
	of    map[auth.Identity]int
	bytes int // of the answers that are kept
	now   func() time.Time
	rows  Repeats
	log   *slog.Logger
}

func newOnce(now func() time.Time, rows Repeats, log *slog.Logger) *once {
	return &once{by: map[onceID]*outcome{}, of: map[auth.Identity]int{}, now: now, rows: rows, log: log}
}

// name is who asks, as rows know them: by the login, token or socket that they come
// with, which outlive a restart.
func (id onceID) name() string { return fmt.Sprintf("%+v", id.who) }

// middleware gives a repeated POST the answer of the first.
func (o *once) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, who := r.Header.Get(onceHeader), auth.From(r.Context())
		if key == "" || r.Method != http.MethodPost || who.Scope == "" {
			next.ServeHTTP(w, r)
			return
		}
		if len(key) > maxOnceKey {
			writeProblem(w, http.StatusUnprocessableEntity, "the "+onceHeader+" is longer than 255 bytes")
			return
		}
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			writeProblem(w, http.StatusRequestEntityTooLarge, "a request with an "+onceHeader+" has at most 1 MiB; a large file is sent as an upload, which goes on where it broke off")
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(b))
		h := sha256.New()
		io.WriteString(h, r.URL.RequestURI()+"\x00"+r.Header.Get("Content-Type")+"\x00")
		h.Write(b)
		id, sum := onceID{who, key}, [sha256.Size]byte(h.Sum(nil))
		first, mine := o.begin(id, sum)
		if !mine {
			o.again(r.Context(), w, first, sum)
			return
		}
		// Asked when nobody else does it under the key: what is being done is not done
		// yet, though its first change may be kept already.
		request, did, before, err := o.rows.DoneUnder(r.Context(), id.name(), key)
		if err != nil {
			o.leave(id, first)
			o.log.Error("look up a request by its key", "error", err)
			writeProblem(w, http.StatusInternalServerError, "whether this request was done before cannot be read; send it again")
			return
		}
		if before {
			first.kept, first.gone, first.was, first.did = true, true, request, did // nobody reads them before it is left
			o.leave(id, first)
			o.again(r.Context(), w, first, sum)
			return
		}
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		defer func() { o.end(r.Context(), id, first, rec) }() // also when the handler panics
		next.ServeHTTP(rec, r.WithContext(o.rows.Under(r.Context(), id.name(), key, sum)))
	})
}

// begin returns the request under a key; mine when it is this one.
func (o *once) begin(id onceID, sum [sha256.Size]byte) (_ *outcome, mine bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	for len(o.order) > 0 && now.Sub(o.by[o.order[0]].began) >= onceLife {
		o.forget(0)
	}
	if c, ok := o.by[id]; ok {
		return c, false
	}
	if o.of[id.who] >= maxOnceOf {
		o.forgetOldest(func(old onceID) bool { return old.who == id.who })
	}
	if len(o.order) >= maxOnce {
		o.forgetOldest(func(onceID) bool { return true })
	}
	c := &outcome{request: sum, began: now, done: make(chan struct{})}
	o.by[id] = c
	o.order = append(o.order, id)
	o.of[id.who]++
	return c, true
}

// forgetOldest drops the oldest of some keys whose request has ended; one that is
// being done would else be done beside itself. mu is held.
func (o *once) forgetOldest(of func(onceID) bool) {
	i := slices.IndexFunc(o.order, func(id onceID) bool { return of(id) && o.by[id].kept })
	if i >= 0 {
		o.forget(i)
	}
}

// forget drops a key by its place in the order; mu is held.
func (o *once) forget(i int) {
	id := o.order[i]
	o.drop(o.by[id])
	delete(o.by, id)
	o.order = slices.Delete(o.order, i, i+1)
	if o.of[id.who]--; o.of[id.who] == 0 {
		delete(o.of, id.who)
	}
}

// drop lets an answer go, and keeps that its request was done; mu is held.
func (o *once) drop(c *outcome) {
	if c.kept && !c.gone {
		o.bytes -= len(c.body) + headerRoom
		c.gone, c.header, c.body = true, nil, nil
	}
}

// leave forgets a request that is not begun after all.
func (o *once) leave(id onceID, c *outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer close(c.done)
	if o.by[id] == c {
		o.forget(slices.Index(o.order, id))
	}
}

// end keeps an answer. What failed by the appliance's fault, or was never whole,
// may be tried again.
func (o *once) end(ctx context.Context, id onceID, c *outcome, rec *recorder) {
	failed := !rec.wrote || rec.status >= 500 || rec.status == http.StatusTooManyRequests
	if failed { // before whoever sends it again looks
		if err := o.rows.NotDone(context.WithoutCancel(ctx), id.name(), id.key); err != nil {
			o.log.Error("forget a request that failed", "error", err)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	defer close(c.done)
	mine := o.by[id] == c
	if failed {
		if mine {
			o.forget(slices.Index(o.order, id))
		}
		return
	}
	c.kept, c.gone, c.status = true, true, rec.status
	if rec.long || !mine { // a day passed meanwhile: nobody would ever let it go
		return
	}
	c.gone, c.header, c.body = false, rec.Header().Clone(), bytes.Clone(rec.body.Bytes())
	o.bytes += len(c.body) + headerRoom
	for i := 0; o.bytes > maxAnswers && i < len(o.order); i++ {
		o.drop(o.by[o.order[i]])
	}
}

const another = "this " + onceHeader + " was sent with another request before; choose a new one"

// again waits for the first request's answer and gives it.
func (o *once) again(ctx context.Context, w http.ResponseWriter, c *outcome, sum [sha256.Size]byte) {
	if c.request != sum {
		writeProblem(w, http.StatusUnprocessableEntity, another)
		return
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return
	}
	if !c.kept {
		w.Header().Set("Retry-After", "1")
		writeProblem(w, http.StatusServiceUnavailable, "the first request with this "+onceHeader+" failed; send it again")
		return
	}
	o.mu.Lock()
	status, header, body, gone := c.status, c.header, c.body, c.gone
	o.mu.Unlock()
	if c.did != "" && c.was != sum {
		writeProblem(w, http.StatusUnprocessableEntity, another)
		return
	}
	if c.did != "" {
		writeProblem(w, http.StatusConflict, "the first request with this "+onceHeader+" was done ("+c.did+"), and its answer is not kept any more; look at what there is now, and choose a new key for another request")
		return
	}
	if gone {
		writeProblem(w, http.StatusConflict, "the first request with this "+onceHeader+" was done and answered with the status "+strconv.Itoa(status)+", and its answer is not kept; look at what there is now, and choose a new key for another request")
		return
	}
	for k, v := range header {
		if !strings.HasPrefix(k, "X-Ratelimit") {
			w.Header()[k] = v
		}
	}
	w.Header().Set("Idempotency-Replayed", "true")
	w.WriteHeader(status)
	w.Write(body)
}

// recorder keeps what is answered.
type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool
	long   bool // too long to keep
	body   bytes.Buffer
}

func (r *recorder) WriteHeader(status int) {
	if !r.wrote {
		r.status, r.wrote = status, true
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.wrote = true
	if r.long = r.long || r.body.Len()+len(b) > maxAnswer; !r.long {
		r.body.Write(b)
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets a controller reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
