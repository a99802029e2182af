package cli

import (
	"strconv"
	"strings"

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

// JobCmd is the noun job.
type JobCmd struct {
	List   JobListCmd   `cmd:"" help:"List jobs."`
	Show   JobShowCmd   `cmd:"" help:"Show how far a job is, and what became of each machine of one on many."`
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
			rows = append(rows, []string{strconv.FormatInt(j.ID, 10), j.Kind, j.Subject, string(j.State), j.Amount(j.Done), j.Amount(j.Total), j.Became(), j.Error})
		}
		c.table("ID KIND SUBJECT STATE DONE TOTAL MACHINES ERROR", rows)
	})
}

// JobShowCmd shows one job.
type JobShowCmd struct {
	ID int64 `arg:"" help:"Id."`
}

// Run shows one job.
func (s *JobShowCmd) Run(c *Context) error {
	var j store.Job
	if err := c.Client.Do(c, "GET", "/jobs/"+strconv.FormatInt(s.ID, 10), nil, &j); err != nil {
		return err
	}
	return c.show(j, func() {
		c.facts("Id", strconv.FormatInt(j.ID, 10), "Kind", j.Kind, "Subject", j.Subject, "State", string(j.State), "Done", j.Amount(j.Done), "Total", j.Amount(j.Total), "Machines", j.Became(), "Began", when(j.Started), "Ended", when(j.Finished), "Error", j.Error)
		if len(j.Verdicts) > 0 {
			c.say("")
			c.verdicts(j)
		}
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
