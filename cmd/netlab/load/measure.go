package load

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/cmd/netlab/load/rounds"
	"lunboot/services/iscsi/pdu"
)

// Latencies is a histogram of durations with a precision of 1/16.
type Latencies struct {
	counts [64 * 16]int64
	n      int64
}

// Add counts one.
func (l *Latencies) Add(d time.Duration) {
	l.counts[bucket(uint64(max(d, 1)))]++
	l.n++
}

// bucket numbers durations: the highest bit, then the four below it.
func bucket(n uint64) int {
	high := bits.Len64(n) - 1
	if high < 4 {
		return int(n)
	}
	return high<<4 | int(n>>(high-4)&15)
}

// lower is the smallest duration of a bucket.
func lower(b int) time.Duration {
	high := b >> 4
	if high < 4 {
		return time.Duration(b)
	}
	return time.Duration(uint64(16|b&15) << (high - 4))
}

// Merge adds another histogram.
func (l *Latencies) Merge(o *Latencies) {
	for k, n := range o.counts {
		l.counts[k] += n
	}
	l.n += o.n
}

// Count is how many were added.
func (l *Latencies) Count() int64 { return l.n }

// Quantile is the duration below which that part of all lies.
func (l *Latencies) Quantile(q float64) time.Duration {
	left := int64(q * float64(l.n))
	for b, n := range l.counts {
		if left -= n; left < 0 {
			return lower(b)
		}
	}
	return 0
}

// Result is what a load measured.
type Result struct {
	Ops      int64
	Bytes    int64
	Seconds  float64
	P50, P99 time.Duration
	CPU      time.Duration // of the target's process
	Own      time.Duration // of the load itself
	RSS      int64         // bytes that its memory grew by for a session
}

// IOPS are operations per second.
func (r Result) IOPS() float64 { return float64(r.Ops) / r.Seconds }

// CPUPerOp is the target's CPU time for one operation.
func (r Result) CPUPerOp() time.Duration { return r.CPU / time.Duration(max(r.Ops, 1)) }

// SessionsPerName is how many sessions one initiator name has: targets bound
// them, and a classroom has many names.
const SessionsPerName = 32

// initiator is the name of the k-th session.
func initiator(l Load, k int) string { return fmt.Sprintf("%s-%d", l.Initiator, k/SessionsPerName) }

// leave ends sessions; how they end is of no interest any more. A target that
// has failed is not asked to log each of them out: it may take its time.
func leave(t Target, sessions []*session, politely bool) {
	for _, s := range sessions {
		switch {
		case politely:
			_ = s.logout(t)
		case s.conn != nil:
			_ = s.conn.Close()
		}
	}
}

// Run runs reads or writes. pid is the target's process.
func Run(t Target, l Load, pid int) (r Result, err error) {
	var sessions []*session
	defer func() { leave(t, sessions, err == nil) }()
	for k := range l.Sessions {
		s, err := login(t, initiator(l, k), k, l.Digests)
		if err != nil {
			return Result{}, err
		}
		sessions = append(sessions, s)
		attr := pdu.AttrSimple
		if l.Ordered {
			attr = pdu.AttrOrdered
		}
		if err := s.ready(t, attr); err != nil {
			return Result{}, err
		}
	}
	e, err := newEngine(l, t.LUN, sessions)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	before, err := rounds.CPUTime(pid)
	if err != nil {
		return Result{}, err
	}
	start := time.Now()
	r.Own, err = e.run()
	r.Seconds = time.Since(start).Seconds()
	after, failed := rounds.CPUTime(pid)
	if err = errors.Join(err, failed); err != nil {
		return Result{}, err
	}
	r.Ops, r.Bytes, r.P50, r.P99, r.CPU = e.lat.Count(), e.lat.Count()*int64(l.Block), e.lat.Quantile(0.5), e.lat.Quantile(0.99), after-before
	return r, nil
}

// Logins logs in and out again, with as many workers as the load has sessions.
func Logins(t Target, l Load, pid int) (Result, error) {
	before, err := rounds.CPUTime(pid)
	if err != nil {
		return Result{}, err
	}
	own, err := ownCPU(unix.RUSAGE_SELF)
	if err != nil {
		return Result{}, err
	}
	start := time.Now()
	until := start.Add(l.Time)
	var wg sync.WaitGroup
	lats, errs := make([]Latencies, l.Sessions), make([]error, l.Sessions)
	for k := range l.Sessions {
		wg.Go(func() {
			for at := time.Now(); at.Before(until); at = time.Now() {
				s, err := login(t, initiator(l, k), k, false)
				if err == nil {
					lats[k].Add(time.Since(at))
					err = s.logout(t)
				}
				if errs[k] = err; err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	r := Result{Seconds: time.Since(start).Seconds()}
	after, err := rounds.CPUTime(pid)
	used, failed := ownCPU(unix.RUSAGE_SELF)
	if err = errors.Join(append(errs, err, failed)...); err != nil {
		return Result{}, err
	}
	all := &lats[0]
	for k := range lats[1:] {
		all.Merge(&lats[k+1])
	}
	r.Ops, r.P50, r.P99, r.CPU = all.Count(), all.Quantile(0.5), all.Quantile(0.99), after-before
	r.Own = used - own
	return r, nil
}

// Hold opens sessions, leaves them idle, and measures the memory that each costs
// the target. What a load has used and freed hides that, so the process must be
// fresh; one login goes before, for what is set aside only once.
func Hold(t Target, l Load, pid int) (r Result, err error) {
	s, err := login(t, initiator(l, 0), l.Sessions, false)
	if err != nil {
		return Result{}, err
	}
	if err := errors.Join(s.ready(t, pdu.AttrSimple), s.logout(t)); err != nil {
		return Result{}, err
	}
	time.Sleep(l.Time)
	before, err := Resident(pid)
	if err != nil {
		return Result{}, err
	}
	var open []*session
	defer func() { leave(t, open, err == nil) }()
	for k := range l.Sessions {
		s, err := login(t, initiator(l, k), k, false)
		if err != nil {
			return Result{}, err
		}
		open = append(open, s)
		if err := s.ready(t, pdu.AttrSimple); err != nil {
			return Result{}, err
		}
	}
	time.Sleep(l.Time)
	after, err := Resident(pid)
	return Result{RSS: (after - before) / int64(l.Sessions), Ops: int64(l.Sessions), Seconds: l.Time.Seconds()}, err
}

// Resident is the memory that a process holds, in bytes.
func Resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		return 0, fmt.Errorf("a process's memory: %w", err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// Anonymous is the memory that a process holds for itself, in bytes: without the
// pages of files, which it shares with the page cache (proc_pid_status(5)).
func Anonymous(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			var kib int64
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				return 0, fmt.Errorf("a process's memory: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("process %d does not say RssAnon", pid)
}
