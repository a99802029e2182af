package memory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// user is a session as the pool sees it.
type user struct {
	*Account
	name    string
	resumed int
	closed  atomic.Bool
	keeps   bool
}

func join(p *Pool, initiator string) *user {
	u := &user{name: initiator}
	u.Account = p.Open(Session{
		Initiator:  initiator,
		Resume:     func() { u.resumed++ },
		KeepsSince: func(time.Time) bool { return u.keeps },
		Close:      func(string) { u.closed.Store(true) },
	})
	return u
}

func take(t *testing.T, u *user, n int, wait, want bool) {
	t.Helper()
	if _, ok := u.Take(n, wait); ok != want {
		t.Fatalf("%s takes %d: %t", u.name, n, ok)
	}
}

func TestWhoHasLeastComesFirst(t *testing.T) {
	p := NewPool(Limits{Own: 10, Pool: 100, Initiator: 100, Patience: time.Hour})
	a, b, c := join(p, "a"), join(p, "b"), join(p, "c")
	take(t, a, 70, false, true) // 60 of the pool
	take(t, b, 45, false, true) // 35
	a2 := join(p, "a")
	take(t, a2, 30, true, false)
	take(t, c, 10, true, true) // its own is nobody's matter
	take(t, c, 40, true, false)
	take(t, c, 1, true, false) // not before what it waits for
	b.Give(20)
	if a2.resumed != 0 || c.resumed != 0 {
		t.Fatal("25 bytes are left, and somebody was given more")
	}
	d := join(p, "d")
	take(t, d, 15, false, false) // c has as little and was here before
	b.Give(20)
	if a2.resumed != 0 || c.resumed != 1 {
		t.Fatalf("a was given %d times, c %d times", a2.resumed, c.resumed)
	}
	take(t, c, 40, true, true)
	c.Refund()
	a.Give(70)
	if a2.resumed != 1 {
		t.Fatal("it waits, and there is enough")
	}
	a2.Refund() // it does not need it any more
	if _, all := a2.Held(); all != 0 || p.Free() != 60 {
		t.Errorf("%d are left", p.Free())
	}
}

// An initiator that has its part waits for itself and holds up nobody.
func TestOneInitiatorHasAPartOfThePool(t *testing.T) {
	p := NewPool(Limits{Own: 10, Pool: 100, Initiator: 40, Patience: time.Hour})
	a, a2, b := join(p, "a"), join(p, "a"), join(p, "b")
	take(t, a, 50, false, true)
	take(t, a2, 20, true, false)
	take(t, b, 60, true, true) // more than its part, alone
	take(t, b, 1, true, false)
	b.Leave()
	a.Give(10)
	if a2.resumed != 1 || b.resumed != 0 {
		t.Errorf("a was given %d times, b %d times", a2.resumed, b.resumed)
	}
}

// Only somebody who waits for long is a reason to end anybody.
func TestWhoKeepsMemoryIsEndedForThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(Limits{Own: 10, Pool: 100, Initiator: 50, Patience: 8 * time.Second})
		idle, busy, other := join(p, "a"), join(p, "a"), join(p, "b")
		idle.keeps, other.keeps = true, true
		take(t, idle, 30, false, true)
		take(t, busy, 30, false, true)
		take(t, other, 60, false, true)
		time.Sleep(time.Hour)
		if idle.closed.Load() || other.closed.Load() {
			t.Fatal("nobody waits")
		}
		mine := join(p, "a")
		take(t, mine, 30, true, false)
		time.Sleep(7 * time.Second)
		if idle.closed.Load() {
			t.Fatal("it is ended too early")
		}
		time.Sleep(3 * time.Second)
		if !idle.closed.Load() || busy.closed.Load() || other.closed.Load() {
			t.Fatalf("idle %t, busy %t, other %t", idle.closed.Load(), busy.closed.Load(), other.closed.Load())
		}
		third := join(p, "c")
		take(t, third, 90, true, false) // what a whole pool is needed for
		time.Sleep(10 * time.Second)
		if !other.closed.Load() || busy.closed.Load() {
			t.Fatalf("busy %t, other %t", busy.closed.Load(), other.closed.Load())
		}
		// Who was given memory and does not come for it keeps it, too.
		for _, u := range []*user{idle, busy, other} {
			u.Close()
		}
		if mine.resumed+third.resumed != 2 {
			t.Fatalf("%d and %d", mine.resumed, third.resumed)
		}
		take(t, join(p, "d"), 90, true, false)
		time.Sleep(10 * time.Second)
		if !mine.closed.Load() || !third.closed.Load() {
			t.Error("they did not come for theirs")
		}
		for _, u := range []*user{mine, third} {
			u.Close()
		}
		time.Sleep(time.Minute) // the reviews end
	})
}

// Whatever sessions do, in whatever order, all of the pool is somewhere, and in
// the end it is back.
func TestNothingIsLost(t *testing.T) {
	const pool = 1000
	p := NewPool(Limits{Own: 10, Pool: pool, Initiator: 400, Patience: time.Millisecond})
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(n), 1))
			for round := range 50 {
				granted := make(chan struct{}, 1)
				a := p.Open(Session{
					Initiator:  fmt.Sprint(n % 3),
					Resume:     func() { granted <- struct{}{} },
					KeepsSince: func(time.Time) bool { return false },
					Close:      func(string) {},
				})
				var held []int
				for range 30 {
					if rnd.IntN(3) == 0 && len(held) > 0 {
						a.Give(held[0])
						held = slices.Delete(held, 0, 1)
						continue
					}
					k := 1 + rnd.IntN(300)
					_, ok := a.Take(k, true)
					if !ok {
						for _, h := range held { // else all could wait for each other
							a.Give(h)
						}
						held = held[:0]
						<-granted
						if rnd.IntN(4) > 0 {
							if _, ok = a.Take(k, true); !ok {
								t.Errorf("what was granted is not there")
								return
							}
							held = append(held, k)
						}
						a.Refund()
						continue
					}
					held = append(held, k)
				}
				if round%2 == 0 {
					for _, h := range held {
						a.Give(h)
					}
				}
				a.Leave()
				a.Close()
			}
		})
	}
	wg.Wait()
	if p.Free() != pool || len(p.used) != 0 || len(p.holders) != 0 || len(p.queue) != 0 {
		t.Errorf("%d of %d bytes are back; %v, %d holders, %d wait", p.Free(), pool, p.used, len(p.holders), len(p.queue))
	}
}
