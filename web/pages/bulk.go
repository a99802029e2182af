package pages

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"lunboot/store"
	"lunboot/store/listing"
)

// maxTold bounds the machines that a refusal of many names.
const maxTold = 5

// bulk does one act on the machines that are ticked, or on all that match.
func (s *site) bulk(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, store.Invalid("form", "the form cannot be read"))
		return
	}
	list := readListQuery(r.PostForm)
	refuse := func(err error) {
		status, text := told(r, err)
		s.showMachines(w, r, list, status, page{Error: text}, addForm{}, nil)
	}
	ms, err := s.chosen(ctx, list, r.PostForm)
	if err != nil {
		refuse(err)
		return
	}
	act, value := r.PostFormValue("act"), strings.TrimSpace(r.PostFormValue("value"))
	if act == "profile" {
		value = r.PostFormValue("profile")
	}
	if act == "remove" {
		sure := sureToRemove(r, list, ms)
		if status, problem := sure.refused(r); status != 0 {
			s.showMachines(w, r, list, status, page{Error: problem}, addForm{}, sure)
			return
		}
	}
	if act == "clone" {
		ids := make([]store.MachineID, len(ms))
		for i, m := range ms {
			ids[i] = m.ID
		}
		job, err := s.Enrolling.CloneForEach(ctx, by(r), ids, choice(r))
		if err != nil {
			refuse(err)
			return
		}
		http.Redirect(w, r, jobPath(job.ID), http.StatusSeeOther)
		return
	}
	t := tally{count: count, back: undo{Back: list.URL()}}
	var switched []error
	switch act {
	case "on", "shutdown":
		switched = s.switchAll(ctx, by(r), ms, store.PowerAct(act))
	}
	for i, m := range ms {
		var was string
		var err error
		if switched != nil {
			err = switched[i]
		} else {
			was, err = s.bulkOne(ctx, by(r), m, act, value)
		}
		t.add(m.Name, was, err)
	}
	status, p := t.page()
	s.showMachines(w, r, list, status, p, addForm{}, nil)
}

// sureToRemove is what somebody has to agree to before machines are removed.
func sureToRemove(r *http.Request, list listQuery, ms []store.Machine) *question {
	q := &question{
		Act: "remove", Title: "Remove " + count(len(ms)) + "?", Button: "Remove " + count(len(ms)),
		Lines: []string{"Their names, MAC addresses, LUN mappings and what is known of their attempts go; nothing brings them back.", "Their volumes stay."},
		Want:  fmt.Sprintf("remove %d", len(ms)), Typed: strings.TrimSpace(r.PostFormValue("sure")),
		List: tableQuery{Path: "/machines", Show: string(list.Show), Search: list.Search, Sort: list.Sort, From: list.From},
	}
	now := make([]string, len(ms))
	names := make([]string, len(ms))
	for i, m := range ms {
		now[i] = fmt.Sprintf("%d:%d", m.ID, m.Revision)
		names[i] = m.Name
	}
	q.Seen = listing.Digest(now)
	if r.PostFormValue("all") != "" {
		q.Match = r.PostFormValue("match")
	} else {
		q.IDs = r.PostForm["id"]
	}
	some := names[:min(len(names), maxLost)]
	line := strings.Join(some, ", ")
	if more := len(names) - len(some); more > 0 {
		line += fmt.Sprintf(" and %d more", more)
	}
	q.Lines = append([]string{line}, q.Lines...)
	return q
}

// tally is what became of an act on many things.
type tally struct {
	count    func(int) string // so many of them, in words
	back     undo
	did      int
	failures []string
}

// add notes what became of one of them: how it is taken back, empty for not at
// all, or why it was not done.
func (t *tally) add(name, was string, err error) {
	if err != nil {
		t.failures = append(t.failures, name+": "+err.Error())
		return
	}
	t.did++
	if was != "" {
		t.back.Was = append(t.back.Was, was)
	}
}

// page says for how many it was done, for which not and why, and offers to take it
// back.
func (t *tally) page() (status int, p page) {
	if t.did > 0 {
		p.Said = fmt.Sprintf("Done for %s.", t.count(t.did))
	}
	if len(t.failures) > 0 {
		p.Error = fmt.Sprintf("Not done for %s. %s", t.count(len(t.failures)), strings.Join(t.failures[:min(len(t.failures), maxTold)], "; "))
		if more := len(t.failures) - maxTold; more > 0 {
			p.Error += fmt.Sprintf("; and %d more", more)
		}
	}
	if len(t.back.Was) > 0 {
		p.Undo = &t.back
	}
	if t.did == 0 {
		return http.StatusConflict, p
	}
	return http.StatusOK, p
}

// sameAsSeen refuses an act on all that match when these are not those that did
// when the page was made, by what stands for them.
func sameAsSeen(form url.Values, now, words string) error {
	if form.Get("match") == now {
		return nil
	}
	return store.Conflict("match", "%s match now, and they are not those that did when the page was made; look at the list again", words)
}

func count(n int) string {
	if n == 1 {
		return "1 machine"
	}
	return fmt.Sprintf("%d machines", n)
}

// chosen returns the machines that a form names: the ticked ones, or all that
// match the list, when they are still those of which the form speaks.
func (s *site) chosen(ctx context.Context, l listQuery, form url.Values) ([]store.Machine, error) {
	var out []store.Machine
	if form.Get("all") != "" {
		all, _, _, err := s.find(ctx, l)
		if err != nil {
			return nil, err
		}
		if err := sameAsSeen(form, digest(all), count(len(all))); err != nil {
			return nil, err
		}
		for _, f := range all {
			out = append(out, f.Machine)
		}
	} else {
		for _, t := range form["id"] {
			id, err := strconv.ParseInt(t, 10, 64)
			if err != nil {
				return nil, store.Invalid("id", "%q is no machine's number", t)
			}
			m, err := s.Inventory.Machine(ctx, store.MachineID(id))
			if err != nil {
				return nil, err
			}
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return nil, store.Invalid("id", "tick the machines that are meant, or choose all that match")
	}
	return out, nil
}

// digest stands for the machines that match, in whatever order they are shown.
func digest(all []*listing.Machine) string {
	ids := make([]store.MachineID, len(all))
	for i, f := range all {
		ids[i] = f.ID
	}
	return listing.Digest(ids)
}

// bulkOne does the act on one machine and says how it is taken back, empty when
// there is nothing to take back.
func (s *site) bulkOne(ctx context.Context, who store.Actor, m store.Machine, act, value string) (was string, err error) {
	set := func(p store.MachinePatch, old string) (string, error) {
		p.Revision = m.Revision
		now, err := s.Machines.SetMachine(ctx, who, m.ID, p)
		if err != nil || now.Revision == m.Revision {
			return "", err
		}
		return fmt.Sprintf("%d:%d:%s", m.ID, now.Revision, old), nil
	}
	tags := slices.Clone(m.Tags)
	switch act {
	case "profile":
		return set(store.MachinePatch{Profile: &value}, "profile:"+m.Profile)
	case "tag":
		if !slices.Contains(tags, value) {
			tags = append(tags, value)
		}
		return set(store.MachinePatch{Tags: &tags}, "tags:"+strings.Join(m.Tags, ","))
	case "untag":
		tags = slices.DeleteFunc(tags, func(t string) bool { return t == value })
		return set(store.MachinePatch{Tags: &tags}, "tags:"+strings.Join(m.Tags, ","))
	case "remove":
		ctx = store.Expecting(ctx, store.Expectation{Noun: "machine", Key: fmt.Sprint(m.ID), Revision: m.Revision})
		return "", s.Machines.RemoveMachine(ctx, who, m.ID, false)
	}
	return "", store.Invalid("act", "choose what to do with the machines")
}
