package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"lunboot/web/auth"
)

// A create that is sent again, because its answer was lost, must not make a
// second thing. A client that sends Idempotency-Key with a POST gets the first
// answer again for the same request under the same key, for a day. Answers are
// kept in memory: some hold a secret that is kept nowhere else. After a restart
// names that are taken already still keep most things from being made twice.
// (draft-ietf-httpapi-idempotency-key-header)
const (
	onceHeader = "Idempotency-Key"
	onceLife   = 24 * time.Hour
	maxOnce    = 4096    // answers that are kept, the oldest go first
	maxOnceKey = 255     // bytes of a key
	maxRequest = 1 << 20 // bytes of a request that can have a key
	maxAnswer  = 1 << 20
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
	kept    bool // there is an answer to give again
	status  int
	header  http.Header
	body    []byte
}

// once remembers answers by key.
type once struct {
	mu    sync.Mutex
	by    map[onceID]*outcome
	order []onceID // the oldest first
	now   func() time.Time
}

func newOnce(now func() time.Time) *once { return &once{by: map[onceID]*outcome{}, now: now} }

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
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		defer func() { o.end(id, first, rec) }() // also when the handler panics
		next.ServeHTTP(rec, r)
	})
}

// begin returns the request under a key; mine when it is this one.
func (o *once) begin(id onceID, sum [sha256.Size]byte) (_ *outcome, mine bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	for len(o.order) > 0 {
		eldest := o.by[o.order[0]]
		if len(o.order) <= maxOnce && eldest != nil && now.Sub(eldest.began) < onceLife {
			break
		}
		if eldest != nil {
			delete(o.by, o.order[0])
		}
		o.order = o.order[1:]
	}
	if c, ok := o.by[id]; ok {
		return c, false
	}
	c := &outcome{request: sum, began: now, done: make(chan struct{})}
	o.by[id] = c
	o.order = append(o.order, id)
	return c, true
}

// end keeps an answer. What failed by the appliance's fault, or was never whole,
// may be tried again.
func (o *once) end(id onceID, c *outcome, rec *recorder) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if rec.wrote && rec.status < 500 && rec.status != http.StatusTooManyRequests && !rec.long {
		c.kept, c.status, c.header, c.body = true, rec.status, rec.Header().Clone(), rec.body.Bytes()
	} else if o.by[id] == c {
		delete(o.by, id)
	}
	close(c.done)
}

// again waits for the first request's answer and gives it.
func (o *once) again(ctx context.Context, w http.ResponseWriter, c *outcome, sum [sha256.Size]byte) {
	if c.request != sum {
		writeProblem(w, http.StatusUnprocessableEntity, "this "+onceHeader+" was sent with another request before; choose a new one")
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
	for k, v := range c.header {
		if !strings.HasPrefix(k, "X-Ratelimit") {
			w.Header()[k] = v
		}
	}
	w.Header().Set("Idempotency-Replayed", "true")
	w.WriteHeader(c.status)
	w.Write(c.body)
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
