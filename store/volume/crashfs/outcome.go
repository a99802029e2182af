package crashfs

import (
	"maps"
	"slices"
)

// Restart returns the folder as it may be found after the power came back. The
// old one and its files answer ErrCrashed from then on.
func (f *FS) Restart() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashed = true
	for i := f.rng.IntN(len(f.pending) + 1); i > 0; i-- {
		f.pending[0](f.durable)
		f.pending = f.pending[1:]
	}
	next := New(f.rng.Uint64())
	next.space = f.space
	copies := map[*node]*node{} // one file may have an old and a new name
	for name, nd := range f.durable {
		if copies[nd] == nil {
			copies[nd] = nd.afterCrash(f.rng)
		}
		next.durable[name] = copies[nd]
		next.live[name] = copies[nd]
	}
	return next
}

// Unsynced counts what a crash now would leave to chance: the sectors of files
// that changed since their last Sync, and sizes that did.
func (f *FS) Unsynced() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	f.eachUnsynced(func(*node, int64, int) { n++ })
	return n
}

// eachUnsynced calls fn in one order for each sector that changed, with its
// number of versions, and with sector -1 for each size that did.
func (f *FS) eachUnsynced(fn func(nd *node, sector int64, versions int)) {
	names := make([]string, 0, len(f.live))
	for name := range f.live {
		names = append(names, name)
	}
	slices.Sort(names)
	seen := map[*node]bool{}
	for _, name := range names {
		nd := f.live[name]
		if seen[nd] {
			continue
		}
		seen[nd] = true
		for _, i := range nd.changed() {
			fn(nd, i, len(nd.pending[i]))
		}
		if nd.size != nd.synced {
			fn(nd, -1, 1)
		}
	}
}

// After returns the folder after a power cut of which the caller says what it
// left: of the i-th that Unsynced counts, which has so many versions, pick
// returns the one that is on the disk, from 1, or 0 for what the last Sync
// saved. All changes of names are kept. The old folder has no power from then
// on, but After may be asked again, for another outcome of the same cut.
func (f *FS) After(pick func(i, versions int) int) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashed = true
	next := New(f.rng.Uint64())
	next.space = f.space
	copies := map[*node]*node{}
	for name, nd := range f.live {
		if copies[nd] == nil {
			copies[nd] = &node{live: maps.Clone(nd.durable), size: nd.synced}
		}
		next.live[name], next.durable[name] = copies[nd], copies[nd]
	}
	item := 0
	f.eachUnsynced(func(nd *node, i int64, versions int) {
		k := pick(item, versions)
		item++
		switch to := copies[nd]; {
		case k == 0:
		case i < 0:
			to.size = nd.size
		case nd.pending[i][k-1] == nil:
			delete(to.live, i)
		default:
			to.live[i] = *nd.pending[i][k-1]
		}
	})
	for _, nd := range copies {
		for i := range nd.live {
			if i*Sector >= nd.size {
				delete(nd.live, i)
			}
		}
		nd.durable, nd.synced = maps.Clone(nd.live), nd.size
	}
	return next
}

// Revive returns the folder as the next process finds it when the last one was
// killed and the power stayed: all that was written is there, and what was not
// synced is still at risk. The old folder and its files answer ErrCrashed.
func (f *FS) Revive() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashed = true
	next := New(f.rng.Uint64())
	next.live, next.durable, next.pending, next.space = f.live, f.durable, f.pending, f.space
	return next
}
