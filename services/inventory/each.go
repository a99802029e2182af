package inventory

import (
	"context"
	"errors"
	"fmt"

	"lunboot/store"
)

// CloneForEach gives machines a clone each of one golden volume, to boot from, in
// a job. A machine that boots from a volume of its own already is skipped, so what
// was broken off is gone on with by the same act; one that cannot get its clone
// says why and keeps none of the others from it.
func (i *Inventory) CloneForEach(ctx context.Context, by store.Actor, machines []store.MachineID, choice store.CloneChoice) (store.Job, error) {
	if choice.Of == store.CloneOfNone {
		return store.Job{}, store.Invalid("clone_of", "choose the golden volume that each gets a clone of")
	}
	if choice.Of == "" {
		choice.Of = store.CloneOfDefault
	}
	parent, err := i.parentOf(ctx, choice)
	if err != nil {
		return store.Job{}, err
	}
	job := store.Job{Kind: store.JobClones, Subject: parent.Name}
	named := map[store.MachineID]bool{}
	for _, id := range machines {
		if named[id] {
			continue
		}
		named[id] = true
		m, err := i.db.Machine(ctx, id)
		if err != nil {
			return store.Job{}, err
		}
		job.Verdicts = append(job.Verdicts, store.JobVerdict{Machine: id, Name: m.Name, Result: store.ResultWaiting})
	}
	if len(job.Verdicts) == 0 {
		return store.Job{}, store.Invalid("machines", "name the machines that are to get a clone")
	}
	job.Total = int64(len(job.Verdicts))
	spec := store.CloneSpec{Parent: parent.ID, Reset: choice.Reset, Volatile: choice.Volatile}
	run := func(ctx context.Context, row *store.Job, progress func(done, total int64)) error {
		for at := range row.Verdicts {
			if err := ctx.Err(); err != nil {
				return err
			}
			// A clone that was begun is not left half: it takes no time worth a break.
			i.verdict(context.WithoutCancel(ctx), by, &row.Verdicts[at], parent, spec)
			progress(int64(at)+1, row.Total)
		}
		if n := row.Count()[store.ResultFailed]; n > 0 {
			return fmt.Errorf("%s of %d got no clone", row.Amount(int64(n)), len(row.Verdicts))
		}
		return nil
	}
	return i.behind(ctx, job, run, func(int64) func(context.Context) { return func(context.Context) {} })
}

// errHas says that a machine boots from a volume already, errRemoved that there is no
// such machine any more.
var (
	errHas     = errors.New("it boots from a volume already")
	errRemoved = errors.New("it was removed meanwhile")
)

// verdict gives one machine its clone, and notes what became of it.
func (i *Inventory) verdict(ctx context.Context, by store.Actor, v *store.JobVerdict, parent store.Volume, spec store.CloneSpec) {
	text, err := i.cloneUnlessHas(ctx, by, v.Machine, parent, spec)
	switch {
	case err == nil:
		v.Result, v.Detail = store.ResultDone, text
	case errors.Is(err, errHas):
		v.Result, v.Detail = store.ResultSkipped, text
	case errors.Is(err, errRemoved):
		v.Result, v.Detail = store.ResultFailed, errRemoved.Error()
	default:
		v.Result, v.Detail = store.ResultFailed, sentence(err)
	}
}

// cloneUnlessHas is CloneFor for a machine that boots from nothing yet, or from the
// parent itself. It says in words what the machine boots from.
func (i *Inventory) cloneUnlessHas(ctx context.Context, by store.Actor, id store.MachineID, parent store.Volume, spec store.CloneSpec) (string, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	m, err := i.db.Machine(ctx, id)
	if store.IsNotFound(err) {
		return "", errRemoved
	}
	if err != nil {
		return "", err
	}
	have, err := i.db.MappingsOf(ctx, id)
	if err != nil {
		return "", err
	}
	for _, h := range have {
		if !h.Boot || h.Volume == parent.ID {
			continue
		}
		v, err := i.db.Volume(ctx, h.Volume)
		if err != nil {
			return "", err
		}
		if v.Parent == parent.ID {
			return fmt.Sprintf("it has its clone already: %s, LUN %d", v.Name, h.LUN), errHas
		}
		return fmt.Sprintf("it boots from a volume already: %s, LUN %d", v.Name, h.LUN), errHas
	}
	v, mp, err := i.cloneFor(ctx, by, m, spec)
	if err != nil {
		return "", err
	}
	return i.cloneWords(ctx, m, v, mp), nil
}

// cloneWords say which clone a machine got.
func (i *Inventory) cloneWords(ctx context.Context, m store.Machine, v store.Volume, mp store.Mapping) string {
	text := fmt.Sprintf("%s, LUN %d", v.Name, mp.LUN)
	if p, err := i.db.Profile(ctx, m.Profile); err == nil && p.Kind != store.ProfileSAN {
		text += fmt.Sprintf("; its profile %s does not start it: choose %s for that", p.Name, store.DefaultProfile)
	}
	return text
}

// settleClones says of the machines that an interrupted job had not come to, as its row
// knows, which of them got their clone all the same: the row is written now and then,
// and a clone at once. One that was made of the golden volume since the job began, and
// that its machine boots from, is the job's.
func (i *Inventory) settleClones(ctx context.Context, job *store.Job) error {
	for at := range job.Verdicts {
		v := &job.Verdicts[at]
		if v.Result != store.ResultWaiting {
			continue
		}
		text, err := i.cloneSince(ctx, v.Machine, job)
		if err != nil {
			return err
		}
		if text != "" {
			v.Result, v.Detail = store.ResultDone, text
		}
	}
	job.Done = job.Total - int64(job.Count()[store.ResultWaiting])
	return nil
}

// cloneSince says which clone a machine got of a job, nothing when it got none.
func (i *Inventory) cloneSince(ctx context.Context, id store.MachineID, job *store.Job) (string, error) {
	m, err := i.db.Machine(ctx, id)
	if store.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	have, err := i.db.MappingsOf(ctx, id)
	if err != nil {
		return "", err
	}
	for _, mp := range have {
		if !mp.Boot || mp.Created.Before(job.Started) {
			continue
		}
		v, err := i.db.Volume(ctx, mp.Volume)
		if err != nil {
			return "", err
		}
		if v.Parent == 0 || v.Created.Before(job.Started) {
			continue
		}
		if parent, err := i.db.Volume(ctx, v.Parent); err != nil || parent.Name != job.Subject {
			return "", err
		}
		return i.cloneWords(ctx, m, v, mp), nil
	}
	return "", nil
}
