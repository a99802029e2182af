package sqlite

import (
	"strconv"
	"testing"
	"time"
)

func TestALogoutThatWasToldIsRememberedOverARestartAndNotForEver(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	ctx, until := t.Context(), now.Add(10*time.Minute)
	reopened := func() *DB {
		t.Helper()
		db, err := Open(ctx, dir, func() time.Time { return now })
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := reopened()
	told := func(what, issuer, jti string, want bool) {
		t.Helper()
		if got, err := db.LogoutTold(ctx, issuer, jti); err != nil || got != want {
			t.Errorf("%s: %t, %v", what, got, err)
		}
	}
	keep := func(jti string) {
		t.Helper()
		if err := db.KeepLogout(ctx, "https://a", jti, until); err != nil {
			t.Fatal(err)
		}
	}
	count := func() (n int) {
		t.Helper()
		if err := db.file.Reader().QueryRowContext(ctx, "SELECT count(*) FROM logout").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	told("before", "https://a", "1", false)
	keep("1")
	keep("1")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = reopened()
	defer func() { _ = db.Close() }()
	told("after a restart", "https://a", "1", true)
	told("another provider's", "https://b", "1", false)
	told("another", "https://a", "2", false)
	for n := range 5 {
		until = until.Add(time.Second)
		keep("more" + strconv.Itoa(n))
	}
	now = until
	told("when it is over", "https://a", "1", false)
	until = until.Add(time.Minute)
	keep("last")
	if n := count(); n != 1 {
		t.Errorf("%d are kept when all but one are over", n)
	}
	err := db.write(ctx, "fill", func(x *tx) error {
		for n := range maxLogouts {
			if _, err := x.Run("INSERT INTO logout VALUES (?, ?)", strconv.AppendInt(nil, int64(n), 10), until.Add(time.Hour).UnixNano()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	until = until.Add(2 * time.Hour)
	keep("newest")
	told("the newest of very many", "https://a", "newest", true)
	told("the oldest", "https://a", "last", false)
	if n := count(); n != maxLogouts {
		t.Errorf("%d are kept", n)
	}
}
