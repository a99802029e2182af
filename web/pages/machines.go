package pages

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/web/auth"
)

// condition is where a machine stands, in the order of who needs a look first.
type condition string

const (
	condFailed  = condition(store.BootFailed)
	condBooting = condition(store.BootBooting)
	condLost    = condition(store.BootLost)
	condSlow    = condition(store.BootSlow)
	condUp      = condition(store.BootUp)
	condNever   = condition(store.BootNever)
	// condStranger is where a boot stands that nothing was promised to; no machine does.
	condStranger condition = "stranger"
)

// known reports whether there is such a condition.
func (c condition) known() bool { return slices.Contains(store.BootStates(), store.BootState(c)) }

// Text is the words beside the icon.
func (c condition) Text() string {
	switch c {
	case condFailed:
		return "Boot failed"
	case condBooting:
		return "Booting"
	case condLost:
		return "Off, or lost its volume"
	case condSlow:
		return "Up, slow boot"
	case condUp:
		return "Up"
	case condStranger:
		return "Not enrolled"
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
	case condLost:
		return "unlink"
	case condSlow:
		return "triangle-alert"
	case condUp:
		return "circle-check"
	case condStranger:
		return "circle-help"
	}
	return "circle-dashed"
}

// conditionOf reads an attempt; ok is false when there is none.
func conditionOf(a store.Attempt, ok bool) condition { return condition(store.BootStateOf(a, ok)) }

// bootCondition is where one boot stands, whatever became of its machine since.
func bootCondition(a store.Attempt) condition {
	if a.Outcome == store.OutcomeNotEnrolled {
		return condStranger
	}
	return conditionOf(a, true)
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
	Once    string // the profile of its next boot only
	Tags    []string
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

	List        listQuery
	Match       int    // machines that the whole filter matches
	Digest      string // of these
	First, Last int    // of them on this page
	Before      string
	After       string
	Profiles    []store.Profile
	Goldens     []store.Volume // that each can get a clone of
	Fresh       bool           // clones begin anew unless something else is chosen
	Sure        *question      // what is asked before an act on many
}

type addForm struct{ Name, MAC string }

// maxRows bounds one page of the list.
const maxRows = 100

func (s *site) machines(w http.ResponseWriter, r *http.Request) {
	s.showMachines(w, r, readListQuery(r.URL.Query()), http.StatusOK, page{}, addForm{}, nil)
}

func (s *site) showMachines(w http.ResponseWriter, r *http.Request, list listQuery, status int, p page, form addForm, sure *question) {
	v, err := s.listMachines(r.Context(), list)
	if store.KindOf(err) == store.KindInvalid { // a search that is none keeps the page
		status, p.Error = told(r, err)
		search := list.Search
		list.Search = ""
		v, err = s.listMachines(r.Context(), list)
		v.Search = search
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v.Form, v.Sure = form, sure
	if list.Search == "" { // the list has looked at every machine
		p.Failed, p.counted = v.Counts[condFailed], true
	}
	p.Title, p.Nav, p.Live, p.List, p.Data = "Machines", "machines", true, v.Self, v
	s.render(w, r, status, "machines", p)
}

// volumeNames says which volume each machine boots.
func (s *site) volumeNames(ctx context.Context) (map[store.MachineID]string, error) {
	maps, err := s.Inventory.MappingViews(ctx, 0)
	if err != nil {
		return nil, err
	}
	out := make(map[store.MachineID]string, len(maps))
	for _, m := range maps {
		if m.Boot {
			out[m.Machine] = m.VolumeName
		}
	}
	return out, nil
}

func (s *site) row(m *listing.Machine, volumes map[store.MachineID]string) machineRow {
	a := m.Attempt
	row := machineRow{ID: m.ID, Name: m.Name, Volume: volumes[m.ID], Profile: m.Profile, Once: m.OnceProfile, Tags: m.Tags, Attempt: a, Tried: m.Tried, Cond: condition(m.State), Seen: s.ago(m.Seen)}
	if len(m.MACs) > 0 {
		row.MAC, row.More = m.MACs[0].String(), len(m.MACs)-1
	}
	switch row.Cond {
	case condFailed:
		row.Line = reason(a)
	case condNever:
		if m.Tried { // it stopped asking before it was enrolled
			row.Line = reason(a)
		}
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
	status, text := told(r, err)
	s.showMachines(w, r, readListQuery(nil), status, page{Error: text}, form, nil)
}

func machinePath(id store.MachineID) string { return fmt.Sprintf("/machines/%d", id) }
