package pages

import (
	"context"
	"net/http"
	"slices"

	"lunboot/store"
	"lunboot/store/listing"
)

// ProfileActs are the operator's acts on profiles.
type ProfileActs interface {
	PutProfile(context.Context, store.Actor, store.Profile) (store.Profile, error)
	DeleteProfile(ctx context.Context, by store.Actor, name string) error
}

// Scripts shows what a machine would be given now. It mints nothing: no attempt,
// no secret.
type Scripts interface {
	Preview(ctx context.Context, m store.Machine, profile *store.Profile) (string, error)
	// Draft is Preview by a profile that is being written; for the zero Machine it
	// looks at the profile alone.
	Draft(ctx context.Context, m store.Machine, profile store.Profile) (string, error)
}

type profilesView struct {
	Rows []profileRow
	List tableQuery
}

// profileRow is a profile with how many machines have it.
type profileRow struct {
	store.Profile
	What     string
	Machines int
	Once     int // machines that have it for their next boot
}

// profileWords says what each kind does.
var profileWords = map[store.ProfileKind]string{
	store.ProfileSAN:     "starts the machine’s own volume over iSCSI",
	store.ProfileInstall: "runs an installer that sees the machine’s volume",
	store.ProfileKernel:  "starts a kernel over HTTP",
	store.ProfileWimboot: "starts Windows setup",
	store.ProfileMenu:    "lets somebody at the machine choose",
	store.ProfileLocal:   "starts the machine’s own disk",
	store.ProfileCustom:  "runs a script of your own",
}

func (s *site) profiles(w http.ResponseWriter, r *http.Request) {
	s.showProfiles(w, r, http.StatusOK, page{})
}

func (s *site) showProfiles(w http.ResponseWriter, r *http.Request, status int, p page) {
	all, err := s.Inventory.Profiles(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	machines, _, err := s.Inventory.Machines(r.Context(), store.MachineFilter{})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	var v profilesView
	list, shown, bad := listed(listing.Profiles(), "/profiles", "Name, kind:install, media:debian", r, all)
	v.List, v.List.Table = list, "profiles"
	status, p.Error = refused(status, p.Error, bad)
	for _, one := range shown {
		row := profileRow{Profile: one, What: profileWords[one.Kind]}
		for _, m := range machines {
			if m.Profile == one.Name {
				row.Machines++
			}
			if m.OnceProfile == one.Name {
				row.Once++
			}
		}
		v.Rows = append(v.Rows, row)
	}
	p.Title, p.Nav, p.List, p.Data = "Profiles", "profiles", v.List.URL(), v
	s.render(w, r, status, "profiles", p)
}

func (s *site) removeProfile(w http.ResponseWriter, r *http.Request) {
	name := r.PostFormValue("name")
	all, err := s.Inventory.Profiles(r.Context())
	if err == nil {
		err = s.Profiles.DeleteProfile(r.Context(), by(r), name)
	}
	if err != nil {
		status, text := told(r, err)
		s.showProfiles(w, r, status, page{Error: text})
		return
	}
	p := page{Said: "The profile " + name + " is removed."}
	if at := slices.IndexFunc(all, func(p store.Profile) bool { return p.Name == name }); at >= 0 {
		if was, err := wasProfile(all[at]); err == nil {
			p.Undo = &undo{Was: []string{was}, Back: cameFrom(r).To("/profiles")}
		}
	}
	s.showProfiles(w, r, http.StatusOK, p)
}
