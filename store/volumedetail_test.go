package store

import "testing"

func TestAVolumeSaysHowMuchOfItIsItsOwn(t *testing.T) {
	for _, tt := range []struct {
		used, reflinked int64
		want            string
	}{
		{4 << 30, 3 << 30, "3 GiB of it shared with other volumes or versions (reflink), 1 GiB its own"},
		{4 << 30, 0, "all of it its own"},
		{4 << 30, -1, ""},
		{-1, -1, ""},
		{0, 0, ""},
	} {
		if got := (VolumeDetail{Used: tt.used, Reflinked: tt.reflinked}).Sharing(); got != tt.want {
			t.Errorf("%d bytes, %d of them in other files as well: %q, want %q", tt.used, tt.reflinked, got, tt.want)
		}
	}
}
