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
	Match    string    // stands for all that match
	Sure     *question // what has to be agreed to
}

func (s *site) volumes(w http.ResponseWriter, r *http.Request) {
	s.showVolumes(w, r, http.StatusOK, "")
}

func (s *site) showVolumes(w http.ResponseWriter, r *http.Request, status int, problem string) {
	s.volumesPage(w, r, status, page{Error: problem}, nil)
}

// volumesPage shows the volumes, with what has to be agreed to before an act, nil
// for nothing.
func (s *site) volumesPage(w http.ResponseWriter, r *http.Request, status int, p page, sure *question) {
	ctx := r.Context()
	all, err := s.lists().Volumes(ctx)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	maps, err := s.Inventory.MappingViews(ctx, 0)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	uses := map[store.VolumeID][]volumeUse{}
	for _, m := range maps {
		uses[m.Volume] = append(uses[m.Volume], volumeUse{Machine: m.Machine, Name: m.MachineName, LUN: m.LUN})
	}
	v := volumesView{Sure: sure}
	list, shown, bad := listed(listing.Volumes(), "/volumes", "Name, machine:lab-03, state:ready, golden:yes, used:no", r, all)
	v.List, v.Self = list, list.URL()
	v.List.Table = "volumes"
	status, p.Error = refused(status, p.Error, bad)
	if found, _, err := listing.Volumes().Find(all, listing.Query{Search: list.Search}); err == nil {
		v.Match = digestVolumes(found)
	}
	called, clones := map[store.VolumeID]string{}, map[store.VolumeID]int{}
	if v.Room, err = s.Space(ctx); err != nil {
		s.Log.Warn("the room for volumes is not known", "error", err)
	}
	v.RoomSeen = roomChart(s.SpaceSeen())
	if v.Way, err = s.underWay(ctx); err != nil {
		s.fail(w, r, err)
		return
	}
	for _, vol := range all {
		called[vol.ID] = vol.Name
		clones[vol.Volume.Parent]++
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
	p.Title, p.Nav, p.Live, p.List, p.Data = "Volumes", "volumes", true, v.Self, v
	s.render(w, r, status, "volumes", p)
}

// act shows the volumes again: redirected when it worked, with the reason when
// it did not.
func (s *site) volumeAct(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		status, text := told(r, err)
		s.showVolumes(w, r, status, text)
		return
	}
	toList(w, r, "/volumes")
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
