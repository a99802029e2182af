package volume

import (
	"fmt"
	"strings"
	"testing"

	"lunboot/store"
)

func TestALookSeesWhatStandsOnAVolume(t *testing.T) {
	p := openPool(t, t.TempDir())
	v := store.Volume{ID: 1, Name: "disk", Kind: store.VolumeRaw, Size: 1 << 20, BlockSize: 512, State: store.VolumeReady, Path: "disk.raw"}
	if err := p.Create(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	found, err := p.Look(t.Context(), v)
	if err != nil || !found.Blank {
		t.Fatalf("%+v, %v", found, err)
	}
	if n := p.Users(v.ID); n != 0 {
		t.Errorf("%d handles are left open", n)
	}
	missing := v
	missing.ID, missing.Path = 2, "gone.raw"
	if _, err := p.Look(t.Context(), missing); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Error(err)
	}
}

// Pages may be shown what was there a few seconds ago; who decides by a look may not.
func TestALookAnewSeesWhatWasWrittenSince(t *testing.T) {
	p := openPool(t, t.TempDir())
	v := store.Volume{ID: 1, Name: "disk", Kind: store.VolumeRaw, Size: 1 << 20, BlockSize: 512, State: store.VolumeReady, Path: "disk.raw"}
	if err := p.Create(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	if found, err := p.Look(t.Context(), v); err != nil || !found.Blank {
		t.Fatalf("%+v, %v", found, err)
	}
	h, err := p.Open(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.WriteAt(t.Context(), []byte("something"), 512); err != nil {
		t.Fatal(err)
	}
	if found, err := p.LookAnew(t.Context(), v); err != nil || found.Blank {
		t.Errorf("%+v, %v", found, err)
	}
	if found, err := p.Look(t.Context(), v); err != nil || found.Blank {
		t.Errorf("what was seen anew is remembered: %+v, %v", found, err)
	}
}

// What is remembered of looks is bounded, and the oldest goes.
func TestTheOldestLookIsForgotten(t *testing.T) {
	p := openPool(t, t.TempDir())
	const more = 3
	for n := range store.VolumeID(maxLooks + more) {
		v := raw(n+1, 1<<20)
		v.Path = fmt.Sprintf("vol%d.raw", n)
		must(t, p.Create(t.Context(), v))
		_, err := p.Look(t.Context(), v)
		must(t, err)
	}
	if n := len(p.looks.at); n != maxLooks {
		t.Errorf("%d looks are remembered, of %d at most", n, maxLooks)
	}
	for n := range store.VolumeID(maxLooks + more) {
		if _, ok := p.looks.at[n+1]; ok != (n >= more) {
			t.Errorf("look %d is remembered: %t", n+1, ok)
		}
	}
}
