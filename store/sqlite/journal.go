package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// Journal keeps events and attempts. Its methods may be called from many
// goroutines.
type Journal struct {
	file *dbfile.File
}

// OpenJournal opens the journal in dir, makes it if there is none, and brings
// it to this program's schema.
func OpenJournal(ctx context.Context, dir string, now func() time.Time, opts ...Option) (*Journal, error) {
	f, err := openFile(ctx, dir, journalFile, "NORMAL", opts)
	if err != nil {
		return nil, err
	}
	return &Journal{file: f}, nil
}

// Backup writes a consistent copy of the journal to path while others read and
// write. A file that is there already is replaced in one step.
func (j *Journal) Backup(ctx context.Context, path string) error { return j.file.Backup(ctx, path) }

// Close closes the file. Calling it twice is harmless.
func (j *Journal) Close() error { return j.file.Close() }

func (j *Journal) write(ctx context.Context, op string, fn func(*dbfile.Tx) error) error {
	return dbfile.Explain(op, j.file.Write(ctx, fn))
}

// AppendEvents writes events, all or none. Their numbers must rise, from above
// the last one written.
func (j *Journal) AppendEvents(ctx context.Context, events []store.Event) error {
	if len(events) == 0 {
		return nil
	}
	return j.write(ctx, "write events", func(t *dbfile.Tx) error {
		last, err := lastSeq(t.Ctx, t)
		if err != nil {
			return err
		}
		insert, err := t.PrepareContext(t.Ctx, "INSERT INTO event (seq, at, kind, mac, addr, machine, attempt, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
		if err != nil {
			return err
		}
		defer insert.Close()
		var detail []byte
		for i := range events {
			e := &events[i]
			if e.Seq <= last {
				return store.Conflict("seq", "event %d does not follow event %d", e.Seq, last)
			}
			last = e.Seq
			detail = e.Detail.AppendJSON(detail[:0])
			if _, err := insert.ExecContext(t.Ctx, e.Seq, dbfile.Nanos(e.At), string(e.Kind), dbfile.Text(e.MAC), addrText(e.Addr), dbfile.Ref(e.Machine), dbfile.Ref(e.Attempt), string(detail)); err != nil {
				return err
			}
		}
		return nil
	})
}

// LastSeq returns the number of the newest event, 0 when there is none.
func (j *Journal) LastSeq(ctx context.Context) (int64, error) { return lastSeq(ctx, j.file.Reader()) }

func lastSeq(ctx context.Context, q dbfile.Querier) (int64, error) {
	return dbfile.One(ctx, q, dbfile.Scalar[int64], nil, "SELECT coalesce(max(seq), 0) FROM event")
}

func scanEvent(r dbfile.Row) (store.Event, error) {
	var (
		e         store.Event
		at        int64
		mac, addr sql.NullString
		detail    string
		errs      [3]error
	)
	if err := r.Scan(&e.Seq, &at, &e.Kind, &mac, &addr, &e.Machine, &e.Attempt, &detail); err != nil {
		return store.Event{}, err
	}
	e.At = dbfile.Instant(at)
	errs[0] = e.MAC.UnmarshalText([]byte(mac.String))
	e.Addr, errs[1] = dbfile.ParseText(addr, netip.ParseAddr)
	errs[2] = json.Unmarshal([]byte(detail), &e.Detail)
	if err := errors.Join(errs[:]...); err != nil {
		return store.Event{}, damaged(fmt.Sprintf("event %d", e.Seq), err)
	}
	return e, nil
}

const attemptColumns = `SELECT id, coalesce(machine, 0), machine_name, mac, key, started, updated, outcome, stage, stages, diagnoses,
	firmware, arch, address, script, owned, first_seq, last_seq FROM attempt `

func scanAttempt(r dbfile.Row) (store.Attempt, error) {
	var (
		a                 store.Attempt
		mac               sql.NullString
		started, updated  int64
		stages, diagnoses string
	)
	err := r.Scan(&a.ID, &a.Machine, &a.Name, &mac, &a.Key, &started, &updated, &a.Outcome, &a.Stage, &stages, &diagnoses,
		&a.Firmware, &a.Arch, &a.Address, &a.Script, &a.Owned, &a.FirstSeq, &a.LastSeq)
	if err != nil {
		return store.Attempt{}, err
	}
	a.Started, a.Updated = dbfile.Instant(started), dbfile.Instant(updated)
	err = errors.Join(a.MAC.UnmarshalText([]byte(mac.String)), json.Unmarshal([]byte(stages), &a.Stages), json.Unmarshal([]byte(diagnoses), &a.Diagnoses))
	if err != nil {
		return store.Attempt{}, damaged(fmt.Sprintf("attempt %d", a.ID), err)
	}
	return a, nil
}

// PutAttempts writes attempts over what was known of them, all or none.
func (j *Journal) PutAttempts(ctx context.Context, attempts []store.Attempt) error {
	if len(attempts) == 0 {
		return nil
	}
	return j.write(ctx, "write attempts", func(t *dbfile.Tx) error {
		put, err := t.PrepareContext(t.Ctx, `INSERT OR REPLACE INTO attempt (id, machine, machine_name, mac, key, started, updated, outcome, stage, stages, diagnoses,
			firmware, arch, address, script, owned, first_seq, last_seq, told, words) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`)
		if err != nil {
			return err
		}
		defer put.Close()
		for i := range attempts {
			a := &attempts[i]
			if a.ID <= 0 {
				return store.Invalid("id", "an attempt needs its number")
			}
			stages, err := json.Marshal(a.Stages)
			if err != nil {
				return err
			}
			diagnoses, err := json.Marshal(a.Diagnoses)
			if err != nil {
				return err
			}
			if _, err := put.ExecContext(t.Ctx, int64(a.ID), dbfile.Ref(a.Machine), a.Name, dbfile.Text(a.MAC), a.Key, dbfile.Nanos(a.Started), dbfile.Nanos(a.Updated),
				string(a.Outcome), string(a.Stage), string(stages), string(diagnoses), a.Firmware, a.Arch, a.Address, a.Script, a.Owned, a.FirstSeq, a.LastSeq, told(a), words(a)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Attempt returns the attempt with this id.
func (j *Journal) Attempt(ctx context.Context, id store.AttemptID) (store.Attempt, error) {
	return dbfile.One(ctx, j.file.Reader(), scanAttempt, store.NotFound("attempt", fmt.Sprint(id)), attemptColumns+"WHERE id = ?", int64(id))
}

// told is what an attempt's diagnoses say, as it is searched.
func told(a *store.Attempt) string {
	var out strings.Builder
	for i, d := range a.Diagnoses {
		if i > 0 {
			out.WriteByte('\n')
		}
		out.WriteString(d.Code + " " + d.Title)
	}
	return out.String()
}

// words is all that a word of a search is looked for in, a line each.
func words(a *store.Attempt) string {
	mac := ""
	if !a.MAC.IsZero() {
		mac = a.MAC.String()
	}
	return strings.Join([]string{a.Name, mac, bareMAC(mac), a.Address, a.Firmware + " " + a.Arch, told(a)}, "\n")
}

// inCase are the attempts during which a machine was shown a case number that is no
// attempt's: it stands in the reason of the event, and the next one that the
// machine is shown takes its place in the attempt.
const inCase = `instr(stages, ?) > 0 OR id IN (SELECT a.id FROM event AS e JOIN attempt AS a ON e.seq BETWEEN a.first_seq AND a.last_seq AND (a.mac = e.mac OR a.machine = e.machine)
	WHERE e.kind IN ('script.withheld', 'script.conflict', 'script.failed') AND instr(e.detail, ?) > 0)`

// attemptWhere is the condition of a filter, from the table's name on. Rows are
// long, for their scripts: a search walks an index that holds what it looks at.
func attemptWhere(f store.AttemptFilter) (string, []any, error) {
	var w conditions
	index := " INDEXED BY attempt_list"
	if f.Machine != 0 {
		w.add("machine = ?", int64(f.Machine))
	}
	if !f.MAC.IsZero() {
		w.add("mac = ?", f.MAC.String())
	}
	if f.Machine != 0 || !f.MAC.IsZero() { // one machine's are few, and have an index of their own
		index = ""
	}
	w.span("started", f.Since, f.Until)
	for _, t := range f.Search.Terms {
		switch t.Key {
		case "machine":
			w.like("machine_name", t.Value)
		case "mac":
			w.like("replace(mac, ':', '')", bareMAC(t.Value))
		case "outcome", "stage":
			w.add(t.Key+" = ?", t.Value)
		case "firmware":
			w.like("firmware || ' ' || arch", t.Value)
		case "address":
			w.like("address", t.Value)
		case "code":
			w.like("told", t.Value)
		case "case":
			n, err := store.ParseCase(t.Value)
			if err != nil {
				return "", nil, err
			}
			index = ""
			w.add("(id = ? OR "+inCase+")", n, store.CaseMark(t.Value), store.CaseMark(t.Value))
		default:
			return "", nil, store.Invalid("search", "attempts are not searched by %s", t.Key)
		}
	}
	for _, word := range f.Search.Words {
		if store.MintedCase(word) {
			index = ""
			w.add("(words LIKE ? ESCAPE '\\' OR "+inCase+")", "%"+literal(word)+"%", store.CaseMark(word), store.CaseMark(word))
			continue
		}
		w.like("words", word)
	}
	if w.none() {
		index = ""
	}
	return "attempt" + index + w.where(), w.args, store.CheckSort(f.Sort, store.AttemptColumns())
}

// attemptOrder is the order of a listing.
func attemptOrder(by string) string {
	name, falls := strings.CutPrefix(by, "-")
	column := ""
	switch name {
	case "machine":
		column = "machine_name"
	case "outcome":
		column = ranked("outcome", store.Outcomes())
	case "stage":
		column = ranked("stage", store.Stages())
	default:
		if falls {
			return " ORDER BY id"
		}
		return " ORDER BY id DESC"
	}
	if falls {
		column += " DESC"
	}
	return " ORDER BY " + column + ", id DESC"
}

// Attempts returns one page of the attempts that match, and how many match in
// all.
func (j *Journal) Attempts(ctx context.Context, f store.AttemptFilter) ([]store.Attempt, int, error) {
	where, args, err := attemptWhere(f)
	if err != nil {
		return nil, 0, err
	}
	order := attemptOrder(f.Sort)
	var (
		out   []store.Attempt
		total int
	)
	limit, offset := dbfile.Page(f.Page)
	err = j.file.Read(ctx, func(q dbfile.Querier) (err error) {
		if total, err = dbfile.One(ctx, q, dbfile.Scalar[int], nil, "SELECT count(*) FROM "+where, args...); err != nil {
			return err
		}
		// First which, then what: only rows of the page are read whole.
		out, err = dbfile.List(ctx, q, scanAttempt, attemptColumns+"WHERE id IN (SELECT id FROM "+where+order+" LIMIT ? OFFSET ?)"+order, append(args, limit, offset)...)
		return err
	})
	return out, total, err
}

// EveryAttempt finds all attempts that match, whatever the filter's page says.
func (j *Journal) EveryAttempt(ctx context.Context, f store.AttemptFilter) (store.Parts[store.Attempt], error) {
	where, args, err := attemptWhere(f)
	if err != nil {
		return nil, err
	}
	ids, err := dbfile.List(ctx, j.file.Reader(), dbfile.Scalar[store.AttemptID], "SELECT id FROM "+where+attemptOrder(f.Sort), args...)
	return parts(j.file, ids, attemptColumns+"WHERE id ", scanAttempt, func(a store.Attempt) store.AttemptID { return a.ID }), err
}

// LastAttemptID returns the largest id of an attempt, 0 when there is none.
func (j *Journal) LastAttemptID(ctx context.Context) (store.AttemptID, error) {
	return dbfile.One(ctx, j.file.Reader(), dbfile.Scalar[store.AttemptID], nil, "SELECT coalesce(max(id), 0) FROM attempt")
}

// pruneStep bounds the rows that one transaction of Prune removes, so that the
// events of a boot do not wait for it.
const pruneStep = 5000

// Prune removes the oldest events until what is left meets keep, and the attempts
// that have none left. The newest attempt of each machine stays, since its page
// shows it; so does the newest of all, whose number must not be given again.
func (j *Journal) Prune(ctx context.Context, keep store.Retention) error {
	first, err := dbfile.One(ctx, j.file.Reader(), dbfile.Scalar[int64], nil,
		"SELECT coalesce((SELECT seq FROM event ORDER BY seq DESC LIMIT 1 OFFSET ?), 0)", max(keep.Events, 1)-1)
	if err != nil {
		return err
	}
	// Numbers rise with time, so the first young one ends the search.
	young, err := dbfile.One(ctx, j.file.Reader(), dbfile.Scalar[int64], nil,
		"SELECT coalesce((SELECT seq FROM event WHERE at >= ? ORDER BY seq LIMIT 1), (SELECT max(seq) FROM event), 0)", dbfile.Nanos(keep.Since))
	if err != nil {
		return err
	}
	if err := j.forget(ctx, max(first, young)); err != nil || keep.Bytes <= 0 {
		return err
	}
	for {
		held, err := j.held(ctx)
		if err != nil || held <= keep.Bytes {
			return err
		}
		// The pages of the oldest step of them come free, and one more look tells how
		// many those were.
		next, err := dbfile.One(ctx, j.file.Reader(), dbfile.Scalar[int64], nil,
			"SELECT coalesce(max(seq), 0) FROM (SELECT seq FROM event ORDER BY seq LIMIT ?)", pruneStep+1)
		if err != nil {
			return err
		}
		last, err := lastSeq(ctx, j.file.Reader())
		if err != nil {
			return err
		}
		if err := j.forget(ctx, next); err != nil || next == last {
			return err // one event is left, and what else is held are the machines' newest attempts
		}
	}
}

// held is how many bytes of the file are in use.
func (j *Journal) held(ctx context.Context) (int64, error) {
	return dbfile.One(ctx, j.file.Reader(), dbfile.Scalar[int64], nil,
		"SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size")
}

// forget removes the events before first, a step at a time, and the attempts that
// have none left.
func (j *Journal) forget(ctx context.Context, first int64) error {
	for _, query := range []string{
		"DELETE FROM event WHERE seq IN (SELECT seq FROM event WHERE seq < ? ORDER BY seq LIMIT ?)",
		`DELETE FROM attempt WHERE id IN (SELECT id FROM attempt WHERE last_seq < ?
			AND id NOT IN (SELECT max(id) FROM attempt WHERE machine IS NOT NULL GROUP BY machine)
			AND id <> (SELECT max(id) FROM attempt) LIMIT ?)`,
	} {
		for {
			var n int64
			err := j.write(ctx, "prune the journal", func(t *dbfile.Tx) (err error) {
				n, err = t.Run(query, first, pruneStep)
				return err
			})
			if err != nil {
				return err
			}
			if n < pruneStep {
				break
			}
		}
	}
	return nil
}
