package pages

import (
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// A live page holds one stream that says only "something changed"; the page
// then fetches itself again. Nothing on the stream is data to trust, so a
// paused or broken one loses nothing: on its next connect the version differs.
const (
	liveGap       = 250 * time.Millisecond // at most four refreshes a second
	liveSettle    = 40 * time.Millisecond  // what changes with a change is shown with it, and boots are told of in rounds of 20 ms
	liveHeartbeat = 15 * time.Second
)

// version is the sum of the sources' versions: each only rises.
func (s *site) version() string {
	parts := make([]string, len(s.Changes))
	for i, c := range s.Changes {
		parts[i] = strconv.FormatInt(c.Version(), 10)
	}
	return strings.Join(parts, ".")
}

func (s *site) live(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	out.SetWriteDeadline(time.Time{})
	seen := r.Header.Get("Last-Event-ID")
	if seen == "" {
		seen = r.URL.Query().Get("since")
	}
	fmt.Fprint(w, ": live\n\n")
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
			fmt.Fprint(w, ": still here\n\n")
		default: // the first change after a pause is told of at once, those of a burst are gathered
			select {
			case <-ctx.Done():
				return
			case <-time.After(max(liveSettle, liveGap-time.Since(told))):
			}
		}
	}
}
