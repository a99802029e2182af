package pages

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/store/listing"
)

type tokensView struct {
	Rows   []listing.Token
	List   tableQuery
	All    int    // that there are, found or not
	Secret string // a token that was just made: shown this once
}

func (s *site) tokens(w http.ResponseWriter, r *http.Request) {
	s.showTokens(w, r, http.StatusOK, page{}, "")
}

// showTokens lists the tokens of scripts, with the text of one that was just made.
func (s *site) showTokens(w http.ResponseWriter, r *http.Request, status int, p page, secret string) {
	all, err := s.lists().Tokens(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v := tokensView{All: len(all), Secret: secret}
	var bad error
	v.List, v.Rows, bad = listedBy(listing.Tokens(), narrowing{"scope", [][2]string{{"read", "read"}, {"operate", "operate"}, {"admin", "admin"}}}, "/tokens", "Name, expired:yes, ever:no", r, all)
	v.List.Table = "tokens"
	status, p.Error = refused(status, p.Error, bad)
	p.Title, p.Nav, p.List, p.Data = "Tokens", "settings", v.List.URL(), v
	s.render(w, r, status, "tokens", p)
}

func (s *site) createToken(w http.ResponseWriter, r *http.Request) {
	scope, err := store.ParseScope(r.PostFormValue("scope"))
	days, bad := strconv.Atoi(strings.TrimSpace(r.PostFormValue("days")))
	if err == nil && bad != nil {
		err = store.Invalid("days", "%q is no number of days", r.PostFormValue("days"))
	}
	var secret string
	if err == nil {
		_, secret, err = s.Auth.CreateToken(r.Context(), by(r), strings.TrimSpace(r.PostFormValue("name")), scope, days)
	}
	if err != nil {
		status, text := told(r, err)
		s.showTokens(w, r, status, page{Error: text}, "")
		return
	}
	// No redirect: the secret is in this answer and nowhere else.
	s.showTokens(w, r, http.StatusOK, page{}, secret)
}

// endToken removes a token once its name was typed.
func (s *site) endToken(r *http.Request, id int64) error {
	all, err := s.lists().Tokens(r.Context())
	if err != nil {
		return err
	}
	at := slices.IndexFunc(all, func(t listing.Token) bool { return t.ID == id })
	if at < 0 {
		return store.NotFound("token with number", strconv.FormatInt(id, 10))
	}
	if err := meant(r, all[at].Name, "whatever sends it is refused from then on"); err != nil {
		return err
	}
	return s.Auth.DeleteToken(r.Context(), by(r), id)
}

func (s *site) removeToken(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(chi.URLParam(r, "token"), 10, 64)
	if err != nil {
		err = store.NotFound("token", chi.URLParam(r, "token"))
	} else {
		err = s.endToken(r, id)
	}
	if err != nil {
		status, text := told(r, err)
		s.showTokens(w, r, status, page{Error: text}, "")
		return
	}
	toList(w, r, "/tokens")
}
