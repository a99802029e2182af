package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A volume whose bytes cannot be read is shown all the same, with the reason.
func TestAVolumeThatIsIllIsShownWithItsTrouble(t *testing.T) {
	a := started(t, dataDir(t))
	var v struct {
		Name, Path, Trouble string
		Preflight           *struct{ Summary string }
	}
	require.NoError(t, json.Unmarshal([]byte(a.must(t, "--json", "volume", "create", "v1", "--size", "8M")), &v))
	require.NoError(t, os.Remove(filepath.Join(a.dir, "volumes", v.Path)))
	require.Regexp(t, `(?m)^Trouble +.*v1.*no such file`, a.must(t, "volume", "show", "v1"))
	require.NoError(t, json.Unmarshal([]byte(a.must(t, "--json", "volume", "show", "v1")), &v))
	if v.Trouble == "" || v.Preflight != nil || v.Name != "v1" {
		t.Errorf("one whose file is gone is %+v", v)
	}
}
