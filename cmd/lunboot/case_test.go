package main

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The number that somebody reads from a screen leads to what it is about, also when
// the machine has asked again and shows another.
func TestACaseNumberIsFound(t *testing.T) {
	a := started(t, dataDir(t))
	ask := entered(t, a)
	a.must(t, "machine", "add", "m1", "--mac", "00:0c:29:00:00:01")
	a.must(t, "machine", "add", "m2", "--mac", "00:0c:29:00:00:02")
	caseOn := func(mac string) string {
		t.Helper()
		req, err := http.NewRequest("GET", "http://"+a.Boot+"/boot.ipxe?mac="+mac, nil)
		require.NoError(t, err)
		req.Header.Set("User-Agent", "iPXE/1.21.1")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		number := regexp.MustCompile(`Case number (\d{6})`).FindSubmatch(b)
		require.NotNil(t, number, "%s", b)
		return string(number[1])
	}
	first, other, again := caseOn("00:0c:29:00:00:01"), caseOn("00:0c:29:00:00:02"), caseOn("00:0c:29:00:00:01")
	// The journal is searched where it is kept: on the disk, a moment later.
	for end := time.Now().Add(10 * time.Second); !strings.Contains(a.must(t, "attempt", "list", "--search", "case:"+first), "m1"); time.Sleep(20 * time.Millisecond) {
		require.True(t, time.Now().Before(end), "the journal does not have them")
	}
	for number, name := range map[string]string{first: "m1", other: "m2", again: "m1"} {
		for _, search := range []string{number, "case:" + number} {
			got := a.must(t, "attempt", "list", "--search", search)
			require.Regexp(t, `\d +`+name+` `, got, "%s", search)
			require.Len(t, regexp.MustCompile(`(?m)^\d`).FindAllString(got, -1), 1, got)
			got = a.must(t, "event", "list", search)
			require.Contains(t, got, "(case "+number+")")
			require.Len(t, regexp.MustCompile(`(?m)^\d`).FindAllString(got, -1), 1, got)
			_, page := ask("/activity?search="+search, nil)
			require.Contains(t, page, name)
		}
		_, page := ask("/help?q="+number, nil)
		require.Contains(t, page, `href="/activity?search=case:`+number+`"`)
	}
	require.Regexp(t, `(?m)^1 `, a.must(t, "attempt", "list", "--search", "case:1"), "a boot's own number")
	code, _, errs := cliIn(a.dir, "attempt", "list", "--search", "case:odd")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "no case number")
}
