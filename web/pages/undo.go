package pages

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"lunboot/store"
)

// undo is what takes a change back: each thing as it was, as long as nobody
// changed it since.
type undo struct {
	// Was are texts of four parts, NUMBER:REVISION:WHAT:VALUE. WHAT is profile, once
	// or tags of a machine, map for a volume that it had, ignore for a MAC, read-only
	// for a volume, or gone for a profile that was removed.
	Was  []string
	Back string // the page to show afterwards; empty: the list of machines
}

// backTo is the page that a form names to be shown afterwards, empty when that
// is none of ours.
func backTo(r *http.Request) string {
	to := r.PostFormValue("back")
	if b := listAt(to); b.path == "/unknown" || b.path == "/volumes" || b.path == "/profiles" {
		return b.URL()
	}
	if id, ok := strings.CutPrefix(to, "/machines/"); ok {
		if _, err := strconv.ParseInt(id, 10, 64); err == nil {
			return to
		}
	}
	return ""
}

// takeBack makes things what they were before an act.
func (s *site) takeBack(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, store.Invalid("form", "the form cannot be read"))
		return
	}
	did, failures := 0, []string{}
	for _, was := range r.PostForm["was"] {
		if err := s.takeOneBack(r, was); err != nil {
			failures = append(failures, err.Error())
		} else {
			did++
		}
	}
	if to := backTo(r); to != "" && len(failures) == 0 {
		http.Redirect(w, r, to, http.StatusSeeOther)
		return
	}
	p := page{}
	if did > 0 {
		p.Said = fmt.Sprintf("Taken back for %s.", count(did))
	}
	if len(failures) > 0 {
		p.Error = "Not taken back: " + strings.Join(failures[:min(len(failures), maxTold)], "; ")
	}
	list := url.Values{} // as it was when the act was done
	if b := listAt(r.PostFormValue("back")); b.path == "/machines" {
		list, _ = url.ParseQuery(b.query) // which listAt wrote
	}
	s.showMachines(w, r, readListQuery(list), http.StatusOK, p, addForm{}, nil)
}

func (s *site) takeOneBack(r *http.Request, was string) error {
	part := strings.SplitN(was, ":", 4)
	if len(part) != 4 {
		return store.Invalid("was", "%q says not what to take back", was)
	}
	id, err1 := strconv.ParseInt(part[0], 10, 64)
	revision, err2 := strconv.ParseInt(part[1], 10, 64)
	if err1 != nil || err2 != nil {
		return store.Invalid("was", "%q says not what to take back", was)
	}
	p := store.MachinePatch{Revision: revision}
	switch part[2] {
	case "profile":
		p.Profile = &part[3]
	case "once":
		p.OnceProfile = &part[3]
	case "tags":
		tags := []string{}
		if part[3] != "" {
			tags = strings.Split(part[3], ",")
		}
		p.Tags = &tags
	case "map":
		spec, err := readMapping(store.MachineID(id), part[3])
		if err == nil {
			_, err = s.Volumes.Map(r.Context(), by(r), spec)
		}
		return err
	case "ignore":
		mac, err := store.ParseMAC(part[3])
		if err == nil {
			err = s.Machines.Ignore(r.Context(), by(r), mac, false)
		}
		return err
	case "gone":
		p, err := readProfile(part[3])
		if err == nil {
			ctx := store.Expecting(r.Context(), store.Expectation{Noun: "profile", Key: p.Name, Revision: store.Absent}) // somebody may have made another meanwhile
			_, err = s.Profiles.PutProfile(ctx, by(r), p)
		}
		return err
	case "read-only":
		is, err := strconv.ParseBool(part[3])
		if err == nil {
			_, err = s.Volumes.SetVolume(r.Context(), by(r), store.VolumeID(id), store.VolumePatch{Revision: revision, ReadOnly: &is})
		}
		return err
	default:
		return store.Invalid("was", "%q cannot be taken back", part[2])
	}
	_, err := s.Machines.SetMachine(r.Context(), by(r), store.MachineID(id), p)
	return err
}

// wasProfile is how the removal of a profile is taken back.
func wasProfile(p store.Profile) (string, error) {
	b, err := json.Marshal(store.Profile{Name: p.Name, Kind: p.Kind, Fields: p.Fields, Text: p.Text})
	return "0:0:gone:" + string(b), err
}

// readProfile reads what wasProfile wrote.
func readProfile(text string) (store.Profile, error) {
	var p store.Profile
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return p, store.Invalid("was", "that is no profile to take back")
	}
	return store.Profile{Name: p.Name, Kind: p.Kind, Fields: p.Fields, Text: p.Text}, nil
}

// wasMapped is how the removal of a mapping is taken back.
func wasMapped(m store.Mapping) string {
	return fmt.Sprintf("%d:0:map:%d,%d,%t,%t", m.Machine, m.Volume, m.LUN, m.Boot, m.ReadOnly)
}

// readMapping reads what wasMapped wrote. The mapping comes back in its place,
// or not at all: another volume may have the LUN by then.
func readMapping(id store.MachineID, text string) (store.MappingSpec, error) {
	bad := store.Invalid("was", "%q is no mapping to take back", text)
	part := strings.Split(text, ",")
	if len(part) != 4 {
		return store.MappingSpec{}, bad
	}
	volume, err := strconv.ParseInt(part[0], 10, 64)
	if err != nil || volume <= 0 {
		return store.MappingSpec{}, bad
	}
	lun, err := store.ParseLUN(part[1])
	if err != nil {
		return store.MappingSpec{}, err
	}
	boot, err := strconv.ParseBool(part[2])
	if err != nil {
		return store.MappingSpec{}, bad
	}
	readOnly, err := strconv.ParseBool(part[3])
	if err != nil {
		return store.MappingSpec{}, bad
	}
	return store.MappingSpec{Machine: id, Volume: store.VolumeID(volume), LUN: &lun, Boot: &boot, ReadOnly: readOnly}, nil
}

// changeBack is change for an act that can be taken back: the page says what was
// done, and how it is undone.
func (s *site) changeBack(w http.ResponseWriter, r *http.Request, act func(store.Machine) (said, was string, err error)) {
	m, err := s.machineOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	said, was := "", ""
	if err = s.expect(r, m); err == nil {
		said, was, err = act(m)
	}
	if err != nil {
		status, text := told(r, err)
		s.showMachine(w, r, status, text+s.meanwhile(r, m, err))
		return
	}
	if was == "" {
		http.Redirect(w, r, machinePath(m.ID), http.StatusSeeOther)
		return
	}
	s.machinePage(w, r, http.StatusOK, page{Said: said, Undo: &undo{Was: []string{was}, Back: machinePath(m.ID)}})
}

func (s *site) setProfile(w http.ResponseWriter, r *http.Request) {
	s.changeBack(w, r, func(m store.Machine) (string, string, error) {
		name := r.PostFormValue("profile")
		now, err := s.Machines.SetMachine(r.Context(), by(r), m.ID, store.MachinePatch{Profile: &name})
		if err != nil || now.Revision == m.Revision {
			return "", "", err
		}
		return fmt.Sprintf("%s boots by the profile %s now; it was %s.", m.Name, name, m.Profile), fmt.Sprintf("%d:%d:profile:%s", m.ID, now.Revision, m.Profile), nil
	})
}

func (s *site) unmap(w http.ResponseWriter, r *http.Request) {
	s.changeBack(w, r, func(m store.Machine) (string, string, error) {
		l, err := store.ParseLUN(r.PostFormValue("lun"))
		if err != nil {
			return "", "", err
		}
		mp, ctx, err := s.seenMapping(r, m, l)
		if err != nil {
			return "", "", err
		}
		if err := s.Volumes.Unmap(ctx, by(r), m.ID, l); err != nil {
			return "", "", err
		}
		return fmt.Sprintf("%s no longer has LUN %d; the volume stays as it is.", m.Name, l), wasMapped(mp), nil
	})
}
