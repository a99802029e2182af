package cli

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"encoding/json"

	"lunboot/store"
)

// SessionCmd is the noun session.
type SessionCmd struct {
	List SessionListCmd `cmd:"" help:"List live iSCSI sessions."`
	Drop SessionDropCmd `cmd:"" help:"End a session; its initiator may log in again."`
}

// SessionListCmd lists sessions.
type SessionListCmd struct{ listFlags }

// Run lists sessions.
func (l *SessionListCmd) Run(c *Context) error {
	var out list[struct {
		store.Session
		Name string `json:"machine_name,omitempty"`
	}]
	if err := c.Client.Do(c, "GET", "/sessions"+l.query(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, s := range out.Items {
			luns := []string{}
			for _, l := range s.LUNs {
				luns = append(luns, strconv.Itoa(int(l)))
			}
			who := "OS"
			if s.IPXE {
				who = "iPXE"
			}
			rows = append(rows, []string{s.ID, s.Name, string(s.Initiator), who, s.Addr, string(s.Auth), strings.Join(luns, ","), store.Bytes(s.Read), store.Bytes(s.Written), when(s.Since)})
		}
		c.table("ID MACHINE INITIATOR BY ADDRESS LOGIN LUNS READ WRITTEN SINCE", rows)
	})
}

// SessionDropCmd ends a session.
type SessionDropCmd struct {
	Session string `arg:"" help:"Id."`
}

// Run ends a session.
func (d *SessionDropCmd) Run(c *Context) error {
	if err := c.Client.Do(c, "DELETE", "/sessions/"+esc(d.Session), nil, nil); err != nil {
		return err
	}
	c.say("ended session %s", d.Session)
	return nil
}

// LeaseCmd is the noun lease.
type LeaseCmd struct {
	List LeaseListCmd `cmd:"" help:"List leases."`
	Drop LeaseDropCmd `cmd:"" help:"Forget a lease."`
}

// LeaseListCmd lists leases.
type LeaseListCmd struct{ listFlags }

// Run lists leases.
func (l *LeaseListCmd) Run(c *Context) error {
	var out list[struct {
		store.Lease
		Name string `json:"machine_name,omitempty"`
		Over bool   `json:"expired,omitempty"`
	}]
	if err := c.Client.Do(c, "GET", "/leases"+l.query(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, l := range out.Items {
			state := string(l.State)
			if l.Over {
				state = "expired"
			}
			rows = append(rows, []string{l.Address.String(), l.MAC.String(), l.Name, state, l.Hostname, when(l.Expires), l.Port})
		}
		c.table("ADDRESS MAC MACHINE STATE HOSTNAME EXPIRES PORT", rows)
	})
}

// LeaseDropCmd forgets a lease.
type LeaseDropCmd struct {
	Address string `arg:"" help:"Address."`
}

// Run forgets a lease.
func (d *LeaseDropCmd) Run(c *Context) error {
	if err := c.Client.Do(c, "DELETE", "/leases/"+esc(d.Address), nil, nil); err != nil {
		return err
	}
	c.say("forgot the lease of %s", d.Address)
	return nil
}

// EventCmd is the noun event.
type EventCmd struct {
	List EventListCmd `cmd:"" help:"List events."`
}

// EventListCmd lists or follows events.
type EventListCmd struct {
	After  int64 `help:"Only events after this sequence number."`
	Follow bool  `help:"Go on with new events until interrupted."`
}

// Run lists or follows events.
func (l *EventListCmd) Run(c *Context) error {
	for !l.Follow {
		var out list[store.Event]
		if err := c.Client.Do(c, "GET", "/events?limit=500&after="+strconv.FormatInt(l.After, 10), nil, &out); err != nil {
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
	path := "/events"
	if l.After > 0 {
		path += "?after=" + strconv.FormatInt(l.After, 10)
	}
	resp, err := c.Client.send(c, "GET", path, nil, "", http.Header{"Accept": {"text/event-stream"}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
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
	}
	if c.Err() != nil {
		return nil
	}
	return in.Err()
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

// JobCmd is the noun job.
type JobCmd struct {
	List   JobListCmd   `cmd:"" help:"List jobs."`
	Cancel JobCancelCmd `cmd:"" help:"Cancel a running job."`
}

// JobListCmd lists jobs.
type JobListCmd struct{ listFlags }

// Run lists jobs.
func (l *JobListCmd) Run(c *Context) error {
	var out list[store.Job]
	if err := c.Client.Do(c, "GET", "/jobs"+l.query(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, j := range out.Items {
			rows = append(rows, []string{strconv.FormatInt(j.ID, 10), j.Kind, j.Subject, string(j.State), store.Bytes(j.Done), store.Bytes(j.Total), j.Error})
		}
		c.table("ID KIND SUBJECT STATE DONE TOTAL ERROR", rows)
	})
}

// JobCancelCmd cancels a job.
type JobCancelCmd struct {
	Job int64 `arg:"" help:"Id."`
}

// Run cancels a job.
func (j *JobCancelCmd) Run(c *Context) error {
	if err := c.Client.Do(c, "DELETE", "/jobs/"+strconv.FormatInt(j.Job, 10), nil, nil); err != nil {
		return err
	}
	c.say("canceled job %d", j.Job)
	return nil
}
