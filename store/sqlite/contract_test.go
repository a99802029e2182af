package sqlite_test

import (
	"sync"
	"testing"
	"time"

	"lunboot/store/sqlite"
	"lunboot/store/storetest"
)

func TestInventory(t *testing.T) {
	t.Parallel()
	var dirs sync.Map
	storetest.Run(t, func(t *testing.T) storetest.Inventory {
		dir, _ := dirs.LoadOrStore(t, t.TempDir())
		db, err := sqlite.Open(t.Context(), dir.(string), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		return db
	})
}
