package main

import (
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"lunboot/store"
	"lunboot/web/auth/oidc/oidctest"
)

// The provider says who logged out there, by a program that has no cookie of anybody.
func TestWhoLogsOutAtTheProviderIsLoggedOutHere(t *testing.T) {
	p, err := oidctest.New()
	require.NoError(t, err)
	t.Cleanup(p.Close)
	a := started(t, dataDir(t))
	a.setProvider(t, p)
	at := "http://" + a.Admin + store.OIDCBackChannel
	require.Contains(t, a.must(t, "oidc", "show"), at)
	p.Set(func(p *oidctest.Provider) {
		p.Redirect = "http://" + a.Admin + "/login/oidc/callback"
		p.Person["sid"] = "s-1"
	})
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	c := &http.Client{Jar: jar, Transport: p.Client().Transport}
	_, page, body := a.browse(t, c, "/login/oidc?next=/volumes")
	require.Equal(t, "/volumes", page.Path, body)

	post := func(head http.Header, form url.Values) (int, string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, at, strings.NewReader(form.Encode()))
		require.NoError(t, err)
		req.Header = head.Clone()
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
		require.Empty(t, resp.Cookies())
		var said struct {
			Error string `json:"error"`
			Why   string `json:"error_description"`
		}
		if resp.StatusCode != http.StatusOK {
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&said))
			require.Equal(t, "invalid_request", said.Error)
		}
		return resp.StatusCode, said.Why
	}
	token := func(sub, sid string, bend func(map[string]any)) string {
		t.Helper()
		token, err := p.LogoutToken(sub, sid, bend)
		require.NoError(t, err)
		return token
	}
	other := token("", "s-2", nil)
	for _, form := range []url.Values{
		nil, {"logout_token": {"x"}}, {"logout_token": {other, other}}, {"logout_token": {strings.Repeat("x", 64<<10)}},
		{"logout_token": {token("", "s-1", func(c map[string]any) { c["aud"] = "another" })}},
	} {
		code, why := post(http.Header{}, form)
		require.Equal(t, http.StatusBadRequest, code, why)
		require.NotEmpty(t, why)
	}
	// What stands in the address is nobody's form.
	resp, err := http.Post(at+"?logout_token="+token("", "s-1", nil), "application/x-www-form-urlencoded", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
	resp, err = http.Get(at)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
	code, why := post(http.Header{}, url.Values{"logout_token": {other}}) // nobody's here
	require.Equal(t, http.StatusOK, code, why)
	code, _, _ = a.browse(t, c, "/api/v1/machines")
	require.Equal(t, http.StatusOK, code)

	mine := token("248289761001", "s-1", nil)
	code, why = post(http.Header{}, url.Values{"logout_token": {mine}})
	require.Equal(t, http.StatusOK, code, why)
	code, _, _ = a.browse(t, c, "/api/v1/machines")
	require.Equal(t, http.StatusUnauthorized, code)
	code, why = post(http.Header{}, url.Values{"logout_token": {mine}})
	require.Equal(t, http.StatusBadRequest, code, why)
	require.NotContains(t, a.must(t, "user", "logins"), "anna")
	require.Contains(t, a.must(t, "audit", "--noun", "user"), "user.logout")
	require.NotContains(t, a.log.String(), mine)
}
