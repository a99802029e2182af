package loaders

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

// Trials keeps what boots taught of loaders.
type Trials interface {
	LoaderTrials(context.Context) ([]store.LoaderTrial, error)
	PutLoaderTrial(context.Context, store.LoaderTrial) error
}

// Ladder joins the loaders that there are with what boots taught of them. What
// it knows stands in memory, since every request to boot asks it.
type Ladder struct {
	*Set
	rows Trials

	mu     sync.Mutex
	trials map[string]map[string]store.LoaderTrial // by key and loader
	n      int
}

// NewLadder makes a Ladder that knows what earlier runs learnt.
func NewLadder(ctx context.Context, set *Set, rows Trials) (*Ladder, error) {
	l := &Ladder{Set: set, rows: rows}
	return l, l.load(ctx)
}

// load reads what earlier runs learnt.
func (l *Ladder) load(ctx context.Context) error {
	all, err := l.rows.LoaderTrials(ctx)
	if err != nil {
		return fmt.Errorf("read how loaders did before: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trials, l.n = map[string]map[string]store.LoaderTrial{}, 0
	for _, t := range all {
		l.keep(t)
	}
	return nil
}

// keep puts a trial into memory; mu is held.
func (l *Ladder) keep(t store.LoaderTrial) {
	of := l.trials[t.Key]
	if of == nil {
		of = map[string]store.LoaderTrial{}
		l.trials[t.Key] = of
	}
	if _, known := of[t.Loader]; !known {
		l.n++
	}
	of[t.Loader] = t
}

// version names a loader with the beginning of its hash: another file under the
// same name, uploaded or out of a newer package, has all its chances again.
func (l *Ladder) version(name boot.Loader) string {
	l.Set.mu.RLock()
	defer l.Set.mu.RUnlock()
	f, ok := l.lookup(name)
	if !ok {
		return ""
	}
	return string(name) + "@" + f.info.SHA256[:12]
}

// Learn adds a boot's verdict on a loader to what is known of it on this machine
// and on hardware of its sort. It is on disk, and counts, when Learn returns nil.
// One caller at a time.
func (l *Ladder) Learn(ctx context.Context, h boot.Hardware, name boot.Loader, v boot.Verdict, at time.Time) error {
	own, sort := h.Keys()
	version := l.version(name)
	if version == "" {
		return nil // it was taken back since
	}
	for _, key := range []string{own, sort} {
		l.mu.Lock()
		was := l.trials[key][version]
		l.mu.Unlock()
		was.Key, was.Loader = key, version
		t := boot.Learn(was, v, at, key == own)
		if t == was {
			continue
		}
		if err := l.rows.PutLoaderTrial(ctx, t); err != nil {
			return err
		}
		l.mu.Lock()
		l.keep(t)
		full := l.n > store.MaxLoaderTrials
		l.mu.Unlock()
		if full { // the database has let the oldest go
			if err := l.load(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// known returns what is known under a key of the loaders that there are, by
// their names.
func (l *Ladder) known(key string) []store.LoaderTrial {
	l.mu.Lock()
	all := slices.Collect(maps.Values(l.trials[key]))
	l.mu.Unlock()
	var out []store.LoaderTrial
	for _, t := range all {
		name, _, _ := strings.Cut(t.Loader, "@")
		if l.version(boot.Loader(name)) == t.Loader {
			t.Loader = name
			out = append(out, t)
		}
	}
	return out
}

// Manifest lists the loaders with how many machines each worked on, and on how
// many it stayed silent.
func (l *Ladder) Manifest() []boot.LoaderInfo {
	all := l.Set.Manifest()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range all {
		version := string(all[i].Name) + "@" + all[i].SHA256[:12]
		for key, of := range l.trials {
			switch {
			case !boot.OwnKey(key):
			case of[version].Outcome == store.TrialWorked:
				all[i].Worked++
			case of[version].Outcome == store.TrialSilent:
				all[i].Silent++
			}
		}
	}
	return all
}

// Next chooses the loader for a machine; own is its own choice, or empty.
func (l *Ladder) Next(h boot.Hardware, own string) boot.Pick {
	return boot.Choose(boot.Question{Hardware: h, Own: own, Shelf: l.Shelf(), Trials: l.known})
}
