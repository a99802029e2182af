package pages

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/web/auth"
)

// mappingRow is one LUN of a machine.
type mappingRow struct {
	ID       store.VolumeID
	Revision int64 // of the mapping
	LUN      store.LUN
	Name     string
	Size     int64
	ReadOnly bool // the machine cannot write it
	Reads    bool // since the mapping says so; else since the volume does
	Boot     bool
}

type machineView struct {
	Machine  store.Machine
	Cond     condition
	Tried    bool
	Attempt  store.Attempt
	Bars     []bar
	Total    string
	Usual    string // what its boots that went well take
	Times    template.HTML
	Mappings []mappingRow
	Volumes  []store.Volume // that could be mapped
	Goldens  []store.Volume // that it can get a clone of
	Default  bool
	Fresh    bool
	Profiles []store.Profile
	Earlier  []store.Attempt
	Lease    string
	Sessions []store.Session // that it has now
	Quirks   []quirkRow
	Loaders  []loaderChoice
	Self     string
	Power    powerView
	Captured map[store.AttemptID]bool // attempts whose packets can be downloaded
	Waits    onceWait
}

// onceWait is what a profile for the next boot only waits for, to be used up, and
// what is on the button of who ends that by hand.
type onceWait struct {
	For, End string
	Install  bool // nobody but an installer, or who drives it, knows when it is done
}

// waitsFor says what uses the machine's profile for the next boot up.
func waitsFor(m store.Machine, profiles []store.Profile) onceWait {
	at := slices.IndexFunc(profiles, func(p store.Profile) bool { return p.Name == m.OnceProfile })
	if at < 0 {
		return onceWait{End: "Take back"}
	}
	switch p := profiles[at]; {
	case p.Kind.Installs() && p.Text == "":
		return onceWait{"The profile has no answers, so somebody drives the installer by hand. It is used up when the machine comes back from the installer and its volume starts another boot loader than before. Where that cannot be seen, as on a disk of its own, say that it is done; until then each boot starts the installer again.", "Installation is done", true}
	case p.Kind.Installs():
		return onceWait{"It is used up when the installer reports that it is done, or when the machine comes back from it and its volume starts another boot loader than before. Where neither can be, say so here; until then each boot starts the installer again.", "Installation is done", true}
	case p.Kind == store.ProfileLocal:
		return onceWait{For: "It is used up when the machine’s own system asks for an address, or nothing is heard for three minutes after the script; not when the machine reports a failure or comes back before that.", End: "Take back"}
	case p.Kind == store.ProfileKernel || p.Kind == store.ProfileCustom:
		return onceWait{For: "It stays until the machine is up by it or, where it needs no volume, nothing more is heard for three minutes.", End: "Take back"}
	case p.Kind == store.ProfileMenu:
		return onceWait{For: "It stays until what was chosen from the menu is up, or is installed.", End: "Take back"}
	}
	return onceWait{For: "It stays until the machine is up by it.", End: "Take back"}
}

// bar places one stage in the waterfall, in per mille of the whole boot.
type bar struct {
	store.Stage
	X, Width int
	Offset   string
}

// earlierBoots is how many attempts the page lists.
const earlierBoots = 6

func (s *site) machine(w http.ResponseWriter, r *http.Request) {
	s.showMachine(w, r, http.StatusOK, "")
}

func (s *site) machineOf(r *http.Request) (store.Machine, error) {
	id, err := strconv.ParseInt(chi.URLParam(r, "id"), 10, 64)
	if err != nil {
		return store.Machine{}, store.NotFound("machine", chi.URLParam(r, "id"))
	}
	return s.Inventory.Machine(r.Context(), store.MachineID(id))
}

func (s *site) showMachine(w http.ResponseWriter, r *http.Request, status int, problem string) {
	s.machinePage(w, r, status, page{Error: problem})
}

// sayOnMachine shows the machine with what an act found out.
func (s *site) sayOnMachine(w http.ResponseWriter, r *http.Request, said string) {
	s.machinePage(w, r, http.StatusOK, page{Said: said})
}

func (s *site) machinePage(w http.ResponseWriter, r *http.Request, status int, p page) {
	s.machinePageWith(w, r, status, p, func(*machineView) {})
}

// machinePageWith shows the machine with what add knows of it besides.
func (s *site) machinePageWith(w http.ResponseWriter, r *http.Request, status int, p page, add func(*machineView)) {
	m, err := s.machineOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v, err := s.machineView(r.Context(), m)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	add(&v)
	p.Title, p.Nav, p.Live, p.Data = m.Name, "machines", true, v
	s.render(w, r, status, "machine", p)
}

func (s *site) machineView(ctx context.Context, m store.Machine) (machineView, error) {
	v := machineView{Machine: m, Self: machinePath(m.ID), Quirks: quirkRows(m), Loaders: s.loaderChoices(m)}
	v.Attempt, v.Tried = s.Attempts.Latest(m.ID, store.MAC{})
	v.Cond = conditionOf(v.Attempt, v.Tried)
	v.Bars, v.Total = s.bars(v.Attempt)
	if ms := v.Attempt.UsualMillis; ms > 0 {
		v.Usual = fmt.Sprintf("%d s", (ms+500)/1000)
	}
	past, _, err := s.Attempts.Attempts(ctx, store.AttemptFilter{Machine: m.ID, Page: store.Page{Limit: machineBoots}})
	if err != nil {
		return v, err
	}
	for _, a := range past {
		if a.ID != v.Attempt.ID && len(v.Earlier) < earlierBoots {
			v.Earlier = append(v.Earlier, a)
		}
	}
	v.Times = bootTimes(past, v.Attempt.UsualMillis)
	v.Captured = map[store.AttemptID]bool{}
	for _, a := range append([]store.Attempt{v.Attempt}, v.Earlier...) {
		v.Captured[a.ID] = a.ID != 0 && s.Captures.Captured(ctx, a)
	}
	maps, err := s.Inventory.Mappings(ctx)
	if err != nil {
		return v, err
	}
	vols, err := s.Inventory.Volumes(ctx)
	if err != nil {
		return v, err
	}
	taken := map[store.VolumeID]bool{}
	byID := map[store.VolumeID]store.Volume{}
	for _, vol := range vols {
		byID[vol.ID] = vol
	}
	for _, mp := range maps {
		if mp.Machine == m.ID {
			vol := byID[mp.Volume]
			v.Mappings = append(v.Mappings, mappingRow{ID: mp.Volume, Revision: mp.Revision, LUN: mp.LUN, Name: vol.Name, Size: vol.Size, ReadOnly: mp.ReadOnly || vol.ReadOnly, Reads: mp.ReadOnly, Boot: mp.Boot})
			taken[mp.Volume] = true
		} else if !mp.ReadOnly && !byID[mp.Volume].Shared && !byID[mp.Volume].ReadOnly {
			taken[mp.Volume] = true
		}
	}
	for _, vol := range vols {
		if !taken[vol.ID] && vol.State == store.VolumeReady && !vol.Golden {
			v.Volumes = append(v.Volumes, vol)
		}
	}
	if v.Profiles, err = s.Inventory.Profiles(ctx); err != nil {
		return v, err
	}
	v.Waits = waitsFor(m, v.Profiles)
	if v.Goldens, v.Default, err = s.goldens(ctx); err != nil {
		return v, err
	}
	v.Default, v.Fresh = v.Default || len(v.Goldens) > 0, s.fresh(ctx)
	for _, session := range s.Sessions.Sessions() {
		if session.Machine == m.ID {
			v.Sessions = append(v.Sessions, session)
		}
	}
	leases, err := s.Inventory.Leases(ctx)
	if err != nil {
		return v, err
	}
	for _, l := range leases {
		for _, mac := range m.MACs {
			if l.MAC == mac && l.State == store.LeaseBound && l.Expires.After(s.Now()) {
				v.Lease = l.Address.String()
			}
		}
	}
	return v, nil
}

// bars lays the stages out over the boot's time.
func (s *site) bars(a store.Attempt) ([]bar, string) {
	if a.ID == 0 {
		return nil, ""
	}
	end := a.Started
	for _, st := range a.Stages {
		for _, t := range []time.Time{st.At, st.Ended} {
			if t.After(end) {
				end = t
			}
		}
	}
	whole := end.Sub(a.Started)
	if whole <= 0 {
		whole = time.Second
	}
	permille := func(t time.Time) int {
		return min(1000, max(0, int(t.Sub(a.Started)*1000/whole)))
	}
	var out []bar
	for _, st := range a.Stages {
		b := bar{Stage: st}
		if !st.At.IsZero() {
			b.X = min(permille(st.At), 985)
			to := st.Ended
			if to.IsZero() {
				to = st.At
			}
			b.Width = max(15, permille(to)-b.X)
			b.Offset = fmt.Sprintf("+%.1f s", st.At.Sub(a.Started).Seconds())
		}
		out = append(out, b)
	}
	total := ""
	if end.After(a.Started) {
		total = seconds(end.Sub(a.Started))
	}
	return out, total
}

// change runs one act on the machine of the request and shows the page again.
func (s *site) change(w http.ResponseWriter, r *http.Request, act func(store.Machine) error) {
	m, err := s.machineOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if err := s.expect(r, m); err != nil {
		status, text := told(r, err)
		s.showMachine(w, r, status, text)
		return
	}
	if err := act(m); err != nil {
		status, text := told(r, err)
		s.showMachine(w, r, status, text+s.meanwhile(r, m, err))
		return
	}
	http.Redirect(w, r, machinePath(m.ID), http.StatusSeeOther)
}

// expect tells the act of a request what the form was made from: it is refused
// when somebody changed the machine meanwhile.
func (s *site) expect(r *http.Request, m store.Machine) error {
	revision, err := formRevision(r)
	if err == nil && revision != 0 {
		*r = *r.WithContext(store.Expecting(r.Context(), store.Expectation{Noun: "machine", Key: fmt.Sprint(m.ID), Revision: revision}))
	}
	return err
}

// maxMeanwhile bounds the changes that a refusal repeats.
const maxMeanwhile = 5

// meanwhile says who changed the machine since the form was made, in what; empty
// when that is not what err is about.
func (s *site) meanwhile(r *http.Request, m store.Machine, err error) string {
	seen := store.Expected(r.Context(), "machine", fmt.Sprint(m.ID))
	if store.KindOf(err) != store.KindStale || seen == 0 {
		return ""
	}
	rows, _, err := s.Audit.AuditLog(r.Context(), store.AuditFilter{Noun: "machine", Subject: m.Name, Moved: true, Page: store.Page{Limit: int(min(max(1, m.Revision-seen), maxMeanwhile))}})
	if err != nil {
		s.Log.Error("list what changed meanwhile", "error", err)
		return ""
	}
	var b strings.Builder
	for _, a := range rows {
		fmt.Fprintf(&b, " %s, %s: %s.", s.clock(a.At), a.Actor, a.Detail)
	}
	return b.String()
}

// quirkRow is one quirk that a machine may be given.
type quirkRow struct {
	Quirk store.Quirk
	Set   bool
}

func quirkRows(m store.Machine) []quirkRow {
	var out []quirkRow
	for _, q := range store.Quirks() {
		out = append(out, quirkRow{q, slices.Contains(m.Quirks, q)})
	}
	return out
}

// setQuirks gives the machine the quirks that are ticked, and no others.
func (s *site) setQuirks(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, func(m store.Machine) error {
		if err := r.ParseForm(); err != nil {
			return store.Invalid("quirks", "the form cannot be read")
		}
		quirks := []store.Quirk{}
		for _, t := range r.PostForm["quirk"] {
			q, err := store.ParseQuirk(t)
			if err != nil {
				return err
			}
			quirks = append(quirks, q)
		}
		_, err := s.Machines.SetMachine(r.Context(), by(r), m.ID, store.MachinePatch{Quirks: &quirks})
		return err
	})
}

// mapVolume gives the machine a volume: an existing one, a new empty one, or
// one imported from a path of the appliance.
func (s *site) mapVolume(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	s.change(w, r, func(m store.Machine) error {
		if c := choice(r); c.Of == store.CloneOfNone {
			return store.Invalid("clone_of", "choose what the clone is to be of")
		} else if c.Of != "" {
			return s.cloneFor(r, m, c)
		}
		spec := store.MappingSpec{Machine: m.ID}
		if t := strings.TrimSpace(r.PostFormValue("lun")); t != "" {
			l, err := store.ParseLUN(t)
			if err != nil {
				return err
			}
			spec.LUN = &l
		}
		switch r.PostFormValue("from") {
		case "empty":
			size, err := store.ParseBytes(r.PostFormValue("size"))
			if err != nil {
				return err
			}
			v, err := s.Volumes.CreateVolume(ctx, by(r), store.VolumeSpec{Name: strings.TrimSpace(r.PostFormValue("name")), Size: size})
			if err != nil {
				return err
			}
			spec.Volume = v.ID
		case "import":
			if !auth.From(ctx).May(store.ScopeAdmin) {
				return &store.Error{Kind: store.KindDenied, Msg: "a file of the appliance's own can be imported by an admin; others upload theirs"}
			}
			v, _, err := s.Volumes.ImportFile(ctx, by(r), store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: strings.TrimSpace(r.PostFormValue("name"))}}, strings.TrimSpace(r.PostFormValue("path")))
			if err != nil {
				return err
			}
			spec.Volume = v.ID
		default:
			id, err := strconv.ParseInt(r.PostFormValue("volume"), 10, 64)
			if err != nil {
				return store.Invalid("volume", "choose a volume")
			}
			spec.Volume = store.VolumeID(id)
		}
		_, err := s.Volumes.Map(ctx, by(r), spec)
		return err
	})
}

// cloneFor gives the machine a fresh clone of a golden volume to boot from.
func (s *site) cloneFor(r *http.Request, m store.Machine, c store.CloneChoice) error {
	all, err := s.Inventory.Volumes(r.Context())
	if err != nil {
		return err
	}
	for _, v := range all {
		if v.Name == c.Of {
			_, _, err := s.Volumes.CloneFor(r.Context(), by(r), m.ID, store.CloneSpec{Parent: v.ID, Reset: c.Reset, Volatile: c.Volatile})
			return err
		}
	}
	return store.NotFound("volume", c.Of)
}

func (s *site) removeMachine(w http.ResponseWriter, r *http.Request) {
	m, err := s.machineOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if r.PostFormValue("confirm") != m.Name {
		s.showMachine(w, r, http.StatusUnprocessableEntity, "Nothing was removed: type the machine's name to confirm.")
		return
	}
	err = s.expect(r, m)
	if err == nil {
		err = s.Machines.RemoveMachine(r.Context(), by(r), m.ID, false)
	}
	if err != nil {
		status, text := told(r, err)
		s.showMachine(w, r, status, text+s.meanwhile(r, m, err))
		return
	}
	toList(w, r, "/machines")
}
