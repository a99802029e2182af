package inventory

import (
	"bytes"
	"context"
	"testing"
	"time"

	"lunboot/store"
)

// room is a pool on a file system of the test's.
type room struct {
	Volumes
	size, free int64
}

func (r *room) Room() (size, free int64, err error) { return r.size, r.free, nil }
func (r *room) Free() (int64, error)                { return r.free, nil }
func (r *room) Used(v store.Volume) (int64, error) {
	return r.Volumes.(measurer).Used(v)
}

func TestTheRoomIsWatchedAndToldWhenItIsShort(t *testing.T) {
	r := &room{size: 100 << 30, free: 60 << 30}
	at := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	h := newHouse(t, func(c *Config) { r.Volumes, c.Volumes = c.Volumes, r; c.Now = func() time.Time { return at } })
	disk := patchy()
	_, err := h.ImportStream(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "debian"}}, "", bytes.NewReader(disk), int64(len(disk)))
	must(t, err)
	h.volume(t, "empty", 8<<30)
	var told []store.Space
	w := NewSpaceWatch(h.Inventory, func(s store.Space) { told = append(told, s) })
	look := func() store.Space {
		t.Helper()
		s, err := w.Space(t.Context())
		must(t, err)
		w.note(s)
		return s
	}
	s := look()
	if s.Size != 100<<30 || s.Free != 60<<30 || s.Used < 1<<20 || s.Used > 3<<20 || s.Virtual != 8<<30+24<<20 || s.Low != 10<<30 || s.Forecast() != "" {
		t.Errorf("%+v", s)
	}
	at, r.free = at.Add(29*time.Minute), 59<<30
	if s := look(); s.Forecast() != "" {
		t.Errorf("a forecast of half an hour: %q", s.Forecast())
	}
	before := h.journal.last().Kind
	at, r.free = at.Add(11*time.Hour+31*time.Minute), 48<<30
	if s := look(); s.Rate != 24<<30 || s.Forecast() != "at the rate of the last 12 hours, 24 GiB a day, it is full in about 2 days" {
		t.Errorf("%+v: %q", s, s.Forecast())
	}
	if h.journal.last().Kind != before {
		t.Errorf("told while there is room: %+v", h.journal.last())
	}
	r.free = 9 << 30
	look()
	if e := h.journal.last(); e.Kind != store.EventSpace || e.Detail.Bytes != 9<<30 || e.Detail.Reason != told[len(told)-1].Warning() {
		t.Errorf("%+v", e)
	}
	n := len(h.journal.events)
	look()
	if len(h.journal.events) != n {
		t.Error("told twice")
	}
	must(t, h.db.PutSetting(t.Context(), ada, string(store.SettingSpaceLow), "5G"))
	look()
	if e := h.journal.last(); e.Detail.Reason != "9 GiB are free for volumes again" {
		t.Errorf("%+v", e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Serve(ctx) }()
	cancel()
	must(t, <-done)
}

func TestACopyIsRefusedThatWouldTakeTheRoomOfMachines(t *testing.T) {
	r := &room{}
	h := living(t, t.TempDir())
	r.Volumes = h.Inventory.volumes
	h.Inventory.volumes = r
	g := h.golden(t, "debian")
	h.writes(t, h.cloned(t, g, "work", false), 0, bytes.Repeat([]byte{1}, 1<<20))
	v, err := h.db.VolumeByName(t.Context(), "work")
	must(t, err)
	r.free = scratchRoom + 1<<20 - 1
	for _, act := range []func() error{
		func() error { _, err := h.FlattenVolume(t.Context(), ada, v.ID); return err },
		func() error { _, err := h.Promote(t.Context(), ada, v.ID, ""); return err },
	} {
		h.wantRefusal(t, store.KindUnavailable, []string{"1 MiB", "256 MiB", "machines that run"}, act)
	}
	r.free = scratchRoom + 1<<20
	job, err := h.FlattenVolume(t.Context(), ada, v.ID)
	h.done(t, job, err)
	must(t, h.passed(t, job))
}

func TestTheForecastOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	r := &room{size: 100 << 30, free: 60 << 30}
	at := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	start := func() (*house, *SpaceWatch) {
		h := reopen(t, dir, func(c *Config) { r.Volumes, c.Volumes = c.Volumes, r; c.Now = func() time.Time { return at } })
		w := NewSpaceWatch(h.Inventory, func(store.Space) {})
		must(t, w.remember(t.Context()))
		return h, w
	}
	look := func(w *SpaceWatch) store.Space {
		t.Helper()
		s, err := w.Space(t.Context())
		must(t, err)
		w.note(s)
		w.keep(t.Context(), s)
		return s
	}
	h, w := start()
	for range 181 { // three hours, a look each minute, and a GiB an hour
		look(w)
		at, r.free = at.Add(time.Minute), r.free-1<<30/60
	}
	want := look(w).Forecast()
	if want == "" {
		t.Fatal("there is no forecast")
	}
	all, err := h.db.RoomSamples(t.Context())
	if must(t, err); len(all) != 19 {
		t.Errorf("%d looks are kept of three hours", len(all))
	}
	h.stop()
	h, w = start()
	if s := look(w); s.Forecast() != want {
		t.Errorf("after a restart %q, before it %q", s.Forecast(), want)
	}
	// A day is all that is kept, and a file system that was grown begins anew.
	at = at.Add(25 * time.Hour)
	look(w)
	if all, err = h.db.RoomSamples(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%d looks are kept of long ago, %v", len(all), err)
	}
	at, r.free = at.Add(time.Hour), r.free-1<<30
	if s := look(w); s.Forecast() == "" || s.Seen != time.Hour {
		t.Errorf("%+v", s)
	}
	at, r.size, r.free = at.Add(time.Hour), 200<<30, r.free-1<<30
	if s := look(w); s.Forecast() != "" {
		t.Errorf("a forecast of a file system that was just grown: %q", s.Forecast())
	}
	h.stop()
	// A clock that was set back has seen nothing yet.
	at = at.Add(-48 * time.Hour)
	if _, w = start(); len(w.samples) != 0 {
		t.Errorf("looks of the future: %v", w.samples)
	}
}

func TestWhatEachVolumeTakes(t *testing.T) {
	h := living(t, t.TempDir())
	g := h.golden(t, "debian")
	c := h.cloned(t, g, "lab-1", false)
	h.writes(t, c, 0, bytes.Repeat([]byte{1}, 256<<10))
	takes, err := h.Takes(t.Context())
	must(t, err)
	if n := takes[c.ID]; n < 256<<10 || n > 512<<10 {
		t.Errorf("the clone takes %d bytes", n)
	}
	if n, known := takes[g.ID]; !known || n > 64<<10 {
		t.Errorf("the empty golden volume takes %d bytes", n)
	}
}

// sharedBlocks are layers on a file system of which copies take no room.
type sharedBlocks struct{ Layers }

func (sharedBlocks) Shares(store.Volume) bool { return true }

func TestWhatSharesBlocksIsNotRefusedForRoom(t *testing.T) {
	h := living(t, t.TempDir())
	h.Inventory.volumes = &room{Volumes: h.Inventory.volumes, free: scratchRoom}
	h.Inventory.layers = sharedBlocks{h.Inventory.layers}
	v, model := h.towering(t, 5)
	NewMerger(h.Inventory).settle(t.Context())
	if n := len(h.now(t, v).Layers); n != store.MergedChain {
		t.Errorf("%d layers", n)
	}
	job, err := h.Promote(t.Context(), ada, v.ID, "")
	h.done(t, job, err)
	must(t, h.passed(t, job))
	job, err = h.FlattenVolume(t.Context(), ada, v.ID)
	h.done(t, job, err)
	must(t, h.passed(t, job))
	h.holds(t, v, model)
}
