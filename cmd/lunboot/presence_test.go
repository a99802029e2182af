package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is wrong with volumes' files, and what lies beside them, is told with what
// mends it, by the command and on the page; and nothing is told of what is in order.
func TestTheDoctorComparesVolumesWithTheirFiles(t *testing.T) {
	dir := dataDir(t)
	a := started(t, dir)
	folder := filepath.Join(dir, "volumes")
	for _, name := range []string{"whole", "gone", "held", "cut", "gold"} {
		a.must(t, "volume", "create", name, "--size", "1M")
	}
	a.must(t, "volume", "freeze", "gold")
	a.must(t, "volume", "clone", "gold", "thin")
	a.must(t, "volume", "snapshot", "whole", "before")
	_, out, _ := cliIn(dir, "doctor")
	require.Contains(t, out, "those of 6 volumes are there")
	require.Contains(t, out, "stray files")
	require.Contains(t, out, "none in "+folder)

	of := func(pattern string) string {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(folder, pattern))
		require.NoError(t, err)
		require.Len(t, all, 1, pattern)
		return all[0]
	}
	gone, cut, thin := of("gone-*.raw"), of("cut-*.raw"), of("thin-*.layer.map")
	require.NoError(t, os.Remove(gone))
	require.NoError(t, os.Truncate(cut, 4096))
	require.NoError(t, os.Remove(thin))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "old disk.raw"), make([]byte, 3<<10), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, ".coming.raw.import"), nil, 0o600)) // of an import
	require.NoError(t, os.Mkdir(filepath.Join(folder, "lost+found"), 0o700))

	code, out, _ := cliIn(dir, "doctor")
	require.Equal(t, exitFailed, code)
	for _, want := range []string{
		"its file " + gone + " is missing", "findmnt --target " + folder,
		"its file " + cut + " was cut: it should have 1048576 bytes", "truncate --size 1048576 " + cut,
		"its file " + thin + " is missing",
		"1 file in " + folder + ", with 3 KiB, belong to no volume", `"old disk.raw"`, "changed last 0 min ago", "rm -i '" + folder + "/old disk.raw'",
	} {
		require.Contains(t, out, want)
	}
	for _, well := range []string{"volume whole", "volume gold", "volume held", "lost+found", "coming"} {
		require.NotContains(t, out, well)
	}
	require.NoError(t, os.Truncate(cut, 1<<20)) // as it is told
	require.NoError(t, os.Remove(filepath.Join(folder, "old disk.raw")))
	_, out, _ = cliIn(dir, "doctor")
	require.NotContains(t, out, "volume cut")
	require.Contains(t, out, "none in "+folder)
	require.Equal(t, 2, strings.Count(out, "its file "), out)
}
