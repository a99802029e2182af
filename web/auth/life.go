package auth

import (
	"context"
	"net"
	"net/http"
	"time"
	"unicode/utf8"
)

// life is one request that runs for an identity. A stream or an upload may run
// for hours: it ends with what allowed it.
type life struct {
	id  Identity
	end context.CancelFunc
}

type lifeKey struct{}

// settle finds out who a request comes from by who, and follows it. What ends
// between the look and the following would else be missed: then it looks again.
func (a *Auth) settle(ctx context.Context, who func() (Identity, time.Time)) (_ context.Context, done func()) {
	for {
		before := a.endings()
		id, until := who()
		followed, done := a.follow(ctx, id, until)
		if a.endings() == before {
			return followed, done
		}
		done()
	}
}

// endings counts how often something ended.
func (a *Auth) endings() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ends
}

// follow puts the identity into a request's context, which ends when the
// identity does: at the time until, unless that is zero, or when it is taken
// away. done forgets the request.
func (a *Auth) follow(ctx context.Context, id Identity, until time.Time) (_ context.Context, done func()) {
	ctx = With(ctx, id)
	if id.Login == "" && id.Token == 0 {
		return ctx, func() {}
	}
	l := &life{id: id}
	if until.IsZero() {
		ctx, l.end = context.WithCancel(ctx)
	} else {
		// By the appliance's clock, which a context does not know.
		ctx, l.end = context.WithTimeout(ctx, until.Sub(a.cfg.Now()))
	}
	a.mu.Lock()
	a.live[l] = struct{}{}
	a.mu.Unlock()
	return context.WithValue(ctx, lifeKey{}, l), func() {
		a.mu.Lock()
		delete(a.live, l)
		a.mu.Unlock()
		l.end()
	}
}

// endLives ends the requests that match, but for the one of ctx itself: it is
// the one that ends the others, and has its answer still to write.
func (a *Auth) endLives(ctx context.Context, match func(*life) bool) {
	own, _ := ctx.Value(lifeKey{}).(*life)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ends++
	for l := range a.live {
		if l != own && match(l) {
			l.end()
		}
	}
}

// visitor is how a request came, for the list of logins.
type visitor struct{ from, agent string }

type visitorKey struct{}

// maxAgent bounds what a browser says of itself.
const maxAgent = 200

func withVisitor(r *http.Request) context.Context {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	agent := r.UserAgent()
	if len(agent) > maxAgent {
		agent = agent[:maxAgent]
	}
	if !utf8.ValidString(agent) {
		agent = ""
	}
	return context.WithValue(r.Context(), visitorKey{}, visitor{host, agent})
}

func visitorOf(ctx context.Context) visitor {
	v, _ := ctx.Value(visitorKey{}).(visitor)
	return v
}
