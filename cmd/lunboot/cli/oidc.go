package cli

import (
	"fmt"
	"os"
	"strings"

	"lunboot/store"
)

// OIDCCmd is the noun oidc.
type OIDCCmd struct {
	Show   OIDCShowCmd   `cmd:"" help:"Show the provider, and the redirect URI to register there."`
	Set    OIDCSetCmd    `cmd:"" help:"Set the provider, or change what is named of it."`
	Try    OIDCTryCmd    `cmd:"" help:"Look at the provider, and say what is wrong."`
	Remove OIDCRemoveCmd `cmd:"" help:"Remove the provider; whoever came through it is logged out."`
}

// provider is the provider as the API shows it.
type provider struct {
	store.OIDC
	SecretSet   bool   `json:"secret_set"`
	RedirectURI string `json:"redirect_uri"`
	LogoutURI   string `json:"post_logout_redirect_uri"`
	BackChannel string `json:"backchannel_logout_uri"`
}

func (c *Context) provider() (p provider, err error) {
	return p, c.Client.Do(c, "GET", "/oidc", nil, &p)
}

// body is the provider as the API takes it.
func (p provider) body() map[string]any {
	b := map[string]any{"revision": p.Revision, "issuer": p.Issuer, "name": p.Name, "client_id": p.ClientID, "url": p.URL, "ca": p.CA, "scopes": p.Scopes, "claim": p.Claim, "roles": p.Roles, "logout": p.Logout}
	if p.Default != "" {
		b["default_role"] = p.Default
	}
	return b
}

func (c *Context) showProvider(p provider) error {
	return c.show(p, func() {
		if p.IsZero() {
			c.say("there is no provider; set one with: lunboot oidc set")
			return
		}
		var roles []string
		for _, r := range p.Roles {
			roles = append(roles, r.String())
		}
		rest := string(p.Default)
		if rest == "" {
			rest = "refused"
		}
		c.facts("Issuer", p.Issuer, "Name", p.Name, "Client ID", p.ClientID, "Secret", yes(p.SecretSet, "(set)"), "Redirect URI", p.RedirectURI, "Certificates", yes(p.CA != "", "(set)"),
			"Scopes", strings.Join(p.Scopes, " "), "Claim", p.Claim, "Roles", strings.Join(roles, "; "), "Everybody else", rest,
			"Logging out", map[bool]string{true: "here and at the provider", false: "here alone"}[p.Logout], "Post-logout URI", p.LogoutURI, "Back-channel URI", p.BackChannel)
	})
}

// OIDCShowCmd shows the provider.
type OIDCShowCmd struct{}

// Run shows it.
func (*OIDCShowCmd) Run(c *Context) error {
	p, err := c.provider()
	if err != nil {
		return err
	}
	return c.showProvider(p)
}

// OIDCSetCmd sets or changes the provider.
type OIDCSetCmd struct {
	Issuer   *string  `placeholder:"URL" help:"Issuer URL, exactly as the provider's own settings page (…/.well-known/openid-configuration) gives it."`
	Name     *string  `help:"What the button says after 'Sign in with' (default: the issuer's host)."`
	ClientID *string  `name:"client-id" placeholder:"ID" help:"What the provider calls this appliance."`
	Secret   *string  `help:"The client's secret, empty for a public client; a dash reads it from standard input. It is never shown again."`
	URL      *string  `name:"url" placeholder:"URL" help:"Where people open this appliance (default: its address)."`
	CA       *string  `name:"ca" placeholder:"FILE" help:"Certificates (PEM) that vouch for the provider, besides those that the appliance's host trusts; empty: none."`
	Scopes   []string `sep:"," help:"Scopes to ask for (default: openid, profile, email)."`
	Claim    *string  `help:"Claim that gives the role, such as groups; for a nested claim give the path, as realm_access.roles."`
	Role     []string `sep:"none" placeholder:"VALUE=ROLE" help:"Role that a value of the claim gives; repeat for several. All earlier rules are replaced."`
	Default  *string  `name:"default-role" enum:"refuse,viewer,operator,admin" help:"Role of everybody else, whom no value fits: ${enum}."`
	Logout   *bool    `negatable:"" help:"Who logs out here logs out at the provider too, and so of everything that they use through it (default: off)."`
	ifSeen
}

// Run sets it.
func (s *OIDCSetCmd) Run(c *Context) error {
	p, err := c.provider()
	if err != nil {
		return err
	}
	if s.Revision == 0 {
		s.Revision = p.Revision // the rest of what was read goes back with the changes
	}
	for from, into := range map[*string]*string{s.Issuer: &p.Issuer, s.Name: &p.Name, s.ClientID: &p.ClientID, s.URL: &p.URL, s.Claim: &p.Claim} {
		if from != nil {
			*into = *from
		}
	}
	if s.CA != nil {
		p.CA = ""
		if *s.CA != "" {
			b, err := os.ReadFile(*s.CA)
			if err != nil {
				return err
			}
			p.CA = string(b)
		}
	}
	if s.Scopes != nil {
		p.Scopes = s.Scopes
	}
	if s.Role != nil {
		p.Roles = nil
	}
	for _, text := range s.Role {
		r, err := store.ParseClaimRole(text)
		if err != nil {
			return usage(err.Error())
		}
		p.Roles = append(p.Roles, r)
	}
	if s.Default != nil {
		p.Default = store.Role(strings.TrimPrefix(*s.Default, "refuse"))
	}
	if s.Logout != nil {
		p.Logout = *s.Logout
	}
	body := p.body()
	if s.Secret != nil && *s.Secret == "-" {
		if *s.Secret, err = c.readPassword("the client"); err != nil {
			return err
		}
	}
	if s.Secret != nil {
		body["secret"] = *s.Secret
	}
	var out provider
	if err := c.change("PUT", "/oidc", "", s.tag(), body, &out); err != nil {
		return err
	}
	return c.showProvider(out)
}

// OIDCTryCmd looks at the provider.
type OIDCTryCmd struct{}

// Run looks at it; a fault makes the exit code.
func (*OIDCTryCmd) Run(c *Context) error {
	p, err := c.provider()
	if err != nil {
		return err
	}
	var out list[store.OIDCFinding]
	if err := c.Client.Do(c, "POST", "/oidc/try", p.body(), &out); err != nil {
		return err
	}
	if err := c.show(out, func() {
		var rows [][]string
		for _, f := range out.Items {
			says := f.Says
			if f.Mend != "" {
				says += ": " + f.Mend
			}
			rows = append(rows, []string{f.State, says})
		}
		c.table("STATE FOUND", rows)
	}); err != nil {
		return err
	}
	for _, f := range out.Items {
		if f.State == "fault" {
			return fmt.Errorf("%s", f.Says)
		}
	}
	return nil
}

// OIDCRemoveCmd removes the provider.
type OIDCRemoveCmd struct{ ifSeen }

// Run removes it.
func (r *OIDCRemoveCmd) Run(c *Context) error {
	if err := c.change("DELETE", "/oidc", "", r.tag(), nil, nil); err != nil {
		return err
	}
	c.say("nobody signs in through a provider any more")
	return nil
}
