package dhcp

import "sync"

// recent is a bounded map of what was seen lately. It keeps at least limit and
// at most twice limit keys: when the younger half is full, the older one goes.
// A flood of invented MACs costs memory up to that bound and no more.
type recent[K comparable, V any] struct {
	limit int

	mu       sync.Mutex
	now, old map[K]V
}

func newRecent[K comparable, V any](limit int) *recent[K, V] {
	return &recent[K, V]{limit: limit, now: map[K]V{}}
}

// get returns what was put under k.
func (r *recent[K, V]) get(k K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.now[k]; ok {
		return v, true
	}
	v, ok := r.old[k]
	return v, ok
}

// put remembers v under k.
func (r *recent[K, V]) put(k K, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set(k, v)
}

// change puts what f makes of what was put under k, or of nothing. A key that is
// used stays young.
func (r *recent[K, V]) change(k K, f func(V) V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.now[k]
	if !ok {
		v = r.old[k]
	}
	r.set(k, f(v))
}

func (r *recent[K, V]) set(k K, v V) {
	if _, ok := r.now[k]; !ok && len(r.now) >= r.limit {
		r.old, r.now = r.now, make(map[K]V, r.limit)
	}
	r.now[k] = v
}
