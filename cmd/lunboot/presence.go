package main

import (
	"context"
	"path/filepath"
	"time"

	"lunboot/services/doctor"
	"lunboot/store"
)

// fileChecks compare the volumes with what lies in their folder.
func (a *appliance) fileChecks(ctx context.Context) []doctor.Check {
	dir := filepath.Join(a.dir, "volumes")
	looked, troubles, err := a.fileTroubles(ctx)
	strays, strayErr := a.pool.Strays(func() ([]store.Layer, []store.Volume, error) {
		volumes, err := a.db.Volumes(ctx)
		if err != nil {
			return nil, nil, err
		}
		layers, err := a.db.Layers(ctx)
		return layers, volumes, err
	})
	return append(doctor.VolumeFiles(dir, looked, troubles, err), doctor.StrayFiles(dir, strays, strayErr, time.Now()))
}

// fileTroubles looks at every volume that is ready.
func (a *appliance) fileTroubles(ctx context.Context) (looked int, out []store.FileTrouble, err error) {
	all, err := a.db.Volumes(ctx)
	if err != nil {
		return 0, nil, err
	}
	for _, v := range all {
		if v.State != store.VolumeReady {
			continue
		}
		looked++
		if _, bad := a.pool.Trouble(v); !bad {
			continue
		}
		v, err := a.db.Volume(ctx, v.ID) // it may have other files by now, or be removed
		if store.IsNotFound(err) {
			continue
		}
		if err != nil {
			return looked, nil, err
		}
		if t, bad := a.pool.Trouble(v); bad && v.State == store.VolumeReady {
			out = append(out, t)
		}
	}
	return looked, out, nil
}
