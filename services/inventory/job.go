package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"lunboot/store"
)

const (
	// maxRunning is how many imports copy at a time: more only move the
	// disk's arm to and fro.
	maxRunning = 2
	// maxWaiting bounds those that were asked for.
	maxWaiting = 32
)

// Why a job ended early.
var (
	errCanceled = errors.New("canceled")
	errStopping = errors.New("lunboot was stopped")
)

// running is a job under way.
type running struct {
	cancel context.CancelCauseFunc
	by     store.Actor // who canceled it
	done   chan struct{}
	err    error // why it ended early, for who waits; before done is closed
}

// jobs are those under way. Their rows are in the database.
type jobs struct {
	mu     sync.Mutex
	all    map[int64]*running
	slots  chan struct{}
	closed bool
}

func (j *jobs) init() {
	j.all = map[int64]*running{}
	j.slots = make(chan struct{}, maxRunning)
}

// room refuses a job when too many wait, or when the appliance stops.
func (j *jobs) room() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return &store.Error{Kind: store.KindUnavailable, Msg: "lunboot is stopping"}
	}
	if len(j.all) >= maxWaiting {
		return &store.Error{Kind: store.KindUnavailable, Msg: fmt.Sprintf("%d jobs are under way already; wait for one to end", len(j.all))}
	}
	return nil
}

// start registers a job and returns its context.
func (j *jobs) start(ctx context.Context, id int64) (context.Context, *running) {
	ctx, cancel := context.WithCancelCause(ctx)
	r := &running{cancel: cancel, done: make(chan struct{})}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		cancel(errStopping)
	}
	j.all[id] = r
	return ctx, r
}

// finish forgets a job; those who wait for it go on.
func (j *jobs) finish(id int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r := j.all[id]; r != nil {
		r.cancel(nil)
		close(r.done)
		delete(j.all, id)
	}
}

// canceler is who canceled a job.
func (j *jobs) canceler(r *running) store.Actor {
	j.mu.Lock()
	defer j.mu.Unlock()
	return r.by
}

// outcome writes into a job's row how it ended.
func (j *jobs) outcome(row *store.Job, r *running, cause, err error) {
	row.State = store.JobDone
	switch {
	case err == nil:
	case errors.Is(cause, errCanceled):
		row.State, row.Error = store.JobCanceled, "canceled by "+string(j.canceler(r))
	case errors.Is(cause, errStopping):
		row.State, row.Error = store.JobFailed, "lunboot was stopped before the job ended"
	default:
		row.State, row.Error = store.JobFailed, sentence(err)
	}
}

// acquire waits for a place to copy.
func (j *jobs) acquire(ctx context.Context) error {
	select {
	case j.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (j *jobs) release() { <-j.slots }

// RunJob works behind the answer on what is no volume: run does it, and tells how
// far it is. ended is called at the end, whatever it was, also when run never
// began; not when RunJob fails.
func (i *Inventory) RunJob(ctx context.Context, kind, subject string, total int64, run func(ctx context.Context, progress func(done, total int64)) error, ended func()) (store.Job, error) {
	return i.behind(ctx, store.Job{Kind: kind, Subject: subject, Total: total}, onBytes(run), func(int64) func(context.Context) {
		return func(context.Context) { ended() }
	})
}

// onBytes is the work of a job that says no more than how many bytes it has moved.
func onBytes(run func(ctx context.Context, progress func(done, total int64)) error) jobWork {
	return func(ctx context.Context, _ *store.Job, progress func(done, total int64)) error {
		return run(ctx, progress)
	}
}

// jobWork does what a job is for. The row is its own until it returns: what it writes
// there is kept with the progress, and at the end.
type jobWork func(ctx context.Context, row *store.Job, progress func(done, total int64)) error

// behind is a job: its row, its place among those that run, its progress and its
// end. begun is called once its number is known; what that returns is called at
// the end with the lock of the acts held.
func (i *Inventory) behind(ctx context.Context, job store.Job, run jobWork, begun func(id int64) (ended func(context.Context))) (store.Job, error) {
	if err := i.jobs.room(); err != nil {
		return store.Job{}, err
	}
	settle := context.WithoutCancel(ctx)
	job.State, job.Started = store.JobRunning, i.now()
	job, err := i.db.CreateJob(settle, job)
	if err != nil {
		return store.Job{}, err
	}
	ended := begun(job.ID)
	work, r := i.jobs.start(settle, job.ID)
	go func() {
		defer i.jobs.finish(job.ID)
		row := job
		row.Verdicts = slices.Clone(job.Verdicts)
		err := i.inTurn(work, job, func() error { return run(work, &row, i.progressOf(work, &row)) })
		i.acts.Lock()
		defer i.acts.Unlock()
		ended(settle)
		cause := context.Cause(work)
		if i.jobs.outcome(&row, r, cause, err); row.State == store.JobFailed && !errors.Is(cause, errStopping) {
			i.log.Warn("a job failed", "job", job.ID, "kind", job.Kind, "subject", job.Subject, "err", err)
		}
		i.endJob(settle, row)
	}()
	return job, nil
}

// inTurn runs the work of a job. What moves bytes waits for a place to copy.
func (i *Inventory) inTurn(ctx context.Context, job store.Job, run func() error) error {
	if job.Kind != store.JobClones {
		if err := i.jobs.acquire(ctx); err != nil {
			return err
		}
		defer i.jobs.release()
	}
	return i.guard(job.Kind+" of "+job.Subject, run)
}

// progressOf returns what writes a job's progress now and then.
func (i *Inventory) progressOf(ctx context.Context, row *store.Job) func(done, total int64) {
	told := i.now()
	return func(done, total int64) {
		row.Done, row.Total = done, total
		if now := i.now(); now.Sub(told) >= progressEvery {
			told = now
			if err := i.db.UpdateJob(ctx, *row); err != nil && ctx.Err() == nil {
				i.log.Warn("the progress of a job could not be written", "job", row.ID, "err", err)
			}
		}
	}
}

// Jobs lists the jobs, newest first.
func (i *Inventory) Jobs(ctx context.Context) ([]store.Job, error) { return i.db.Jobs(ctx) }

// Job returns one job.
func (i *Inventory) Job(ctx context.Context, id int64) (store.Job, error) { return i.db.Job(ctx, id) }

// CancelJob ends a job and waits until what it had made is gone.
func (i *Inventory) CancelJob(ctx context.Context, by store.Actor, id int64) error {
	row, err := i.db.Job(ctx, id)
	if err != nil {
		return err
	}
	i.jobs.mu.Lock()
	r := i.jobs.all[id]
	if r != nil && r.by == "" {
		r.by = by
	}
	i.jobs.mu.Unlock()
	if r == nil {
		return store.Conflict("job", "job %d has ended already; it is %s", id, row.State)
	}
	r.cancel(errCanceled)
	return wait(ctx, r)
}

// Wait returns when a job has ended, with its row.
func (i *Inventory) Wait(ctx context.Context, id int64) (store.Job, error) {
	i.jobs.mu.Lock()
	r := i.jobs.all[id]
	i.jobs.mu.Unlock()
	if r != nil {
		if err := wait(ctx, r); err != nil {
			return store.Job{}, err
		}
	}
	return i.db.Job(ctx, id)
}

func wait(ctx context.Context, r *running) error {
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close stops the jobs and waits for them, and for files that are being removed.
// Volumes that were being imported are marked failed with the reason.
func (i *Inventory) Close() error {
	i.jobs.mu.Lock()
	i.jobs.closed = true
	var all []*running
	for _, r := range i.jobs.all {
		all = append(all, r)
	}
	i.jobs.mu.Unlock()
	for _, r := range all {
		r.cancel(errStopping)
	}
	for _, r := range all {
		<-r.done
	}
	i.work.sweep.Wait()
	return nil
}
