package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A client whose answer was lost with the appliance sends its request again: what was
// done is not done again.
func TestACreateIsDoneOnceAlsoAcrossARestart(t *testing.T) {
	dir := dataDir(t)
	a := started(t, dir)
	post := func(key, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, "http://lunboot/api/v1"+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", key)
		tr := overSocket(dir)
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	const token = `{"name":"ci","scope":"read","days":3}`
	code, secret := post("k1", "/tokens", token)
	require.Equal(t, http.StatusCreated, code, secret)
	// One that changed nothing may be tried again.
	code, said := post("k2", "/volumes", `{"name":"ci disk","size":1048576}`)
	require.GreaterOrEqual(t, code, 400, said)
	require.Equal(t, exitDone, a.stop(t))

	a = started(t, dir)
	a.must(t, "token", "remove", "1") // the name is free: nothing but the key keeps it from being made
	code, said = post("k1", "/tokens", token)
	require.Equal(t, http.StatusConflict, code, said)
	require.Contains(t, said, "was done (token.create ci)")
	require.NotContains(t, a.must(t, "token", "list"), "ci")
	code, said = post("k1", "/tokens", `{"name":"other","scope":"read","days":3}`)
	require.Equal(t, http.StatusUnprocessableEntity, code, said)
	code, said = post("k2", "/volumes", `{"name":"ci-disk","size":1048576}`)
	require.Equal(t, http.StatusCreated, code, said)
	code, said = post("k3", "/tokens", token)
	require.Equal(t, http.StatusCreated, code, said)
}
