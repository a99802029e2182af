package main

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// following is a verb that runs until a test stops it.
type following struct {
	t         *testing.T
	out, errs *logs
	code      chan int
	stop      context.CancelFunc
}

func follow(t *testing.T, args ...string) *following {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &following{t, &logs{more: make(chan struct{})}, &logs{more: make(chan struct{})}, make(chan int, 1), cancel}
	go func() { f.code <- run(ctx, nil, args, strings.NewReader(""), f.out, f.errs) }()
	t.Cleanup(cancel)
	return f
}

// says waits for a word.
func (f *following) says(word string) {
	f.t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(f.out.String(), word); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("it does not say %q but %q %q", word, f.out, f.errs)
		}
	}
}

func (f *following) ends() int {
	f.t.Helper()
	select {
	case code := <-f.code:
		return code
	case <-time.After(20 * time.Second):
		f.t.Fatal("it does not end", f.out)
	}
	return -1
}

func asksForAScript(t *testing.T, a *testAppliance, mac string) {
	t.Helper()
	resp, err := http.Get("http://" + a.Boot + "/boot.ipxe?mac=" + mac)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
}

// Whoever follows events goes on following when the appliance was started again,
// and misses none.
func TestFollowingEventsOutlivesARestart(t *testing.T) {
	dir := dataDir(t)
	a := serve(t, dir)
	f := follow(t, "--data", dir, "event", "list", "--follow")
	time.Sleep(300 * time.Millisecond) // the stream begins at the present end
	a.must(t, "machine", "add", "m1", "--mac", "00:0c:29:00:00:01")
	f.says("00:0c:29:00:00:01")
	require.Equal(t, exitDone, a.stop(t))
	a = started(t, dir)
	a.must(t, "machine", "add", "m2", "--mac", "00:0c:29:00:00:02")
	f.says("00:0c:29:00:00:02")
	require.Equal(t, 1, strings.Count(f.out.String(), `"hostname":"m1"`), "an event comes twice")
	f.stop()
	require.Equal(t, exitDone, f.ends())
}

// A boot that ended before somebody watched is no answer to whoever waits for one.
func TestWatchingWaitsForTheNextBoot(t *testing.T) {
	a := started(t, dataDir(t))
	a.must(t, "machine", "add", "m1", "--mac", "00:0c:29:00:00:01")
	a.must(t, "machine", "add", "m2", "--mac", "00:0c:29:00:00:02")
	asksForAScript(t, a, "00:0c:29:00:00:01")
	for end := time.Now().Add(20 * time.Second); !strings.Contains(a.must(t, "attempt", "list", "m1"), "failed"); time.Sleep(50 * time.Millisecond) {
		require.True(t, time.Now().Before(end), "the first boot does not end")
	}
	of, any := follow(t, "--data", a.dir, "attempt", "watch", "m2"), follow(t, "--data", a.dir, "attempt", "watch")
	of.says("Waiting for the next boot of m2")
	any.says("Waiting for the next boot of any machine")
	asksForAScript(t, a, "00:0c:29:00:00:02")
	for _, f := range []*following{of, any} {
		require.Equal(t, exitFailed, f.ends())
		require.Contains(t, f.errs.String(), "m2 did not boot")
		require.NotContains(t, f.out.String(), "m1")
	}
}

func TestAServerThatIsNamedWrongIsSaidInWords(t *testing.T) {
	a := started(t, dataDir(t))
	for server, want := range map[string]string{
		a.Admin:              "--server is a URL: http://" + a.Admin,
		"ftp://10.77.0.1":    "is no URL such as https://",
		"http://":            "is no URL such as https://",
		"https://" + a.Admin: "speaks plain HTTP: say --server http://" + a.Admin,
	} {
		code, _, errs := cliIn(a.dir, "--server", server, "machine", "list")
		require.NotEqual(t, exitDone, code, server)
		require.Contains(t, errs, want)
		require.NotContains(t, errs, "path segment")
	}
	secure := started(t, dataDir(t), "--tls", "self")
	_, _, errs := cliIn(secure.dir, "--server", "http://"+secure.Admin, "machine", "list")
	require.Contains(t, errs, "give that as --fingerprint")
}

func TestAMappingThatChangedSaysWhatItIsNow(t *testing.T) {
	a := started(t, dataDir(t))
	a.must(t, "machine", "add", "m1", "--mac", "00:0c:29:00:00:01")
	a.must(t, "volume", "create", "v1", "--size", "1M")
	a.must(t, "mapping", "add", "m1", "v1", "--no-boot")
	require.Equal(t, "v1 is LUN 0 of m1, which it boots, read-only\n", a.must(t, "mapping", "set", "m1", "0", "--boot", "--read-only"))
}
