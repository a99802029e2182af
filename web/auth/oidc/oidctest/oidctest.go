// Package oidctest is an OpenID Connect provider for tests. It speaks the protocol
// as the standards have it, over HTTPS on loopback: discovery, keys, the
// authorization endpoint, which asks nobody and says yes, the token endpoint, which
// checks the client, the code and PKCE, and userinfo. What it says can be bent, for
// the attacks that a client has to see through.
package oidctest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Provider is a running one. Its fields may be changed between two requests, by
// Set.
type Provider struct {
	*httptest.Server
	ClientID, Secret string
	Redirect         string         // the one URL that people are sent back to; empty: any
	Leave            string         // the one that they are sent back to who logged out; empty: any
	Person           map[string]any // what it says of whoever signs in; sub is needed
	UserInfo         map[string]any // what it says only at userinfo
	Algorithm        jose.SignatureAlgorithm
	Now              func() time.Time
	Deny             string // the error with which everybody is refused

	// What bends it, each where it is not nil.
	Bend   func(metadata map[string]any) // discovery
	Answer func(url.Values)              // what goes back with the browser
	Claims func(map[string]any)          // the ID token before it is signed
	Sign   func(claims []byte) string    // the ID token instead
	Twice  bool                          // a code is good again and again

	mu     sync.Mutex
	rsa    *rsa.PrivateKey
	ec     *ecdsa.PrivateKey
	codes  map[string]grant
	access map[string]string
	Asked  []string // the paths that were asked for
	Left   []string // who logged out: their sub, or the client that was named
}

// grant is what a code stands for.
type grant struct{ nonce, redirect, challenge string }

// New starts a provider over HTTPS; Close ends it.
func New() (*Provider, error) { return start((*httptest.Server).StartTLS) }

// NewPlain starts one over plain HTTP, for browsers that trust no test.
func NewPlain() (*Provider, error) { return start((*httptest.Server).Start) }

func start(serve func(*httptest.Server)) (p *Provider, err error) {
	p = &Provider{
		ClientID: "lunboot", Secret: "the client's secret", Algorithm: jose.RS256, Now: time.Now,
		Person: map[string]any{"sub": "248289761001", "preferred_username": "anna", "groups": []string{"lab-operators"}},
		codes:  map[string]grant{}, access: map[string]string{},
	}
	if p.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	if p.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /userinfo", p.userinfo)
	mux.HandleFunc("GET /logout", p.logout)
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.Asked = append(p.Asked, r.URL.Path)
		w.Header().Set("Date", p.Now().UTC().Format(http.TimeFormat))
		mux.ServeHTTP(w, r)
	}))
	p.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it say so themselves
	serve(p.Server)
	return p, nil
}

// Set changes the provider while it runs.
func (p *Provider) Set(fn func(*Provider)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn(p)
}

// Seen are the paths that were asked for so far.
func (p *Provider) Seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.Asked)
}

// CA is the certificate that vouches for it (PEM); empty over plain HTTP.
func (p *Provider) CA() string {
	if p.Certificate() == nil {
		return ""
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw}))
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
}

func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	m := map[string]any{
		"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys", "userinfo_endpoint": p.URL + "/userinfo", "end_session_endpoint": p.URL + "/logout?ui=1",
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256", "ES256"},
		"code_challenge_methods_supported": []string{"S256"}, "scopes_supported": []string{"openid", "profile", "email"}, "claims_supported": []string{"sub", "preferred_username", "groups"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic"}, "authorization_response_iss_parameter_supported": true,
	}
	if p.Bend != nil {
		p.Bend(m)
	}
	reply(w, http.StatusOK, m)
}

// Keys are the public keys, with one of a kind that nobody knows yet.
func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]any{"keys": []any{
		map[string]any{"kty": "later", "kid": "0"},
		jose.JSONWebKey{Key: p.rsa.Public(), KeyID: "1", Algorithm: "RS256", Use: "sig"},
		jose.JSONWebKey{Key: p.ec.Public(), KeyID: "2", Algorithm: "ES256", Use: "sig"},
	}})
}

// authorize sends the browser back with a code. An answer to a client or to a
// place that is not known would go to a stranger (RFC 6749 §4.1.2.1).
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	to, err := url.Parse(q.Get("redirect_uri"))
	if q.Get("client_id") != p.ClientID || err != nil || to.Host == "" || p.Redirect != "" && to.String() != p.Redirect {
		http.Error(w, "unknown client or redirect_uri", http.StatusBadRequest)
		return
	}
	answer := url.Values{"state": {q.Get("state")}, "iss": {p.URL}}
	switch {
	case p.Deny != "":
		answer.Set("error", p.Deny)
		answer.Set("error_description", "not today")
	case q.Get("response_type") != "code" || !strings.Contains(q.Get("scope"), "openid") || q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43:
		answer.Set("error", "invalid_request")
	default:
		code := rand.Text()
		p.codes[code] = grant{q.Get("nonce"), q.Get("redirect_uri"), q.Get("code_challenge")}
		answer.Set("code", code)
	}
	if p.Answer != nil {
		p.Answer(answer)
	}
	to.RawQuery = answer.Encode()
	http.Redirect(w, r, to.String(), http.StatusFound)
}

// token redeems a code, once (RFC 6749 §4.1.3, RFC 7636 §4.6).
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, why string) { reply(w, status, map[string]string{"error": why}) }
	id, secret := r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	if escapedID, escaped, basic := r.BasicAuth(); basic { // RFC 6749 §2.3.1
		id, _ = url.QueryUnescape(escapedID)
		secret, _ = url.QueryUnescape(escaped)
	}
	if id != p.ClientID || subtle.ConstantTimeCompare([]byte(secret), []byte(p.Secret)) != 1 {
		refuse(http.StatusUnauthorized, "invalid_client")
		return
	}
	code := r.PostFormValue("code")
	g, ok := p.codes[code]
	if !p.Twice {
		delete(p.codes, code)
	}
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || g.redirect != r.PostFormValue("redirect_uri") || g.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) {
		refuse(http.StatusBadRequest, "invalid_grant")
		return
	}
	access := rand.Text()
	p.access[access], _ = p.Person["sub"].(string)
	half := sha256.Sum256([]byte(access))
	now := p.Now()
	claims := maps.Clone(p.Person)
	maps.Copy(claims, map[string]any{
		"iss": p.URL, "aud": p.ClientID, "exp": now.Add(5 * time.Minute).Unix(), "iat": now.Unix(), "nonce": g.nonce, "at_hash": base64.RawURLEncoding.EncodeToString(half[:16]),
	})
	if p.Claims != nil {
		p.Claims(claims)
	}
	raw, err := json.Marshal(claims)
	if err != nil {
		refuse(http.StatusInternalServerError, "server_error")
		return
	}
	word, err := p.sign(raw)
	if err != nil {
		refuse(http.StatusInternalServerError, "server_error")
		return
	}
	reply(w, http.StatusOK, map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": word})
}

// LogoutToken is a logout token as the standard has it, of somebody or of a session
// (OpenID Connect Back-Channel Logout 1.0 §2.4), bent before it is signed.
func (p *Provider) LogoutToken(sub, sid string, bend func(claims map[string]any)) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.Now()
	claims := map[string]any{
		"iss": p.URL, "aud": p.ClientID, "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(), "jti": rand.Text(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	for name, value := range map[string]string{"sub": sub, "sid": sid} {
		if value != "" {
			claims[name] = value
		}
	}
	if bend != nil {
		bend(claims)
	}
	raw, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	return p.sign(raw)
}

func (p *Provider) sign(claims []byte) (string, error) {
	if p.Sign != nil {
		return p.Sign(claims), nil
	}
	var key any = jose.JSONWebKey{Key: p.rsa, KeyID: "1"}
	if p.Algorithm == jose.ES256 {
		key = jose.JSONWebKey{Key: p.ec, KeyID: "2"}
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: p.Algorithm, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	word, err := s.Sign(claims)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return word.CompactSerialize()
}

func (p *Provider) userinfo(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sub, ok := p.access[token]
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	claims := map[string]any{"sub": sub}
	maps.Copy(claims, p.UserInfo)
	reply(w, http.StatusOK, claims)
}

// logout ends somebody's session (OpenID Connect RP-Initiated Logout 1.0 §2): whose
// is told by an ID token of ours, else the client alone is named. Nobody is sent to a
// place that is not known.
func (p *Provider) logout(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	who := q.Get("client_id")
	if hint := q.Get("id_token_hint"); hint != "" {
		word, err := jose.ParseSignedCompact(hint, []jose.SignatureAlgorithm{jose.RS256, jose.ES256})
		if err != nil {
			http.Error(w, "no ID token", http.StatusBadRequest)
			return
		}
		var key any = p.rsa.Public()
		if word.Signatures[0].Header.KeyID == "2" {
			key = p.ec.Public()
		}
		raw, err := word.Verify(key)
		var claims struct{ Sub, Aud string }
		if err != nil || json.Unmarshal(raw, &claims) != nil || claims.Aud != p.ClientID || who != "" && who != p.ClientID {
			http.Error(w, "an ID token of somebody else", http.StatusBadRequest)
			return
		}
		who = claims.Sub
	} else if who != p.ClientID {
		http.Error(w, "unknown client", http.StatusBadRequest)
		return
	}
	to, err := url.Parse(q.Get("post_logout_redirect_uri"))
	if err != nil || to.Host == "" || p.Leave != "" && to.String() != p.Leave || q.Get("ui") != "1" {
		http.Error(w, "unknown post_logout_redirect_uri", http.StatusBadRequest)
		return
	}
	p.Left = append(p.Left, who)
	to.RawQuery = url.Values{"state": {q.Get("state")}}.Encode()
	http.Redirect(w, r, to.String(), http.StatusFound)
}
