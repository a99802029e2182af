package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

const profileColumns = `SELECT id, revision, name, kind, fields, text, built_in FROM profile `

func scanProfile(r dbfile.Row) (p store.Profile, err error) {
	var fields string
	if err := r.Scan(&p.ID, &p.Revision, &p.Name, &p.Kind, &fields, &p.Text, &p.BuiltIn); err != nil {
		return store.Profile{}, err
	}
	if err := json.Unmarshal([]byte(fields), &p.Fields); err != nil {
		return store.Profile{}, damaged("profile "+p.Name, err)
	}
	if len(p.Fields) == 0 {
		p.Fields = nil
	}
	return p, nil
}

// Profiles returns every profile, by name.
func (db *DB) Profiles(ctx context.Context) ([]store.Profile, error) {
	return dbfile.List(ctx, db.file.Reader(), scanProfile, profileColumns+"ORDER BY name")
}

// Profile returns the profile with this name.
func (db *DB) Profile(ctx context.Context, name string) (store.Profile, error) {
	return profileBy(ctx, db.file.Reader(), name)
}

func profileBy(ctx context.Context, q dbfile.Querier, name string) (store.Profile, error) {
	return dbfile.One(ctx, q, scanProfile, store.NotFound("profile", name), profileColumns+"WHERE name = ?", name)
}

// PutProfile adds the profile with this name, or changes it. Built-in profiles
// stay as they are.
func (db *DB) PutProfile(ctx context.Context, actor store.Actor, p store.Profile) (store.Profile, error) {
	p.Fields = maps.Clone(p.Fields)
	if err := p.Validate(); err != nil {
		return store.Profile{}, err
	}
	err := db.write(ctx, "set profile", func(t *tx) error {
		old, err := profileBy(t.Ctx, t, p.Name)
		if err != nil && !store.IsNotFound(err) {
			return err
		}
		if old.BuiltIn {
			return builtIn(p.Name)
		}
		if err := checkRevision("profile", p.Name, old.Revision, p.Revision); err != nil {
			return err
		}
		p.ID, p.Revision, p.BuiltIn = old.ID, old.Revision, false
		if len(p.Fields) == 0 {
			p.Fields = nil
		}
		changes := profileChanges(&old, &p)
		if changes.empty() {
			return nil
		}
		p.Revision++
		fields, err := json.Marshal(p.Fields)
		if err != nil {
			return err
		}
		if p.ID == 0 {
			p.ID, err = t.Insert("INSERT INTO profile (revision, name, kind, fields, text, built_in) VALUES (?, ?, ?, ?, ?, 0)",
				p.Revision, p.Name, string(p.Kind), string(fields), p.Text)
		} else {
			_, err = t.Run("UPDATE profile SET revision = ?, kind = ?, fields = ?, text = ? WHERE id = ?",
				p.Revision, string(p.Kind), string(fields), p.Text, p.ID)
		}
		if err != nil {
			return err
		}
		t.move(changed)
		return t.auditDiff(actor, "profile.put", p.Name, changes)
	})
	if err != nil {
		return store.Profile{}, err
	}
	return p, nil
}

// DeleteProfile removes a profile that no machine has.
func (db *DB) DeleteProfile(ctx context.Context, actor store.Actor, name string) error {
	return db.write(ctx, "remove profile", func(t *tx) error {
		p, err := profileBy(t.Ctx, t, name)
		if err != nil {
			return err
		}
		if p.BuiltIn {
			return builtIn(name)
		}
		used, err := dbfile.List(t.Ctx, t, dbfile.Scalar[string], "SELECT name FROM machine WHERE profile = ? OR once_profile = ? ORDER BY name LIMIT 10", name, name)
		if err != nil {
			return err
		}
		if len(used) > 0 {
			return store.InUse("profile %s belongs to machine %s; give that another profile first", name, strings.Join(used, ", "))
		}
		// A menu that offered it would lead nowhere.
		menus, err := dbfile.List(t.Ctx, t, scanProfile, profileColumns+"WHERE kind = ? AND name <> ? ORDER BY name", string(store.ProfileMenu), name)
		if err != nil {
			return err
		}
		for _, m := range menus {
			if m.Gives(name) {
				return store.InUse("the menu of profile %s offers %s; take it out of that menu first", m.Name, name)
			}
		}
		if _, err := t.Run("DELETE FROM profile WHERE name = ?", name); err != nil {
			return err
		}
		t.move(changed)
		return t.auditDiff(actor, "profile.delete", name, profileChanges(&p, &store.Profile{}).gone("kind "+string(p.Kind)))
	})
}

func builtIn(name string) error {
	return &store.Error{Kind: store.KindDenied, Field: "name",
		Msg: fmt.Sprintf("profile %s is built in and stays as it is; make one under another name", name)}
}

func profileChanges(a, b *store.Profile) diff {
	var d diff
	d.add("name", a.Name, b.Name)
	d.add("kind", string(a.Kind), string(b.Kind))
	keys := map[string]bool{}
	for k := range a.Fields {
		keys[k] = true
	}
	for k := range b.Fields {
		keys[k] = true
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		d.long(k, a.Fields[k], b.Fields[k])
	}
	d.long("text", a.Text, b.Text)
	return d
}
