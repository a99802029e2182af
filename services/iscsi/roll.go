package iscsi

import (
	"slices"

	"lunboot/store"
)

// roll is the sessions that live, by what a login asks about them: in a storm of
// logins, none of them looks through all. The server's lock guards it.
type roll struct {
	byID    map[string]*live
	byName  map[store.IQN][]*live // of one initiator, in the order of their coming
	byTSIH  map[uint16]*live
	looking int // discovery sessions

	// Sessions that have ended while a volume hung that was reading for them.
	hanging map[store.IQN]int
	hung    int // in all
}

func newRoll() roll {
	return roll{byID: make(map[string]*live), byName: make(map[store.IQN][]*live), byTSIH: make(map[uint16]*live), hanging: make(map[store.IQN]int)}
}

// hang counts n more sessions that hang.
func (r *roll) hang(name store.IQN, n int) {
	r.hung += n
	if r.hanging[name] += n; r.hanging[name] == 0 {
		delete(r.hanging, name)
	}
}

// add puts a session in, whose id and TSIH nobody has.
func (r *roll) add(v *live) {
	r.byID[v.id], r.byTSIH[v.tsih] = v, v
	r.byName[v.res.Initiator] = append(r.byName[v.res.Initiator], v)
	if v.res.Discovery {
		r.looking++
	}
}

// remove takes a session out; once is enough.
func (r *roll) remove(v *live) {
	if r.byID[v.id] != v {
		return
	}
	delete(r.byID, v.id)
	delete(r.byTSIH, v.tsih)
	name := v.res.Initiator
	if own := slices.DeleteFunc(r.byName[name], func(o *live) bool { return o == v }); len(own) > 0 {
		r.byName[name] = own
	} else {
		delete(r.byName, name)
	}
	if v.res.Discovery {
		r.looking--
	}
}

// beside counts the sessions with units that a new one of an initiator comes
// beside: in all, and its own. One that it replaces does not count, one that hangs
// does.
func (r *roll) beside(name store.IQN, isid [6]byte) (all, own int) {
	all, own = len(r.byID)-r.looking+r.hung, r.hanging[name]
	for _, v := range r.byName[name] {
		switch {
		case v.res.Discovery:
		case v.res.ISID == isid:
			all--
		default:
			own++
		}
	}
	return all, own
}
