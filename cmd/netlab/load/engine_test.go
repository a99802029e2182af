package load

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"lunboot/services/iscsi/pdu"
)

// startEcho serves a file that carries the pattern of generation 1.
func startEcho(t testing.TB, size int) Target {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	b := make([]byte, size)
	fill(b, 1, 0)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Echo(ctx, l, f) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		f.Close()
	})
	return Target{Portal: l.Addr().String(), Bare: true}
}

func TestACommandCostsNoAllocation(t *testing.T) {
	target := startEcho(t, 8<<20)
	for _, l := range []Load{
		{Sessions: 1, Depth: 32, Block: 4 << 10},
		{Sessions: 8, Depth: 1, Block: 4 << 10},
		{Sessions: 2, Depth: 4, Block: 32 << 10},
	} {
		l.Span, l.Time = 8<<20, 10*time.Second
		allocated := func(commands int64) uint64 {
			l.Commands = commands
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if r, err := Run(target, l, os.Getpid()); err != nil || r.Ops != commands {
				t.Fatalf("%d of %d commands: %v", r.Ops, commands, err)
			}
			runtime.ReadMemStats(&after)
			return after.Mallocs - before.Mallocs
		}
		few, many := allocated(1000), allocated(11000)
		if many > few+500 {
			t.Errorf("%+v: 10,000 more commands allocate %d times more", l, many-few)
		}
	}
}

// What is written arrives and what is read back is looked at, whichever way the
// target lets data go.
func TestEveryWayOfMovingDataIsVerified(t *testing.T) {
	const size = 1 << 20
	for name, target := range map[string]*small{
		"all of it immediate":   {keys: []string{"ImmediateData", "Yes", "InitialR2T", "No", "FirstBurstLength", "262144", "MaxRecvDataSegmentLength", "262144"}, segment: 256 << 10, burst: 1 << 20, window: 64},
		"small segments":        {keys: []string{"ImmediateData", "Yes", "InitialR2T", "No", "FirstBurstLength", "65536", "MaxRecvDataSegmentLength", "8192"}, segment: 8 << 10, burst: 128 << 10, window: 64},
		"only when asked for":   {keys: []string{"ImmediateData", "No", "InitialR2T", "Yes", "MaxRecvDataSegmentLength", "65536"}, segment: 64 << 10, burst: 64 << 10, window: 64},
		"unsolicited, no more":  {keys: []string{"ImmediateData", "No", "InitialR2T", "No", "FirstBurstLength", "32768", "MaxRecvDataSegmentLength", "16384"}, segment: 3 << 10, burst: 96 << 10, window: 64},
		"digests":               {keys: []string{"HeaderDigest", "CRC32C", "DataDigest", "CRC32C", "ImmediateData", "Yes", "InitialR2T", "Yes", "MaxRecvDataSegmentLength", "65536"}, segment: 64 << 10, burst: 256 << 10, window: 64},
		"digests, torn":         {keys: []string{"HeaderDigest", "CRC32C", "DataDigest", "CRC32C", "ImmediateData", "Yes", "InitialR2T", "No", "MaxRecvDataSegmentLength", "65536"}, segment: 4100, burst: 256 << 10, window: 64, torn: 1021},
		"torn":                  {keys: []string{"ImmediateData", "Yes", "InitialR2T", "No", "MaxRecvDataSegmentLength", "65536"}, segment: 5000, burst: 256 << 10, window: 64, torn: 777},
		"a window of two":       {keys: []string{"ImmediateData", "Yes", "InitialR2T", "Yes", "MaxRecvDataSegmentLength", "65536"}, segment: 64 << 10, burst: 256 << 10, window: 1},
		"pings before statuses": {keys: []string{"ImmediateData", "Yes", "InitialR2T", "Yes", "MaxRecvDataSegmentLength", "65536"}, segment: 64 << 10, burst: 256 << 10, window: 64, pings: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target.volume = make([]byte, size)
			at := target.start(t)
			l := Load{Initiator: "iqn.2026-11.test:load", Sequential: true, Span: size, Time: 30 * time.Second, Digests: strings.HasPrefix(name, "digests")}
			for k, step := range []struct{ sessions, depth, block int }{{1, 8, 4 << 10}, {3, 2, 64 << 10}, {1, 2, 256 << 10}, {1, 1, 1 << 20}} {
				l.Generation, l.Sessions, l.Depth, l.Block, l.Commands = uint32(k+1), step.sessions, step.depth, step.block, int64(size/step.block)
				l.Write = true
				if r, err := Run(at, l, os.Getpid()); err != nil || r.Ops != l.Commands {
					t.Fatalf("%+v: %d written: %v; the target: %v", step, r.Ops, err, target.complaint())
				}
				target.mu.Lock()
				if at := differs(target.volume, l.Generation, 0); at >= 0 {
					t.Errorf("%+v: the volume is wrong from byte %d on", step, at)
				}
				target.mu.Unlock()
				l.Write = false
				for _, block := range []int{4 << 10, step.block} {
					l.Block, l.Commands = block, int64(size/block)
					if r, err := Run(at, l, os.Getpid()); err != nil || r.Ops != l.Commands {
						t.Fatalf("%+v: %d read: %v; the target: %v", step, r.Ops, err, target.complaint())
					}
				}
				// And as the bench does it: random places, large data dropped unseen.
				free := l
				free.Generation, free.Sequential, free.Commands = 0, false, 50
				if r, err := Run(at, free, os.Getpid()); err != nil || r.Ops != 50 || r.Bytes != 50*int64(l.Block) {
					t.Fatalf("%+v: %+v: %v; the target: %v", step, r, err, target.complaint())
				}
			}
			if err := target.complaint(); err != nil {
				t.Errorf("the target complains: %v", err)
			}
		})
	}
}

// A socket takes what it has room for; the rest goes when there is room again.
func TestNothingIsLostWhereASocketHasNoRoom(t *testing.T) {
	const size = 4 << 20
	target := &small{keys: []string{"ImmediateData", "Yes", "InitialR2T", "No", "FirstBurstLength", "262144", "MaxRecvDataSegmentLength", "65536"}, burst: 1 << 20, window: 16, volume: make([]byte, size)}
	at := target.start(t)
	s, err := login(at, "iqn.2026-11.test:load", 1, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.ready(at, pdu.AttrSimple), s.conn.(*net.TCPConn).SetWriteBuffer(256<<10)); err != nil {
		t.Fatal(err)
	}
	e, err := newEngine(Load{Sessions: 1, Depth: 4, Block: 1 << 20, Span: size, Write: true, Sequential: true, Commands: 4, Generation: 5, Time: 30 * time.Second}, at.LUN, []*session{s})
	if err != nil {
		t.Fatal(err)
	}
	// The target does not read on while its volume is held.
	target.mu.Lock()
	e.now, e.until = time.Now(), time.Now().Add(time.Minute)
	if err := e.streams[0].begin(); err != nil {
		t.Fatal(err)
	}
	if !e.streams[0].blocked {
		t.Error("the socket has room for everything")
	}
	target.mu.Unlock()
	if _, err := e.run(); err != nil {
		err = errors.Join(err, e.close())
		leave(at, []*session{s}, false)
		t.Fatal(errors.Join(err, target.complaint()))
	}
	target.mu.Lock()
	if at := differs(target.volume, 5, 0); at >= 0 {
		t.Errorf("the volume is wrong from byte %d on", at)
	}
	target.mu.Unlock()
	if err := errors.Join(e.close(), s.logout(at), target.complaint()); err != nil {
		t.Error(err)
	}
}

// A target that answers fast and wrong is not measured.
func TestWrongAnswersEndTheLoad(t *testing.T) {
	put := func(at int, v byte) func(*pdu.Header, []byte) int {
		return func(h *pdu.Header, _ []byte) int { h[at] = v; return 0 }
	}
	for name, c := range map[string]struct {
		op    pdu.Opcode
		nth   int // of these is twisted
		twist func(*pdu.Header, []byte) int
		write bool
		want  string
	}{
		"a StatSN is left out":         {pdu.OpSCSIResponse, 3, put(24, 1), true, "StatSN"},
		"a status is not good":         {pdu.OpSCSIResponse, 3, put(3, 2), true, "status 02h"},
		"a response is a failure":      {pdu.OpSCSIResponse, 3, put(2, 1), true, "response 01h"},
		"a status comes twice":         {pdu.OpSCSIResponse, 3, func(*pdu.Header, []byte) int { return 1 }, true, "not in flight|StatSN"},
		"a residual":                   {pdu.OpSCSIResponse, 3, put(1, 0x82), true, "residual"},
		"an R2T for what was sent":     {pdu.OpR2T, 2, put(42, 0), true, "R2T"},
		"an R2T beyond the end":        {pdu.OpR2T, 2, put(45, 0xff), true, "R2T"},
		"an R2T comes twice":           {pdu.OpR2T, 2, func(*pdu.Header, []byte) int { return 1 }, true, "R2T"},
		"a Data-In is left out":        {pdu.OpDataIn, 5, put(39, 9), false, "DataSN"},
		"a Data-In comes twice":        {pdu.OpDataIn, 5, func(*pdu.Header, []byte) int { return 1 }, false, "DataSN"},
		"a Data-In for elsewhere":      {pdu.OpDataIn, 6, put(42, 0x7f), false, "offset"},
		"a Data-In that is short":      {pdu.OpDataIn, 6, func(h *pdu.Header, d []byte) int { h.SetDataSegmentLength(len(d) - 4); return 0 }, false, "bytes"},
		"a last Data-In that is short": {pdu.OpDataIn, 8, func(h *pdu.Header, d []byte) int { h.SetDataSegmentLength(len(d) - 4); return 0 }, false, "ended after"},
		"a Data-In for nobody":         {pdu.OpDataIn, 5, put(16, 1), false, "not in flight"},
		"data that answers a write":    {pdu.OpSCSIResponse, 3, func(h *pdu.Header, _ []byte) int { h[0] = byte(pdu.OpDataIn); return 0 }, true, "answered with data"},
		"an asynchronous message":      {pdu.OpSCSIResponse, 3, put(0, byte(pdu.OpAsync)), true, "Asynchronous"},
		"a byte is not what was there": {pdu.OpDataIn, 5, func(_ *pdu.Header, d []byte) int { d[len(d)-1] ^= 1; return 0 }, false, "not what was written"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, block := range []int{16 << 10, 64 << 10} {
				for _, seen := range []bool{true, false} {
					if !seen && strings.HasPrefix(name, "a byte") {
						continue
					}
					target := &small{keys: []string{"ImmediateData", "Yes", "MaxRecvDataSegmentLength", "4096"}, segment: block / 4, burst: 4 << 10, window: 8, volume: make([]byte, 1<<20)}
					fill(target.volume, 1, 0)
					at := target.start(t)
					// The login's TEST UNIT READY is answered before the twist begins to count.
					n := 0
					if c.op == pdu.OpSCSIResponse {
						n = -1
					}
					target.twist = func(h *pdu.Header, d []byte) int {
						if h.Opcode() == c.op {
							if n++; n == c.nth {
								return c.twist(h, d)
							}
						}
						return 0
					}
					l := Load{Initiator: "iqn.2026-11.test:load", Sessions: 1, Depth: 1, Block: block, Span: 1 << 20, Sequential: true, Write: c.write, Commands: 8, Time: 10 * time.Second}
					if seen {
						l.Generation = 1
					}
					if _, err := Run(at, l, os.Getpid()); err == nil || !regexp.MustCompile(c.want).MatchString(err.Error()) {
						t.Errorf("%d bytes, looked at: %v: %v does not say %q", block, seen, err, c.want)
					}
				}
			}
		})
	}
}

func TestADigestThatIsWrongEndsTheLoad(t *testing.T) {
	for _, torn := range []int{0, 333} {
		target := &small{keys: []string{"HeaderDigest", "CRC32C", "DataDigest", "CRC32C"}, segment: 64 << 10, window: 8, volume: make([]byte, 1<<20), torn: torn}
		at := target.start(t)
		l := Load{Initiator: "iqn.2026-11.test:load", Sessions: 1, Depth: 2, Block: 128 << 10, Span: 1 << 20, Digests: true, Commands: 8, Time: 10 * time.Second}
		if _, err := Run(at, l, os.Getpid()); err != nil {
			t.Fatal(err)
		}
		// What goes wrong on the way is not in the digest that was made before.
		s, err := login(at, "iqn.2026-11.test:load", 1, true)
		if err != nil {
			t.Fatal(err)
		}
		st := &stream{session: s, engine: &engine{load: l}, flight: make([]command, 1)}
		var h pdu.Header
		p := pdu.DataIn{Final: true}
		p.Encode(&h)
		h.SetDataSegmentLength(8)
		st.flight[0] = command{request: request{read: true, length: l.Block}, busy: true}
		good := pdu.AppendDigest(append([]byte(nil), h[:]...), pdu.Digest(h[:]))
		good = pdu.AppendDigest(append(good, 1, 2, 3, 4, 5, 6, 7, 8), pdu.Digest([]byte{1, 2, 3, 4, 5, 6, 7, 8}))
		for k := range good {
			st.head, st.rest, st.flight[0] = nil, 0, command{request: request{read: true, length: l.Block}, busy: true}
			bad := append([]byte(nil), good...)
			bad[k] ^= 0x10
			err := st.feed(bad[:k/2])
			if err == nil {
				err = st.feed(bad[k/2:])
			}
			if err != errDigest {
				t.Errorf("byte %d is wrong: %v", k, err)
			}
		}
		st.head, st.rest, st.flight[0] = nil, 0, command{request: request{read: true, length: l.Block}, busy: true}
		if err := st.feed(good); err != nil || st.flight[0].got != 8 {
			t.Errorf("all is well: %v", err)
		}
		if err := s.logout(at); err != nil {
			t.Error(err)
		}
	}
}

// One watchdog looks at all commands.
func TestATargetThatFallsSilentIsGivenUp(t *testing.T) {
	target := &small{keys: []string{"ImmediateData", "Yes"}, segment: 4 << 10, window: 8, volume: make([]byte, 1<<20)}
	at := target.start(t)
	s, err := login(at, "iqn.2026-11.test:load", 1, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ready(at, pdu.AttrSimple); err != nil {
		t.Fatal(err)
	}
	// The volume is held: the next READ gets no answer.
	target.mu.Lock()
	e, err := newEngine(Load{Sessions: 1, Depth: 1, Block: 4 << 10, Span: 1 << 20, Time: 10 * time.Second}, at.LUN, []*session{s})
	if err != nil {
		t.Fatal(err)
	}
	e.stall = 10 * time.Millisecond
	_, err = e.run()
	if err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Error(err)
	}
	target.mu.Unlock()
	if err := e.close(); err != nil {
		t.Error(err)
	}
	_ = s.logout(at)
}

func TestThePatternShowsWhatIsLostOrDoubled(t *testing.T) {
	b := make([]byte, 4096)
	fill(b, 3, 8192)
	for from := range 40 {
		for to := from; to < 80; to++ {
			if at := differs(b[from:to], 3, 8192+int64(from)); at >= 0 {
				t.Fatalf("bytes %d to %d: %d", from, to, at)
			}
			for bad := from; bad < to; bad++ {
				b[bad] ^= 1
				at := differs(b[from:to], 3, 8192+int64(from)) - 8192
				if at < 0 || at > int64(bad) || at+8 <= int64(bad) {
					t.Fatalf("bytes %d to %d, %d is wrong: %d", from, to, bad, at)
				}
				b[bad] ^= 1
			}
		}
	}
	for _, other := range []struct {
		generation uint32
		off        int64
	}{{2, 8192}, {3, 0}, {3, 8704}, {3, 8193}} {
		if differs(b[:512], other.generation, other.off) < 0 {
			t.Errorf("%+v looks the same", other)
		}
	}
}

// No command is sent beyond the window that the target has told.
func TestTheWindowBoundsWhatIsInFlight(t *testing.T) {
	at := startEcho(t, 1<<20)
	s, err := login(at, "iqn.2026-11.test:load", 1, false)
	if err != nil {
		t.Fatal(err)
	}
	s.window = s.cmdSN.Add(2)
	e, err := newEngine(Load{Sessions: 1, Depth: 8, Block: 4 << 10, Span: 1 << 20, Time: time.Minute}, 0, []*session{s})
	if err != nil {
		t.Fatal(err)
	}
	e.now, e.until = time.Now(), time.Now().Add(time.Minute)
	if err := e.streams[0].begin(); err != nil || e.busy != 3 {
		t.Errorf("%d commands in flight, the window holds 3: %v", e.busy, err)
	}
	if err := e.close(); err != nil {
		t.Error(err)
	}
	leave(at, []*session{s}, false)
}
