package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"lunboot/services/boot/diagnose"
	"lunboot/web/pages"
)

// Whoever reads the help on the pages finds each flag of serve and each code
// there, and by a word of it.
func TestTheHelpHasEveryFlagAndEveryCode(t *testing.T) {
	all, err := serveFlags()
	require.NoError(t, err)
	others := []string{"--help", "--server", "--token", "--fingerprint", "--json"} // what other verbs are told
	for _, want := range verbs(t)["serve"] {
		if !slices.Contains(others, want) && !slices.ContainsFunc(all, func(f pages.Flag) bool { return f.Name == want || strings.HasPrefix(f.Name, want+" ") }) {
			t.Errorf("the help has no %s", want)
		}
	}
	for _, f := range all {
		if f.Help == "" || strings.Contains(f.Help, "${") || !strings.HasPrefix(f.Env, "LUNBOOT_") {
			t.Errorf("of %s the help says %+v", f.Name, f)
		}
	}
	require.True(t, slices.ContainsFunc(all, func(f pages.Flag) bool { return strings.HasPrefix(f.Name, "--data ") }))

	a := started(t, dataDir(t))
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	c := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	code := regexp.MustCompile(`setup\?code=(\S+)`).FindStringSubmatch(a.log.String())
	require.Len(t, code, 2)
	resp, err := c.PostForm("http://"+a.Admin+"/setup", url.Values{"code": {code[1]}, "password": {"a long password"}})
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	get := func(path string) string {
		t.Helper()
		resp, err := c.Get("http://" + a.Admin + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusOK, resp.StatusCode, path)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return string(b)
	}
	body := get("/help")
	for _, f := range all {
		require.Contains(t, body, f.Env)
	}
	for _, e := range diagnose.Catalogue() {
		require.Contains(t, body, `href="/help/`+e.Code+`"`)
	}
	found := get("/help?q=advertise")
	require.Contains(t, found, "LUNBOOT_ADVERTISE")
	require.NotContains(t, found, "LUNBOOT_TFTP")
	require.Contains(t, get("/settings"), `href="/api/v1/support-bundle" download`)
}
