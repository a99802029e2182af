package load

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"lunboot/cmd/netlab/load/trace"
	"lunboot/services/iscsi/pdu"
)

// recorder stands between an initiator and a target until the returned function
// is called.
func recorder(t *testing.T, to Target) (through Target, r *trace.Recorder, end func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r = &trace.Recorder{Dial: func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", to.Portal)
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, l) }()
	through = to
	through.Portal = l.Addr().String()
	return through, r, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func newSmall(t *testing.T) (*small, Target) {
	t.Helper()
	s := &small{keys: []string{"ImmediateData", "Yes", "InitialR2T", "No", "FirstBurstLength", "65536", "MaxRecvDataSegmentLength", "16384"}, segment: 8 << 10, burst: 64 << 10, window: 16, volume: make([]byte, 1<<20)}
	return s, s.start(t)
}

// steps is a trace without its times.
func steps(t *trace.Trace) (all []trace.Step) {
	for _, s := range t.Steps {
		s.At = 0
		all = append(all, s)
	}
	return all
}

// A boot that is replayed through a recorder is recorded as it was: the same
// commands, in the same order, with as many in flight, by as many logins.
func TestAReplayIsWhatWasRecorded(t *testing.T) {
	// The system's part of a boot: reads that overlap, writes, a flush that waits.
	boot := &trace.Trace{Size: 1 << 20, BlockSize: 512, Steps: []trace.Step{
		{Op: trace.Login, Segment: 8192},
		{Op: trace.Read, Depth: 1, Block: 0, Blocks: 1}, {Op: trace.Read, Depth: 1, Block: 1, Blocks: 63}, {Op: trace.Read, Depth: 1, Block: 64, Blocks: 200},
		{Op: trace.Login, Segment: 8192},
		{Op: trace.Login, Segment: 65536},
		{Op: trace.Read, Depth: 1, Block: 8, Blocks: 8}, {Op: trace.Write, Depth: 1, Block: 128, Blocks: 512}, {Op: trace.Write, Depth: 1, Block: 8, Blocks: 1}, {Op: trace.Flush, Depth: 1},
		{Op: trace.Read, Depth: 1, Block: 2047, Blocks: 1},
	}}
	s, at := newSmall(t)
	through, r, end := recorder(t, at)
	result, err := Replay([]Machine{{through, "iqn.2026-11.test:one"}}, boot, os.Getpid())
	end()
	if err != nil || result.Ops != 8 || result.Bytes != (1+63+200+8+512+1+1)*512 || result.P99 < result.P50 || result.P50 == 0 || result.Seconds <= 0 {
		t.Errorf("%+v, %v; the target: %v", result, err, s.complaint())
	}
	got, _, err := r.Trace(boot.Size, boot.BlockSize)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(steps(got), steps(boot)) {
		t.Errorf("recorded are\n%+v, replayed were\n%+v", steps(got), steps(boot))
	}
	if err := s.complaint(); err != nil {
		t.Errorf("the target complains: %v", err)
	}
}

// No more is in flight than in the trace, and as much as that where the target is
// slow enough.
func TestAReplayHasTheDepthOfTheTrace(t *testing.T) {
	boot := &trace.Trace{Size: 1 << 20, BlockSize: 512, Steps: []trace.Step{{Op: trace.Login, Segment: 8192}}}
	for k, depth := range []int{1, 2, 3, 4, 4, 1, 1, 2} {
		boot.Steps = append(boot.Steps, trace.Step{Op: trace.Read, Depth: depth, Block: int64(k), Blocks: 1})
	}
	p := &replay{trace: boot, at: 1}
	flight := 0
	var sent []int // in flight at each command, when an answer comes only once nothing can be sent
	for p.at < len(boot.Steps) {
		for p.more(flight) {
			p.next()
			flight++
			sent = append(sent, flight)
		}
		flight--
	}
	if want := []int{1, 2, 3, 4, 4, 1, 1, 2}; !slices.Equal(sent, want) {
		t.Errorf("in flight are %v, want %v", sent, want)
	}
	if p.more(0) {
		t.Error("more is sent than there was")
	}
}

// Machines are many, each is logged in by its own name, and all finish.
func TestManyMachinesReplayAtOnce(t *testing.T) {
	boot := &trace.Trace{Size: 1 << 20, BlockSize: 4096, Steps: []trace.Step{
		{Op: trace.Login, Segment: 8192}, {Op: trace.Read, Depth: 1, Block: 0, Blocks: 16},
		{Op: trace.Login, Segment: 262144}, {Op: trace.Read, Depth: 1, Block: 7, Blocks: 2}, {Op: trace.Read, Depth: 2, Block: 9, Blocks: 1}, {Op: trace.Write, Depth: 1, Block: 16, Blocks: 8}, {Op: trace.Flush, Depth: 1},
	}}
	s, at := newSmall(t)
	machines := make([]Machine, 3*logins)
	for k := range machines {
		machines[k] = Machine{at, "iqn.2026-11.test:many"}
	}
	r, err := Replay(machines, boot, os.Getpid())
	if err != nil || r.Ops != 5*int64(len(machines)) || r.Bytes != 27*4096*int64(len(machines)) {
		t.Errorf("%+v, %v; the target: %v", r, err, s.complaint())
	}
	if err := s.complaint(); err != nil {
		t.Errorf("the target complains: %v", err)
	}
}

// What cannot be replayed ends with an error that names the machine, and with
// every login that was under way.
func TestAReplayThatFailsSaysWhichMachine(t *testing.T) {
	boot := &trace.Trace{Size: 1 << 20, BlockSize: 512, Steps: []trace.Step{
		{Op: trace.Login, Segment: 8192}, {Op: trace.Read, Depth: 1, Block: 0, Blocks: 1}, {Op: trace.Read, Depth: 1, Block: 1, Blocks: 1},
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := Target{Portal: l.Addr().String(), Name: "iqn.2026-11.test:gone"}
	l.Close()
	_, at := newSmall(t)
	if _, err := Replay([]Machine{{at, "iqn.2026-11.test:a"}, {gone, "iqn.2026-11.test:b"}}, boot, os.Getpid()); err == nil || !strings.Contains(err.Error(), "machine 1") {
		t.Errorf("a target that is not there: %v", err)
	}
	bad := &small{keys: []string{"ImmediateData", "Yes"}, segment: 8 << 10, window: 8, volume: make([]byte, 1<<20)}
	n := 0
	bad.twist = func(h *pdu.Header, _ []byte) int {
		if n++; n == 3 { // the login's TEST UNIT READY, the first read's data, its status
			h[3] = 2
		}
		return 0
	}
	if _, err := Replay([]Machine{{bad.start(t), "iqn.2026-11.test:a"}}, boot, os.Getpid()); err == nil || !strings.Contains(err.Error(), "session 0: a command ended with status 02h") {
		t.Errorf("a status that is not good: %v", err)
	}
	far := &trace.Trace{Size: trace.MaxSize, BlockSize: 4096, Steps: []trace.Step{{Op: trace.Login, Segment: 8192}, {Op: trace.Read, Depth: 1, Block: 0, Blocks: 65535}}}
	if _, err := Replay([]Machine{{at, "iqn.2026-11.test:a"}}, far, os.Getpid()); err == nil || !strings.Contains(err.Error(), "READ(10)") {
		t.Errorf("more than a READ(10) of 512-byte blocks counts: %v", err)
	}
}

// What a process holds for itself is less than what it has mapped.
func TestAnonymousMemoryIsAPartOfTheResident(t *testing.T) {
	own, err := Anonymous(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	all, err := Resident(os.Getpid())
	if err != nil || own <= 0 || own > all+64<<20 { // it may have grown in between
		t.Errorf("%d of %d bytes, %v", own, all, err)
	}
	if _, err := Anonymous(1 << 30); err == nil {
		t.Error("a process that there is not has memory")
	}
}
