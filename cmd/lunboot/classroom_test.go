package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lunboot/store"
)

func TestAClassroomGetsItsClonesByOneVerb(t *testing.T) {
	a := started(t, furnished(t))
	for _, verb := range []string{
		"machine add lab1 --mac 02:00:00:00:00:01 --tag room", "machine add lab2 --mac 02:00:00:00:00:02 --tag room", "machine add door --mac 02:00:00:00:00:03",
		"volume create debian --size 8M", "volume freeze debian", "machine clone lab1",
	} {
		a.must(t, strings.Fields(verb)...)
	}
	out := a.must(t, "machine", "clone", "--all", "--search", "tag:room", "--clone-of", "debian", "--reset-at-boot")
	require.Regexp(t, `lab1 +skipped +it has its clone already: lab1-debian, LUN 0`, out)
	require.Regexp(t, `lab2 +done +lab2-debian, LUN 0`, out)
	require.NotContains(t, out, "door")
	var job store.Job
	require.NoError(t, json.Unmarshal([]byte(a.must(t, "--json", "machine", "clone", "door", "lab1")), &job))
	require.Equal(t, 1, job.Count()[store.ResultDone])
	require.Equal(t, 1, job.Count()[store.ResultSkipped])
	require.Regexp(t, `Total +2 machines`, a.must(t, "job", "show", "1")+a.must(t, "job", "show", "2"))
	for _, bad := range []string{"machine clone", "machine clone lab1 --all", "machine clone lab1 --search tag:room", "machine clone lab1 --volatile"} {
		code, _, _ := cliIn(a.dir, strings.Fields(bad)...)
		require.Equal(t, 2, code, bad)
	}
	code, _, text := cliIn(a.dir, "machine", "clone", "nobody")
	require.Equal(t, 1, code)
	require.Contains(t, text, "nobody")
}

// What an interrupted job says of each machine is so, however abruptly it ended.
func TestAKilledClassroomSaysWhoGotAClone(t *testing.T) {
	const room = 120
	dir := furnished(t)
	p := bear(t, dir, onLoopback...)
	p.must(t, "volume", "create", "debian", "--size", "8M")
	p.must(t, "volume", "freeze", "debian")
	for n := range room {
		p.must(t, "machine", "add", fmt.Sprintf("lab%d", n), "--mac", fmt.Sprintf("02:00:00:00:01:%02x", n), "--tag", "room")
	}
	p.must(t, "machine", "clone", "lab0") // by hand, before
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cliIn(dir, "machine", "clone", "--all", "--search", "tag:room", "--clone-of", "debian")
	}()
	mapped := func() map[store.MachineID]bool {
		t.Helper()
		var all struct {
			Items []struct{ Machine store.MachineID }
		}
		require.NoError(t, json.Unmarshal([]byte(p.must(t, "--json", "mapping", "list")), &all))
		out := map[store.MachineID]bool{}
		for _, m := range all.Items {
			out[m.Machine] = true
		}
		return out
	}
	for deadline := time.Now().Add(20 * time.Second); len(mapped()) < 4; {
		require.True(t, time.Now().Before(deadline), "nobody gets a clone")
	}
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
	_ = p.cmd.Wait()
	<-ended
	p = bear(t, dir, onLoopback...)
	have := mapped()
	require.Less(t, len(have), room, "it had ended before it was killed")
	var job store.Job
	jobs := strings.Fields(strings.Split(p.must(t, "job", "list"), "\n")[1])
	require.NoError(t, json.Unmarshal([]byte(p.must(t, "--json", "job", "show", jobs[0])), &job))
	require.Equal(t, store.JobFailed, job.State)
	require.Len(t, job.Verdicts, room)
	for _, v := range job.Verdicts {
		switch {
		case v.Name == "lab0":
			require.NotEqual(t, store.ResultDone, v.Result, "it had its clone before")
		case have[v.Machine]:
			require.Equal(t, store.ResultDone, v.Result, v.Name)
			require.Equal(t, v.Name+"-debian, LUN 0", v.Detail)
		default:
			require.Equal(t, store.ResultWaiting, v.Result, v.Name)
		}
	}
	require.EqualValues(t, room-job.Count()[store.ResultWaiting], job.Done)
}

// Nothing but who drives an installer by hand knows when it is done.
func TestAnInstallationThatWasDrivenByHandIsSaidToBeDone(t *testing.T) {
	a := started(t, furnished(t))
	a.must(t, "machine", "add", "lab1", "--mac", "02:00:00:00:00:01")
	a.must(t, strings.Fields("profile set setup --kind install --field system=debian --field kernel=http://192.0.2.1/linux")...)
	code, _, text := cliIn(a.dir, "machine", "boot", "lab1", "--done")
	require.Equal(t, exitFailed, code)
	require.Contains(t, text, "no installation waits")
	require.Contains(t, a.must(t, "machine", "boot", "lab1", "--once", "setup"), "lunboot machine boot lab1 --done")
	require.Contains(t, a.must(t, "machine", "boot", "lab1", "--done"), "every boot of lab1 uses the profile san")
	for _, bad := range []string{"machine boot lab1", "machine boot lab1 --done --once setup"} {
		code, _, _ := cliIn(a.dir, strings.Fields(bad)...)
		require.Equal(t, exitUsage, code, bad)
	}
	a.must(t, "machine", "boot", "lab1", "--once", "setup")
	require.Contains(t, a.must(t, "machine", "boot", "lab1", "--once", ""), "every boot of lab1")
}

// A job on thousands says something of each, and there may be many such jobs: who
// waits for one asks for that one.
func TestWhoWaitsForAJobAsksForNoOther(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/machines/clones", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, `{"id":7,"kind":"machine.clones","state":"running","total":1}`)
	})
	mux.HandleFunc("GET /api/v1/jobs/7", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":7,"kind":"machine.clones","state":"done","done":1,"total":1,"verdicts":[{"machine":1,"name":"lab1","result":"done","detail":"lab1-debian, LUN 0"}]}`)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	var out, errs bytes.Buffer
	code := run(context.Background(), nil, []string{"--server", srv.URL, "machine", "clone", "lab1"}, strings.NewReader(""), &out, &errs)
	require.Equal(t, exitDone, code, errs.String())
	require.Regexp(t, `lab1 +done +lab1-debian, LUN 0`, out.String())
}
