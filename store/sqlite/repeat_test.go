package sqlite

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"lunboot/store"
)

func openAt(t *testing.T, now func() time.Time) *DB {
	t.Helper()
	db, err := Open(t.Context(), t.TempDir(), now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestARequestIsRememberedIfAndOnlyIfItDidSomething(t *testing.T) {
	db := openAt(t, time.Now)
	ctx, request := t.Context(), [32]byte{7}
	is := func(what, key, want string) {
		t.Helper()
		got, did, found, err := db.DoneUnder(ctx, "ann", key)
		if err != nil || did != want || found != (want != "") || found && got != request {
			t.Errorf("%s: %q, %v, %v; want %q", what, did, found, err, want)
		}
	}
	note := func(key string, fail error) {
		t.Helper()
		err := db.write(db.Under(ctx, "ann", key, request), "test", func(x *tx) error {
			if err := x.audit("ann", "token.create", key, ""); err != nil {
				return err
			}
			return errors.Join(fail, x.audit("ann", "token.update", key, ""))
		})
		if !errors.Is(err, fail) {
			t.Fatal(err)
		}
	}
	is("before", "k1", "")
	note("k1", errors.New("no"))
	is("when it was rolled back", "k1", "")
	note("k1", nil)
	is("what it did first", "k1", "token.create k1")
	if _, did, found, err := db.DoneUnder(ctx, "ben", "k1"); found || err != nil {
		t.Errorf("another's key: %q, %v", did, err)
	}
	if err := db.NotDone(ctx, "ann", "k1"); err != nil {
		t.Fatal(err)
	}
	is("when it failed after all", "k1", "")
	if err := db.Record(ctx, "ann", "backup.create", "backup", ""); err != nil { // under no key
		t.Fatal(err)
	}
}

func TestWhatIsRememberedOfRequestsIsBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	db := openAt(t, func() time.Time { return now })
	count := func() (n int) {
		t.Helper()
		if err := db.file.Reader().QueryRowContext(t.Context(), "SELECT count(*) FROM repeat").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	fill := func(who string, n int) {
		t.Helper()
		for i := range n {
			now = now.Add(time.Millisecond)
			if err := db.Record(db.Under(t.Context(), who, strconv.Itoa(i), [32]byte{}), store.Actor(who), "backup.create", "x", ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill("ann", 1)
	fill("ben", maxRepeatsOf+20)
	if n := count(); n != maxRepeatsOf+1 {
		t.Errorf("%d are remembered", n)
	}
	if _, _, found, err := db.DoneUnder(t.Context(), "ben", "0"); found || err != nil {
		t.Errorf("the oldest: %v, %v", found, err)
	}
	if _, _, found, err := db.DoneUnder(t.Context(), "ann", "0"); !found || err != nil {
		t.Errorf("who asked once: %v, %v", found, err)
	}
	now = now.Add(repeatLife)
	if _, _, found, err := db.DoneUnder(t.Context(), "ann", "0"); found || err != nil {
		t.Errorf("after a day: %v, %v", found, err)
	}
	fill("carl", 1)
	if n := count(); n != 1 {
		t.Errorf("%d are remembered after a day", n)
	}
}
