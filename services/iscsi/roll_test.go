package iscsi

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"lunboot/services/iscsi/login"
	"lunboot/store"
)

// What the roll answers is what a look at every session would.
func TestTheRollCountsAsALookAtAllWould(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	r, all := newRoll(), map[*live]bool{}
	names := []store.IQN{"iqn.2026-11.test:a", "iqn.2026-11.test:b", "iqn.2026-11.test:c"}
	tsih := uint16(0)
	for step := range 2000 {
		if len(all) == 0 || rng.IntN(2) == 0 {
			tsih++
			v := &live{id: fmt.Sprint(step), tsih: tsih, res: login.Result{Initiator: names[rng.IntN(len(names))], ISID: [6]byte{byte(rng.IntN(4))}, Discovery: rng.IntN(3) == 0}}
			r.add(v)
			all[v] = true
		} else {
			for v := range all {
				// One that only has its names changes nothing.
				r.remove(&live{id: v.id, tsih: v.tsih, res: v.res})
				r.remove(v)
				r.remove(v)
				delete(all, v)
				break
			}
		}
		if n := r.hanging[names[0]]; rng.IntN(2) == 0 {
			r.hang(names[0], 1)
		} else if n > 0 {
			r.hang(names[0], -1)
		}
		looking := 0
		for v := range all {
			if v.res.Discovery {
				looking++
			}
			if r.byID[v.id] != v || r.byTSIH[v.tsih] != v {
				t.Fatalf("step %d: session %s is not found", step, v.id)
			}
		}
		if len(r.byID) != len(all) || len(r.byTSIH) != len(all) || r.looking != looking {
			t.Fatalf("step %d: %d by id, %d by TSIH, %d of discovery; there are %d, %d of discovery", step, len(r.byID), len(r.byTSIH), r.looking, len(all), looking)
		}
		name, isid := names[rng.IntN(len(names))], [6]byte{byte(rng.IntN(4))}
		wantAll, wantOwn := r.hanging[names[0]], r.hanging[name]
		for v := range all {
			same := v.res.Initiator == name
			if v.res.Discovery || same && v.res.ISID == isid {
				continue
			}
			if wantAll++; same {
				wantOwn++
			}
		}
		if gotAll, gotOwn := r.beside(name, isid); gotAll != wantAll || gotOwn != wantOwn {
			t.Fatalf("step %d: beside %d, %d of its own; %d and %d are", step, gotAll, gotOwn, wantAll, wantOwn)
		}
	}
	for v := range all {
		r.remove(v)
	}
	if len(r.byID)+len(r.byName)+len(r.byTSIH)+r.looking != 0 {
		t.Errorf("something is left: %+v", r)
	}
}
