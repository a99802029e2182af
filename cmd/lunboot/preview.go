package main

import (
	"context"
	"errors"

	"lunboot/scripts"
	"lunboot/store"
	"lunboot/store/sqlite"
)

// previews shows scripts as a machine on the boot network would get them.
type previews struct{ a *appliance }

func (p previews) Preview(ctx context.Context, m store.Machine, profile *store.Profile) (string, error) {
	name := ""
	if profile != nil {
		name = profile.Name
	}
	return p.a.scripts.Preview(ctx, m, name, p.a.bootAddr(p.a.network.localFor(m)))
}

// Draft checks a profile that is being written, as it is when it is saved, and
// shows the script that a machine would be given by it; no machine, no script.
func (p previews) Draft(ctx context.Context, m store.Machine, profile store.Profile) (string, error) {
	if err := (renderer{p.a.db}).Check(ctx, profile); err != nil || m.ID == 0 {
		return "", err
	}
	return p.a.scripts.Draft(ctx, m, profile, p.a.bootAddr(p.a.network.localFor(m)))
}

// renderer checks a profile by rendering it once with sample facts.
type renderer struct{ db *sqlite.DB }

func (r renderer) Check(ctx context.Context, p store.Profile) error {
	kept, err := r.db.AllMedia(ctx)
	if err != nil {
		return err
	}
	if err := scripts.Check(p, kept); err != nil {
		var e *store.Error
		if errors.As(err, &e) {
			return err
		}
		return store.Invalid("text", "%v", err)
	}
	if p.Kind != store.ProfileMenu {
		return nil
	}
	m, err := p.Menu()
	if err != nil {
		return err
	}
	for _, i := range m.Items {
		o, err := r.db.Profile(ctx, i.Profile)
		switch {
		case err != nil && !store.IsNotFound(err):
			return err
		case err != nil:
			return store.Invalid("items", "the menu offers %s, and there is no such profile", i.Profile)
		case o.Kind == store.ProfileMenu:
			return store.Invalid("items", "the menu offers %s, which is a menu itself", i.Profile)
		}
	}
	return nil
}
