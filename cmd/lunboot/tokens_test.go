package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A script that runs by somebody's token stops when they go, is told why, and the
// list says whose it was. What was made on the appliance itself goes on.
func TestAScriptGoesWithWhoseTokenItHas(t *testing.T) {
	a := started(t, dataDir(t))
	for _, u := range [2][2]string{{"root", "admin"}, {"anna", "admin"}} {
		require.Equal(t, exitDone, run(t.Context(), nil, []string{"--data", a.dir, "user", "add", u[0], "--role", u[1]}, strings.NewReader("a long password"), io.Discard, io.Discard))
	}
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	c := &http.Client{Jar: jar}
	resp, err := c.PostForm("http://"+a.Admin+"/login", url.Values{"user": {"anna"}, "password": {"a long password"}})
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	resp, err = c.Post("http://"+a.Admin+"/api/v1/tokens", "application/json", strings.NewReader(`{"name":"annas","scope":"admin"}`))
	require.NoError(t, err)
	var made struct{ Token, Owner string }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&made))
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "anna", made.Owner)
	shell := strings.TrimSpace(a.must(t, "token", "create", "shell", "--scope", "admin"))

	by := func(token string, verb ...string) (int, string) {
		var errs strings.Builder
		code := run(t.Context(), nil, append([]string{"--server", "http://" + a.Admin, "--token", token}, verb...), strings.NewReader(""), io.Discard, &errs)
		return code, errs.String()
	}
	for _, step := range []struct {
		do   string
		code int // of a verb of admins
		says string
		list string
	}{
		{"user list", exitDone, "", "annas  admin  anna"},
		{"user set anna --role operator", exitFailed, "the token's is operate: its owner, anna, is operator now", "its owner, anna, is operator now"},
		{"user set anna --disabled", exitFailed, "this token is good for nothing: its owner, anna, is shut out", "its owner, anna, is shut out"},
		{"user set anna --no-disabled --role admin", exitDone, "", "annas  admin  anna"},
		{"user remove anna", exitFailed, "its owner, anna, was removed", "its owner, anna, was removed"},
	} {
		a.must(t, strings.Fields(step.do)...)
		code, errs := by(made.Token, "user", "list")
		require.Equal(t, step.code, code, "after %s: %s", step.do, errs)
		require.Contains(t, errs, step.says, step.do)
		require.Contains(t, a.must(t, "token", "list"), step.list, step.do)
		code, errs = by(shell, "user", "list")
		require.Equal(t, exitDone, code, errs)
	}
	// Prometheus is told too.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.Admin+"/metrics", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+made.Token)
	resp, err = http.DefaultClient.Do(req)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	require.Contains(t, string(b), "its owner, anna, was removed")
}
