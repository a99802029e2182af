package volume

import (
	"cmp"
	"errors"
	"slices"

	"lunboot/store"
)

// Fault is what is wrong with a volume now, in one sentence.
type Fault struct{ Volume, Sentence string }

// OnFault registers what is told of a volume that turned read-only or
// unreadable, in one sentence. It must not block and not call the pool.
func (p *Pool) OnFault(fn func(volume, sentence string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onFault = fn
}

// Faults is what is wrong with volumes, by their names. What was told of one is
// taken back when it was opened anew without it, began anew or was removed.
func (p *Pool) Faults() []Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Fault, 0, len(p.faults))
	for _, f := range p.faults {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b Fault) int { return cmp.Compare(a.Volume, b.Volume) })
	return out
}

// tell notes what is wrong with a volume, and tells it.
func (p *Pool) tell(s *shared, err error) {
	f := Fault{*s.name.Load(), err.Error()}
	p.log.Error("volume failed", "volume", f.Volume, "err", err)
	var e *store.Error
	if errors.As(err, &e) && e.Msg != "" {
		f.Sentence = e.Msg
	}
	p.mu.Lock()
	fn := p.onFault
	if p.open[s.id] == s { // else it is of what the volume has no more
		p.faults[s.id] = f
	}
	p.mu.Unlock()
	if fn != nil {
		fn(f.Volume, f.Sentence)
	}
}

// well takes back what was told of a volume that was opened anew, unless it is
// still so. p.mu is held.
func (p *Pool) well(s *shared) {
	if p.broken[s.id] == nil && s.damaged.Load() == nil {
		delete(p.faults, s.id)
	}
}

func (p *Pool) markBroken(id store.VolumeID, e *store.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken[id] = e
}
