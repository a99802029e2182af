package main

import (
	"bytes"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"lunboot/web/auth/oidc/oidctest"
)

// setProvider gives an appliance an admin and a provider.
func (a *testAppliance) setProvider(t *testing.T, p *oidctest.Provider) {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, []byte(p.CA()), 0o600))
	run := func(in string, args ...string) {
		t.Helper()
		var errs bytes.Buffer
		if code := run(t.Context(), nil, append([]string{"--data", a.dir}, args...), strings.NewReader(in), io.Discard, &errs); code != exitDone {
			t.Fatalf("lunboot %v: %d %s", args, code, errs.String())
		}
	}
	run("a long password", "user", "add", "root", "--role", "admin")
	run(p.Secret, "oidc", "set", "--issuer", p.URL, "--name", "Lab SSO", "--client-id", p.ClientID, "--secret", "-", "--ca", ca, "--claim", "groups", "--role", "lab-operators=operator")
}

// browse follows a link of the appliance's, and whoever sends on from there.
func (a *testAppliance) browse(t *testing.T, c *http.Client, path string) (code int, at *url.URL, body string) {
	t.Helper()
	resp, err := c.Get("http://" + a.Admin + path)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Request.URL, string(b)
}

// The whole way: from the command line that sets the provider to the page of
// somebody who came through it, and to an appliance that starts without it.
func TestPeopleSignInThroughAProvider(t *testing.T) {
	p, err := oidctest.New()
	require.NoError(t, err)
	t.Cleanup(p.Close)
	dir := dataDir(t)
	a := started(t, dir)
	a.setProvider(t, p)
	p.Set(func(p *oidctest.Provider) { p.Redirect = "http://" + a.Admin + "/login/oidc/callback" })
	require.Contains(t, a.must(t, "oidc", "try"), "it knows the client lunboot by its secret")

	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	c := &http.Client{Jar: jar, Transport: p.Client().Transport}
	code, at, body := a.browse(t, c, "/login/oidc?next=/volumes")
	require.Equal(t, http.StatusOK, code, body)
	require.Equal(t, "/volumes", at.Path)
	require.Contains(t, body, "anna</a>, operator")
	code, _, body = a.browse(t, c, "/api/v1/machines")
	require.Equal(t, http.StatusOK, code, body)
	require.Contains(t, a.must(t, "user", "list"), "anna of "+p.URL)
	require.Contains(t, a.must(t, "user", "logins"), "anna")
	require.Contains(t, a.must(t, "audit", "--noun", "user"), "by OpenID Connect ("+p.URL)
	a.must(t, "user", "set", "anna", "--disabled")
	_, at, _ = a.browse(t, c, "/machines")
	require.Equal(t, "/login", at.Path)
	a.must(t, "user", "set", "anna", "--no-disabled")

	// Out here first, and then there.
	a.must(t, "oidc", "set", "--logout")
	p.Set(func(p *oidctest.Provider) { p.Leave = "http://" + a.Admin + "/login/oidc/logged-out" })
	_, at, body = a.browse(t, c, "/login/oidc")
	require.Equal(t, "/machines", at.Path, body)
	left, err := c.PostForm("http://"+a.Admin+"/logout", nil)
	require.NoError(t, err)
	page, err := io.ReadAll(left.Body)
	require.NoError(t, err)
	require.NoError(t, left.Body.Close())
	onward := regexp.MustCompile(`content="0; url=([^"]*)"`).FindStringSubmatch(string(page))
	require.NotNil(t, onward, string(page))
	_, at, _ = a.browse(t, c, "/machines")
	require.Equal(t, "/login", at.Path)
	there, err := c.Get(html.UnescapeString(onward[1]))
	require.NoError(t, err)
	page, err = io.ReadAll(there.Body)
	require.NoError(t, err)
	require.NoError(t, there.Body.Close())
	require.Contains(t, string(page), "You are logged out here and at Lab SSO.")
	require.Equal(t, []string{"248289761001"}, p.Left)
	_, idToken, _ := strings.Cut(html.UnescapeString(onward[1]), "id_token_hint=")
	idToken, _, _ = strings.Cut(idToken, "&")

	// The doctor asks it, and a page of the settings says what it heard.
	said := a.must(t, "doctor")
	require.Contains(t, said, "it knows the client lunboot by its secret")
	require.Contains(t, said, "people log out there at "+p.URL+"/logout")
	require.Contains(t, said, "which leads here")
	p.Set(func(p *oidctest.Provider) { p.Person["groups"] = []string{"lab-operators"} })
	_, _, body = a.browse(t, c, "/login/oidc?next=/settings")
	require.Contains(t, body, "client at the provider")
	require.Contains(t, body, "It knows the client lunboot by its secret")

	// The secret is where machines' secrets are: in the inventory, and so in a backup's,
	// and nowhere else.
	backup := filepath.Join(dir, "backup.tar.gz")
	a.must(t, "backup", backup)
	for _, text := range []string{a.log.String(), a.must(t, "audit"), a.must(t, "--json", "audit"), a.must(t, "--json", "oidc", "show"), a.must(t, "--json", "doctor")} {
		require.NotContains(t, text, p.Secret)
		require.NotContains(t, text, idToken)
	}
	require.Greater(t, len(idToken), 300)

	p.Close()
	require.Equal(t, exitDone, a.stop(t))
	a = started(t, dir) // the provider is away
	code, _, body = a.browse(t, c, "/login/oidc?here=1")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, body, "Nothing listens at")
	resp, err := c.PostForm("http://"+a.Admin+"/login", url.Values{"user": {"root"}, "password": {"a long password"}})
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "/machines", resp.Request.URL.Path)

	// Out of a backup comes the provider as it was.
	restored := filepath.Join(dataDir(t), "restored")
	code, _, errs := cliIn(restored, "restore", backup)
	require.Equal(t, exitDone, code, errs)
	b := started(t, restored)
	require.Contains(t, b.must(t, "oidc", "show"), "(set)")
	require.NotContains(t, b.log.String(), p.Secret)
}
