package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
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
		Summary:     "The journal: a JSON listing, or a stream for Accept: text/event-stream (resumes by Last-Event-ID)",
		Description: "Query: after (sequence number), machine (id), mac, attempt, limit.",
		Security:    security(store.ScopeRead),
		Responses:   map[string]*huma.Response{"200": {Description: "events in rising order"}},
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
	f, err := eventFilter(r)
	if err != nil {
		writeProblem(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
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
	s.stream(w, r, f)
}

// stream writes events as they come until the client goes away. A client that
// names no place starts at the present end.
func (s *server) stream(w http.ResponseWriter, r *http.Request, f store.EventFilter) {
	if n, err := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64); err == nil && n >= 0 {
		f.After = n
	} else if r.URL.Query().Get("after") == "" {
		f.After = s.Events.LastSeq()
	}
	f.Limit = eventBatch
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	out.SetWriteDeadline(time.Time{})
	fmt.Fprint(w, ": events\n\n")
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		wake := s.Events.Wake(f.After)
		items, upto, err := s.Events.After(r.Context(), f)
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
		f.After = upto
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

func eventFilter(r *http.Request) (f store.EventFilter, err error) {
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
	if err != nil {
		return f, err
	}
	if f.Limit == 0 || f.Limit > eventBatch {
		f.Limit = eventBatch
	}
	if v := q.Get("mac"); v != "" {
		f.MAC, err = store.ParseMAC(v)
	}
	return f, err
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: detail})
}
