package load

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"strings"
	"sync"
	"time"
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
	RSS      int64         // bytes that its memory grew by
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

// Run runs reads or writes. pid is the target's process.
func Run(t Target, l Load, pid int) (Result, error) {
	sessions := make([]*session, l.Sessions)
	defer func() {
		for _, s := range sessions {
			if s != nil {
				_ = s.logout() // the load is over
			}
		}
	}()
	for k := range sessions {
		s, err := login(t, initiator(l, k), k, l.Digests)
		if err != nil {
			return Result{}, err
		}
		sessions[k] = s
		if err := s.ready(t); err != nil {
			return Result{}, err
		}
	}
	before, err := CPU(pid)
	if err != nil {
		return Result{}, err
	}
	start := time.Now()
	var wg sync.WaitGroup
	lats, errs := make([]Latencies, l.Sessions), make([]error, l.Sessions)
	for k, s := range sessions {
		wg.Go(func() { errs[k] = s.io(t, l, start.Add(l.Time), &lats[k]) })
	}
	wg.Wait()
	r := Result{Seconds: time.Since(start).Seconds()}
	after, err := CPU(pid)
	if err = errors.Join(append(errs, err)...); err != nil {
		return Result{}, err
	}
	all := &lats[0]
	for k := range lats[1:] {
		all.Merge(&lats[k+1])
	}
	r.Ops, r.Bytes, r.P50, r.P99, r.CPU = all.Count(), all.Count()*int64(l.Block), all.Quantile(0.5), all.Quantile(0.99), after-before
	return r, nil
}

// Logins logs in and out again, with as many workers as the load has sessions.
func Logins(t Target, l Load, pid int) (Result, error) {
	before, err := CPU(pid)
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
					err = s.logout()
				}
				if errs[k] = err; err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	r := Result{Seconds: time.Since(start).Seconds()}
	after, err := CPU(pid)
	if err = errors.Join(append(errs, err)...); err != nil {
		return Result{}, err
	}
	all := &lats[0]
	for k := range lats[1:] {
		all.Merge(&lats[k+1])
	}
	r.Ops, r.P50, r.P99, r.CPU = all.Count(), all.Quantile(0.5), all.Quantile(0.99), after-before
	return r, nil
}

// Hold opens sessions, leaves them idle, and returns the memory that each costs
// the target.
func Hold(t Target, l Load, pid int) (perSession int64, err error) {
	before, err := RSS(pid)
	if err != nil {
		return 0, err
	}
	var open []*session
	defer func() {
		for _, s := range open {
			_ = s.logout()
		}
	}()
	for k := range l.Sessions {
		s, err := login(t, initiator(l, k), k, false)
		if err != nil {
			return 0, err
		}
		open = append(open, s)
	}
	time.Sleep(l.Time)
	after, err := RSS(pid)
	return (after - before) / int64(l.Sessions), err
}

// clockTick is the unit of /proc's CPU times: 1/100 s on every Linux (proc(5)).
const clockTick = 10 * time.Millisecond

// CPU is the CPU time that a process has used, its threads together.
func CPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseCPU(string(b))
}

// parseCPU reads utime and stime, fields 14 and 15 of proc_pid_stat(5). The
// name, field 2, may hold spaces and parentheses.
func parseCPU(stat string) (time.Duration, error) {
	rest := stat[strings.LastIndexByte(stat, ')')+1:]
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("a process's stat of %d fields", len(fields))
	}
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0, fmt.Errorf("a process's CPU times: %w", err)
	}
	return time.Duration(user+system) * clockTick, nil
}

// RSS is the memory that a process holds, in bytes.
func RSS(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0, fmt.Errorf("a process's memory: %w", err)
	}
	return resident * int64(os.Getpagesize()), nil
}
