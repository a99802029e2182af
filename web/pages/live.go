package pages

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lunboot/web/auth"
)

// A live page holds one stream that says only "something changed", and at times
// that it lives; the page then fetches itself again. Nothing on the stream is data
// to trust, so a paused or broken one loses nothing: on its next connect the
// version differs from the one that the page was made of.
const (
	livePath = "/live"

	liveGap       = 250 * time.Millisecond // at most four refreshes a second
	liveSettle    = 40 * time.Millisecond  // what changes with a change is shown with it, and boots are told of in rounds of 20 ms
	liveHeartbeat = 15 * time.Second

	sign = "event: alive\ndata:\n\n"
)

// version is the sources' versions: each only rises while the process runs, whose
// name comes first.
func (s *site) version() string {
	parts := make([]string, 0, 1+len(s.Changes))
	parts = append(parts, s.process)
	for _, c := range s.Changes {
		parts = append(parts, strconv.FormatInt(c.Version(), 10))
	}
	return strings.Join(parts, ".")
}

// processName tells one run of the appliance from the next, whose versions begin anew.
func processName() string { return rand.Text()[:8] }

// versionKey is the context's key of the version that a page is made of: it is read
// before anything that the page shows.
type versionKey struct{}

func (s *site) dated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), versionKey{}, s.version())))
	})
}

func versionOf(ctx context.Context) string {
	v, _ := ctx.Value(versionKey{}).(string) // none where no page is live
	return v
}

// streams are the open ones, by login. A browser has six connections for an address
// that is not HTTPS (HTTP/1.1), and each stream of a window that is looked at takes
// one: a seventh window would wait for ever, so that the oldest gives way and asks
// now and then.
type streams struct {
	mu     sync.Mutex
	number int64
	open   map[string][]openStream // oldest first
}

const mostStreams = 4 // of one login

type openStream struct {
	number int64
	leave  chan struct{} // closed for one that is to give way
}

// enter takes a stream in; leave is closed when it is to give way, and gone forgets it.
func (all *streams) enter(login string) (leave <-chan struct{}, gone func()) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.open == nil {
		all.open = map[string][]openStream{}
	}
	all.number++
	own := openStream{all.number, make(chan struct{})}
	open := append(all.open[login], own)
	if len(open) > mostStreams {
		close(open[0].leave)
		open = slices.Delete(open, 0, 1)
	}
	all.open[login] = open
	return own.leave, func() {
		all.mu.Lock()
		defer all.mu.Unlock()
		left := slices.DeleteFunc(all.open[login], func(o openStream) bool { return o.number == own.number })
		if all.open[login] = left; len(left) == 0 {
			delete(all.open, login)
		}
	}
}

func (s *site) live(w http.ResponseWriter, r *http.Request) {
	leave, gone := s.streams.enter(auth.From(r.Context()).Login)
	defer gone()
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	out.SetWriteDeadline(time.Time{})
	seen := r.Header.Get("Last-Event-ID")
	if seen == "" {
		seen = r.URL.Query().Get("since")
	}
	fmt.Fprint(w, sign)
	beat := time.NewTicker(liveHeartbeat)
	defer beat.Stop()
	ctx := r.Context()
	var told time.Time // when the page was told of a change
	for {
		// The channels are asked for before the version is read: a change in
		// between is then seen by one of the two.
		waits := []reflect.SelectCase{
			{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ctx.Done())},
			{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(beat.C)},
			{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(leave)},
		}
		for _, c := range s.Changes {
			waits = append(waits, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(c.Changed(c.Version()))})
		}
		if now := s.version(); now != seen {
			fmt.Fprintf(w, "id: %s\nevent: change\ndata: %s\n\n", now, now)
			seen, told = now, time.Now()
		}
		if err := out.Flush(); err != nil {
			return
		}
		switch chosen, _, _ := reflect.Select(waits); chosen {
		case 0:
			return
		case 1:
			fmt.Fprint(w, sign)
		case 2:
			fmt.Fprint(w, "event: crowded\ndata:\n\n")
			return
		default: // the first change after a pause is told of at once, those of a burst are gathered
			select {
			case <-ctx.Done():
				return
			case <-time.After(max(liveSettle, liveGap-time.Since(told))):
			}
		}
	}
}
