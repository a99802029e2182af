package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

// Provider is the OpenID Connect provider as it is shown: without its secret.
type Provider struct {
	store.OIDC
	SecretSet   bool   `json:"secret_set"`
	RedirectURI string `json:"redirect_uri" doc:"to be registered at the provider, to the letter"`
	LogoutURI   string `json:"post_logout_redirect_uri" doc:"to be registered there too when people log out there; empty when they do not"`
	BackChannel string `json:"backchannel_logout_uri" doc:"may be registered there, so that who logs out there is logged out here (OpenID Connect Back-Channel Logout)"`
}

func providerView(o store.OIDC, err error) (Provider, error) {
	v := Provider{OIDC: o, SecretSet: o.Secret != ""}
	if o.IsZero() {
		v.Scopes, v.Roles = []string{}, []store.ClaimRole{}
		return v, err
	}
	v.RedirectURI, v.BackChannel = o.Redirect(), o.BackChannel()
	if o.Logout {
		v.LogoutURI = o.LogoutRedirect()
	}
	if v.Roles == nil {
		v.Roles = []store.ClaimRole{}
	}
	return v, err
}

// providerBody is the provider as somebody wants it.
type providerBody struct {
	Revision int64             `json:"revision,omitempty" doc:"refuse the change when the provider has another revision"`
	Issuer   string            `json:"issuer" doc:"issuer URL, exactly as the provider's own settings page (…/.well-known/openid-configuration) gives it"`
	Name     string            `json:"name,omitempty" doc:"what the button says after \"Sign in with\"; empty: the issuer's host"`
	ClientID string            `json:"client_id"`
	Secret   *string           `json:"secret,omitempty" doc:"of the client, empty for a public one; left out: the one that is kept for this issuer and client. It is never shown"`
	URL      string            `json:"url,omitempty" doc:"where people open the appliance; left out: as it is, at first by its address"`
	CA       string            `json:"ca,omitempty" doc:"certificates (PEM) that vouch for the provider, besides those that the host trusts"`
	Scopes   []string          `json:"scopes,omitempty" doc:"left out: openid, profile, email"`
	Claim    string            `json:"claim,omitempty" doc:"what gives the role, such as groups; for a nested claim give the path, as realm_access.roles"`
	Roles    []store.ClaimRole `json:"roles,omitempty" doc:"what its values give; the most powerful role of those that fit"`
	Default  store.Role        `json:"default_role,omitempty" enum:"viewer,operator,admin" doc:"the role of everybody else, whom no value fits; left out: they are refused"`
	Logout   bool              `json:"logout,omitempty" doc:"who logs out here logs out at the provider too (OpenID Connect RP-Initiated Logout), and so of everything that they use through it; off: of this appliance alone"`
}

func (b providerBody) spec() store.OIDCSpec {
	return store.OIDCSpec{Secret: b.Secret, OIDC: store.OIDC{
		Revision: b.Revision, Issuer: b.Issuer, Name: b.Name, ClientID: b.ClientID, URL: b.URL, CA: b.CA, Scopes: b.Scopes, Claim: b.Claim, Roles: b.Roles, Default: b.Default, Logout: b.Logout,
	}}
}

func (s *server) oidc(a huma.API) {
	register(a, http.MethodGet, "/oidc", "show-oidc", "Show the OpenID Connect provider through which people may sign in", store.ScopeAdmin,
		func(ctx context.Context, _ *struct{}) (*body[Provider], error) {
			return reply(providerView(s.SignIn.OIDC(ctx)))
		})
	register(a, http.MethodPut, "/oidc", "set-oidc", "Set the provider; when it becomes another, whoever came through the one before is logged out", store.ScopeAdmin,
		func(ctx context.Context, in *struct{ Body providerBody }) (*body[Provider], error) {
			if in.Body.Issuer == "" {
				return nil, problem(store.Invalid("issuer", "the issuer is missing; DELETE removes the provider"))
			}
			return reply(providerView(s.SignIn.PutOIDC(ctx, actor(ctx), in.Body.spec())))
		})
	register(a, http.MethodDelete, "/oidc", "remove-oidc", "Remove the provider and forget the client's secret; whoever came through it is logged out", store.ScopeAdmin,
		func(ctx context.Context, _ *struct{}) (*empty, error) {
			_, err := s.SignIn.PutOIDC(ctx, actor(ctx), store.OIDCSpec{})
			return done(err)
		})
	register(a, http.MethodPost, "/oidc/try", "try-oidc", "Look at a provider as it would be with these settings, and say what is wrong; nothing is kept", store.ScopeAdmin,
		func(ctx context.Context, in *struct{ Body providerBody }) (*body[List[store.OIDCFinding]], error) {
			return all(s.SignIn.TryOIDC(ctx, in.Body.spec()))
		})
	register(a, http.MethodPost, "/oidc/look", "look-at-oidc", "Ask the provider that is set whether people can sign in through it; the health listing says what was found last", store.ScopeOperate,
		func(ctx context.Context, _ *struct{}) (*body[store.OIDCLook], error) {
			return reply(s.SignIn.Look(ctx))
		})
}
