package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/store"
)

// made is a backup of two files, one of which is a volume with a hole.
func made(t testing.TB) ([]byte, Manifest) {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, b, 0o600))
		return path
	}
	volume := make([]byte, 1<<20)
	copy(volume[700<<10:], "at the end of a hole")
	items := []Item{
		{Name: "inventory.db", Path: write("inventory.db", []byte("rows"))},
		{Name: "loaders/mine.efi", Path: write("mine", []byte("MZ"))},
		{Name: "volumes/v1.img", Path: write("v1.img", volume)},
	}
	var out bytes.Buffer
	m, err := Write(t.Context(), &out, Head{Version: "v1", Created: time.Unix(1e9, 0).UTC(), Target: "iqn.2024-01.org.example:rack"}, items,
		[]Volume{{File: File{Name: "volumes/v1.img", Size: 1 << 20}, Volume: "v1"}, {File: File{Name: "volumes/v2.img", Size: 9 << 30}, Volume: "v2"}})
	require.NoError(t, err)
	return out.Bytes(), m
}

func TestABackupComesBackAsItWas(t *testing.T) {
	b, m := made(t)
	dir := t.TempDir()
	back, err := Unpack(t.Context(), bytes.NewReader(b), dir)
	require.NoError(t, err)
	require.Equal(t, m, back)
	for name, want := range map[string]string{"inventory.db": "rows", "loaders/mine.efi": "MZ"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
		st, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), st.Mode().Perm(), "it may hold secrets")
	}
	got, err := os.ReadFile(filepath.Join(dir, "volumes/v1.img"))
	require.NoError(t, err)
	require.Len(t, got, 1<<20)
	require.Equal(t, "at the end of a hole", string(got[700<<10:700<<10+20]))
	require.True(t, back.Volumes[0].Included)
	require.NotEmpty(t, back.Volumes[0].SHA256)
	require.False(t, back.Volumes[1].Included, "what is left out is listed")
	require.Equal(t, int64(9<<30), back.Volumes[1].Size)
}

func TestABackupThatIsCutOffOrDamagedIsRefused(t *testing.T) {
	b, want := made(t)
	for n := 0; n < len(b); n += 1 + len(b)/41 {
		if _, err := Verify(t.Context(), bytes.NewReader(b[:n])); store.KindOf(err) != store.KindCorrupt {
			t.Fatalf("cut off after %d of %d bytes: %v", n, len(b), err)
		}
	}
	for n := 10; n < len(b); n += 1 + len(b)/67 {
		bad := bytes.Clone(b)
		bad[n] ^= 0x10
		// Bits that fill up the last byte of a block mean nothing (RFC 1951 §3.2.3).
		if got, err := Verify(t.Context(), bytes.NewReader(bad)); err == nil && !assert.ObjectsAreEqual(want, got) {
			t.Fatalf("byte %d is another one, and nobody minds", n)
		}
	}
	_, err := Verify(t.Context(), bytes.NewReader(b))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Verify(ctx, bytes.NewReader(b))
	require.ErrorIs(t, err, context.Canceled)
}

// forged is a tar of these entries.
func forged(t *testing.T, entries ...*tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	for _, h := range entries {
		body := h.Linkname
		h.Linkname = ""
		if h.Typeflag == tar.TypeSymlink {
			h.Linkname, body = body, ""
		}
		h.Size, h.Mode = int64(len(body)), 0o600
		require.NoError(t, w.WriteHeader(h))
		_, err := io.WriteString(w, body)
		require.NoError(t, err)
	}
	require.NoError(t, errors.Join(w.Close(), zip.Close()))
	return out.Bytes()
}

func TestNothingIsWrittenOutsideOfTheFolder(t *testing.T) {
	head := func() *tar.Header { return &tar.Header{Name: headName, Linkname: `{"format":1}`} }
	for what, h := range map[string]*tar.Header{
		"a way up":          {Name: "../escape", Linkname: "x"},
		"an absolute path":  {Name: "/etc/escape", Linkname: "x"},
		"a way up within":   {Name: "loaders/../../escape", Linkname: "x"},
		"a link":            {Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
		"a hidden file":     {Name: ".ssh/authorized_keys", Linkname: "x"},
		"the folder itself": {Name: ".", Linkname: "x"},
	} {
		root := t.TempDir()
		dir := filepath.Join(root, "data")
		require.NoError(t, os.Mkdir(dir, 0o700))
		_, err := Unpack(t.Context(), bytes.NewReader(forged(t, head(), h)), dir)
		require.Equal(t, store.KindCorrupt, store.KindOf(err), what)
		left, err := os.ReadDir(root)
		require.NoError(t, err)
		require.Len(t, left, 1, what)
	}
	_, err := Verify(t.Context(), bytes.NewReader(forged(t, head(), &tar.Header{Name: "a", Linkname: "x"}, &tar.Header{Name: "a", Linkname: "y"})))
	require.ErrorContains(t, err, "twice")
	_, err = Verify(t.Context(), bytes.NewReader(forged(t, &tar.Header{Name: headName, Linkname: `{"format":2,"version":"v9"}`})))
	require.ErrorContains(t, err, "v9")
	require.Equal(t, store.KindInvalid, store.KindOf(err))
	_, err = Verify(t.Context(), bytes.NewReader(forged(t, head(), &tar.Header{Name: "a", Linkname: "x"}, &tar.Header{Name: manifestName, Linkname: `{"files":[]}`})))
	require.ErrorContains(t, err, "1 files")
	_, err = Verify(t.Context(), strings.NewReader("SQLite format 3\x00"))
	require.ErrorContains(t, err, "no backup")
}

func FuzzVerify(f *testing.F) {
	b, _ := made(f)
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		Verify(t.Context(), bytes.NewReader(b)) // an error or none, and an end
	})
}
