package inventory

import (
	"context"
	"errors"
	"fmt"

	"lunboot/store"
)

// Recover finishes or undoes what the last run left half-done. What was to be
// created is created, what was to be removed is removed, and an import is
// failed with the reason: nobody knows how much of it there is. A layer that no
// act came to name goes, and a clone that was being promoted is itself again. One
// volume that
// cannot be mended does not keep the others from starting.
func (i *Inventory) Recover(ctx context.Context) error {
	i.acts.Lock()
	defer i.acts.Unlock()
	all, err := i.db.Volumes(ctx)
	if err != nil {
		return err
	}
	for _, v := range all {
		if err := i.recoverVolume(ctx, v); err != nil {
			i.log.Error("a volume is half-done and cannot be mended now", "volume", v.Name, "state", v.State, "err", err)
		}
	}
	if i.layers != nil {
		if err := i.recoverLayers(ctx); err != nil {
			i.log.Error("files of acts that did not end cannot be removed now", "err", err)
		}
	}
	i.measureDevices(ctx, all)
	return i.recoverJobs(ctx)
}

func (i *Inventory) recoverVolume(ctx context.Context, v store.Volume) error {
	switch v.State {
	case store.VolumeCreating:
		// Nobody wrote to it yet, so a file that is there is only half of one.
		if err := i.volumes.Remove(ctx, v); err != nil {
			return err
		}
		if err := i.volumes.Create(ctx, v); err != nil {
			return err
		}
		_, err := i.ready(ctx, v)
		return err
	case store.VolumeImporting:
		if err := i.volumes.Remove(ctx, v); err != nil {
			return err
		}
		v.State, v.Progress, v.Reason = store.VolumeFailed, 0, stoppedReason
		_, err := i.db.UpdateVolume(ctx, store.ActorSystem, v)
		return err
	case store.VolumePromoting:
		_, err := i.ready(ctx, v)
		return err
	case store.VolumeRemoving:
		if err := i.volumes.Remove(ctx, v); err != nil {
			return err
		}
		if err := i.removeRest(ctx, v); err != nil {
			return err
		}
		return i.db.DeleteVolume(ctx, store.ActorSystem, v.ID)
	}
	return nil
}

func (i *Inventory) recoverJobs(ctx context.Context) error {
	all, err := i.db.Jobs(ctx)
	if err != nil {
		return err
	}
	for _, listed := range all {
		if listed.State != store.JobRunning {
			continue
		}
		j, bad := i.db.Job(ctx, listed.ID) // with what became of each machine
		if bad != nil {
			err = errors.Join(err, fmt.Errorf("read job %d: %w", listed.ID, bad))
			continue
		}
		j.State, j.Error, j.Finished = store.JobFailed, "lunboot was stopped before the job ended", i.now()
		if j.Kind == store.JobClones {
			if bad := i.settleClones(ctx, &j); bad != nil {
				i.log.Warn("which machines got a clone of an interrupted job is not known to the last", "job", j.ID, "err", bad)
			}
		}
		if bad := i.db.UpdateJob(ctx, j); bad != nil {
			err = errors.Join(err, fmt.Errorf("end job %d: %w", j.ID, bad))
		}
	}
	return err
}
