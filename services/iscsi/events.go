package iscsi

import (
	"fmt"
	"sync"
	"time"
)

// What a limiter tells apart.
const (
	limitNoLUN = iota
	limitFailed
)

type limitKey struct {
	what int
	lun  uint64
	op   byte
}

// limiter lets one event of a kind pass in a second, the first one always: an
// initiator repeats a command that failed as fast as it can.
type limiter struct {
	mu   sync.Mutex
	last map[limitKey]time.Time
}

// maxLimits bounds what a limiter remembers; beyond it, old entries go.
const maxLimits = 256

func (l *limiter) allow(k limitKey, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.last[k]; ok && now.Sub(at) < time.Second {
		return false
	}
	if l.last == nil {
		l.last = make(map[limitKey]time.Time)
	}
	if len(l.last) >= maxLimits {
		for o, at := range l.last {
			if now.Sub(at) >= time.Second {
				delete(l.last, o)
			}
		}
		if len(l.last) >= maxLimits {
			return false // someone tries every LUN there is; what was said suffices
		}
	}
	l.last[k] = now
	return true
}

// opNames are the commands that boots send (SPC-4, SBC-3).
var opNames = map[byte]string{
	0x00: "TEST UNIT READY", 0x03: "REQUEST SENSE", 0x08: "READ(6)", 0x0a: "WRITE(6)", 0x12: "INQUIRY",
	0x15: "MODE SELECT(6)", 0x1a: "MODE SENSE(6)", 0x1b: "START STOP UNIT", 0x25: "READ CAPACITY(10)", 0x28: "READ(10)",
	0x2a: "WRITE(10)", 0x2e: "WRITE AND VERIFY(10)", 0x2f: "VERIFY(10)", 0x35: "SYNCHRONIZE CACHE(10)", 0x41: "WRITE SAME(10)",
	0x42: "UNMAP", 0x55: "MODE SELECT(10)", 0x5a: "MODE SENSE(10)", 0x5e: "PERSISTENT RESERVE IN", 0x5f: "PERSISTENT RESERVE OUT",
	0x88: "READ(16)", 0x89: "COMPARE AND WRITE", 0x8a: "WRITE(16)", 0x8e: "WRITE AND VERIFY(16)", 0x8f: "VERIFY(16)",
	0x91: "SYNCHRONIZE CACHE(16)", 0x93: "WRITE SAME(16)", 0x9e: "SERVICE ACTION IN(16)", 0xa0: "REPORT LUNS", 0xa3: "MAINTENANCE IN",
	0xa8: "READ(12)", 0xaa: "WRITE(12)", 0xae: "WRITE AND VERIFY(12)", 0xaf: "VERIFY(12)",
}

// opName is a command's name for people.
func opName(op byte) string {
	if s, ok := opNames[op]; ok {
		return s
	}
	return fmt.Sprintf("command %02Xh", op)
}
