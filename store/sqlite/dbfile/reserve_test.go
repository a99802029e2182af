package dbfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestReserveComesBackLater(t *testing.T) {
	c := config(1)
	c.Reserve = 1 << 20
	path := filepath.Join(t.TempDir(), "x.db")
	f := open(t, path, c)
	held := func() bool {
		st, err := os.Stat(path + ".reserve")
		return err == nil && st.Size() == c.Reserve
	}
	if !held() {
		t.Skip("the disk is too full, or its file system sets no room aside")
	}
	full := fmt.Errorf("write: %w", syscall.ENOSPC)
	if err := f.Write(t.Context(), func(*Tx) error { return full }); !errors.Is(err, full) || held() {
		t.Errorf("a full disk: %v; held %v", err, held())
	}
	// At once it would take away the room that was just made.
	if err := f.Write(t.Context(), insert(1)); err != nil || held() {
		t.Errorf("the next write: %v; held %v", err, held())
	}
	f.reserve.given = time.Now().Add(-2 * reserveAgain)
	if err := f.Write(t.Context(), insert(2)); err != nil || !held() {
		t.Errorf("a write later: %v; held %v", err, held())
	}
}
