package pages

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"lunboot/services/boot/diagnose"
	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/web/download"
)

// Events is the journal, as it lies in its table.
type Events interface {
	// FindEvents returns a page of the events that match, and how many do.
	FindEvents(context.Context, store.EventFilter) ([]store.Event, int, error)
	EveryEvent(context.Context, store.EventFilter) (store.Parts[store.Event], error)
}

type eventsView struct {
	Rows    []listing.Event
	List    tableQuery
	Of      string // the machine that the list is of; empty for everybody's
	Machine store.MachineID
	Live    bool // the newest come by themselves
}

// events lists what happened, the newest first: everything, or what happened to
// one machine.
func (s *site) events(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	var v eventsView
	q := readTable(r, "/events", "machine:lab-03, kind:iscsi, severity:error, since:2d", store.EventColumns())
	q.Table = "events"
	if text := r.URL.Query().Get("machine"); text != "" {
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil || id <= 0 {
			s.fail(w, r, store.NotFound("machine", text))
			return
		}
		m, err := s.Inventory.Machine(ctx, store.MachineID(id))
		if err != nil && !store.IsNotFound(err) {
			s.fail(w, r, err)
			return
		}
		if v.Of = m.Name; err != nil {
			v.Of = fmt.Sprintf("machine %d, which was removed", id)
		}
		v.Machine, q.Extra = store.MachineID(id), [][2]string{{"machine", strconv.FormatInt(id, 10)}}
	}
	q.uncounted([][2]string{{string(store.SeverityError), "Errors"}, {string(store.SeverityWarning), "Warnings"}, {string(store.SeverityInfo), "Usual"}})
	var bad, err error
	var found []store.Event
	v.List, found, bad, err = fetch(q, func(search string, p store.Page) ([]store.Event, int, error) {
		f := store.EventFilter{Machine: v.Machine, Sort: q.Sort, Limit: p.Limit, Offset: p.Offset}
		var err error
		if f.Search, err = store.ParseEventSearch(download.Narrowed(search, "severity", q.Show), s.Now(), s.lists().Named(ctx)); err != nil {
			return nil, 0, err
		}
		return s.Events.FindEvents(ctx, f)
	})
	if err == nil {
		v.Rows, err = download.WithNames(ctx, s.Inventory.Machine, found)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v.Live = v.List.From == 0
	status, problem := refused(http.StatusOK, "", bad)
	s.render(w, r, status, "events", page{Title: strings.TrimSuffix("Events of "+v.Of, " of "), Nav: "events", Live: true, List: v.List.URL(), Error: problem, Data: v})
}

// eventWords says what happened.
func eventWords(k store.EventKind) string { return upperFirst(diagnose.Words(k)) }

// eventFacts is what an event knows beyond who, when and what, a fact each.
func eventFacts(e store.Event) (out []string) {
	d := e.Detail
	note := func(name, value string) {
		if value != "" {
			out = append(out, strings.TrimSpace(name+" "+value))
		}
	}
	note("", d.Reason)
	note("", d.File)
	if d.URL != d.File {
		note("", d.URL)
	}
	note("profile", d.Profile)
	note("loader", d.Loader)
	if d.LUN != nil {
		note("LUN", strconv.Itoa(*d.LUN))
	}
	note("volume", d.Volume)
	switch {
	case e.Kind == store.EventDropped, e.Kind == store.EventSpace: // whose reason says it
	case d.Total > 0:
		note("", store.Bytes(d.Bytes)+" of "+store.Bytes(d.Total))
	case d.Bytes > 0 && strings.HasPrefix(string(e.Kind), "iscsi."):
		note("read", store.Bytes(d.Bytes))
	case d.Bytes > 0:
		note("", store.Bytes(d.Bytes))
	}
	if d.Written > 0 {
		note("wrote", store.Bytes(d.Written))
	}
	note("step", d.Step)
	note("code", d.Code)
	note("status", d.Status)
	note("sense", d.Sense)
	note("server", d.Server)
	note("initiator", d.Initiator)
	note("calls itself", d.Hostname)
	note("", strings.TrimSpace(d.Firmware+" "+d.Arch))
	note("on", d.Interface)
	note("by the relay", d.Relay)
	note("plugged into", d.Port)
	return out
}
