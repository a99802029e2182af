package pages

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"lunboot/store"
	"lunboot/web/auth"
)

// condition is where a machine stands, in the order of who needs a look first.
type condition string

const (
	condFailed  condition = "failed"
	condBooting condition = "booting"
	condSlow    condition = "slow"
	condUp      condition = "up"
	condNever   condition = "never"
)

func (c condition) rank() int {
	return slices.Index([]condition{condFailed, condBooting, condSlow, condUp, condNever}, c)
}

// Text is the words beside the icon.
func (c condition) Text() string {
	switch c {
	case condFailed:
		return "Boot failed"
	case condBooting:
		return "Booting"
	case condSlow:
		return "Up, slow boot"
	case condUp:
		return "Up"
	}
	return "Not seen"
}

// Icon names the symbol: shape tells as much as colour.
func (c condition) Icon() string {
	switch c {
	case condFailed:
		return "circle-x"
	case condBooting:
		return "loader-circle"
	case condSlow:
		return "triangle-alert"
	case condUp:
		return "circle-check"
	}
	return "circle-dashed"
}

// conditionOf reads an attempt; ok is false when there is none.
func conditionOf(a store.Attempt, ok bool) condition {
	if !ok {
		return condNever
	}
	switch a.Outcome {
	case store.OutcomeFailed:
		return condFailed
	case store.OutcomeUp, store.OutcomeUpUnconfirmed:
		for _, st := range a.Stages {
			if st.State == store.StageSlow {
				return condSlow
			}
		}
		return condUp
	}
	return condBooting
}

// machineRow is one line of the list.
type machineRow struct {
	ID      store.MachineID
	Name    string
	MAC     string
	More    int // further MACs
	Cond    condition
	Attempt store.Attempt
	Tried   bool
	Line    string // reason or step, below the strip
	Took    string
	Volume  string
	Profile string
	Address string
	Seen    string
}

type machinesView struct {
	Unknown []store.UnknownMachine
	Ignored int
	Rows    []machineRow
	Counts  map[condition]int
	Total   int
	Filter  condition
	Search  string
	Self    string // the URL of this view, for its own refresh
	Form    addForm
}

type addForm struct{ Name, MAC string }

// maxRows bounds one page of the list.
const maxRows = 100

func (s *site) machines(w http.ResponseWriter, r *http.Request) {
	s.showMachines(w, r, http.StatusOK, "", addForm{})
}

func (s *site) showMachines(w http.ResponseWriter, r *http.Request, status int, problem string, form addForm) {
	v, err := s.listMachines(r.Context(), condition(r.URL.Query().Get("show")), strings.TrimSpace(r.URL.Query().Get("search")))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v.Form = form
	s.render(w, r, status, "machines", page{Title: "Machines", Nav: "machines", Live: true, Error: problem, Data: v})
}

func (s *site) listMachines(ctx context.Context, show condition, search string) (machinesView, error) {
	v := machinesView{Counts: map[condition]int{}, Filter: show, Search: search}
	if show != "" && show.rank() < 0 {
		v.Filter = ""
	}
	q := url.Values{}
	if v.Filter != "" {
		q.Set("show", string(v.Filter))
	}
	if search != "" {
		q.Set("search", search)
	}
	v.Self = "/machines"
	if len(q) > 0 {
		v.Self += "?" + q.Encode()
	}
	asked, err := s.Inventory.UnknownMachines(ctx, true)
	if err != nil {
		return v, err
	}
	for _, u := range asked {
		if u.Ignored {
			v.Ignored++
		} else {
			v.Unknown = append(v.Unknown, u)
		}
	}
	ms, total, err := s.Inventory.Machines(ctx, store.MachineFilter{Search: search})
	if err != nil {
		return v, err
	}
	names, err := s.volumeNames(ctx)
	if err != nil {
		return v, err
	}
	v.Total = total
	for _, m := range ms {
		row := s.row(m, names)
		v.Counts[row.Cond]++
		if v.Filter == "" || v.Filter == row.Cond {
			v.Rows = append(v.Rows, row)
		}
	}
	slices.SortStableFunc(v.Rows, func(a, b machineRow) int {
		if d := a.Cond.rank() - b.Cond.rank(); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	if len(v.Rows) > maxRows {
		v.Rows = v.Rows[:maxRows]
	}
	return v, nil
}

// volumeNames says which volume each machine boots.
func (s *site) volumeNames(ctx context.Context) (map[store.MachineID]string, error) {
	maps, err := s.Inventory.Mappings(ctx)
	if err != nil {
		return nil, err
	}
	vols, err := s.Inventory.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	byID := map[store.VolumeID]string{}
	for _, v := range vols {
		byID[v.ID] = v.Name
	}
	out := map[store.MachineID]string{}
	for _, m := range maps {
		if m.Boot {
			out[m.Machine] = byID[m.Volume]
		}
	}
	return out, nil
}

func (s *site) row(m store.Machine, volumes map[store.MachineID]string) machineRow {
	row := machineRow{ID: m.ID, Name: m.Name, Volume: volumes[m.ID], Profile: m.Profile}
	if len(m.MACs) > 0 {
		row.MAC, row.More = m.MACs[0].String(), len(m.MACs)-1
	}
	a, ok := s.Attempts.Latest(m.ID, store.MAC{})
	row.Attempt, row.Tried, row.Cond = a, ok, conditionOf(a, ok)
	switch row.Cond {
	case condFailed:
		row.Line = reason(a)
	case condBooting:
		row.Line = runningLine(a)
	case condUp, condSlow:
		row.Took = took(a)
	}
	if a.Address != "" {
		row.Address = a.Address
	} else if m.Address.IsValid() {
		row.Address = m.Address.String()
	}
	row.Seen = s.ago(m.LastSeen)
	if ok && a.Updated.After(m.LastSeen) {
		row.Seen = s.ago(a.Updated)
	}
	return row
}

// reason is why an attempt failed, in one line.
func reason(a store.Attempt) string {
	if len(a.Diagnoses) > 0 {
		return a.Diagnoses[0].Title
	}
	for _, st := range a.Stages {
		if st.State == store.StageFailed {
			return st.Detail
		}
	}
	return "It stopped at: " + stageWords(a.Stage, store.StageFailed)
}

func runningLine(a store.Attempt) string {
	for i := len(a.Stages) - 1; i >= 0; i-- {
		if st := a.Stages[i]; st.State == store.StageRunning || st.State == store.StageDone || st.State == store.StageSlow {
			return stageWords(st.Name, st.State)
		}
	}
	return "Starting"
}

// took is the time from power to an operating system.
func took(a store.Attempt) string {
	for _, st := range a.Stages {
		if st.Name == store.StageUp && !st.At.IsZero() {
			end := st.Ended
			if end.IsZero() {
				end = st.At
			}
			return seconds(end.Sub(a.Started))
		}
	}
	return ""
}

func seconds(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	if d < 2*time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f min", d.Minutes())
}

// ago prints a time as people say it.
func (s *site) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	switch d := s.Now().Sub(t); {
	case d < 10*time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%.0f s ago", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%.0f min ago", d.Minutes())
	case d < 36*time.Hour:
		return fmt.Sprintf("%.0f h ago", d.Hours())
	default:
		return fmt.Sprintf("%.0f days ago", d.Hours()/24)
	}
}

func by(r *http.Request) store.Actor { return auth.From(r.Context()).Actor }

func (s *site) addMachine(w http.ResponseWriter, r *http.Request) {
	form := addForm{Name: strings.TrimSpace(r.PostFormValue("name")), MAC: strings.TrimSpace(r.PostFormValue("mac"))}
	mac, err := store.ParseMAC(form.MAC)
	if err == nil {
		var m store.Machine
		if m, err = s.Machines.AddMachine(r.Context(), by(r), store.MachineSpec{Name: strings.ToLower(form.Name), MACs: []store.MAC{mac}}); err == nil {
			http.Redirect(w, r, machinePath(m.ID), http.StatusSeeOther)
			return
		}
	}
	status, text := explain(err)
	s.showMachines(w, r, status, text, form)
}

func machinePath(id store.MachineID) string { return fmt.Sprintf("/machines/%d", id) }
