package inventory

import (
	"context"
	"slices"
	"sync"
	"time"

	"lunboot/store"
)

const (
	// spaceEvery is how often the room is looked at, and keepSamples how many
	// looks are remembered: a day.
	spaceEvery  = time.Minute
	keepSamples = 24 * 60
	keepFor     = 24 * time.Hour
	// keepEvery is how often a look is kept for the next run.
	keepEvery = 10 * time.Minute
	// leastSeen is how long the room is watched before a forecast is made of it.
	leastSeen = 30 * time.Minute
)

// measurer is a pool that knows how much its volumes take.
type measurer interface {
	Used(v store.Volume) (int64, error)
	Room() (size, free int64, err error)
}

// SpaceWatch watches the room for volumes: a service.
type SpaceWatch struct {
	inv  *Inventory
	tell func(store.Space)

	mu      sync.Mutex
	samples []store.RoomSample // oldest first
	kept    time.Time          // the newest that is kept
	short   bool
}

// NewSpaceWatch makes a SpaceWatch. tell is called with every look, and must not
// block.
func NewSpaceWatch(i *Inventory, tell func(store.Space)) *SpaceWatch {
	return &SpaceWatch{inv: i, tell: tell}
}

// String names the service.
func (w *SpaceWatch) String() string { return "room for volumes" }

// Listen binds nothing.
func (w *SpaceWatch) Listen() error { return nil }

// Serve looks until ctx ends.
func (w *SpaceWatch) Serve(ctx context.Context) error {
	if err := w.remember(ctx); err != nil && ctx.Err() == nil {
		w.inv.log.Warn("what was seen of the room for volumes before is not known", "err", err)
	}
	tick := time.NewTicker(spaceEvery)
	defer tick.Stop()
	for {
		if s, err := w.Space(ctx); err != nil && ctx.Err() == nil {
			w.inv.log.Warn("the room for volumes is not known", "err", err)
		} else if err == nil {
			w.note(s)
			w.keep(ctx, s)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// remember takes up what the last run saw of the room.
func (w *SpaceWatch) remember(ctx context.Context) error {
	all, err := w.inv.db.RoomSamples(ctx)
	if err != nil {
		return err
	}
	now := w.inv.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range all { // a clock that was set back leaves looks of the future
		if age := now.Sub(s.At); age >= 0 && age <= keepFor {
			w.samples = append(w.samples, s)
			w.kept = s.At
		}
	}
	return nil
}

// keep keeps a look now and then for the next run.
func (w *SpaceWatch) keep(ctx context.Context, s store.Space) {
	if s.At.Sub(w.kept) < keepEvery {
		return
	}
	if err := w.inv.db.KeepRoomSample(ctx, store.RoomSample{At: s.At, Size: s.Size, Free: s.Free}, s.At.Add(-keepFor)); err != nil {
		if ctx.Err() == nil {
			w.inv.log.Warn("the room for volumes could not be noted", "err", err)
		}
		return
	}
	w.kept = s.At
}

// note remembers a look, and tells of one that crosses the threshold.
func (w *SpaceWatch) note(s store.Space) {
	w.mu.Lock()
	w.samples = append(w.samples, store.RoomSample{At: s.At, Size: s.Size, Free: s.Free})
	old := max(0, len(w.samples)-keepSamples)
	for old < len(w.samples)-1 && s.At.Sub(w.samples[old].At) > keepFor {
		old++
	}
	w.samples = append(w.samples[:0], w.samples[old:]...)
	turned := s.Short() != w.short
	w.short = s.Short()
	w.mu.Unlock()
	w.tell(s)
	if turned && w.inv.emit != nil {
		reason := s.Warning()
		if reason == "" {
			reason = store.Bytes(s.Free) + " are free for volumes again"
		}
		w.inv.emit.Emit(store.Event{At: s.At, Kind: store.EventSpace, Detail: store.Detail{Reason: reason, Bytes: s.Free}})
	}
}

// Seen is the room as it was in the last day, oldest first.
func (w *SpaceWatch) Seen() []store.RoomSample {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.samples)
}

// Space is the room for volumes now, with a forecast when it was watched for
// long enough.
func (w *SpaceWatch) Space(ctx context.Context) (store.Space, error) {
	s := store.Space{At: w.inv.now()}
	m, ok := w.inv.volumes.(measurer)
	if !ok {
		free, err := w.inv.volumes.Free()
		s.Free = free
		return s, err
	}
	var err error
	if s.Size, s.Free, err = m.Room(); err != nil {
		return s, err
	}
	text, err := store.SettingValue(ctx, w.inv.db, store.SettingSpaceLow)
	if err != nil {
		return s, err
	}
	if s.Low, err = store.SpaceLow(text, s.Size); err != nil {
		return s, err
	}
	all, err := w.inv.db.Volumes(ctx)
	if err != nil {
		return s, err
	}
	takes, err := w.inv.Takes(ctx)
	if err != nil {
		return s, err
	}
	for _, v := range all {
		if used, known := takes[v.ID]; known {
			s.Used += used
			s.Virtual += v.Size
		}
	}
	s.Rate, s.Seen = w.rate(s)
	return s, nil
}

// Takes is how many bytes each volume takes of the file system, its versions and
// snapshots included; devices take none, and of one that is being made or removed
// nothing is known.
func (i *Inventory) Takes(ctx context.Context) (map[store.VolumeID]int64, error) {
	out := map[store.VolumeID]int64{}
	m, ok := i.volumes.(measurer)
	if !ok {
		return out, nil
	}
	all, err := i.db.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	layers, err := i.db.Layers(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if v.Kind == store.VolumeDevice || v.State == store.VolumeFailed {
			continue
		}
		if used, err := m.Used(withFiles(v, layers)); err == nil {
			out[v.ID] = used
		}
	}
	return out, nil
}

// withFiles is a volume with all of the layers that are its own: versions and
// snapshots that it does not stand on any more take room as well.
func withFiles(v store.Volume, all []store.Layer) store.Volume {
	var own []store.Layer
	for _, l := range all {
		if l.Volume == v.ID {
			own = append(own, l)
		}
	}
	if len(own) > 0 {
		v.Layers = own
	}
	return v
}

// rate is how many bytes a day the room shrank since the oldest look.
func (w *SpaceWatch) rate(now store.Space) (perDay int64, seen time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// A file system that was grown, or is another one, tells nothing of before.
	from := len(w.samples)
	for from > 0 && w.samples[from-1].Size == now.Size {
		from--
	}
	if from == len(w.samples) {
		return 0, 0
	}
	first := w.samples[from]
	seen = now.At.Sub(first.At)
	if seen < leastSeen || first.Free <= now.Free {
		return 0, 0
	}
	return int64(float64(first.Free-now.Free) / seen.Hours() * 24), seen
}
