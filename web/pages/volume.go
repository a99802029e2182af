package pages

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/web/auth"
)

// VolumeLife is what volumes stand on, what is kept of them, and the acts that
// change it.
type VolumeLife interface {
	Detail(context.Context, store.Volume) (store.VolumeDetail, error)
	Takes(context.Context) (map[store.VolumeID]int64, error)
	SetVolume(context.Context, store.Actor, store.VolumeID, store.VolumePatch) (store.Volume, error)
	ResizeVolume(ctx context.Context, by store.Actor, id store.VolumeID, size int64) (store.Volume, error)
	FlattenVolume(ctx context.Context, by store.Actor, id store.VolumeID) (store.Job, error)
	CheckVolume(context.Context, store.VolumeID) (store.VolumeCheck, error)
	Cloning
	Keeping
}

// Cloning makes golden volumes and clones of them.
type Cloning interface {
	FreezeVolume(ctx context.Context, by store.Actor, id store.VolumeID, note string) (store.Volume, error)
	CloneVolume(context.Context, store.Actor, store.CloneSpec) (store.Volume, error)
	CloneFor(ctx context.Context, by store.Actor, machine store.MachineID, spec store.CloneSpec) (store.Volume, store.Mapping, error)
	Promote(ctx context.Context, by store.Actor, id store.VolumeID, note string) (store.Job, error)
	DefaultGolden(context.Context) (store.Volume, error)
	PutSetting(context.Context, store.Actor, store.Setting) error
}

// Keeping brings former states back.
type Keeping interface {
	SnapshotVolume(ctx context.Context, by store.Actor, id store.VolumeID, name, note string) (store.Volume, error)
	RemoveSnapshot(ctx context.Context, by store.Actor, id store.VolumeID, name string) error
	Rollback(ctx context.Context, by store.Actor, id store.VolumeID, name string) (store.Volume, error)
	SetVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int) (store.Volume, error)
	NoteVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int, note string) error
	RemoveVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int) error
}

// volumeView is the page of one volume.
type volumeView struct {
	store.VolumeDetail
	Holds    *store.Preflight // nil when it could not be looked into
	Jobs     []store.Job      // that work on it now
	Default  bool             // new machines get a clone of it
	Machines []store.Machine  // that a clone can be made for
	Users    []store.VolumeUser
	Held     string // why it cannot be removed
	Self     string
}

// Clonable reports whether clones can be made: of the volume or of a snapshot.
func (v volumeView) Clonable() bool {
	return v.State == store.VolumeReady && (v.Golden || len(v.Snapshots) > 0)
}

// Layered reports whether more than one layer holds its bytes.
func (v volumeView) Layered() bool { return len(v.Chain) > 1 }

func (s *site) volumeOf(r *http.Request) (store.Volume, error) {
	id, err := strconv.ParseInt(chi.URLParam(r, "id"), 10, 64)
	if err != nil {
		return store.Volume{}, store.NotFound("volume", chi.URLParam(r, "id"))
	}
	all, err := s.Inventory.Volumes(r.Context())
	if err != nil {
		return store.Volume{}, err
	}
	for _, v := range all {
		if v.ID == store.VolumeID(id) {
			return v, nil
		}
	}
	return store.Volume{}, store.NotFound("volume", chi.URLParam(r, "id"))
}

func volumePath(id store.VolumeID) string { return fmt.Sprintf("/volumes/%d", id) }

func (s *site) volume(w http.ResponseWriter, r *http.Request) {
	s.volumePage(w, r, http.StatusOK, page{})
}

func (s *site) volumePage(w http.ResponseWriter, r *http.Request, status int, p page) {
	vol, err := s.volumeOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v, err := s.volumeView(r.Context(), vol)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	p.Title, p.Nav, p.Live, p.Data = vol.Name, "volumes", true, v
	s.render(w, r, status, "volume", p)
}

func (s *site) volumeView(ctx context.Context, vol store.Volume) (volumeView, error) {
	v := volumeView{Self: volumePath(vol.ID)}
	var err error
	if v.VolumeDetail, err = s.Volumes.Detail(ctx, vol); err != nil {
		return v, err
	}
	v.Users = v.VolumeDetail.Machines
	if vol.State == store.VolumeReady {
		if found, err := s.Volumes.LookAtVolume(ctx, vol); err == nil {
			v.Holds = &found
		}
	}
	jobs, err := s.Inventory.Jobs(ctx)
	if err != nil {
		return v, err
	}
	for _, j := range jobs {
		if j.State == store.JobRunning && ofVolume(j) && j.Subject == vol.Name {
			v.Jobs = append(v.Jobs, j)
		}
	}
	golden, err := s.Volumes.DefaultGolden(ctx)
	if err != nil {
		return v, err
	}
	v.Default = vol.Golden && golden.ID == vol.ID
	if v.Machines, _, err = s.Inventory.Machines(ctx, store.MachineFilter{}); err != nil {
		return v, err
	}
	switch {
	case len(v.Users) > 0:
		v.Held = v.Users[0].Name + " has it, as LUN " + strconv.Itoa(int(v.Users[0].LUN))
	case len(v.Clones) > 0:
		v.Held = v.Clones[0].Name + " was cloned from it"
	}
	return v, nil
}

// onVolume runs one act on the volume of the request and shows the page again.
func (s *site) onVolume(w http.ResponseWriter, r *http.Request, act func(store.Volume) error) {
	v, err := s.volumeOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if err := act(v); err != nil {
		status, text := told(r, err)
		s.volumePage(w, r, status, page{Error: text})
		return
	}
	http.Redirect(w, r, volumePath(v.ID), http.StatusSeeOther)
}

// confirmed refuses an act that loses something until the volume's name was
// typed.
func confirmed(r *http.Request, v store.Volume, loss string) error {
	if r.PostFormValue("confirm") == v.Name {
		return nil
	}
	return store.Invalid("confirm", "nothing was done: type the name of the volume, %s, to confirm: %s", v.Name, loss)
}

func note(r *http.Request) string { return strings.TrimSpace(r.PostFormValue("note")) }

func number(r *http.Request) (int, error) {
	n, err := strconv.Atoi(r.PostFormValue("number"))
	if err != nil {
		return 0, store.Invalid("number", "choose a version")
	}
	return n, nil
}

// cloneVolume makes a clone, for a machine where one is named.
func (s *site) cloneVolume(w http.ResponseWriter, r *http.Request) {
	v, err := s.volumeOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	spec := store.CloneSpec{Parent: v.ID, Name: strings.TrimSpace(r.PostFormValue("name")), Snapshot: r.PostFormValue("snapshot"), Reset: r.PostFormValue("reset") != "", Volatile: r.PostFormValue("volatile") != ""}
	to := ""
	if t := r.PostFormValue("machine"); t != "" {
		var id int64
		if id, err = strconv.ParseInt(t, 10, 64); err == nil {
			_, _, err = s.Volumes.CloneFor(r.Context(), by(r), store.MachineID(id), spec)
			to = machinePath(store.MachineID(id))
		}
	} else {
		var c store.Volume
		c, err = s.Volumes.CloneVolume(r.Context(), by(r), spec)
		to = volumePath(c.ID)
	}
	if err != nil {
		status, text := told(r, err)
		s.volumePage(w, r, status, page{Error: text})
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (s *site) freezeVolume(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(v store.Volume) error {
		if err := confirmed(r, v, "no machine can write to it any more"); err != nil {
			return err
		}
		_, err := s.Volumes.FreezeVolume(r.Context(), by(r), v.ID, note(r))
		return err
	})
}

func (s *site) takeSnapshot(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(v store.Volume) error {
		_, err := s.Volumes.SnapshotVolume(r.Context(), by(r), v.ID, strings.TrimSpace(r.PostFormValue("name")), note(r))
		return err
	})
}

func (s *site) removeSnapshot(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(v store.Volume) error {
		name := r.PostFormValue("name")
		if err := meant(r, name, "what "+v.Name+" held then is lost for good"); err != nil {
			return err
		}
		return s.Volumes.RemoveSnapshot(r.Context(), by(r), v.ID, name)
	})
}

func (s *site) rollBack(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(v store.Volume) error {
		to := r.PostFormValue("to")
		if err := confirmed(r, v, "what was written since the snapshot "+to+" is lost"); err != nil {
			return err
		}
		_, err := s.Volumes.Rollback(r.Context(), by(r), v.ID, to)
		return err
	})
}

func (s *site) promote(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(v store.Volume) error {
		_, err := s.Volumes.Promote(r.Context(), by(r), v.ID, note(r))
		return err
	})
}

func (s *site) setVersion(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(v store.Volume) error {
		n, err := number(r)
		if err == nil {
			_, err = s.Volumes.SetVersion(r.Context(), by(r), v.ID, n)
		}
		return err
	})
}

func (s *site) noteVersion(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(v store.Volume) error {
		n, err := number(r)
		if err == nil {
			err = s.Volumes.NoteVersion(r.Context(), by(r), v.ID, n, note(r))
		}
		return err
	})
}

func (s *site) removeVersion(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(v store.Volume) error {
		n, err := number(r)
		if err == nil {
			err = confirmed(r, v, fmt.Sprintf("version %d is deleted for good", n))
		}
		if err == nil {
			err = s.Volumes.RemoveVersion(r.Context(), by(r), v.ID, n)
		}
		return err
	})
}

func (s *site) flattenVolume(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(v store.Volume) error {
		_, err := s.Volumes.FlattenVolume(r.Context(), by(r), v.ID)
		return err
	})
}

// checkVolume shows what a check found: it changes nothing.
func (s *site) checkVolume(w http.ResponseWriter, r *http.Request) {
	v, err := s.volumeOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	found, err := s.Volumes.CheckVolume(r.Context(), v.ID)
	if err != nil {
		status, text := told(r, err)
		s.volumePage(w, r, status, page{Error: text})
		return
	}
	var bad []string
	for _, l := range found.Layers {
		for _, d := range l.Damage {
			to := fmt.Sprintf("%d to %d", d.From, d.To)
			if d.To < 0 {
				to = fmt.Sprintf("%d to the end", d.From)
			}
			bad = append(bad, fmt.Sprintf("Blocks %s, in %s: %s", to, l.Path, upper(d.What)))
		}
	}
	if len(bad) > 0 || !found.OK {
		s.volumePage(w, r, http.StatusOK, page{Error: v.Name + " is damaged. " + strings.Join(bad, " ")})
		return
	}
	s.volumePage(w, r, http.StatusOK, page{Said: fmt.Sprintf("The maps of %s are sound, in all %d layers.", v.Name, len(found.Layers))})
}

// setReset says whether a clone begins anew at each boot.
func (s *site) setReset(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(v store.Volume) error {
		on := r.PostFormValue("reset") != ""
		if on {
			if err := confirmed(r, v, "what its machine wrote is lost at each boot, also what it holds now"); err != nil {
				return err
			}
		}
		_, err := s.Volumes.SetVolume(r.Context(), by(r), v.ID, store.VolumePatch{Reset: &on})
		return err
	})
}

// setVolatile says whether what is written waits for the disk, from the next boot on.
func (s *site) setVolatile(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(v store.Volume) error {
		on := r.PostFormValue("volatile") != ""
		_, err := s.Volumes.SetVolume(r.Context(), by(r), v.ID, store.VolumePatch{Volatile: &on})
		return err
	})
}

func (s *site) growVolume(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(v store.Volume) error {
		size, err := store.ParseBytes(r.PostFormValue("size"))
		if err == nil {
			_, err = s.Volumes.ResizeVolume(r.Context(), by(r), v.ID, size)
		}
		return err
	})
}

// makeDefault lets new machines get a clone of this volume.
func (s *site) makeDefault(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(v store.Volume) error {
		if !auth.From(r.Context()).May(store.ScopeAdmin) {
			return &store.Error{Kind: store.KindDenied, Msg: "what new machines get is an administrator's to choose"}
		}
		return s.Volumes.PutSetting(r.Context(), by(r), store.Setting{Key: store.SettingDefaultGolden, Value: v.Name})
	})
}

func (s *site) cancelWork(w http.ResponseWriter, r *http.Request) {
	s.onVolume(w, r, func(store.Volume) error { return s.endJob(r, r.PostFormValue("job")) })
}

// goldens lists the volumes that a machine can get a clone of, the default
// first, and says whether there is one.
func (s *site) goldens(ctx context.Context) (out []store.Volume, preselected bool, err error) {
	all, err := s.Inventory.Volumes(ctx)
	if err != nil {
		return nil, false, err
	}
	first, err := s.Volumes.DefaultGolden(ctx)
	if err != nil {
		return nil, false, err
	}
	if first.ID != 0 {
		out = append(out, first)
	}
	for _, v := range all {
		if v.Golden && v.State == store.VolumeReady && v.ID != first.ID {
			out = append(out, v)
		}
	}
	return out, first.ID != 0, nil
}

// choice is what an enroll form says a machine boots from: as the settings say, when
// the form offers nothing.
func choice(r *http.Request) store.CloneChoice {
	c := store.CloneChoice{Of: r.PostFormValue("clone_of"), Reset: r.PostFormValue("reset") != "", Volatile: r.PostFormValue("volatile") != ""}
	if c.Of == "" || c.Of == store.CloneOfNone { // the ticks stand in the form whatever is chosen
		return store.CloneChoice{Of: c.Of}
	}
	return c
}

// fresh reports whether clones of new machines begin anew unless something else
// is chosen; when that cannot be read they are kept, which loses nothing.
func (s *site) fresh(ctx context.Context) bool {
	on, err := s.Enrolling.FreshClones(ctx)
	if err != nil {
		s.Log.Error("read what new machines get", "error", err)
	}
	return on && err == nil
}
