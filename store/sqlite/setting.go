package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// Setting returns the value of a setting, and whether it was ever set.
func (db *DB) Setting(ctx context.Context, key string) (string, bool, error) {
	return setting(ctx, db.file.Reader(), key)
}

func setting(ctx context.Context, q dbfile.Querier, key string) (string, bool, error) {
	missing := store.NotFound("setting", key)
	v, err := dbfile.One(ctx, q, dbfile.Scalar[string], missing, "SELECT value FROM setting WHERE key = ?", key)
	if errors.Is(err, missing) {
		return "", false, nil
	}
	return v, err == nil, err
}

// settingRevision is the row of the audit log that last changed a setting, and
// one more, so that it is never 0.
const settingRevision = "SELECT coalesce(max(id), 0) + 1 FROM audit WHERE subject = ? AND action = 'setting.put'"

// SettingRevision rises with every change of a setting.
func (db *DB) SettingRevision(ctx context.Context, key string) (int64, error) {
	return dbfile.One(ctx, db.file.Reader(), dbfile.Scalar[int64], nil, settingRevision, key)
}

// PutSetting sets a setting. The audit log has the values of those that an
// operator may read, and of the others the key alone.
func (db *DB) PutSetting(ctx context.Context, actor store.Actor, key, value string) error {
	if key == "" {
		return store.Invalid("key", "a setting needs its name")
	}
	return db.write(ctx, "set setting", func(t *tx) error {
		old, had, err := setting(t.Ctx, t, key)
		if err != nil {
			return err
		}
		if store.Expected(ctx, "setting", key) != 0 {
			revision, err := dbfile.One(t.Ctx, t, dbfile.Scalar[int64], nil, settingRevision, key)
			if err != nil {
				return err
			}
			if err := store.CheckExpected(ctx, "setting", key, key, revision); err != nil {
				return err
			}
		}
		if had && old == value {
			return nil
		}
		if _, err := t.Run("INSERT INTO setting (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value); err != nil {
			return err
		}
		t.move(served)
		var d diff
		if was, ok := store.ShownSetting(store.SettingKey(key), old); ok {
			now, _ := store.ShownSetting(store.SettingKey(key), value)
			d.add("value", was, now)
		}
		return t.auditDiff(actor, "setting.put", key, d)
	})
}

// maxJobs bounds the jobs that are kept after their end.
const maxJobs = 1000

const jobColumns = `SELECT id, kind, subject, state, done, total, error, started, finished, verdicts FROM job `

func scanJob(r dbfile.Row) (j store.Job, err error) {
	var started, finished int64
	var verdicts string
	if err := r.Scan(&j.ID, &j.Kind, &j.Subject, &j.State, &j.Done, &j.Total, &j.Error, &started, &finished, &verdicts); err != nil {
		return j, err
	}
	j.Started, j.Finished = dbfile.Instant(started), dbfile.Instant(finished)
	if verdicts != "" {
		err = json.Unmarshal([]byte(verdicts), &j.Verdicts)
		j.Counts = j.Count()
	}
	return j, err
}

// jobLines are jobs with the counts of their verdicts, which are not read here: a
// list is asked for every few seconds, and a job on many machines has a verdict on
// each.
const jobLines = `SELECT id, kind, subject, state, done, total, error, started, finished, CASE verdicts WHEN '' THEN '' ELSE
		(SELECT json_group_object(result, n) FROM (SELECT json_extract(value, '$.result') AS result, count(*) AS n FROM json_each(job.verdicts) GROUP BY 1)) END
	FROM job `

func scanJobLine(r dbfile.Row) (j store.Job, err error) {
	var started, finished int64
	var counts string
	if err := r.Scan(&j.ID, &j.Kind, &j.Subject, &j.State, &j.Done, &j.Total, &j.Error, &started, &finished, &counts); err != nil {
		return j, err
	}
	j.Started, j.Finished = dbfile.Instant(started), dbfile.Instant(finished)
	if counts != "" {
		err = json.Unmarshal([]byte(counts), &j.Counts)
	}
	return j, err
}

// verdictsText is a job's verdicts as they are kept: nothing for none.
func verdictsText(j store.Job) (string, error) {
	if len(j.Verdicts) == 0 {
		return "", nil
	}
	text, err := json.Marshal(j.Verdicts)
	return string(text), err
}

// Jobs returns every job, newest first, without its verdicts.
func (db *DB) Jobs(ctx context.Context) ([]store.Job, error) {
	return dbfile.List(ctx, db.file.Reader(), scanJobLine, jobLines+"ORDER BY id DESC")
}

// Job returns the job with this id.
func (db *DB) Job(ctx context.Context, id int64) (store.Job, error) {
	return dbfile.One(ctx, db.file.Reader(), scanJob, store.NotFound("job", fmt.Sprint(id)), jobColumns+"WHERE id = ?", id)
}

// CreateJob adds a job. One without a state runs, one without a start starts
// now.
func (db *DB) CreateJob(ctx context.Context, j store.Job) (store.Job, error) {
	if j.State == "" {
		j.State = store.JobRunning
	}
	if err := validJob(&j); err != nil {
		return store.Job{}, err
	}
	verdicts, err := verdictsText(j)
	if err != nil {
		return store.Job{}, err
	}
	err = db.write(ctx, "create job", func(t *tx) (err error) {
		if j.Started.IsZero() {
			j.Started = t.now
		}
		j.Started, j.Finished = stored(j.Started), stored(j.Finished)
		j.ID, err = t.Insert("INSERT INTO job (kind, subject, state, done, total, error, started, finished, verdicts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			j.Kind, j.Subject, string(j.State), j.Done, j.Total, j.Error, dbfile.Nanos(j.Started), dbfile.Nanos(j.Finished), verdicts)
		j.Counts = j.Count()
		if err != nil {
			return err
		}
		t.move(changed)
		_, err = t.Run("DELETE FROM job WHERE state <> 'running' AND id <= (SELECT id FROM job WHERE state <> 'running' ORDER BY id DESC LIMIT 1 OFFSET ?)", maxJobs)
		return err
	})
	if err != nil {
		return store.Job{}, err
	}
	return j, nil
}

// UpdateJob writes how far a job is.
func (db *DB) UpdateJob(ctx context.Context, j store.Job) error {
	if err := validJob(&j); err != nil {
		return err
	}
	verdicts, err := verdictsText(j)
	if err != nil {
		return err
	}
	return db.batch.do(ctx, "change job", func(t *tx) error {
		n, err := t.Run("UPDATE job SET subject = ?, state = ?, done = ?, total = ?, error = ?, finished = ?, verdicts = ? WHERE id = ?",
			j.Subject, string(j.State), j.Done, j.Total, j.Error, dbfile.Nanos(j.Finished), verdicts, j.ID)
		if err == nil && n == 0 {
			return store.NotFound("job", fmt.Sprint(j.ID))
		}
		t.move(changed)
		return err
	})
}

func validJob(j *store.Job) error {
	if j.Kind == "" {
		return store.Invalid("kind", "a job says what it does")
	}
	switch j.State {
	case store.JobRunning, store.JobDone, store.JobFailed, store.JobCanceled:
		return nil
	}
	return store.Invalid("state", "%q is not a state of a job", j.State)
}
