package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// generated is the file that a generator of clients made of the API's description.
const generated = "client_gen_test.go"

// The client is what the generator makes of the description as it is today: what it
// drives below is the present API. LUNBOOT_UPDATE=1 writes it anew.
func TestTheGeneratedClientIsOfThePresentDescription(t *testing.T) {
	a := started(t, dataDir(t))
	answer, err := socketClient(a.dir).Get("http://lunboot/api/openapi.json")
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	dir := t.TempDir()
	description, out := filepath.Join(dir, "openapi.json"), filepath.Join(dir, generated)
	require.NoError(t, os.WriteFile(description, text, 0o600))
	config, err := filepath.Abs("testdata/client.yaml")
	require.NoError(t, err)
	generator := exec.Command("go", "tool", "oapi-codegen", "-config", config, "-o", out, description)
	generator.Dir = "../../.ci/tools"
	generator.Env = append(os.Environ(), "GOFLAGS=")
	if said, err := generator.CombinedOutput(); err != nil {
		if os.Getenv("CI") != "true" {
			t.Skipf("the generator: %v\n%s", err, said)
		}
		t.Fatalf("the generator: %v\n%s", err, said)
	}
	want, err := os.ReadFile(out)
	require.NoError(t, err)
	if os.Getenv("LUNBOOT_UPDATE") != "" {
		require.NoError(t, os.WriteFile(generated, want, 0o644))
	}
	have, err := os.ReadFile(generated)
	require.NoError(t, err)
	if !bytes.Equal(have, want) {
		t.Errorf("%s is not what the description makes of it; LUNBOOT_UPDATE=1 go test ./cmd/lunboot -run %s writes it", generated, t.Name())
	}
}
