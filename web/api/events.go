package api

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/web/download"
)

// heartbeat keeps proxies from closing a silent stream.
const heartbeat = 15 * time.Second

// eventBatch bounds how many events one read of the journal returns.
const eventBatch = 500

// describeEvents puts the stream, which is no JSON document, into the OpenAPI
// description.
func describeEvents(a huma.API) {
	a.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "events", Method: http.MethodGet, Path: "/api/v1/events",
		Summary: "The journal: a JSON listing, or a stream for Accept: text/event-stream (resumes by Last-Event-ID)",
		Description: "Query: machine (id), mac, attempt (which a boot's reports carry), limit (at most 500), and search: words and qualifiers, such as machine:lab-03 kind:iscsi severity:error since:2d. " +
			"With after (a sequence number), or with nothing but these three, events come in rising order from there on; with search, sort (at or kind, with a hyphen before it the other way) or offset and without after they come as the page lists them, the newest first, with how many there are and the names of their machines.",
		Security:  security(store.ScopeRead),
		Responses: map[string]*huma.Response{"200": {Description: "events in rising order, or a page of those that were found"}},
	})
}

// needRead lets those pass who may read.
func (s *server) needRead(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status, detail := refusal(r.Context(), store.ScopeRead); status != 0 {
			writeProblem(w, status, detail)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// events lists the journal, or streams it to a client that accepts
// text/event-stream.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	f, err := s.eventFilter(r)
	if err != nil {
		eventProblem(w, err)
		return
	}
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		if q := r.URL.Query(); q.Get("after") == "" && (q.Has("search") || q.Has("sort") || q.Has("offset")) {
			s.foundEvents(w, r, f)
			return
		}
		items, _, err := s.Events.After(r.Context(), f)
		if err != nil {
			s.Log.Error("list events", "error", err)
			writeProblem(w, http.StatusInternalServerError, err.Error())
			return
		}
		if items == nil {
			items = []store.Event{}
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(List[store.Event]{Items: items, Total: len(items)})
		return
	}
	s.stream(w, r, &followed{server: s, EventFilter: f, text: r.URL.Query().Get("search"), machines: -1})
}

// followed is a filter that a stream goes on with: who is meant by a name, and where
// a boot ends, is looked up anew as it goes. The names are when a machine has changed.
type followed struct {
	*server
	store.EventFilter
	text     string // of the search
	machines int64  // as of which change of a machine the names were looked up
}

// next reads on in the journal.
func (f *followed) next(ctx context.Context) ([]store.Event, int64, error) {
	for {
		at := f.Store.ClientRevision()
		if f.text != "" && (at != f.machines || len(f.Search.Spans) > 0) {
			if err := f.look(ctx); err != nil {
				return nil, 0, err
			}
			f.machines = at
		}
		items, upto, err := f.Events.After(ctx, f.EventFilter)
		// What was read may be of a machine that got its name meanwhile.
		if err != nil || f.Store.ClientRevision() == at {
			return items, upto, err
		}
	}
}

// look looks up what the search says by name. A boot that runs has no end yet; one
// that is forgotten ends where it did.
func (f *followed) look(ctx context.Context) error {
	names := f.lists().Named(ctx)
	find := names.Attempt
	names.Attempt = func(id store.AttemptID) (store.Attempt, error) {
		a, err := find(id)
		if err == nil && a.Outcome == store.OutcomeRunning {
			a.LastSeq = math.MaxInt64
		}
		return a, err
	}
	now, err := store.ParseEventSearch(f.text, time.Now(), names)
	switch {
	case err == nil:
		now.Since, now.Until = f.Search.Since, f.Search.Until // as they were asked for
		f.Search = now
	case store.KindOf(err) != store.KindInvalid:
		return err
	}
	return nil
}

// foundEvents answers a page of events, as the page lists them.
func (s *server) foundEvents(w http.ResponseWriter, r *http.Request, f store.EventFilter) {
	var named []listing.Event
	items, total, err := s.Events.FindEvents(r.Context(), f)
	if err == nil {
		named, err = download.WithNames(r.Context(), s.Store.Machine, items)
	}
	if err != nil {
		eventProblem(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(List[listing.Event]{Items: named, Total: total})
}

// eventProblem answers what went wrong as every other operation does.
func eventProblem(w http.ResponseWriter, err error) {
	m := problem(err).(*unlocated).at(inQuery)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(m.Status)
	json.NewEncoder(w).Encode(m)
}

// stream writes events as they come until the client goes away. A client that
// names no place starts at the present end, and so does one whose place is beyond
// it: after a restore without the journal numbers begin anew, and nothing would
// come until they had caught up.
func (s *server) stream(w http.ResponseWriter, r *http.Request, f *followed) {
	if n, err := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64); err == nil && n >= 0 {
		f.After = n
	} else if r.URL.Query().Get("after") == "" {
		f.After = s.Events.LastSeq()
	}
	f.After = min(f.After, s.Events.LastSeq())
	f.Limit = eventBatch
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	out.SetWriteDeadline(time.Time{})
	fmt.Fprintf(w, ": events\nid: %d\n\n", f.After) // where to go on from, if nothing comes
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		wake := s.Events.Wake(f.After)
		items, upto, err := f.next(r.Context())
		if err != nil {
			return
		}
		for _, e := range items {
			b, err := json.Marshal(e)
			if err != nil {
				return
			}
			fmt.Fprintf(w, "id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Kind, b)
		}
		f.After = max(f.After, upto)
		if err := out.Flush(); err != nil {
			return
		}
		if len(items) == eventBatch {
			continue
		}
		select {
		case <-r.Context().Done():
			return
		case <-wake:
		case <-tick.C:
			fmt.Fprint(w, ": still here\n\n")
		}
	}
}

func (s *server) eventFilter(r *http.Request) (f store.EventFilter, err error) {
	q := r.URL.Query()
	number := func(key string) int64 {
		v := q.Get(key)
		if v == "" || err != nil {
			return 0
		}
		n, perr := strconv.ParseInt(v, 10, 64)
		if perr != nil || n < 0 {
			err = store.Invalid(key, "%q is not a number", v)
		}
		return n
	}
	f.After = number("after")
	f.Machine = store.MachineID(number("machine"))
	f.Attempt = store.AttemptID(number("attempt"))
	f.Limit = int(number("limit"))
	f.Offset = int(min(number("offset"), math.MaxInt32))
	f.Sort = q.Get("sort")
	if err != nil {
		return f, err
	}
	if f.Limit == 0 || f.Limit > eventBatch {
		f.Limit = eventBatch
	}
	if v := q.Get("mac"); v != "" {
		if f.MAC, err = store.ParseMAC(v); err != nil {
			return f, err
		}
	}
	f.Search, err = store.ParseEventSearch(q.Get("search"), time.Now(), s.lists().Named(r.Context()))
	return f, err
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	keepPrivate(w)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: detail})
}
