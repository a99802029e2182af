package pages

import (
	"html/template"
	"net/http"
	"strconv"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/store/listing"
)

type volumeRow struct {
	store.Volume
	UsedBy     []volumeUse
	Holds      *store.Preflight // nil when it could not be looked into
	ParentName string
	Clones     int   // that stand on it
	Takes      int64 // bytes of the file system; -1: not known, or a device
}

type volumeUse struct {
	Machine store.MachineID
	Name    string
	LUN     store.LUN
}

type volumesView struct {
	Rows     []volumeRow
	List     tableQuery
	Way      underWay
	Room     store.Space
	RoomSeen template.HTML // the last day of it
	Self     string
}

func (s *site) volumes(w http.ResponseWriter, r *http.Request) {
	s.showVolumes(w, r, http.StatusOK, "")
}

func (s *site) showVolumes(w http.ResponseWriter, r *http.Request, status int, problem string) {
	ctx := r.Context()
	vols, err := s.Inventory.Volumes(ctx)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	maps, err := s.Inventory.Mappings(ctx)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	ms, _, err := s.Inventory.Machines(ctx, store.MachineFilter{})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	names := map[store.MachineID]string{}
	for _, m := range ms {
		names[m.ID] = m.Name
	}
	uses := map[store.VolumeID][]volumeUse{}
	for _, m := range maps {
		uses[m.Volume] = append(uses[m.Volume], volumeUse{Machine: m.Machine, Name: names[m.Machine], LUN: m.LUN})
	}
	takes, err := s.Volumes.Takes(ctx)
	if err != nil {
		s.Log.Warn("what volumes take is not known", "error", err)
	}
	var v volumesView
	all := listing.VolumesOf(vols, maps, takes, func(id store.MachineID) string { return names[id] })
	list, shown, bad := listed(listing.Volumes(), "/volumes", "Name, machine:lab-03, state:ready, golden:yes, used:no", r, all)
	v.List, v.Self = list, list.URL()
	status, problem = refused(status, problem, bad)
	called, clones := map[store.VolumeID]string{}, map[store.VolumeID]int{}
	if v.Room, err = s.Space(ctx); err != nil {
		s.Log.Warn("the room for volumes is not known", "error", err)
	}
	v.RoomSeen = roomChart(s.SpaceSeen())
	if v.Way, err = s.underWay(ctx); err != nil {
		s.fail(w, r, err)
		return
	}
	for _, vol := range vols {
		called[vol.ID] = vol.Name
		clones[vol.Parent]++
	}
	for _, found := range shown {
		vol := found.Volume
		row := volumeRow{Volume: vol, UsedBy: uses[vol.ID], ParentName: called[vol.Parent], Clones: clones[vol.ID], Takes: found.Takes}
		if vol.State == store.VolumeReady {
			if found, err := s.Volumes.LookAtVolume(ctx, vol); err == nil {
				row.Holds = &found
			}
		}
		v.Rows = append(v.Rows, row)
	}
	s.render(w, r, status, "volumes", page{Title: "Volumes", Nav: "volumes", Live: true, Error: problem, Data: v})
}

// act shows the volumes again: redirected when it worked, with the reason when
// it did not.
func (s *site) volumeAct(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		status, text := explain(err)
		s.showVolumes(w, r, status, text)
		return
	}
	http.Redirect(w, r, "/volumes", http.StatusSeeOther)
}

func (s *site) removeVolume(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(chi.URLParam(r, "id"), 10, 64)
	if err != nil {
		s.fail(w, r, store.NotFound("volume", chi.URLParam(r, "id")))
		return
	}
	vols, err := s.Inventory.Volumes(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	for _, v := range vols {
		if v.ID != store.VolumeID(id) {
			continue
		}
		if r.PostFormValue("confirm") != v.Name {
			s.showVolumes(w, r, http.StatusUnprocessableEntity, "Nothing was removed: type the volume's name to confirm, since its bytes go with it.")
			return
		}
		s.volumeAct(w, r, s.Volumes.RemoveVolume(r.Context(), by(r), v.ID))
		return
	}
	s.fail(w, r, store.NotFound("volume", chi.URLParam(r, "id")))
}
