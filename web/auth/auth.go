package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alexedwards/scs/v2"

	"lunboot/store"
)

// Users keeps people, their roles and their passwords' hashes.
type Users interface {
	Users(context.Context) ([]store.User, error)
	User(ctx context.Context, name string) (store.User, error)
	UserByIdentity(ctx context.Context, issuer, subject string) (store.User, error)
	CreateUser(context.Context, store.Actor, store.User) (store.User, error)
	UpdateUser(context.Context, store.Actor, store.User) (store.User, error)
	DeleteUser(ctx context.Context, by store.Actor, name string, revision int64) error
}

// Sessions keeps the pages' sessions, and who logged in when and how.
type Sessions interface {
	scs.Store
	WebSessions(context.Context) ([]store.WebSession, error)
	NoteLogin(ctx context.Context, name string, at time.Time) error
	Record(ctx context.Context, by store.Actor, action, subject, detail string) error
}

// Tokens keeps the hashes of the API's tokens.
type Tokens interface {
	CreateToken(context.Context, store.Actor, store.Token) (store.Token, error)
	TokenByHash(context.Context, string) (store.Token, error)
	TouchToken(ctx context.Context, id int64, at time.Time) error
	Tokens(context.Context) ([]store.Token, error)
	DeleteToken(ctx context.Context, by store.Actor, id int64) error
}

// Provider is where the provider is kept that vouches for people.
type Provider interface {
	OIDC(context.Context) (store.OIDC, error)
}

// Config is what Auth stands on. Peer reports the user at the other end of a
// unix socket; the socket's mode already keeps out everybody but root and its
// group.
type Config struct {
	Users    Users
	Tokens   Tokens
	Sessions Sessions
	Provider Provider // asked once, by New; EndFederated says what it becomes later
	Peer     func(context.Context) (uid int, ok bool)
	Secure   bool // the admin listener speaks TLS: cookies say so
	Log      *slog.Logger
	Now      func() time.Time
}

// Auth answers who a request comes from.
type Auth struct {
	cfg     Config
	session *scs.SessionManager

	// hashing bounds how many passwords are hashed at a time: each takes 19 MiB.
	hashing chan struct{}

	mu     sync.Mutex
	code   string               // first-run code; empty once a user exists
	issuer string               // of the provider that vouches for people; empty: none does
	live   map[*life]struct{}   // the requests that run
	ends   int                  // how often lives were ended
	hints  map[string]hint      // for logging out at the provider, by the login's name
	outs   map[string]time.Time // whom the provider said to have logged out, by sub or sid
}

// Keys of the session: the user's name, the fingerprint of what they were known by
// when it began, the name that it is listed by, and how it began.
const (
	sessionUser  = "user"
	sessionProof = "proof"
	sessionID    = "id"
	sessionFrom  = "from"
	sessionAgent = "agent"
	sessionBegan = "began"
	sessionUntil = "until" // of somebody whom a provider vouches for
	sessionSID   = "sid"   // what that provider calls their session with it
)

// idleTime is how long a session lives without a request of a page.
const idleTime = 7 * 24 * time.Hour

// federatedTime is the longest session of somebody whom a provider vouches for: it
// is asked again on the next day, so that whom it no longer knows is out by then.
const federatedTime = 12 * time.Hour

// maxHashing is how many passwords are hashed at a time.
const maxHashing = 4

// New makes an Auth. When nobody has a password yet it mints the first-run
// code, which Code returns.
func New(ctx context.Context, cfg Config) (*Auth, error) {
	a := &Auth{cfg: cfg, session: new(scs.SessionManager), hashing: make(chan struct{}, maxHashing), live: map[*life]struct{}{}, hints: map[string]hint{}, outs: map[string]time.Time{}}
	// Not scs.New: it starts a store in memory, with a goroutine that nobody ends.
	a.session.Store = cfg.Sessions
	a.session.Codec = scs.GobCodec{}
	a.session.HashTokenInStore = true
	a.session.Lifetime = 30 * 24 * time.Hour
	a.session.IdleTimeout = idleTime
	a.session.Cookie.Name = "lunboot_session"
	a.session.Cookie.Path = "/"
	a.session.Cookie.Persist = true
	a.session.Cookie.HttpOnly = true
	a.session.Cookie.SameSite = http.SameSiteLaxMode
	a.session.Cookie.Secure = cfg.Secure
	a.session.ErrorFunc = func(w http.ResponseWriter, r *http.Request, err error) {
		// A visitor who turned away reads no answer, and is no fault of ours: browsers
		// cancel what a page asked for whenever they leave it.
		if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
			return
		}
		cfg.Log.Error("web session", "error", err)
		http.Error(w, "The session could not be read; try again.", http.StatusInternalServerError)
	}
	users, err := cfg.Users.Users(ctx)
	if err != nil {
		return nil, err
	}
	if len(users) == 0 {
		a.code = newCode()
	}
	provider, err := cfg.Provider.OIDC(ctx)
	if err != nil {
		return nil, err
	}
	a.issuer = provider.Issuer
	return a, nil
}

// newCode makes a first-run code: 8 characters without look-alikes, 38 bits.
func newCode() string {
	const alphabet = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
	var b [8]byte
	rand.Read(b[:])
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)]
	}
	return string(b[:4]) + "-" + string(b[4:])
}

// Code returns the first-run code, empty once a password is set.
func (a *Auth) Code() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.code
}

// CheckCode compares the first-run code in constant time. No code is right once
// a password is set.
func (a *Auth) CheckCode(code string) bool {
	want := a.Code()
	code = strings.ToUpper(strings.TrimSpace(code))
	return want != "" && subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1
}

// Login checks a password and begins a session.
func (a *Auth) Login(ctx context.Context, user, password string) error {
	u, err := a.cfg.Users.User(ctx, user)
	if err != nil && !store.IsNotFound(err) {
		return err
	}
	if err != nil || u.Federated() {
		u.Hash = decoy
	}
	fits := false
	if wait := a.costly(ctx, func() error { fits = CheckPassword(u.Hash, password); return nil }); wait != nil {
		return wait
	}
	if !fits || err != nil {
		// The name is not logged: people type their password into that field too.
		a.cfg.Log.Warn("a login was refused", "from", visitorOf(ctx).from)
		return &store.Error{Kind: store.KindDenied, Field: "password", Msg: "the name and password do not fit"}
	}
	if u.Disabled {
		return disabled(u.Name)
	}
	return a.Begin(ctx, user, "password")
}

func disabled(name string) error {
	return &store.Error{Kind: store.KindDenied, Msg: name + " is shut out: an admin did that, and can let them in again under Settings, People, or with lunboot user set " + name + " --no-disabled"}
}

// costly runs fn, which hashes, when fewer than maxHashing others do.
func (a *Auth) costly(ctx context.Context, fn func() error) error {
	select {
	case a.hashing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-a.hashing }()
	return fn()
}

// Begin starts a session for a user who has just proved who they are; by is how.
func (a *Auth) Begin(ctx context.Context, user, by string) error {
	u, err := a.cfg.Users.User(ctx, user)
	if err != nil {
		return err
	}
	// Before there is a session: no login is without a trace.
	v, now := visitorOf(ctx), a.cfg.Now()
	if err := a.cfg.Sessions.Record(ctx, store.Actor(user), "user.login", user, "by "+by+", from "+v.from); err != nil {
		return err
	}
	if err := a.session.RenewToken(ctx); err != nil { // against session fixation
		return err
	}
	a.forget(a.session.GetString(ctx, sessionID))
	a.session.Put(ctx, sessionUser, user)
	a.session.Put(ctx, sessionProof, fingerprint(u))
	a.session.Remove(ctx, sessionUntil)
	a.session.Remove(ctx, sessionSID)
	if u.Federated() {
		a.session.Put(ctx, sessionUntil, now.Add(federatedTime).UnixNano())
	}
	a.session.Put(ctx, sessionID, newID())
	a.session.Put(ctx, sessionFrom, v.from)
	a.session.Put(ctx, sessionAgent, v.agent)
	a.session.Put(ctx, sessionBegan, now.UnixNano())
	return a.cfg.Sessions.NoteLogin(ctx, user, now)
}

// fingerprint ties a session to what somebody was known by when it began. The
// hash of a password is salted, so that every new password has another, and what
// a session's row holds is no hash that can be guessed against. Whom a provider
// vouches for is who they are, since they were added.
func fingerprint(u store.User) string {
	known := u.Hash
	if u.Federated() {
		known = fmt.Sprintf("%q %q %d", u.Issuer, u.Subject, u.Created.UnixNano())
	}
	sum := sha256.Sum256([]byte("session " + known))
	return hex.EncodeToString(sum[:16])
}

// Left is somebody who logged out here.
type Left struct {
	Issuer string // of the provider through which they came; empty: they had a password
	Hint   string // what it gave for them to be logged out there by; empty when it is not known
}

// Logout ends the session, and what runs for it. Whom it was is for whoever wants
// to log them out at their provider too; what becomes of that, they are out here.
func (a *Auth) Logout(ctx context.Context) (Left, error) {
	id := From(ctx)
	if err := a.session.Destroy(ctx); err != nil {
		return Left{}, err
	}
	if id.Login == "" {
		return Left{}, nil
	}
	a.endLives(ctx, func(l *life) bool { return l.id.Login == id.Login })
	u, err := a.cfg.Users.User(ctx, id.User)
	if err != nil { // who was removed at this moment is logged out here all the same
		a.cfg.Log.Warn("look up who logged out", "error", err)
	}
	return Left{Issuer: u.Issuer, Hint: a.forget(id.Login)}, nil
}

// Pages wraps the people's pages: it loads and saves the session and puts the
// identity into the context.
func (a *Auth) Pages(next http.Handler) http.Handler {
	return a.session.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := withVisitor(r)
		ctx, done := a.settle(ctx, func() (Identity, time.Time) { return a.bySession(ctx) })
		defer done()
		next.ServeHTTP(w, r.WithContext(ctx))
	}))
}

// API wraps the REST API: the unix socket's peer, a bearer token, or the
// session of a page. It writes no session, so that a stream stays a stream.
func (a *Auth) API(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, done := a.settle(r.Context(), func() (Identity, time.Time) { return a.byRequest(r) })
		defer done()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// byRequest says who a request of the API comes from, and when that ends.
func (a *Auth) byRequest(r *http.Request) (Identity, time.Time) {
	ctx := r.Context()
	if scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") { // RFC 9110 §11.1: schemes have no case
		return a.byToken(ctx, strings.TrimSpace(token))
	}
	if uid, ok := a.cfg.Peer(ctx); ok {
		id := Identity{Actor: store.ActorSocket, Scope: store.ScopeAdmin, Local: true}
		if uid != 0 {
			id.Actor = store.Actor("local user " + strconv.Itoa(uid))
		}
		return id, time.Time{}
	}
	if c, err := r.Cookie(a.session.Cookie.Name); err == nil {
		if sctx, err := a.session.Load(ctx, c.Value); err == nil {
			return a.bySession(sctx)
		}
	}
	return Identity{}, time.Time{}
}

// bySession says who a session is, and when it ends at the latest.
func (a *Auth) bySession(ctx context.Context) (Identity, time.Time) {
	name, login := a.session.GetString(ctx, sessionUser), a.session.GetString(ctx, sessionID)
	if name == "" || login == "" {
		return Identity{}, time.Time{}
	}
	u, err := a.cfg.Users.User(ctx, name)
	if err != nil {
		if !store.IsNotFound(err) {
			a.cfg.Log.Error("look up a session's user", "error", err)
		}
		return Identity{}, time.Time{}
	}
	if !sameProof(a.session.GetString(ctx, sessionProof), u) {
		return Identity{}, time.Time{} // the password was changed since, or they may no longer
	}
	if u.Federated() && !a.vouches(u.Issuer) {
		return Identity{}, time.Time{} // another provider took the place of theirs since
	}
	until := a.session.Deadline(ctx)
	if n := a.session.GetInt64(ctx, sessionUntil); n != 0 {
		if until = time.Unix(0, n); !a.cfg.Now().Before(until) {
			return Identity{}, time.Time{}
		}
	}
	return Identity{Actor: store.Actor(name), Scope: u.Role.Scope(), User: name, Login: login}, until
}

func sameProof(proof string, u store.User) bool {
	return !u.Disabled && !u.Refused && subtle.ConstantTimeCompare([]byte(proof), []byte(fingerprint(u))) == 1
}
