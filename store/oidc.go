package store

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// OIDC is the OpenID Connect provider through which people may sign in, besides
// by passwords. The zero value is none.
type OIDC struct {
	Revision int64  `json:"revision"`
	Issuer   string `json:"issuer"`    // the provider's name of itself, a URL; empty: none
	Name     string `json:"name"`      // what people call it: the button says "Sign in with …"
	ClientID string `json:"client_id"` // what the provider calls the appliance
	// Secret is the client's; empty for a public client. It is written and never
	// shown.
	Secret string `json:"-"`
	// URL is where people open the appliance. The provider sends them back to a
	// page below it, and only to the one that is registered there.
	URL    string   `json:"url"`
	CA     string   `json:"ca"` // certificates (PEM) that vouch for the provider, besides those that the host trusts
	Scopes []string `json:"scopes"`
	// Claim is what of the provider's word on a person gives their role, or
	// the path to it, as realm_access.roles. Roles are what its values give, the most powerful of
	// those that fit.
	Claim string      `json:"claim"`
	Roles []ClaimRole `json:"roles"`
	// Default is the role of everybody else, whom no value fits; empty: they are
	// refused.
	Default Role `json:"default_role"`
	// Logout says that whoever logs out here is sent to the provider to log out there
	// too, which ends their session for everything that they use through it.
	Logout bool `json:"logout"`
}

// ClaimRole is what a value of the claim gives.
type ClaimRole struct {
	Value string `json:"value"`
	Role  Role   `json:"role"`
}

// String is the rule as people write it.
func (c ClaimRole) String() string { return c.Value + " = " + string(c.Role) }

// OIDCSpec is the provider as somebody wants it.
type OIDCSpec struct {
	OIDC
	Secret *string // nil: the one that is kept, as long as it is for the same provider
}

// OIDCFinding is one thing that a look at the provider found out. State is ok,
// advice or fault.
type OIDCFinding struct {
	Name  string `json:"name" doc:"what was looked at"`
	State string `json:"state" enum:"ok,advice,fault" doc:"advice: it may work, and something is not as expected"`
	Says  string `json:"says"`
	Mend  string `json:"mend,omitempty" doc:"the command that mends it, or shows more"`
}

// OIDCLook is a look at the provider that is set.
type OIDCLook struct {
	At    time.Time     `json:"at"`
	Found []OIDCFinding `json:"found"`
}

// OIDCPerson is somebody as a provider vouches for them.
type OIDCPerson struct {
	Issuer, Subject string
	Session         string    // what the provider calls their session with it; empty: it has no name
	Began           time.Time // when the sign-in did
	KnownAs         string    // what the provider calls them, for people; it may change and belong to somebody else later
	Role            Role      // empty: they are refused
	Refusal         string    // why, for them
	// Hint is the provider's word on them as it signed it. It is kept only to be shown
	// to the provider again when they log out there; empty: it is not.
	Hint string
}

// OIDCCallback is the path to which the provider sends people back.
const OIDCCallback = "/login/oidc/callback"

// OIDCLoggedOut is the path to which the provider sends people back who logged out
// there.
const OIDCLoggedOut = "/login/oidc/logged-out"

// OIDCBackChannel is the path at which the provider itself says who logged out there.
const OIDCBackChannel = "/login/oidc/backchannel-logout"

// BackChannel is the URL of that, which may be registered at the provider.
func (o OIDC) BackChannel() string { return o.URL + OIDCBackChannel }

// OIDCHere is the path at which the appliance knows itself.
const OIDCHere = "/login/oidc/here"

// LogoutRedirect is the URL that has to be registered at the provider as one that
// people are sent back to when they logged out.
func (o OIDC) LogoutRedirect() string { return o.URL + OIDCLoggedOut }

// Redirect is the URL that has to be registered at the provider.
func (o OIDC) Redirect() string { return o.URL + OIDCCallback }

// IsZero reports that there is no provider.
func (o OIDC) IsZero() bool { return o.Issuer == "" }

// Public reports a client without a secret.
func (o OIDC) Public() bool { return o.Secret == "" }

// String names the provider without the secret.
func (o OIDC) String() string { return o.Issuer }

// GoString hides the secret too.
func (o OIDC) GoString() string { return o.String() }

// Bounds of what an admin may write.
const (
	maxOIDCText  = 500
	maxOIDCCA    = 64 << 10
	maxOIDCRules = 200
	maxScopes    = 20
)

// Normalize fills in what has a default, and checks the rest.
func (o OIDC) Normalize() (OIDC, error) {
	if o.Issuer = strings.TrimSpace(o.Issuer); o.Issuer == "" {
		return OIDC{Revision: o.Revision}, nil
	}
	o.Name, o.ClientID, o.Claim, o.CA = strings.TrimSpace(o.Name), strings.TrimSpace(o.ClientID), strings.TrimSpace(o.Claim), strings.TrimSpace(o.CA)
	o.URL = strings.TrimSuffix(strings.TrimSpace(o.URL), "/")
	u, err := validIssuer(o.Issuer)
	errs := []error{err}
	if err == nil && o.Name == "" {
		o.Name = u.Hostname()
	}
	if o.Scopes, err = normalScopes(o.Scopes); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, validateLine("name", o.Name, 60), validateLine("claim", o.Claim, maxOIDCText), validateLine("client_id", o.ClientID, maxOIDCText), validateLine("secret", o.Secret, 2*maxOIDCText), validAppliance(o.URL), validCA(o.CA))
	if o.ClientID == "" {
		errs = append(errs, Invalid("client_id", "the client ID is missing: the provider gave it when the appliance was registered there"))
	}
	return o, joinFields(append(errs, o.validRoles())...)
}

// validateLine bounds text that has no line ends.
func validateLine(field, s string, limit int) error {
	if strings.ContainsAny(s, "\n\r\t") {
		return Invalid(field, "the text has a line end or a tab in it")
	}
	return validateText(field, s, limit)
}

// Loopback reports a URL of this host, where plain HTTP is not read on the way.
func Loopback(u *url.URL) bool {
	if u.Hostname() == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.IsLoopback()
}

// validIssuer reads an issuer: an https URL without query and fragment (OpenID
// Connect Discovery 1.0 §2).
func validIssuer(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || len(s) > maxOIDCText || u.Hostname() == "":
		return nil, Invalid("issuer", "that is no URL of a provider, such as https://sso.example.org/realms/lab")
	case u.Scheme != "https" && !(u.Scheme == "http" && Loopback(u)):
		return nil, Invalid("issuer", "an issuer begins with https:// (plain http:// only on this host itself)")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return nil, Invalid("issuer", "an issuer has no name, password, query or fragment in it")
	case strings.HasSuffix(u.Path, "/.well-known/openid-configuration"):
		return nil, Invalid("issuer", "the issuer is what comes before /.well-known/openid-configuration")
	}
	return u, nil
}

// validAppliance checks where people open the appliance: scheme and host alone.
func validAppliance(s string) error {
	u, err := url.Parse(s)
	if err != nil || len(s) > maxOIDCText || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || s != u.Scheme+"://"+u.Host {
		return Invalid("url", "%q is not where people open this appliance, such as https://lunboot.example.org:8080", s)
	}
	return nil
}

func validCA(text string) error {
	if text == "" {
		return nil
	}
	if len(text) > maxOIDCCA {
		return Invalid("ca", "the certificates have %d bytes, %d are allowed", len(text), maxOIDCCA)
	}
	found := 0
	for rest := []byte(text); ; found++ {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			return Invalid("ca", "a block is a %s; only certificates belong here, and no key", b.Type)
		}
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			return Invalid("ca", "certificate %d cannot be read: %v", found+1, err)
		}
	}
	if found == 0 {
		return Invalid("ca", "there is no certificate in it; it begins with -----BEGIN CERTIFICATE-----")
	}
	return nil
}

// normalScopes puts openid first, without which the provider says nothing of the
// person (OpenID Connect Core 1.0 §3.1.2.1). The characters are those of RFC 6749
// §3.3.
func normalScopes(scopes []string) ([]string, error) {
	if len(scopes) == 0 {
		return []string{"openid", "profile", "email"}, nil
	}
	out := []string{"openid"}
	for _, s := range scopes {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return scopes, Invalid("scopes", "%q is not a scope; they are words such as openid, profile, email, groups", s)
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if len(out) > maxScopes {
		return scopes, Invalid("scopes", "there are %d scopes, %d are allowed", len(out), maxScopes)
	}
	return out, nil
}

func (o OIDC) validRoles() error {
	if len(o.Roles) > maxOIDCRules {
		return Invalid("roles", "there are %d values, %d are allowed", len(o.Roles), maxOIDCRules)
	}
	var errs []error
	seen := map[string]bool{}
	for _, r := range o.Roles {
		if r.Value == "" {
			errs = append(errs, Invalid("roles", "a value of the claim is missing before %q", r.Role))
		}
		errs = append(errs, validateLine("roles", r.Value, maxOIDCText))
		if _, err := ParseRole(string(r.Role)); err != nil {
			errs = append(errs, Invalid("roles", "%q is given %q, which is no role; choose viewer, operator or admin", r.Value, r.Role))
		}
		if seen[r.Value] {
			errs = append(errs, Invalid("roles", "%q is there twice", r.Value))
		}
		seen[r.Value] = true
	}
	if o.Default != "" {
		if _, err := ParseRole(string(o.Default)); err != nil {
			errs = append(errs, Invalid("default_role", "%q is not a role; choose viewer, operator or admin, or nothing to refuse", o.Default))
		}
	}
	switch {
	case len(o.Roles) == 0 && o.Default == "":
		errs = append(errs, Invalid("roles", "nobody could sign in: say which value of a claim gives which role, or the role of everybody else"))
	case len(o.Roles) > 0 && o.Claim == "":
		errs = append(errs, Invalid("claim", "say which claim has these values, such as groups"))
	case len(o.Roles) == 0 && o.Claim != "":
		errs = append(errs, Invalid("roles", "say which values of %s give which role", o.Claim))
	}
	return joinFields(errs...)
}

// ParseClaimRole reads "value = role". The last sign counts: names of groups in
// a directory have more of them.
func ParseClaimRole(s string) (ClaimRole, error) {
	at := strings.LastIndexByte(s, '=')
	if at < 0 {
		return ClaimRole{}, Invalid("roles", "%q is not a value and its role, such as lab-admins = admin", strings.TrimSpace(s))
	}
	return ClaimRole{Value: strings.TrimSpace(s[:at]), Role: Role(strings.TrimSpace(s[at+1:]))}, nil
}

// ClaimValues are the values of the claim that gives the role, as text; ok is
// false when the provider said nothing of it.
func (o OIDC) ClaimValues(claims map[string]any) (values []string, ok bool) {
	v, ok := claimAt(claims, o.Claim)
	if !ok || v == nil {
		return nil, false
	}
	list, many := v.([]any)
	if !many {
		list = []any{v}
	}
	for _, v := range list {
		switch v.(type) {
		case map[string]any, []any: // what is no value has no role
		default:
			values = append(values, fmt.Sprint(v))
		}
	}
	return values, true
}

// claimAt finds a claim by its name, which may have dots in it, or by the way to
// it.
func claimAt(claims map[string]any, name string) (any, bool) {
	if v, ok := claims[name]; ok {
		return v, true
	}
	for i := range len(name) {
		if name[i] != '.' {
			continue
		}
		if inner, ok := claims[name[:i]].(map[string]any); ok {
			if v, ok := claimAt(inner, name[i+1:]); ok {
				return v, true
			}
		}
	}
	return nil, false
}

// RoleOf is the most powerful role that the values give, the default when none
// does; empty: refused.
func (o OIDC) RoleOf(values []string) Role {
	roles := Roles()
	best := -1
	for _, r := range o.Roles {
		if slices.Contains(values, r.Value) {
			best = max(best, slices.Index(roles, r.Role))
		}
	}
	if best < 0 {
		return o.Default
	}
	return roles[best]
}

// Keep returns what the wish becomes beside what is there: the secret is kept
// only for the provider and the client that it was given for, since whoever
// names another provider would have it sent there.
func (s OIDCSpec) Keep(now OIDC) (OIDC, error) {
	o, err := s.OIDC.Normalize()
	if err != nil || o.IsZero() {
		return o, err
	}
	switch {
	case s.Secret != nil:
		o.Secret = *s.Secret
		return o.Normalize()
	case now.Secret == "":
	case o.Issuer != now.Issuer || o.ClientID != now.ClientID:
		return o, Invalid("secret", "the secret that is kept is for the client %s of %s; give the one of %s", now.ClientID, now.Issuer, o.ClientID)
	default:
		o.Secret = now.Secret
	}
	return o, nil
}
