package pages

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"lunboot/store"
	"lunboot/store/listing"
)

// question is what an act on many things does that is not taken back, as it is
// shown before it is done.
type question struct {
	Act    string // the form's word for it
	Title  string
	Lines  []string
	Kept   []string // what it is not done to, and why
	Want   string   // what has to be typed
	Typed  string
	Seen   string // stands for what it is done to, as it was when it was asked
	Button string
	IDs    []string // of the ticked ones, empty for all that match
	List   tableQuery
	Match  string
}

// refused says why what is asked was not agreed to yet, and with which status; 0 when
// it was. A question that was only put says nothing more.
func (q *question) refused(r *http.Request) (status int, problem string) {
	switch {
	case q.Typed == "":
		return http.StatusUnprocessableEntity, ""
	case q.Typed != q.Want:
		return http.StatusUnprocessableEntity, fmt.Sprintf("Nothing was done: type %q to go on.", q.Want)
	case q.Seen != r.PostFormValue("seen"):
		return http.StatusConflict, "Nothing was done: what this would be done to has changed since it was asked. Look again."
	}
	return 0, ""
}

// bulkVolumes does one act on the volumes that are ticked, or on all that match.
func (s *site) bulkVolumes(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, store.Invalid("form", "the form cannot be read"))
		return
	}
	refuse := func(err error) {
		status, text := told(r, err)
		s.volumesPage(w, r, status, page{Error: text}, nil)
	}
	all, err := s.lists().Volumes(ctx)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	chosen, err := chosenVolumes(r, all)
	if err != nil {
		refuse(err)
		return
	}
	act := r.PostFormValue("act")
	var kept map[store.VolumeID]string
	if act == "remove" {
		kept = keptBy(chosen, all)
		goes := slices.DeleteFunc(slices.Clone(chosen), func(v listing.Volume) bool { return kept[v.ID] != "" })
		if len(goes) == 0 {
			refuse(store.InUse("nothing was deleted: %s stays, since %s", chosen[0].Name, kept[chosen[0].ID]))
			return
		}
		childrenFirst(goes, all)
		chosen = goes
	}
	if sure := sureOf(r, act, chosen, kept, all); sure != nil {
		if status, problem := sure.refused(r); status != 0 {
			s.volumesPage(w, r, status, page{Error: problem}, sure)
			return
		}
	}
	t := tally{count: countVolumes, back: undo{Back: readTable(r, "/volumes", "", listing.Volumes().Columns()).URL()}}
	for _, v := range chosen {
		was, err := s.bulkVolume(ctx, by(r), v.Volume, act)
		t.add(v.Name, was, err)
	}
	status, p := t.page()
	s.volumesPage(w, r, status, p, nil)
}

func countVolumes(n int) string {
	if n == 1 {
		return "1 volume"
	}
	return fmt.Sprintf("%d volumes", n)
}

// chosenVolumes returns the volumes that a form names: the ticked ones, or all
// that match the list, when they are still those of which the form speaks.
func chosenVolumes(r *http.Request, all []listing.Volume) (out []listing.Volume, err error) {
	if r.PostFormValue("all") != "" {
		found, _, err := listing.Volumes().Find(all, listing.Query{Search: strings.TrimSpace(r.PostFormValue("search"))})
		if err != nil {
			return nil, err
		}
		if err := sameAsSeen(r.PostForm, digestVolumes(found), countVolumes(len(found))); err != nil {
			return nil, err
		}
		out = found
	} else {
		for _, t := range r.PostForm["id"] {
			i := slices.IndexFunc(all, func(v listing.Volume) bool { return strconv.FormatInt(int64(v.ID), 10) == t })
			if i < 0 {
				return nil, store.NotFound("volume", t)
			}
			out = append(out, all[i])
		}
	}
	if len(out) == 0 {
		return nil, store.Invalid("id", "tick the volumes that are meant, or choose all that match")
	}
	return slices.Clone(out), nil
}

// digestVolumes stands for the volumes that match, in whatever order.
func digestVolumes(all []listing.Volume) string {
	ids := make([]store.VolumeID, len(all))
	for i, v := range all {
		ids[i] = v.ID
	}
	return listing.Digest(ids)
}

// digestChosen stands for volumes as they are now.
func digestChosen(chosen []listing.Volume) string {
	now := make([]string, len(chosen))
	for i, v := range chosen {
		now[i] = fmt.Sprintf("%d:%d", v.ID, v.Revision)
	}
	return listing.Digest(now)
}

// maxLost bounds the volumes that a question names.
const maxLost = 12

// sureOf is what somebody has to agree to before an act on many volumes; nil for
// an act that is taken back by a click.
func sureOf(r *http.Request, act string, chosen []listing.Volume, kept map[store.VolumeID]string, all []listing.Volume) *question {
	n := len(chosen)
	sure := &question{Act: act, Want: fmt.Sprintf("%s %d", act, n), Typed: strings.TrimSpace(r.PostFormValue("sure")), Seen: digestChosen(chosen), List: readTable(r, "/volumes", "", listing.Volumes().Columns())}
	if r.PostFormValue("all") != "" {
		sure.Match = r.PostFormValue("match")
	} else {
		for _, v := range chosen {
			sure.IDs = append(sure.IDs, strconv.FormatInt(int64(v.ID), 10))
		}
	}
	line := func(v listing.Volume) string { return fmt.Sprintf("%s, %s", v.Name, store.Bytes(v.Size)) }
	switch act {
	case "remove":
		var takes int64
		for _, v := range chosen {
			takes += max(v.Takes, 0)
		}
		sure.Title = fmt.Sprintf("This deletes %s for good, with %s of bytes, their snapshots and their versions", countVolumes(n), store.Bytes(takes))
		sure.Button = "Delete " + countVolumes(n)
		line = func(v listing.Volume) string {
			words := fmt.Sprintf("%s, %s", v.Name, store.Bytes(v.Size))
			if v.Takes >= 0 {
				words += ", which takes " + store.Bytes(v.Takes)
			}
			return words
		}
	case "freeze":
		sure.Title = fmt.Sprintf("This makes %s golden: what they hold never changes again", countVolumes(n))
		sure.Button = "Freeze " + countVolumes(n)
	default:
		return nil
	}
	for _, v := range all {
		if why := kept[v.ID]; why != "" && len(sure.Kept) < maxLost {
			sure.Kept = append(sure.Kept, v.Name+" stays: "+why)
		}
	}
	for i, v := range chosen {
		if i == maxLost && n > maxLost+1 {
			sure.Lines = append(sure.Lines, fmt.Sprintf("and %d more", n-maxLost))
			break
		}
		sure.Lines = append(sure.Lines, line(v))
	}
	return sure
}

// keptBy says why volumes stay that are among those to be removed: a machine has
// them, or something stands on them that stays.
func keptBy(chosen, all []listing.Volume) map[store.VolumeID]string {
	goes, kept := map[store.VolumeID]bool{}, map[store.VolumeID]string{}
	for _, v := range chosen {
		goes[v.ID] = true
	}
	for again := true; again; {
		again = false
		keep := func(id store.VolumeID, why string) {
			if goes[id] {
				goes[id], kept[id], again = false, why, true
			}
		}
		for _, v := range all {
			if len(v.Machines) > 0 {
				keep(v.ID, v.Machines[0]+" has it")
			}
			if !goes[v.ID] {
				keep(v.Volume.Parent, v.Name+" stands on it")
			}
		}
	}
	return kept
}

// childrenFirst puts clones before what they stand on.
func childrenFirst(vols, all []listing.Volume) {
	parent := map[store.VolumeID]store.VolumeID{}
	for _, v := range all {
		parent[v.ID] = v.Volume.Parent
	}
	depth := func(v listing.Volume) (n int) {
		for id := v.ID; parent[id] != 0 && n <= len(all); id = parent[id] {
			n++
		}
		return n
	}
	slices.SortStableFunc(vols, func(a, b listing.Volume) int { return depth(b) - depth(a) })
}

// bulkVolume does the act on one volume and says how it is taken back, empty when
// there is nothing to take back.
func (s *site) bulkVolume(ctx context.Context, who store.Actor, v store.Volume, act string) (was string, err error) {
	ctx = store.Expecting(ctx, store.Expectation{Noun: "volume", Key: fmt.Sprint(v.ID), Revision: v.Revision})
	switch act {
	case "read-only", "writable":
		now, err := s.Volumes.SetVolume(ctx, who, v.ID, store.VolumePatch{Revision: v.Revision, ReadOnly: new(act == "read-only")})
		if err != nil || now.Revision == v.Revision {
			return "", err
		}
		return fmt.Sprintf("%d:%d:read-only:%t", v.ID, now.Revision, v.ReadOnly), nil
	case "freeze":
		_, err := s.Volumes.FreezeVolume(ctx, who, v.ID, "")
		return "", err
	case "remove":
		return "", s.Volumes.RemoveVolume(ctx, who, v.ID)
	}
	return "", store.Invalid("act", "choose what to do with the volumes")
}
