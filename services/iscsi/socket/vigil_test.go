package socket

import (
	"net"
	"testing"
	"time"
)

// after teaches a new habit that n waits were as long as given.
func after(n int, waited time.Duration, vigil bool) (h habit) {
	for range n {
		h.learn(waited, vigil)
	}
	return h
}

func TestAPeerIsExpectedSoonWhenItWasQuickSixteenTimes(t *testing.T) {
	const quick, slow = 30 * time.Microsecond, time.Millisecond
	if h := after(leastQuick-1, quick, false); h.quickly() {
		t.Error("expected too early")
	}
	h := after(leastQuick, quick, false)
	if !h.quickly() {
		t.Fatal("not expected after sixteen short waits")
	}
	h.learn(quick, true)
	if !h.quickly() {
		t.Error("a vigil that was worth it ended them")
	}
	h.learn(slow, false)
	if h.quickly() {
		t.Error("a slow peer is still expected soon")
	}
}

// A peer that is always a little too far away costs a vigil in thousands of waits.
func TestVigilsInVainBecomeRare(t *testing.T) {
	const far = vigilTime + 10*time.Microsecond
	var h habit
	vigils := 0
	for range 100_000 {
		vigil := h.quickly()
		if vigil {
			vigils++
		}
		h.learn(far, vigil)
	}
	if vigils > 20 {
		t.Errorf("%d vigils in vain in 100,000 waits", vigils)
	}
	for range mostQuick + leastQuick {
		h.learn(time.Microsecond, false)
	}
	if !h.quickly() {
		t.Error("a peer that came near is never expected again")
	}
	if h.learn(time.Microsecond, true); h.need != 0 {
		t.Errorf("after a vigil that was worth it, %d more short waits are wanted", h.need)
	}
}

// The processors are never all taken by readers that look for input.
func TestHalfOfTheProcessorsIsLeftToOthers(t *testing.T) {
	for processors, most := range map[int]int{1: 0, 2: 1, 3: 1, 8: 4} {
		v := NewVigils(processors)
		got := 0
		for v.begin() {
			got++
		}
		if got != most {
			t.Errorf("%d processors: %d vigils at once, not %d", processors, got, most)
		}
		if got > 0 {
			if v.end(); !v.begin() {
				t.Errorf("%d processors: the place of a vigil that ended stays taken", processors)
			}
		}
	}
}

// BenchmarkOneAtATime is a peer that asks again when it has its answer, with and
// without vigils.
func BenchmarkOneAtATime(b *testing.B) {
	for name, soon := range map[string]bool{"asleep": false, "vigil": true} {
		b.Run(name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			peer, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer peer.Close()
			nc, err := l.Accept()
			if err != nil {
				b.Fatal(err)
			}
			raw, err := nc.(*net.TCPConn).SyscallConn()
			if err != nil {
				b.Fatal(err)
			}
			c := New(nc, raw, NewVigils(2))
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer nc.Close()
				for p := make([]byte, 48); ; {
					if _, err := c.Recv(p, soon); err != nil || c.Send(p) != nil {
						return
					}
				}
			}()
			p := make([]byte, 48)
			for b.Loop() {
				if _, err := peer.Write(p); err != nil {
					b.Fatal(err)
				}
				if _, err := peer.Read(p); err != nil {
					b.Fatal(err)
				}
			}
			_ = peer.Close()
			<-done
		})
	}
}
