package pages

import (
	"fmt"
	"html/template"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"lunboot/store"
	"lunboot/web/chart"
)

const (
	// activityDays is how many days the boots are counted for, and activityPage
	// how many boots one page lists.
	activityDays = 14
	activityPage = 50
	// machineBoots is how many boots the chart of a machine shows, and fewBoots
	// how many there must be before it says more than the list.
	machineBoots = 20
	fewBoots     = 3
	// roomEvery is the time between two points of the chart of room.
	roomEvery = 15 * time.Minute
)

type activityView struct {
	Boots template.HTML // by day
	Moved template.HTML // what machines read and wrote; empty before there are two samples
	Rows  []store.Attempt
	List  tableQuery
}

// activity shows how boots went and what machines moved.
func (s *site) activity(w http.ResponseWriter, r *http.Request) {
	var v activityView
	q := readTable(r, "/activity", "machine:lab-03, code:LB-LUN-01, since:2d", store.AttemptColumns())
	q.Rows, q.Table = activityPage, "attempts"
	q.uncounted([][2]string{{string(store.OutcomeFailed), "Failed"}, {string(store.OutcomeRunning), "Booting"}, {string(store.OutcomeUp), "Up"}, {string(store.OutcomeUpUnconfirmed), "Up, not confirmed"}, {string(store.OutcomeNotEnrolled), "Not enrolled"}})
	var bad, err error
	v.List, v.Rows, bad, err = fetch(q, func(search string, p store.Page) ([]store.Attempt, int, error) {
		f, err := s.attemptsOf(search, q.Show)
		if err != nil {
			return nil, 0, err
		}
		f.Sort, f.Page = q.Sort, p
		return s.Attempts.Attempts(r.Context(), f)
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	status, problem := refused(http.StatusOK, "", bad)
	y, m, d := s.Now().Local().Date()
	first := time.Date(y, m, d-activityDays+1, 0, 0, 0, 0, time.Local)
	ends, err := s.Ends(r.Context(), first)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v.Boots = bootsChart(first, ends)
	if moved := s.Moved(); len(moved) > 1 {
		v.Moved = movedChart(moved)
	}
	s.render(w, r, status, "activity", page{Title: "Attempts", Nav: "activity", Live: true, List: v.List.URL(), Error: problem, Data: v})
}

// attemptsOf is the boots that a search finds, with one outcome where one is
// chosen.
func (s *site) attemptsOf(search, outcome string) (store.AttemptFilter, error) {
	f, err := store.ParseAttemptSearch(search, s.Now())
	if err == nil && outcome != "" {
		f.Search.Terms = append(f.Search.Terms, store.Term{Key: "outcome", Value: outcome})
	}
	return f, err
}

// bootsChart counts the boots of each day, from the day of first on.
func bootsChart(first time.Time, ends []store.AttemptEnd) template.HTML {
	c := chart.Chart{ID: "attempts-a-day", Title: fmt.Sprintf("Attempts of the last %d days, by outcome", activityDays), Place: "Day", Format: plain}
	outcomes := []store.Outcome{store.OutcomeUp, store.OutcomeUpUnconfirmed, store.OutcomeFailed}
	c.Series = []chart.Series{{Name: "came up", Look: chart.Good}, {Name: "up, not confirmed", Look: chart.Unsure}, {Name: "failed", Look: chart.Bad}}
	for i := range c.Series {
		c.Series[i].Values = make([]float64, activityDays)
	}
	// By the calendar: a day may have 23 or 25 hours.
	days := map[[2]int]int{}
	for i := range activityDays {
		day := first.AddDate(0, 0, i)
		days[[2]int{day.Year(), day.YearDay()}] = i
		c.Labels = append(c.Labels, day.Format("Mon 2 Jan"))
	}
	total, failed := 0, 0
	for _, e := range ends {
		at := e.Started.Local()
		if i, ok := days[[2]int{at.Year(), at.YearDay()}]; ok {
			if k := slices.Index(outcomes, e.Outcome); k >= 0 {
				c.Series[k].Values[i]++
				total++
				if e.Outcome == store.OutcomeFailed {
					failed++
				}
			}
		}
	}
	c.Desc = fmt.Sprintf("%d attempts, %d of which failed.", total, failed)
	return chart.Bars(c)
}

func movedChart(moved []store.Throughput) template.HTML {
	c := chart.Chart{ID: "moved", Title: "What machines read and wrote in the last hour", Place: "Until", Unit: 1024, Format: rate}
	read, written := make([]float64, len(moved)), make([]float64, len(moved))
	for i, t := range moved {
		c.Labels = append(c.Labels, t.At.Local().Format("15:04:05"))
		read[i], written[i] = t.Read, t.Written
	}
	c.Series = []chart.Series{{Name: "read", Look: chart.First, Values: read}, {Name: "written", Look: chart.Second, Values: written}}
	c.Desc = fmt.Sprintf("At most %s read and %s written.", rate(slices.Max(read)), rate(slices.Max(written)))
	return chart.Lines(c)
}

// bootTimes draws how long the last boots of a machine took, the oldest first,
// beside what is usual; empty when they are too few to say anything.
func bootTimes(past []store.Attempt, usual int64) template.HTML {
	c := chart.Chart{ID: "boot-times", Title: "How long its last attempts took", Place: "Attempt", Format: func(f float64) string { return seconds(time.Duration(f * float64(time.Second))) }}
	up, failed := chart.Series{Name: "came up", Look: chart.Good}, chart.Series{Name: "failed after", Look: chart.Bad}
	for _, a := range slices.Backward(past) {
		t, good := bootTime(a)
		if t <= 0 {
			continue
		}
		c.Labels = append(c.Labels, a.Started.Local().Format("2 Jan 15:04"))
		v, w := t.Seconds(), math.NaN()
		if !good {
			v, w = w, v
		}
		up.Values, failed.Values = append(up.Values, v), append(failed.Values, w)
	}
	if len(c.Labels) < fewBoots {
		return ""
	}
	c.Series = []chart.Series{up, failed}
	c.Desc = fmt.Sprintf("%d attempts.", len(c.Labels))
	if usual > 0 {
		c.Level, c.LevelName = float64(usual)/1000, "usually "+c.Format(float64(usual)/1000)
		c.Desc += " A machine like this " + c.LevelName + "."
	}
	return chart.Bars(c)
}

// bootTime is how long a boot took until it was up, or until it had failed; 0
// when it runs still.
func bootTime(a store.Attempt) (took time.Duration, up bool) {
	end := time.Time{}
	for _, st := range a.Stages {
		at := st.Ended
		if at.IsZero() {
			at = st.At
		}
		if at.After(end) {
			end = at
		}
		if st.Name == store.StageUp && a.Outcome != store.OutcomeFailed {
			end = at
		}
	}
	switch a.Outcome {
	case store.OutcomeUp, store.OutcomeUpUnconfirmed:
		return end.Sub(a.Started), true
	case store.OutcomeFailed:
		return end.Sub(a.Started), false
	}
	return 0, false
}

// roomChart draws how much room was free; empty when it was not watched for
// long enough to show anything.
func roomChart(seen []store.RoomSample) template.HTML {
	c := chart.Chart{ID: "room-free", Title: "Room that was free", Place: "At", Unit: 1024, Format: func(f float64) string { return store.Bytes(int64(f)) }}
	free := chart.Series{Name: "free", Look: chart.First}
	last := time.Time{}
	for i, s := range seen {
		if s.At.Sub(last) < roomEvery && i < len(seen)-1 {
			continue
		}
		last = s.At
		c.Labels = append(c.Labels, s.At.Local().Format("Mon 15:04"))
		free.Values = append(free.Values, float64(s.Free))
	}
	if len(free.Values) < 3 {
		return ""
	}
	c.Series = []chart.Series{free}
	c.Desc = fmt.Sprintf("From %s to %s.", c.Format(free.Values[0]), c.Format(free.Values[len(free.Values)-1]))
	return chart.Lines(c)
}

func plain(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func rate(f float64) string { return store.Bytes(int64(f)) + "/s" }
