package main

import "testing"

func TestSessionsFitTheLimitOfOpenFiles(t *testing.T) {
	for files, want := range map[uint64]int{0: 16, 256: 16, 1024: 212, 2000: 700, 2648: 1024, 65536: 1024, 1<<64 - 1: 1024} {
		if n := sessionsWithin(files); n != want {
			t.Errorf("%d files are enough for %d sessions, want %d", files, n, want)
		}
	}
}
