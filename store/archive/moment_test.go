package archive

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fleeting is what a file held; it can be lost after so many bytes, or at its end.
type fleeting struct {
	*bytes.Reader
	after int64
	lost  error
}

func (f *fleeting) Size() int64 { return f.Reader.Size() }
func (f *fleeting) Lost() error { return f.lost }
func (f *fleeting) Read(b []byte) (int, error) {
	if f.lost != nil && f.Size()-int64(f.Len()) >= f.after {
		return 0, f.lost
	}
	return f.Reader.Read(b)
}

// What cannot be copied to its end is left out, and takes nothing else with it but
// its other half: a map without its data is worth nothing.
func TestAVolumeThatIsLostWhileItIsCopiedIsLeftOut(t *testing.T) {
	gone := errors.New("the room ended")
	for name, c := range map[string]struct{ data, states, other *fleeting }{
		"in the middle":      {&fleeting{after: 100000, lost: gone}, &fleeting{}, &fleeting{}},
		"at its first byte":  {&fleeting{lost: gone}, &fleeting{}, &fleeting{}},
		"after its last":     {&fleeting{after: 1 << 40, lost: gone}, &fleeting{}, &fleeting{}},
		"its map was":        {&fleeting{}, &fleeting{after: 10, lost: gone}, &fleeting{}},
		"the view was, late": {&fleeting{}, &fleeting{after: 1 << 40, lost: gone}, &fleeting{}},
	} {
		t.Run(name, func(t *testing.T) {
			disk := bytes.Repeat([]byte("what a machine wrote"), 10000)
			c.data.Reader, c.states.Reader, c.other.Reader = bytes.NewReader(disk), bytes.NewReader(disk[:9000]), bytes.NewReader(disk)
			var out bytes.Buffer
			var volumes []Volume
			var items []Item
			for _, f := range []struct {
				name string
				m    *fleeting
			}{{"volumes/a.layer", c.data}, {"volumes/a.layer.map", c.states}, {"volumes/b.raw", c.other}} {
				items = append(items, Item{Name: f.name, Moment: f.m})
				volumes = append(volumes, Volume{File: File{Name: f.name, Size: f.m.Size()}, Volume: f.name, Running: true})
			}
			m, err := Write(t.Context(), &out, Head{}, items, volumes)
			require.NoError(t, err)
			dir := t.TempDir()
			back, err := Unpack(t.Context(), &out, dir)
			require.NoError(t, err)
			require.Equal(t, m.Volumes, back.Volumes)
			for _, v := range back.Volumes {
				got, err := os.ReadFile(filepath.Join(dir, v.Name))
				if strings.HasPrefix(v.Name, "volumes/a") {
					require.ErrorIs(t, err, os.ErrNotExist, v.Name)
					require.Equal(t, gone.Error(), v.LeftOut)
					require.False(t, v.Included || v.Running || v.SHA256 != "", "%+v", v)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, disk, got)
				require.True(t, v.Included && v.Running && v.LeftOut == "")
			}
		})
	}
}

// A manifest that names a file as left out has only those removed that came.
func TestAManifestRemovesNothingThatDidNotCome(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	require.NoError(t, os.WriteFile(kept, nil, 0o600))
	into := filepath.Join(dir, "into")
	require.NoError(t, os.Mkdir(into, 0o700))
	var out bytes.Buffer
	_, err := Write(t.Context(), &out, Head{}, nil, []Volume{{File: File{Name: "../kept"}, LeftOut: "for no reason"}, {File: File{Name: "volumes/never.raw"}, LeftOut: "it is gone"}})
	require.NoError(t, err)
	_, err = Unpack(t.Context(), &out, into)
	require.NoError(t, err)
	require.FileExists(t, kept)
}

// A receiver that goes away is no fault of the volume's.
func TestABackupEndsWithItsReceiver(t *testing.T) {
	disk := make([]byte, 8<<20)
	for n := range disk {
		disk[n] = byte(n * n >> 3)
	}
	m := &fleeting{Reader: bytes.NewReader(disk)}
	_, err := Write(t.Context(), &short{}, Head{}, []Item{{Name: "volumes/a.raw", Moment: m}}, []Volume{{File: File{Name: "volumes/a.raw"}}})
	require.ErrorIs(t, err, errShort)
}

var errShort = errors.New("hung up")

type short struct{ n int }

func (s *short) Write(b []byte) (int, error) {
	if s.n += len(b); s.n > 100000 {
		return 0, errShort
	}
	return len(b), nil
}

// An older manifest says neither.
func TestWhatIsNotSaidIsNotInTheManifest(t *testing.T) {
	b, err := json.Marshal(Volume{File: File{Name: "volumes/a"}})
	require.NoError(t, err)
	require.NotContains(t, string(b), "left_out")
	require.NotContains(t, string(b), "running")
}
