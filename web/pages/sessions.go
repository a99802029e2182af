package pages

import (
	"context"
	"net/http"

	"lunboot/store"
	"lunboot/store/listing"
)

// Sessions is the live side of the target.
type Sessions interface {
	Sessions() []store.Session
	DropSession(ctx context.Context, by store.Actor, id string) error
}

type sessionsView struct {
	Rows []listing.Session
	List tableQuery
	All  int // that are live, found or not
}

func (s *site) sessions(w http.ResponseWriter, r *http.Request) {
	s.showSessions(w, r, http.StatusOK, page{})
}

func (s *site) showSessions(w http.ResponseWriter, r *http.Request, status int, p page) {
	all, err := s.lists().Sessions(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v := sessionsView{All: len(all)}
	var bad error
	v.List, v.Rows, bad = listedBy(listing.Sessions(), narrowing{"by", [][2]string{{"ipxe", "iPXE"}, {"os", "Operating system"}}}, "/sessions", "machine:lab-03, 10.77.0.112, auth:none", r, all)
	v.List.Table = "sessions"
	status, p.Error = refused(status, p.Error, bad)
	p.Title, p.Nav, p.Live, p.List, p.Data = "Sessions", "sessions", true, v.List.URL(), v
	s.render(w, r, status, "sessions", p)
}

// dropSession ends a session: a machine loses its volume until it logs in again,
// so somebody has to have said so.
func (s *site) dropSession(w http.ResponseWriter, r *http.Request) {
	var err error
	if r.PostFormValue("sure") == "" {
		err = store.Invalid("sure", "nothing was dropped: tick that the machine may lose its volume")
	} else {
		err = s.Sessions.DropSession(r.Context(), by(r), r.PostFormValue("session"))
	}
	if err != nil {
		status, problem := told(r, err)
		s.showSessions(w, r, status, page{Error: problem})
		return
	}
	s.showSessions(w, r, http.StatusOK, page{Said: "The session was dropped; a machine whose system runs logs in again by itself."})
}
