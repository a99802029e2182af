package oidc

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	rp "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"

	"lunboot/store"
)

// Bounds of what a provider may send and take.
const (
	dialTime  = 5 * time.Second
	maxHead   = 64 << 10
	maxAnswer = 512 << 10
	// skew is how far its clock and ours may be apart.
	skew = time.Minute
	// maxSubject is the longest name that a provider may have for somebody (OpenID
	// Connect Core 1.0 §2).
	maxSubject = 255
)

// algorithms are the signatures that are believed: those by a key that the
// provider alone has. "none" is none of them, nor is a secret that two share.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// metadata is what a provider says of itself (OpenID Connect Discovery 1.0 §3, RFC
// 8414 §2, RFC 9207 §3, OpenID Connect RP-Initiated Logout 1.0 §2.1).
type metadata struct {
	Issuer      string   `json:"issuer"`
	Authorize   string   `json:"authorization_endpoint"`
	Token       string   `json:"token_endpoint"`
	Keys        string   `json:"jwks_uri"`
	UserInfo    string   `json:"userinfo_endpoint"`
	EndSession  string   `json:"end_session_endpoint"`
	Signs       []string `json:"id_token_signing_alg_values_supported"`
	Answers     []string `json:"response_types_supported"`
	Challenges  []string `json:"code_challenge_methods_supported"`
	Scopes      []string `json:"scopes_supported"`
	Claims      []string `json:"claims_supported"`
	Secrets     []string `json:"token_endpoint_auth_methods_supported"`
	NamesItself bool     `json:"authorization_response_iss_parameter_supported"`
	Tells       bool     `json:"backchannel_logout_supported"`         // OpenID Connect Back-Channel Logout 1.0 §2.1
	TellsWhich  bool     `json:"backchannel_logout_session_supported"` // ibid.
}

// provider is one that is being spoken to.
type provider struct {
	metadata
	settings store.OIDC
	http     *http.Client
	now      func() time.Time
	clock    time.Time // what the provider's clock said last; zero: it said nothing
	ends     time.Time // when its certificate runs out; zero: it showed none
}

// dial makes what speaks to a provider. It sends nothing yet.
func (c *Client) dial(o store.OIDC) (*provider, error) {
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool() // a host without any
		}
		pool.AppendCertsFromPEM([]byte(o.CA))
		trust.RootCAs = pool
	}
	return &provider{settings: o, now: c.cfg.Now, http: &http.Client{
		Transport: &careful{agent: "lunboot/" + c.cfg.Version, issuer: o.Issuer, next: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dialTime}).DialContext,
			TLSClientConfig: trust, TLSHandshakeTimeout: dialTime, MaxResponseHeaderBytes: maxHead,
		}},
		// Where the provider's word is fetched is said by the admin and by the provider
		// itself, and nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (p *provider) close() { p.http.CloseIdleConnections() }

// careful sends nothing in the clear, and reads no more than an answer may have.
type careful struct {
	next          *http.Transport
	agent, issuer string
}

func (c *careful) CloseIdleConnections() { c.next.CloseIdleConnections() }

func (c *careful) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := private(c.issuer, req.URL); err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", c.agent)
	resp, err := c.next.RoundTrip(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// private refuses to speak where others could listen. What is on this host itself
// may be spoken to in the clear when the admin named the issuer so: a provider
// elsewhere names no service of this host.
func private(issuer string, u *url.URL) error {
	if u.Scheme == "https" && u.Host != "" {
		return nil
	}
	if of, err := url.Parse(issuer); err == nil && of.Scheme == "http" && store.Loopback(of) && u.Scheme == "http" && store.Loopback(u) {
		return nil
	}
	return denied(nil, "the provider names a place of its own that is not behind https:// (%s), and nothing was sent there; its settings need its public URL", words(u.Redacted()))
}

// get fetches a document of the provider's.
func (p *provider) get(ctx context.Context, what, from, token string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return unavailable(err, "%s names no place for %s that can be asked: %s", p.settings.Name, what, words(from))
	}
	req.Header.Set("Accept", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return p.fault(err, req.URL)
	}
	defer resp.Body.Close()
	if p.clock, err = http.ParseTime(resp.Header.Get("Date")); err != nil {
		p.clock = time.Time{}
	}
	if resp.TLS != nil {
		p.ends = resp.TLS.PeerCertificates[0].NotAfter
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		return p.fault(err, req.URL)
	}
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return mended(unavailable(nil, "%s sends whoever asks for %s elsewhere, to %s, and was not followed; take the issuer as the provider itself writes it", req.URL.Host, what, words(resp.Header.Get("Location"))), setIssuer)
	case resp.StatusCode != http.StatusOK:
		return mended(unavailable(nil, "%s answers %q when it is asked for %s at %s; look whether the issuer is right and whole (Keycloak's, for one, ends in /realms/NAME)", req.URL.Host, resp.Status, what, words(req.URL.Path)), setIssuer)
	}
	d := json.NewDecoder(&b)
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return mended(unavailable(err, "what %s answers when it is asked for %s is no JSON; look whether the issuer is right", req.URL.Host, what), setIssuer)
	}
	return nil
}

// discover asks the provider where it does what.
func (p *provider) discover(ctx context.Context) error {
	o := p.settings
	if err := p.get(ctx, "its settings", strings.TrimSuffix(o.Issuer, "/")+"/.well-known/openid-configuration", "", &p.metadata); err != nil {
		return err
	}
	if p.Issuer != o.Issuer { // OpenID Connect Discovery 1.0 §4.3: exactly
		err := unavailable(nil, "the provider there calls itself %q, and the issuer that is set here is %q; they have to be the same, to the letter", words(p.Issuer), o.Issuer)
		if u, bad := url.Parse(p.Issuer); bad != nil || private(p.Issuer, u) != nil {
			return err // nobody is told to set what would be refused
		}
		return mended(err, "lunboot oidc set --issuer "+argument(p.Issuer))
	}
	for what, at := range map[string]string{"authorization_endpoint": p.Authorize, "token_endpoint": p.Token, "jwks_uri": p.Keys} {
		u, err := url.Parse(at)
		if err != nil || at == "" {
			return unavailable(err, "the provider does not say where its %s is", what)
		}
		if err := private(o.Issuer, u); err != nil {
			return err
		}
	}
	return nil
}

// config is what the exchange of a code needs. How the secret is sent is the
// provider's choice; client_secret_basic is meant where it says nothing (OpenID
// Connect Discovery 1.0 §3).
func (p *provider) config() *oauth2.Config {
	o := p.settings
	style := oauth2.AuthStyleInHeader
	if o.Public() || len(p.Secrets) > 0 && !slices.Contains(p.Secrets, "client_secret_basic") {
		style = oauth2.AuthStyleInParams
	}
	return &oauth2.Config{
		ClientID: o.ClientID, ClientSecret: o.Secret, Scopes: o.Scopes, RedirectURL: o.Redirect(),
		Endpoint: oauth2.Endpoint{AuthURL: p.Authorize, TokenURL: p.Token, AuthStyle: style},
	}
}

// read finds the code in the answer that the browser brought. An answer that says
// whose it is, is the provider's that was asked (RFC 9207 §2.4).
func (p *provider) read(answer url.Values) (code string, err error) {
	name := p.settings.Name
	switch iss, said := answer.Get("iss"), answer.Get("error"); {
	case answer.Has("iss") && iss != p.Issuer, !answer.Has("iss") && p.NamesItself:
		return "", denied(nil, "the answer is not from %s, which was asked: somebody may have tried to mix two providers up. Nothing was sent to either", name)
	case said == "access_denied":
		return "", denied(nil, "%s refused the sign-in%s. You, or whoever decides there, said no; ask them, or sign in as somebody else", name, quoted(answer.Get("error_description")))
	case said != "":
		return "", denied(nil, "%s did not let you sign in: %s%s. An admin of this appliance can look at Settings, Single sign-on", name, words(said), quoted(answer.Get("error_description")))
	}
	if code = answer.Get("code"); code == "" {
		return "", denied(nil, "%s sent you back without a code that says who you are. Start the sign-in again", name)
	}
	return code, nil
}

// redeem exchanges a code for the provider's word on somebody, and checks it.
func (p *provider) redeem(ctx context.Context, code string, f flow) (who store.OIDCPerson, err error) {
	token, err := p.config().Exchange(rp.ClientContext(ctx, p.http), code, oauth2.VerifierOption(f.verifier))
	if err != nil {
		return who, p.refusal(err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return who, unavailable(nil, "%s answered without a word on who you are (an ID token); it has to be an OpenID Connect client there, with the scope openid", p.settings.Name)
	}
	keys, err := p.keys(ctx)
	if err != nil {
		return who, err
	}
	word, err := p.verify(ctx, raw, f.nonce, token.AccessToken, keys)
	if err != nil {
		return who, err
	}
	claims := map[string]any{}
	var plain json.RawMessage
	if err := word.Claims(&plain); err != nil {
		return who, unavailable(err, "what %s says of you cannot be read", p.settings.Name)
	}
	d := json.NewDecoder(bytes.NewReader(plain))
	d.UseNumber()
	if err := d.Decode(&claims); err != nil {
		return who, unavailable(err, "what %s says of you cannot be read", p.settings.Name)
	}
	if err := p.askMore(ctx, word.Subject, token.AccessToken, claims); err != nil {
		return who, err
	}
	who = p.person(word.Subject, claims)
	if sid, _ := claims["sid"].(string); len(sid) <= maxID {
		who.Session = sid
	}
	who.Began = f.began
	if p.settings.Logout && p.EndSession != "" && len(raw) <= maxHint {
		who.Hint = raw
	}
	return who, nil
}

// keys fetches the keys by which the provider signs. It is done for each sign-in,
// so that a key that was taken back is believed no more. Keys of kinds that are not
// known are passed over (RFC 7517 §5).
func (p *provider) keys(ctx context.Context) ([]crypto.PublicKey, error) {
	var set struct{ Keys []json.RawMessage }
	if err := p.get(ctx, "its keys", p.Keys, "", &set); err != nil {
		return nil, err
	}
	var keys []crypto.PublicKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if json.Unmarshal(raw, &k) == nil && k.Valid() && k.IsPublic() && k.Use != "enc" {
			keys = append(keys, k.Key)
		}
	}
	if len(keys) == 0 {
		u, _ := url.Parse(p.Keys) // it was just asked
		return nil, mended(unavailable(nil, "%s shows no key that a signature of it could be checked by; give it one there (RS256 or ES256, for one)", p.settings.Name), ask(u))
	}
	return keys, nil
}

// signs are the signatures that are believed of the provider.
func (p *provider) signs() (out []string) {
	for _, a := range algorithms {
		if slices.Contains(p.Signs, string(a)) {
			out = append(out, string(a))
		}
	}
	if len(out) == 0 {
		out = []string{rp.RS256}
	}
	return out
}

// verify checks the provider's word as OpenID Connect Core 1.0 §3.1.3.7 and
// §3.1.3.8 want it.
func (p *provider) verify(ctx context.Context, raw, nonce, access string, keys []crypto.PublicKey) (*rp.IDToken, error) {
	o := p.settings
	// The times are looked at below, with words for what is wrong with them.
	word, err := rp.NewVerifier(p.Issuer, &rp.StaticKeySet{PublicKeys: keys}, &rp.Config{ClientID: o.ClientID, SupportedSigningAlgs: p.signs(), SkipExpiryCheck: true}).Verify(ctx, raw)
	if err != nil {
		return nil, denied(err, "the word of %s on who you are is not good (%s), and was not believed", o.Name, words(err.Error()))
	}
	var more struct {
		Azp string   `json:"azp"`
		Nbf *float64 `json:"nbf"`
	}
	if err := word.Claims(&more); err != nil {
		return nil, denied(err, "what %s says of you cannot be read", o.Name)
	}
	if more.Azp != "" && more.Azp != o.ClientID || more.Azp == "" && len(word.Audience) > 1 {
		return nil, denied(nil, "the word of %s on who you are was given to somebody else (azp %q), and was not believed", o.Name, words(more.Azp))
	}
	if subtle.ConstantTimeCompare([]byte(word.Nonce), []byte(nonce)) != 1 {
		return nil, denied(nil, "the word of %s on who you are belongs to another sign-in (its nonce is not the one that was sent), and was not believed. Start the sign-in again", o.Name)
	}
	if word.AccessTokenHash != "" {
		if err := word.VerifyAccessToken(access); err != nil {
			return nil, denied(err, "the two tokens of %s do not belong together, and were not believed", o.Name)
		}
	}
	if word.Subject == "" || len(word.Subject) > maxSubject {
		return nil, denied(nil, "%s does not say who you are (sub), in %d characters at most", o.Name, maxSubject)
	}
	now := p.now().UTC()
	begins := word.IssuedAt
	if more.Nbf != nil {
		if nbf := time.Unix(int64(*more.Nbf), 0); nbf.After(begins) {
			begins = nbf
		}
	}
	const wrong = "the word of %s on who you are %s %s, and this appliance's clock says %s: one of the two clocks is wrong. An admin can look at this host's: lunboot doctor"
	switch {
	case now.After(word.Expiry.Add(skew)):
		return nil, denied(nil, wrong, o.Name, "ran out at", word.Expiry.UTC().Format(time.DateTime), now.Format(time.DateTime))
	case begins.After(now.Add(skew)):
		return nil, denied(nil, wrong, o.Name, "is good from", begins.UTC().Format(time.DateTime), now.Format(time.DateTime))
	}
	return word, nil
}

// names are the claims by which people are known, the best first.
var names = []string{"preferred_username", "email", "name"}

// askMore fetches the claims that many providers tell only when they are asked for
// them (OpenID Connect Core 1.0 §5.3), where one is missing that is needed here.
func (p *provider) askMore(ctx context.Context, subject, access string, claims map[string]any) error {
	_, has := p.settings.ClaimValues(claims)
	needed := p.settings.Claim != "" && !has
	named := slices.ContainsFunc(names, func(n string) bool { s, _ := claims[n].(string); return s != "" })
	if p.UserInfo == "" || !needed && named {
		return nil
	}
	var more map[string]any
	if err := p.get(ctx, "more of you", p.UserInfo, access, &more); err != nil {
		if needed {
			return err
		}
		return nil // then their name is the one that nobody can read
	}
	if sub, _ := more["sub"].(string); sub != subject { // ibid. §5.3.2: it could be of somebody else
		return denied(nil, "%s speaks of two people in one sign-in, and was not believed", p.settings.Name)
	}
	for name, v := range more {
		if _, there := claims[name]; !there {
			claims[name] = v
		}
	}
	return nil
}

// person is who somebody is, and what they may do here.
func (p *provider) person(subject string, claims map[string]any) store.OIDCPerson {
	o := p.settings
	who := store.OIDCPerson{Issuer: o.Issuer, Subject: subject}
	for _, n := range names {
		s, _ := claims[n].(string)
		who.KnownAs = cmp.Or(who.KnownAs, words(s))
	}
	who.KnownAs = cmp.Or(who.KnownAs, words(subject))
	values, has := o.ClaimValues(claims)
	if who.Role = o.RoleOf(values); who.Role != "" {
		return who
	}
	elsewhere, _ := claims["_claim_names"].(map[string]any)
	says := fmt.Sprintf("it says nothing of %q", o.Claim)
	switch {
	case elsewhere[o.Claim] != nil:
		says = fmt.Sprintf("it does not tell your %s, since they are too many for it (let it tell only those that are meant for this appliance)", o.Claim)
	case has && len(values) == 0:
		says = fmt.Sprintf("your %s there are none", o.Claim)
	case has:
		shown := values[:min(len(values), maxShown)]
		says = fmt.Sprintf("your %s there: %s", o.Claim, words(strings.Join(shown, ", ")))
	}
	who.Refusal = fmt.Sprintf("%s knows you as %s, and nothing that it says of you gives a role here: %s. An admin of this appliance can change that under Settings, Single sign-on", o.Name, who.KnownAs, says)
	return who
}

// maxShown is how many values of a claim somebody who is refused is shown.
const maxShown = 8
