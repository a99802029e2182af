package pages

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/web/auth"
)

// need lets those pass who may do what need asks for, and tells the others whom
// to ask. Every route of the pages stands behind one.
func (s *site) need(need store.Scope) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !auth.From(r.Context()).May(need) {
				s.fail(w, r, denied(r, need))
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func denied(r *http.Request, need store.Scope) *store.Error {
	return &store.Error{Kind: store.KindDenied, Msg: "this needs the role " + roleOf(need) + ", and yours is " + roleOf(auth.From(r.Context()).Scope) + "; an admin can change that under Settings, People"}
}

// guard stands before what is neither a look nor a decision about people and
// the appliance itself: to look is for everybody who may log in, every other
// request is for operators.
func (s *site) guard(next http.Handler) http.Handler {
	operate := s.need(store.ScopeOperate)(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		operate.ServeHTTP(w, r)
	})
}

// roleOf is the role that has a scope.
func roleOf(s store.Scope) string {
	for _, r := range store.Roles() {
		if r.Scope() == s {
			return string(r)
		}
	}
	return "none"
}

type peopleView struct {
	Me     string
	Own    bool // they have a password here
	Admin  bool
	Roles  []store.Role
	Users  []userRow
	List   tableQuery // of users
	All    int        // users that there are, found or not
	Logins []store.Login
	Form   userForm
}

type userRow struct {
	store.User
	Here int // sessions that are good
}

type userForm struct {
	Name string
	Role store.Role
}

func (s *site) people(w http.ResponseWriter, r *http.Request) {
	s.showPeople(w, r, http.StatusOK, page{}, peopleView{})
}

// showPeople shows who may log in. People who are no admins see themselves.
func (s *site) showPeople(w http.ResponseWriter, r *http.Request, status int, p page, v peopleView) {
	ctx := r.Context()
	me := auth.From(ctx)
	v.Me, v.Admin, v.Roles = me.User, me.May(store.ScopeAdmin), store.Roles()
	whose := v.Me
	if v.Admin {
		whose = ""
	}
	if v.Me != "" {
		u, err := s.Auth.User(ctx, v.Me)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		v.Own = !u.Federated()
	}
	var err error
	if v.Logins, err = s.Auth.Logins(ctx, whose); err != nil {
		s.fail(w, r, err)
		return
	}
	if v.Admin {
		all, err := s.lists().Users(ctx)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		var found []store.User
		var bad error
		v.List, found, bad = listedBy(listing.Users(), narrowing{"role", [][2]string{{"admin", "Admins"}, {"operator", "Operators"}, {"viewer", "Viewers"}}}, "/people", "Name, by:provider, disabled:yes, ever:no", r, all)
		v.List.Table, v.All = "users", len(all)
		status, p.Error = refused(status, p.Error, bad)
		p.List = v.List.URL()
		here := map[string]int{}
		for _, l := range v.Logins {
			here[l.User]++
		}
		for _, u := range found {
			v.Users = append(v.Users, userRow{u, here[u.Name]})
		}
	}
	if v.Form.Role == "" {
		v.Form.Role = store.RoleOperator
	}
	p.Title, p.Nav, p.Data = "People", "settings", v
	s.render(w, r, status, "people", p)
}

// peopleAct shows the people again: redirected when it worked, with the reason
// when it did not.
func (s *site) peopleAct(w http.ResponseWriter, r *http.Request, err error, v peopleView) {
	if err != nil {
		status, text := told(r, err)
		s.showPeople(w, r, status, page{Error: text}, v)
		return
	}
	toList(w, r, "/people")
}

func (s *site) addUser(w http.ResponseWriter, r *http.Request) {
	f := userForm{Name: strings.ToLower(strings.TrimSpace(r.PostFormValue("name"))), Role: store.Role(r.PostFormValue("role"))}
	_, err := s.Auth.AddUser(r.Context(), by(r), f.Name, f.Role, r.PostFormValue("password"))
	s.peopleAct(w, r, err, peopleView{Form: f})
}

func (s *site) setRole(w http.ResponseWriter, r *http.Request) {
	revision, err := formRevision(r)
	if err == nil {
		_, err = s.Auth.SetUser(r.Context(), by(r), chi.URLParam(r, "user"), store.UserPatch{Role: new(store.Role(r.PostFormValue("role"))), Revision: revision})
	}
	s.peopleAct(w, r, err, peopleView{})
}

// setDisabled says whether somebody may log in.
func (s *site) setDisabled(w http.ResponseWriter, r *http.Request) {
	revision, err := formRevision(r)
	if err == nil {
		_, err = s.Auth.SetUser(r.Context(), by(r), chi.URLParam(r, "user"), store.UserPatch{Disabled: new(r.PostFormValue("disabled") == "yes"), Revision: revision})
	}
	s.peopleAct(w, r, err, peopleView{})
}

// browserName is what a browser calls itself, in words; the text itself when it
// is none that is known. Every one also claims to be those that came before it,
// so the order counts.
func browserName(agent string) string {
	first := func(names ...string) string {
		for i := 0; i+1 < len(names); i += 2 {
			if strings.Contains(agent, names[i]) {
				return names[i+1]
			}
		}
		return ""
	}
	name := first("Edg/", "Edge", "OPR/", "Opera", "Firefox/", "Firefox", "Chrom", "Chrome", "Safari/", "Safari")
	system := first("Android", "Android", "iPhone", "iPhone", "iPad", "iPad", "Windows", "Windows", "Mac OS X", "macOS", "Linux", "Linux")
	if name == "" || system == "" {
		return agent
	}
	return name + " on " + system
}

// formRevision is the revision of the noun that a form was made from; 0 when
// it carries none.
func formRevision(r *http.Request) (int64, error) {
	t := r.PostFormValue("revision")
	if t == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil || n < 0 {
		return 0, store.Invalid("revision", "%q is not a revision; load the page again", t)
	}
	return n, nil
}

func (s *site) resetPassword(w http.ResponseWriter, r *http.Request) {
	name := chi.URLParam(r, "user")
	err := s.Auth.SetPassword(r.Context(), by(r), name, r.PostFormValue("password"))
	if err == nil && name == auth.From(r.Context()).User {
		err = s.Auth.Begin(r.Context(), name, "a new password") // their own: this session goes on
	}
	s.peopleAct(w, r, err, peopleView{})
}

func (s *site) removeUser(w http.ResponseWriter, r *http.Request) {
	name := chi.URLParam(r, "user")
	if r.PostFormValue("confirm") != name {
		s.showPeople(w, r, http.StatusUnprocessableEntity, page{Error: "Nobody was removed: type the name to confirm."}, peopleView{})
		return
	}
	s.peopleAct(w, r, s.Auth.RemoveUser(r.Context(), by(r), name, 0), peopleView{})
}

// changePassword is for everybody: their own.
func (s *site) changePassword(w http.ResponseWriter, r *http.Request) {
	me := auth.From(r.Context()).User
	if r.PostFormValue("password") != r.PostFormValue("again") {
		s.showPeople(w, r, http.StatusUnprocessableEntity, page{Error: "Nothing was changed: the two new passwords differ."}, peopleView{})
		return
	}
	err := s.Auth.ChangePassword(r.Context(), me, r.PostFormValue("old"), r.PostFormValue("password"))
	if err == nil {
		err = s.Auth.Begin(r.Context(), me, "a new password")
	}
	if err == nil {
		// The new session's cookie goes out with this answer.
		s.showPeople(w, r, http.StatusOK, page{Said: "Your password is changed. Your other logins were ended."}, peopleView{})
		return
	}
	s.peopleAct(w, r, err, peopleView{})
}

func (s *site) endLogin(w http.ResponseWriter, r *http.Request) {
	me := auth.From(r.Context())
	whose := me.User
	if me.May(store.ScopeAdmin) {
		whose = ""
	}
	s.peopleAct(w, r, s.Auth.EndLogin(r.Context(), whose, chi.URLParam(r, "login")), peopleView{})
}
