package sqlite

import (
	"context"
	"encoding/json"
	"strings"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

const mediaColumns = `SELECT name, revision, kind, size, sha256, file, contents, created FROM media `

func scanMedia(r dbfile.Row) (m store.Media, err error) {
	var contents string
	var created int64
	if err := r.Scan(&m.Name, &m.Revision, &m.Kind, &m.Size, &m.SHA256, &m.File, &contents, &created); err != nil {
		return store.Media{}, err
	}
	if err := json.Unmarshal([]byte(contents), &m.Contents); err != nil {
		return store.Media{}, damaged("media "+m.Name, err)
	}
	m.Created = dbfile.Instant(created)
	return m, nil
}

// AllMedia returns every media file, by name.
func (db *DB) AllMedia(ctx context.Context) ([]store.Media, error) {
	return dbfile.List(ctx, db.file.Reader(), scanMedia, mediaColumns+"ORDER BY name")
}

// Media returns the media file with this name.
func (db *DB) Media(ctx context.Context, name string) (store.Media, error) {
	return mediaBy(ctx, db.file.Reader(), name)
}

func mediaBy(ctx context.Context, q dbfile.Querier, name string) (store.Media, error) {
	return dbfile.One(ctx, q, scanMedia, store.NotFound("media", name), mediaColumns+"WHERE name = ?", name)
}

// CreateMedia adds a media file, whose bytes are on disk already.
func (db *DB) CreateMedia(ctx context.Context, actor store.Actor, m store.Media) (store.Media, error) {
	if err := m.Validate(); err != nil {
		return store.Media{}, err
	}
	err := db.write(ctx, "add media", func(t *tx) error {
		if _, err := mediaBy(t.Ctx, t, m.Name); err == nil {
			return store.Conflict("name", "media %s exists already; remove it first, or choose another name", m.Name)
		} else if !store.IsNotFound(err) {
			return err
		}
		n, err := dbfile.One(t.Ctx, t, dbfile.Scalar[int], nil, "SELECT count(*) FROM media")
		if err != nil {
			return err
		}
		if n >= store.MaxMedia {
			return store.Invalid("name", "%d media files are kept already, which is all there may be; remove one first", n)
		}
		contents, err := json.Marshal(m.Contents)
		if err != nil {
			return err
		}
		m.Revision, m.Created = 1, t.now
		_, err = t.Run("INSERT INTO media (name, revision, kind, size, sha256, file, contents, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			m.Name, m.Revision, string(m.Kind), m.Size, m.SHA256, m.File, string(contents), dbfile.Nanos(m.Created))
		if err != nil {
			return err
		}
		t.move(changed)
		return t.audit(actor, "media.create", m.Name, "SHA-256 "+m.SHA256)
	})
	if err != nil {
		return store.Media{}, err
	}
	m.Created = stored(m.Created)
	return m, nil
}

// DeleteMedia forgets a media file that no profile names.
func (db *DB) DeleteMedia(ctx context.Context, actor store.Actor, name string) error {
	return db.write(ctx, "remove media", func(t *tx) error {
		m, err := mediaBy(t.Ctx, t, name)
		if err != nil {
			return err
		}
		profiles, err := dbfile.List(t.Ctx, t, scanProfile, profileColumns+"ORDER BY name")
		if err != nil {
			return err
		}
		var users []string
		for _, p := range profiles {
			if p.Uses(name) {
				users = append(users, p.Name)
			}
		}
		if len(users) > 0 {
			return store.InUse("media %s belongs to profile %s; change or remove that first", name, strings.Join(users, ", "))
		}
		if _, err := t.Run("DELETE FROM media WHERE name = ?", name); err != nil {
			return err
		}
		t.move(changed)
		return t.audit(actor, "media.delete", name, "SHA-256 "+m.SHA256)
	})
}
