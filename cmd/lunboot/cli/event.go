package cli

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lunboot/store"
)

// EventCmd is the noun event.
type EventCmd struct {
	List EventListCmd `cmd:"" help:"List events."`
}

// EventListCmd lists or follows events.
type EventListCmd struct {
	listFlags
	Limit  int   `help:"How many at most of what is looked for, the newest first: 1 to 500 (default: 100)."`
	After  int64 `help:"Only events after this sequence number, in rising order."`
	Follow bool  `help:"Go on with new events until interrupted, also after the appliance was started again; with a search those that fit it."`
}

// Run lists or follows events: everything in rising order, or what is looked for,
// the newest first.
func (l *EventListCmd) Run(c *Context) error {
	if l.Limit < 0 || l.Limit > 500 {
		return usage("--limit is 1 to 500")
	}
	found := l.Search != "" || l.Sort != "" || l.Limit > 0
	switch {
	case found && l.After == 0 && !l.Follow:
		return l.found(c)
	case l.Sort != "" || l.Limit > 0:
		return usage("--sort and --limit are for a list of what is looked for: --after and --follow are in rising order")
	}
	for !l.Follow {
		var out list[store.Event]
		if err := c.Client.Do(c, "GET", "/events"+l.query("limit", "500", "after", strconv.FormatInt(l.After, 10)), nil, &out); err != nil {
			return err
		}
		if len(out.Items) == 0 {
			return nil
		}
		for _, e := range out.Items {
			if err := l.print(c, e); err != nil {
				return err
			}
			l.After = e.Seq
		}
	}
	path := "/events" + l.query()
	if l.After > 0 {
		path = "/events" + l.query("after", strconv.FormatInt(l.After, 10))
	}
	return l.follow(c, path)
}

// followAgain is how long a stream that broke off is left before the next try.
const followAgain = time.Second

// follow prints events until it is interrupted. An appliance that goes, as it does
// when it is started again, is asked for the rest once it is back.
func (l *EventListCmd) follow(c *Context, path string) error {
	last := ""
	for first := true; ; first = false {
		err := l.stream(c, path, &last)
		var no *refusal
		switch {
		case c.Err() != nil:
			return nil
		case errors.As(err, &no) && no.Status < http.StatusInternalServerError && no.Status != http.StatusTooManyRequests:
			return err // it is there, and says no
		case err != nil && first && last == "":
			return err
		}
		select {
		case <-c.Done():
			return nil
		case <-time.After(followAgain):
		}
	}
}

// stream prints the events of one connection. last is where the next one goes on.
func (l *EventListCmd) stream(c *Context, path string, last *string) error {
	header := http.Header{"Accept": {"text/event-stream"}}
	if *last != "" {
		header.Set("Last-Event-ID", *last)
	}
	resp, err := c.Client.send(c, "GET", path, nil, "", header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 1<<20)
	id := *last
	for in.Scan() {
		if text, ok := strings.CutPrefix(in.Text(), "id: "); ok {
			id = text
		}
		if in.Text() == "" { // the end of one: it is here whole
			*last = id
		}
		data, ok := strings.CutPrefix(in.Text(), "data: ")
		if !ok {
			continue
		}
		var e store.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return err
		}
		if err := l.print(c, e); err != nil {
			return err
		}
		*last = id
	}
	return in.Err()
}

// found lists what is looked for.
func (l *EventListCmd) found(c *Context) error {
	var out list[store.Event]
	if err := c.Client.Do(c, "GET", "/events"+l.query("search", l.Search, "limit", strconv.Itoa(cmp.Or(l.Limit, 100))), nil, &out); err != nil {
		return err
	}
	for _, e := range out.Items {
		if err := l.print(c, e); err != nil {
			return err
		}
	}
	if left := out.Total - len(out.Items); left > 0 {
		c.say("%d more fit", left)
	}
	return nil
}

// print writes one event a line: JSON lines with --json.
func (l *EventListCmd) print(c *Context, e store.Event) error {
	line := e.Detail
	line.Script = "" // a whole script fits no line; --json and 'attempt show' have it
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(c.Out).Encode(e)
	}
	who := ""
	if !e.MAC.IsZero() {
		who = e.MAC.String()
	} else if e.Addr.IsValid() {
		who = e.Addr.String()
	}
	_, err = fmt.Fprintf(c.Out, "%d  %s  %-18s %-17s %s\n", e.Seq, e.At.Local().Format("15:04:05.000"), e.Kind, who, clean(string(b)))
	return err
}
