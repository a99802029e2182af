package iscsi

import (
	"sync"
	"time"

	"lunboot/services/iscsi/session"
)

// What a limiter tells apart.
const (
	limitNoLUN = iota
	limitFailed
	limitCrowd
	limitAccept
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

// reasons say in plain words what sense data means, by key and additional codes
// (SPC-4 annex F); -1 stands for any qualifier.
var reasons = []struct {
	key, asc byte
	ascq     int
	text     string
}{
	{0x03, 0x11, -1, "the volume could not be read"},
	{0x03, 0x0c, -1, "the volume could not be written"},
	{0x05, 0x21, -1, "it lies beyond the end of the volume"},
	{0x05, 0x24, -1, "the command has a field that the target does not accept"},
	{0x07, 0x27, 0x07, "the appliance has no space left for the volume"},
	{0x07, 0x27, -1, "the volume may not be written"},
	{0x0b, 0x0c, -1, "the initiator sent other data than was agreed"},
	{0x0b, 0x47, -1, "data was damaged on its way: a digest was wrong"},
	{0x0b, 0x4b, -1, "the initiator sent data out of order"},
	{0x0e, 0x1d, -1, "the data differs from what was compared"},
}

// senseReason says why a command failed.
func senseReason(f session.Failure) string {
	for _, r := range reasons {
		if r.key == f.Key && r.asc == f.ASC && (r.ascq < 0 || byte(r.ascq) == f.ASCQ) {
			return r.text
		}
	}
	return ""
}
