package pages

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/go-chi/httprate"

	"lunboot/store"
)

// maxLogoutForm bounds what a provider tells of a logout.
const maxLogoutForm = 32 << 10

// backChannel is where the provider itself says who logged out there (OpenID Connect
// Back-Channel Logout 1.0 §2.5). It comes from a program and not from a browser: what
// it brings proves itself, and no cookie has a say in it, so that it needs no
// protection against other sites' forms either.
func (s *site) backChannel() http.Handler {
	// One address tells of everybody's logouts, also when all have to leave at once.
	limit := httprate.LimitBy(300, time.Minute, remoteKey)
	return secure(limit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // ibid. §2.8
		r.Body = http.MaxBytesReader(w, r.Body, maxLogoutForm)
		err := r.ParseForm()
		tokens := r.PostForm["logout_token"]
		switch {
		case err != nil || len(tokens) != 1:
			err = store.Invalid("logout_token", "a provider posts one logout_token as a form")
		default:
			err = s.SignIn.Logout(r.Context(), tokens[0], s.Auth.EndFrom)
		}
		if err == nil {
			w.WriteHeader(http.StatusOK)
			return
		}
		status, text := explain(err)
		if status == http.StatusInternalServerError {
			s.Log.Error("end what the provider says is over", "error", err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)                                                                    // ibid. §2.8, whatever the reason
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_request", "error_description": text}) // who hung up does not want it
	})))
}
