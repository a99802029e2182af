package sqlite

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

const loaderColumns = `SELECT chain, name, revision, role, firmware, arch, version, features, opaque, size, sha256, created, updated FROM loader `

func scanLoader(r dbfile.Row) (store.Loader, error) {
	var (
		l                store.Loader
		features         string
		created, updated int64
	)
	err := r.Scan(&l.Chain, &l.Name, &l.Revision, &l.Role, &l.Firmware, &l.Arch, &l.Version, &features, &l.Opaque, &l.Size, &l.SHA256, &created, &updated)
	if err != nil {
		return store.Loader{}, err
	}
	if err := json.Unmarshal([]byte(features), &l.Features); err != nil {
		return store.Loader{}, damaged("loader "+l.Key(), err)
	}
	if len(l.Features) == 0 {
		l.Features = nil
	}
	l.Created, l.Updated = dbfile.Instant(created), dbfile.Instant(updated)
	return l, nil
}

// SuppliedLoaders returns the loaders that the operator supplied, by chain and
// name.
func (db *DB) SuppliedLoaders(ctx context.Context) ([]store.Loader, error) {
	return dbfile.List(ctx, db.file.Reader(), scanLoader, loaderColumns+"ORDER BY chain, name")
}

// PutLoader adds a loader, or takes the place of the one of its chain and name.
// A chain has one first and one second file, for one platform.
func (db *DB) PutLoader(ctx context.Context, actor store.Actor, l store.Loader) (store.Loader, error) {
	l.Features = slices.Clone(l.Features)
	if err := l.Validate(); err != nil {
		return store.Loader{}, err
	}
	err := db.write(ctx, "keep loader", func(t *tx) error {
		beside, err := dbfile.List(t.Ctx, t, scanLoader, loaderColumns+"WHERE chain = ?", l.Chain)
		if err != nil {
			return err
		}
		l.Revision, l.Created, l.Updated = 1, t.now, t.now
		for _, o := range beside {
			switch {
			case o.Name == l.Name:
				l.Revision, l.Created = o.Revision+1, o.Created
			case l.Chain != "" && o.Role == l.Role:
				return store.Conflict("role", "the chain %s has a %s file already, %s; remove it first", l.Chain, o.Role, o.Name)
			case l.Chain != "" && (o.Firmware != l.Firmware || o.Arch != l.Arch):
				return store.Conflict("file", "the chain %s is for %s %s, and this file for %s %s", l.Chain, o.Firmware, o.Arch, l.Firmware, l.Arch)
			}
		}
		_, err = t.Run(`INSERT INTO loader (chain, name, revision, role, firmware, arch, version, features, opaque, size, sha256, created, updated)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (chain, name) DO UPDATE SET revision = excluded.revision, role = excluded.role, firmware = excluded.firmware, arch = excluded.arch,
				version = excluded.version, features = excluded.features, opaque = excluded.opaque, size = excluded.size, sha256 = excluded.sha256, updated = excluded.updated`,
			l.Chain, l.Name, l.Revision, string(l.Role), l.Firmware, l.Arch, l.Version, jsonList(l.Features), l.Opaque, l.Size, l.SHA256, dbfile.Nanos(l.Created), dbfile.Nanos(l.Updated))
		if err != nil {
			return err
		}
		t.move(changed)
		return t.audit(actor, "loader.put", l.Key(), strings.TrimSpace("SHA-256 "+l.SHA256+" "+string(l.Role)))
	})
	if err != nil {
		return store.Loader{}, err
	}
	return l, nil
}

// DeleteLoader forgets a loader that the operator supplied.
func (db *DB) DeleteLoader(ctx context.Context, actor store.Actor, chain, name string) error {
	return db.write(ctx, "remove loader", func(t *tx) error {
		l, err := dbfile.One(t.Ctx, t, scanLoader, store.NotFound("loader of the operator's", (&store.Loader{Chain: chain, Name: name}).Key()),
			loaderColumns+"WHERE chain = ? AND name = ?", chain, name)
		if err != nil {
			return err
		}
		if _, err := t.Run("DELETE FROM loader WHERE chain = ? AND name = ?", chain, name); err != nil {
			return err
		}
		t.move(changed)
		return t.audit(actor, "loader.delete", l.Key(), "SHA-256 "+l.SHA256)
	})
}

func scanTrial(r dbfile.Row) (t store.LoaderTrial, err error) {
	var last int64
	err = r.Scan(&t.Key, &t.Loader, &t.Outcome, &t.Times, &t.Strikes, &last)
	t.Last = dbfile.Instant(last)
	return t, err
}

// LoaderTrials returns what was learnt of loaders, by key and loader.
func (db *DB) LoaderTrials(ctx context.Context) ([]store.LoaderTrial, error) {
	return dbfile.List(ctx, db.file.Reader(), scanTrial, "SELECT key, loader, outcome, times, strikes, last FROM loader_trial ORDER BY key, loader")
}

// PutLoaderTrial keeps what was learnt of a loader; it is on disk when it
// returns nil. There is no audit row: a boot taught it, and no operator.
func (db *DB) PutLoaderTrial(ctx context.Context, l store.LoaderTrial) error {
	if err := l.Validate(); err != nil {
		return err
	}
	return db.batch.do(ctx, "keep loader trial", func(t *tx) error {
		_, err := t.Run(`INSERT INTO loader_trial (key, loader, outcome, times, strikes, last) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (key, loader) DO UPDATE SET outcome = excluded.outcome, times = excluded.times, strikes = excluded.strikes, last = excluded.last`,
			l.Key, l.Loader, string(l.Outcome), l.Times, l.Strikes, dbfile.Nanos(l.Last))
		if err != nil {
			return err
		}
		t.move(changed)
		n, err := dbfile.One(t.Ctx, t, dbfile.Scalar[int], nil, "SELECT count(*) FROM loader_trial")
		if err != nil || n <= store.MaxLoaderTrials {
			return err
		}
		_, err = t.Run("DELETE FROM loader_trial WHERE (key, loader) IN (SELECT key, loader FROM loader_trial ORDER BY last, key, loader LIMIT ?)", n-store.MaxLoaderTrials)
		return err
	})
}
