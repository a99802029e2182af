package store

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Space is the room for volumes, and what becomes of it.
type Space struct {
	At      time.Time `json:"at"`
	Size    int64     `json:"size"`    // bytes of the file system that holds the volumes; 0: not known
	Free    int64     `json:"free"`    // bytes of it that volumes can still take
	Used    int64     `json:"used"`    // bytes that the volumes' files take
	Virtual int64     `json:"virtual"` // bytes of the same volumes as machines see them: what they may come to take
	// Rate is how many bytes a day are taken, by what was seen in Seen; 0 when the
	// room did not shrink, or was not watched for long enough.
	Rate int64         `json:"rate,omitempty"`
	Seen time.Duration `json:"seen,omitempty" doc:"nanoseconds"`
	// Low is the room at which there is a warning, in bytes.
	Low int64 `json:"low"`
}

// RoomSample is one look at the room for volumes.
type RoomSample struct {
	At         time.Time
	Size, Free int64 // bytes, as in Space
}

// Short reports whether the room has fallen below what the operator wants kept.
func (s Space) Short() bool { return s.Free < s.Low }

// InUse is how much of the file system is taken, by whatever.
func (s Space) InUse() int64 { return max(0, s.Size-s.Free) }

// Promised is what the volumes may still come to take, beyond what they have.
func (s Space) Promised() int64 { return max(0, s.Virtual-s.Used) }

// Overcommitted reports whether volumes may come to need more than there is.
func (s Space) Overcommitted() bool { return s.Promised() > s.Free }

// Left is how long the room lasts at the present rate; ok is false when that is
// not known, or is longer than anybody should believe.
func (s Space) Left() (left time.Duration, ok bool) {
	if s.Rate <= 0 || s.Free < 0 {
		return 0, false
	}
	days := float64(s.Free) / float64(s.Rate)
	if days > 365 {
		return 0, false
	}
	return time.Duration(days * float64(24*time.Hour)), true
}

// Forecast says when the file system is full, in words that promise no more than
// is known; empty when nothing is.
func (s Space) Forecast() string {
	left, ok := s.Left()
	if !ok {
		return ""
	}
	return fmt.Sprintf("at the rate of the last %s, %s a day, it is full in about %s", roughly(s.Seen), Bytes(s.Rate), roughly(left))
}

// Warning is what a banner says when there is little room; empty when there is
// enough.
func (s Space) Warning() string {
	if !s.Short() {
		return ""
	}
	text := "Only " + Bytes(s.Free) + " are free for volumes"
	if f := s.Forecast(); f != "" {
		text += "; " + f
	}
	return text + ". A machine whose volume finds no room cannot write: remove volumes, snapshots or images that nobody needs, or make the file system larger."
}

// roughly is a time in the one unit that matters.
func roughly(d time.Duration) string {
	n, unit := int64((d+12*time.Hour)/(24*time.Hour)), "day"
	switch {
	case d < 90*time.Minute:
		n, unit = int64((d+30*time.Second)/time.Minute), "minute"
	case d < 36*time.Hour:
		n, unit = int64((d+30*time.Minute)/time.Hour), "hour"
	}
	if n = max(n, 1); n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}

// SpaceLow reads the room that an operator wants kept: per cent of the file
// system, as "10%", or bytes, as "20G".
func SpaceLow(text string, size int64) (int64, error) {
	if p, ok := strings.CutSuffix(strings.TrimSpace(text), "%"); ok {
		n, err := strconv.ParseFloat(strings.TrimSpace(p), 64)
		if err != nil || !(n >= 0 && n <= 90) {
			return 0, Invalid("value", "%q is no part of a file system; say 0%% to 90%%, or a size such as 20G", text)
		}
		return int64(float64(size) / 100 * n), nil
	}
	return ParseBytes(text)
}
