package store

import (
	"strings"
	"testing"
	"time"
)

func TestAForecastPromisesNoMoreThanIsKnown(t *testing.T) {
	const g = 1 << 30
	for _, c := range []struct {
		s    Space
		want string
	}{
		{Space{Free: 30 * g}, ""},
		{Space{Free: 30 * g, Rate: 10 * g, Seen: 24 * time.Hour}, "at the rate of the last 24 hours, 10 GiB a day, it is full in about 3 days"},
		{Space{Free: 10 * g, Rate: 240 * g, Seen: 45 * time.Minute}, "at the rate of the last 45 minutes, 240 GiB a day, it is full in about 60 minutes"},
		{Space{Free: 1000 * g, Rate: g, Seen: 24 * time.Hour}, ""}, // nobody knows the year after next
		{Space{Free: 1, Rate: 240 * g, Seen: time.Hour}, "at the rate of the last 60 minutes, 240 GiB a day, it is full in about 1 minute"},
	} {
		if got := c.s.Forecast(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.s, got, c.want)
		}
	}
	s := Space{Free: 5 * g, Low: 10 * g, Used: 20 * g, Virtual: 100 * g}
	if w := s.Warning(); !s.Short() || !strings.HasPrefix(w, "Only 5 GiB are free for volumes. ") || s.Promised() != 80*g || !s.Overcommitted() {
		t.Errorf("%q, %d promised", w, s.Promised())
	}
	s.Free = 90 * g
	if s.Warning() != "" || s.Overcommitted() {
		t.Errorf("there is room: %q", s.Warning())
	}
}

func TestTheRoomToKeepIsAPartOrASize(t *testing.T) {
	for text, want := range map[string]int64{"10%": 100, "0%": 0, " 2.5 %": 25, "20G": 20 << 30, "x": -1, "-1%": -1, "91%": -1, "%": -1, "NaN%": -1, "": -1} {
		got, err := SpaceLow(text, 1000)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}
