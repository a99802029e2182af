package sqlite

import (
	"io/fs"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// A token that was made before tokens had owners belongs to whoever the audit log
// says made it.
func TestOlderTokensGetTheirOwner(t *testing.T) {
	dir := t.TempDir()
	older := fstest.MapFS{}
	steps, err := fs.Sub(migrations, "migrations/inventory")
	if err != nil {
		t.Fatal(err)
	}
	names, err := fs.Glob(steps, "00*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if n >= "0019" {
			continue
		}
		b, err := fs.ReadFile(steps, n)
		if err != nil {
			t.Fatal(err)
		}
		older[n] = &fstest.MapFile{Data: b}
	}
	f, err := dbfile.Open(t.Context(), filepath.Join(dir, inventoryFile+".db"), dbfile.Config{Synchronous: "FULL", Migrations: older, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	tokens := map[string]struct {
		makers []string // the last one counts: a name may have been another token's before
		at     int
		owner  string
		since  int64
	}{
		"annas":         {[]string{"anna"}, 20, "anna", 10},
		"annas-again":   {[]string{"ben", "local root", "anna"}, 20, "anna", 10},
		"before-anna":   {[]string{"anna"}, 5, "anna", 0}, // of another anna
		"of-the-gone":   {[]string{"carl"}, 20, "carl", 0},
		"of-the-socket": {[]string{"anna", "local root"}, 20, "", 0},
		"of-a-member":   {[]string{"local user 1000"}, 20, "", 0},
		"of-a-token":    {[]string{"token annas"}, 20, "", 0},
		"of-the-system": {[]string{"system"}, 20, "", 0},
		"unrecorded":    {nil, 20, "", 0},
	}
	err = f.Write(t.Context(), func(tx *dbfile.Tx) error {
		for _, name := range []string{"anna", "ben"} {
			if _, err := tx.Run("INSERT INTO user (name, hash, created, updated) VALUES (?, 'x', 10, 10)", name); err != nil {
				return err
			}
		}
		for name, k := range tokens {
			if _, err := tx.Insert("INSERT INTO token (name, hash, scope, created, expires, last_used) VALUES (?, ?, 'admin', ?, 0, 0)", name, "hash of "+name, k.at); err != nil {
				return err
			}
			for _, by := range k.makers {
				if _, err := tx.Insert("INSERT INTO audit (at, actor, action, subject, detail) VALUES (1, ?, 'token.create', ?, '')", by, name); err != nil {
					return err
				}
			}
			if _, err := tx.Insert("INSERT INTO audit (at, actor, action, subject, detail) VALUES (1, 'ben', 'token.delete', ?, '')", name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := Open(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all, err := db.Tokens(t.Context())
	if err != nil || len(all) != len(tokens) {
		t.Fatal(all, err)
	}
	for _, k := range all {
		if want := tokens[k.Name]; k.Owner != want.owner || dbfile.Nanos(k.OwnerSince) != want.since {
			t.Errorf("%s is of %q since %d, want %q since %d", k.Name, k.Owner, dbfile.Nanos(k.OwnerSince), want.owner, want.since)
		}
	}
	// And nobody is refused, nor logged out elsewhere, who was not before.
	us, err := db.Users(t.Context())
	if err != nil || len(us) != 2 || us[0].Refused || us[1].Refused {
		t.Errorf("%+v, %v", us, err)
	}
	if o, err := db.OIDC(t.Context()); err != nil || o.Logout {
		t.Errorf("%+v, %v", o, err)
	}
	if u, err := db.User(t.Context(), "anna"); err != nil || u.Role != store.RoleAdmin {
		t.Errorf("%+v, %v", u, err)
	}
}
