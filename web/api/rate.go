package api

import (
	"net"
	"net/http"
	"time"

	"github.com/go-chi/httprate"

	"lunboot/web/auth"
)

// Rates are how many requests are answered in a minute.
type Rates struct {
	Known    int // of one token, or one login
	Stranger int // of one address that says not who it is, or wrongly
}

// defaultRates let a script work through two thousand machines without waiting,
// and a guesser of tokens wait.
func defaultRates(r Rates) Rates {
	if r.Known <= 0 {
		r.Known = 6000
	}
	if r.Stranger <= 0 {
		r.Stranger = 120
	}
	return r
}

// limit answers 429 with Retry-After when somebody asks too often. The
// appliance's own socket has no limit: who holds it holds the machine.
func limit(rates Rates) func(http.Handler) http.Handler {
	rates = defaultRates(rates)
	bound := func(n int, key httprate.KeyFunc) func(http.Handler) http.Handler {
		return httprate.LimitBy(n, time.Minute, key, httprate.WithLimitHandler(func(w http.ResponseWriter, _ *http.Request) {
			writeProblem(w, http.StatusTooManyRequests, "too many requests in a minute; wait "+w.Header().Get("Retry-After")+" seconds (Retry-After)")
		}))
	}
	known := bound(rates.Known, func(r *http.Request) (string, error) { return string(auth.From(r.Context()).Actor), nil })
	stranger := bound(rates.Stranger, func(r *http.Request) (string, error) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			return "local", nil
		}
		return httprate.CanonicalizeIP(host), nil
	})
	return func(next http.Handler) http.Handler {
		knownNext, strangerNext := known(next), stranger(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch who := auth.From(r.Context()); {
			case who.Scope == "":
				strangerNext.ServeHTTP(w, r)
			case who.User == "" && who.Token == 0:
				next.ServeHTTP(w, r)
			default:
				knownNext.ServeHTTP(w, r)
			}
		})
	}
}

// SameOrigin turns away what another site sends through somebody's browser, who
// is logged in here.
func SameOrigin(next http.Handler) http.Handler {
	p := http.NewCrossOriginProtection()
	p.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, http.StatusForbidden, "a page of another site sent this; a script sends a token and no Origin")
	}))
	return p.Handler(next)
}
