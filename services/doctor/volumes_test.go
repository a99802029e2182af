package doctor

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"lunboot/store"
)

func TestFilesOfVolumesAreEachMendedInTheirWay(t *testing.T) {
	in := func(kind store.Kind, err error) error { return &store.Error{Kind: kind, Err: err} }
	got := Examine(t.Context(), VolumeFiles("/d/volumes", 9, []store.FileTrouble{
		{Volume: "gone", File: "gone.raw", Size: 512, Err: in(store.KindNotFound, nil)},
		{Volume: "off", File: "/dev/vg0/off", Size: 512, Err: in(store.KindNotFound, nil)},
		{Volume: "held", File: "held.raw", Size: 512, Open: true, Err: in(store.KindNotFound, nil)},
		{Volume: "cut", File: "cut me.raw", Size: 512, Err: in(store.KindCorrupt, io.ErrUnexpectedEOF)},
		{Volume: "map", File: "x.layer.map", Err: in(store.KindCorrupt, io.ErrUnexpectedEOF)},
		{Volume: "disk", File: "/dev/vg0/lab", Size: 512, Err: in(store.KindCorrupt, io.ErrUnexpectedEOF)},
		{Volume: "denied", File: "d.raw", Err: in(store.KindDenied, nil)},
		{Volume: "broken", File: "b.raw", Err: in(store.KindCorrupt, errors.New("input/output error"))},
	}, nil)...)
	finds(t, got, "volume gone", Fault, "/d/volumes/gone.raw is missing", "findmnt --target /d/volumes")
	finds(t, got, "volume off", Fault, "its device /dev/vg0/off is missing", "lsblk")
	finds(t, got, "volume held", Fault, "before lunboot ends", "lunboot volume export held FILE")
	finds(t, got, "volume cut", Fault, "should have 512 bytes", "truncate --size 512 '/d/volumes/cut me.raw'")
	finds(t, got, "volume map", Fault, "Put it back", "ls -l /d/volumes/x.layer.map")
	finds(t, got, "volume disk", Fault, "its file /dev/vg0/lab was cut", "ls -l /dev/vg0/lab")
	finds(t, got, "volume denied", Fault, "may not read", "chown --reference /d/volumes /d/volumes/d.raw && chmod u+r /d/volumes/d.raw")
	finds(t, got, "volume broken", Fault, "input/output error", "dmesg")
	if len(got) != 8 {
		t.Errorf("%d findings", len(got))
	}
	finds(t, Examine(t.Context(), VolumeFiles("/d", 9, nil, nil)...), "files of volumes", Well, "9 volumes")
	finds(t, Examine(t.Context(), VolumeFiles("/d", 0, nil, io.ErrClosedPipe)...), "files of volumes", Fault, "closed pipe")
	many := make([]store.FileTrouble, maxFiles+3)
	got = Examine(t.Context(), VolumeFiles("/d", 20, many, nil)...)
	finds(t, got, "files of volumes", Fault, "3 more volumes")
	if len(got) != maxFiles+1 {
		t.Errorf("%d findings of many", len(got))
	}
}

func TestStrayFilesAreListedAndNeverAFault(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	got := Examine(t.Context(), StrayFiles("/d/volumes", []store.StrayFile{
		{Name: "a.raw", Size: 1 << 20, Changed: now.Add(-time.Minute)}, {Name: "it's\x1b[2J", Size: 1 << 20, Changed: now.Add(-3 * time.Hour)}, {Name: "old", Changed: now.Add(-72 * time.Hour)},
	}, nil, now))
	finds(t, got, "stray files", Advice, "3 files in /d/volumes, with 2 MiB", "ls -l /d/volumes")
	finds(t, got, `"a.raw"`, Advice, "1 MiB, changed last 1 min ago, 2026-11-30 11:59 UTC", "rm -i /d/volumes/a.raw")
	finds(t, got, `"it's\x1b[2J"`, Advice, "3 h ago", `rm -i $'/d/volumes/it\'s\x1b[2J'`)
	finds(t, got, `"old"`, Advice, "3 days ago")
	finds(t, Examine(t.Context(), StrayFiles("/d", nil, nil, now)), "stray files", Well, "none in /d")
	finds(t, Examine(t.Context(), StrayFiles("/d", nil, io.ErrClosedPipe, now)), "stray files", Unknown, "closed pipe", "ls -la /d")
	var many []store.StrayFile
	for k := range maxFiles + 5 {
		many = append(many, store.StrayFile{Name: fmt.Sprint(k)})
	}
	if got := Examine(t.Context(), StrayFiles("/d", many, nil, now)); len(got) != maxFiles+1 {
		t.Errorf("%d findings of many", len(got))
	}
}
