package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"lunboot/store"
	"lunboot/store/volume/clone"
)

// Check reads the maps of all layers of a volume, which may be in use, and says
// what is damaged. A layer that cannot be opened is damaged as a whole.
func (p *Pool) Check(ctx context.Context, v store.Volume) (_ store.VolumeCheck, err error) {
	h, err := p.Open(ctx, v)
	if err != nil {
		return p.checkClosed(ctx, v, err)
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	o, err := h.begin(ctx, 0, 0)
	if err != nil {
		return store.VolumeCheck{}, err
	}
	defer o.gate.leave()
	found := store.VolumeCheck{OK: true}
	for l := o.top; l != nil; l = l.below.Load() {
		one := store.LayerCheck{Layer: l.id, Path: l.name, Damage: []store.Damage{}}
		if c := l.overlay(); c != nil {
			r, err := c.Check(ctx)
			var header *clone.HeaderError
			switch {
			case errors.As(err, &header):
				one.Damage = append(one.Damage, store.Damage{To: -1, What: header.Error()})
			case err != nil:
				return store.VolumeCheck{}, fault("check volume", v.Name, err)
			}
			one.Pages = int64(r.Pages)
			for _, d := range r.Damage {
				one.Damage = append(one.Damage, damaged(d, int64(r.BlockSize)))
			}
		}
		found.OK = found.OK && len(one.Damage) == 0
		found.Layers = append(found.Layers, one)
	}
	slices.Reverse(found.Layers)
	return found, nil
}

func damaged(d clone.Range, block int64) store.Damage {
	from, to := d.Off/block, (d.Off+d.Len-1)/block
	return store.Damage{From: from, To: to, What: fmt.Sprintf("the map of blocks %d to %d is damaged: what they hold cannot be told", from, to)}
}

// checkClosed finds the layer because of which a volume does not open.
func (p *Pool) checkClosed(ctx context.Context, v store.Volume, why error) (store.VolumeCheck, error) {
	if v.State != store.VolumeReady || ctx.Err() != nil {
		return store.VolumeCheck{}, why
	}
	var found store.VolumeCheck
	chain := p.layersOf(v)
	v.ReadOnly = true
	for i, row := range chain {
		one := store.LayerCheck{Layer: row.ID, Path: row.Path, Damage: []store.Damage{}}
		if len(found.Layers) > 0 && len(found.Layers[i-1].Damage) > 0 {
			one.Damage = append(one.Damage, store.Damage{To: -1, What: "it stands on a layer that does not open"})
		} else if l, err := p.hold(v, chain[:i+1]); err != nil {
			one.Damage = append(one.Damage, store.Damage{To: -1, What: fault("open layer", row.Path, err).Error()})
		} else if err := p.drop(l); err != nil {
			return store.VolumeCheck{}, fault("check volume", v.Name, err)
		}
		found.Layers = append(found.Layers, one)
	}
	if last := found.Layers[len(chain)-1]; len(last.Damage) == 0 {
		return store.VolumeCheck{}, why // it opens by now, or fails for another reason
	}
	return found, nil
}
