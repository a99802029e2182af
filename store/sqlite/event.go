package sqlite

import (
	"context"
	"fmt"
	"strings"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

const eventColumns = "SELECT seq, at, kind, mac, addr, coalesce(machine, 0), coalesce(attempt, 0), detail FROM event "

// Events returns the events that match, by rising number.
func (j *Journal) Events(ctx context.Context, f store.EventFilter) ([]store.Event, error) {
	w := eventWhere(f)
	w.add("seq > ?", f.After)
	limit, _ := dbfile.Page(store.Page{Limit: f.Limit})
	return dbfile.List(ctx, j.file.Reader(), scanEvent, eventColumns+w.where()+" ORDER BY seq LIMIT ?", append(w.args, limit)...)
}

// FindEvents returns one page of the events that match, and how many match in
// all. They come without the keys that boots report with: who holds one may
// speak for a machine.
func (j *Journal) FindEvents(ctx context.Context, f store.EventFilter) ([]store.Event, int, error) {
	if err := store.CheckSort(f.Sort, store.EventColumns()); err != nil {
		return nil, 0, err
	}
	w, order := eventWhere(f), eventOrder(f.Sort)
	var (
		out   []store.Event
		total int
	)
	limit, offset := dbfile.Page(store.Page{Limit: f.Limit, Offset: f.Offset})
	err := j.file.Read(ctx, func(q dbfile.Querier) (err error) {
		// First which, then what: only rows of the page are read whole.
		seqs, err := dbfile.List(ctx, q, dbfile.Scalar[int64], "SELECT seq FROM event"+w.where()+order+" LIMIT ? OFFSET ?", append(w.args, limit, offset)...)
		if err != nil {
			return err
		}
		// A page that is not full is the last one: everything was looked at for it,
		// and is not looked at again to be counted.
		if total = offset + len(seqs); len(seqs) == 0 && offset > 0 || len(seqs) == limit {
			if total, err = countEvents(ctx, q, w); err != nil {
				return err
			}
		}
		out, err = dbfile.List(ctx, q, scanPublicEvent, eventColumns+"WHERE seq IN (SELECT value FROM json_each(?))"+order, jsonList(seqs))
		return err
	})
	return out, total, err
}

// countEvents counts what matches. Numbers have no holes, and only the oldest are
// forgotten: all of them are as many as from the first to the last.
func countEvents(ctx context.Context, q dbfile.Querier, w conditions) (int, error) {
	if w.none() {
		return dbfile.One(ctx, q, dbfile.Scalar[int], nil, "SELECT coalesce((SELECT max(seq) FROM event) - (SELECT min(seq) FROM event) + 1, 0)")
	}
	return dbfile.One(ctx, q, dbfile.Scalar[int], nil, "SELECT count(*) FROM event"+w.where(), w.args...)
}

// EveryEvent finds all events that match, whatever the filter's page says. They
// come without the keys that boots report with.
func (j *Journal) EveryEvent(ctx context.Context, f store.EventFilter) (store.Parts[store.Event], error) {
	if err := store.CheckSort(f.Sort, store.EventColumns()); err != nil {
		return nil, err
	}
	w := eventWhere(f)
	seqs, err := dbfile.List(ctx, j.file.Reader(), dbfile.Scalar[int64], "SELECT seq FROM event"+w.where()+eventOrder(f.Sort), w.args...)
	return parts(j.file, seqs, eventColumns+"WHERE seq ", scanPublicEvent, func(e store.Event) int64 { return e.Seq }), err
}

func scanPublicEvent(r dbfile.Row) (store.Event, error) {
	e, err := scanEvent(r)
	e.Detail.Key = ""
	return e, err
}

// eventOrder is the order of a listing.
func eventOrder(by string) string {
	switch by {
	case "-at":
		return " ORDER BY seq"
	case "kind":
		return " ORDER BY " + ranked("kind", store.EventKinds()) + ", seq DESC"
	case "-kind":
		return " ORDER BY " + ranked("kind", store.EventKinds()) + " DESC, seq DESC"
	}
	return " ORDER BY seq DESC"
}

// eventWhere is the condition of a filter, but for its place in the journal. It
// says what EventFilter.Fits says, in SQL.
func eventWhere(f store.EventFilter) (w conditions) {
	if f.Attempt != 0 {
		w.add("attempt = ?", int64(f.Attempt))
	}
	if f.Machine != 0 {
		w.add("machine = ?", int64(f.Machine))
	}
	if !f.MAC.IsZero() {
		w.add("mac = ?", f.MAC.String())
	}
	s := f.Search
	for _, ids := range s.Machines {
		w.add(ofMachines(ids))
	}
	for _, span := range s.Spans {
		var who conditions
		if span.Machine != 0 {
			who.add("machine = ?", int64(span.Machine))
		}
		if !span.MAC.IsZero() {
			who.add("mac = ?", span.MAC.String())
		}
		w.add("seq BETWEEN ? AND ?", span.From, span.To)
		w.add("("+strings.Join(append(who.all, "0"), " OR ")+")", who.args...)
	}
	for _, part := range s.MACs {
		if len(part) == 12 { // a whole one has an index
			if mac, err := store.ParseMAC(part); err == nil {
				w.add("mac = ?", mac.String())
				continue
			}
		}
		w.like("replace(mac, ':', '')", part)
	}
	for _, part := range s.Addresses {
		w.like("addr", part)
	}
	if s.Kinds != nil {
		w.add("kind IN (SELECT value FROM json_each(?))", jsonList(s.Kinds))
	}
	w.span("at", s.Since, s.Until)
	for _, word := range s.Words {
		w.word(word)
	}
	return w
}

// ofMachines is the condition that an event is of one of some machines.
func ofMachines(ids []store.MachineID) string {
	switch len(ids) {
	case 0:
		return "0"
	case 1: // its events lie in the order of a listing in their index
		return fmt.Sprintf("machine = %d", ids[0])
	}
	text := make([]string, len(ids))
	for i, id := range ids {
		text[i] = fmt.Sprint(int64(id))
	}
	return "machine IN (" + strings.Join(text, ", ") + ")"
}

// word asks for a word in what an event says: in the values of its detail, and
// not in their names; never in a key, which would be found out by asking for more
// of it each time.
func (c *conditions) word(word store.EventWord) {
	var or conditions
	or.add(ofMachines(word.Machines))
	for _, column := range []string{"kind", "mac", "replace(mac, ':', '')", "addr"} {
		or.like(column, word.Text)
	}
	const inDetail = `EXISTS (SELECT 1 FROM json_each(detail) WHERE type = 'text' AND key NOT IN ('key', 'script') AND value LIKE ? ESCAPE '\')`
	part := "%" + literal(word.Text) + "%"
	if asItIs(word.Text) { // whatever lacks it as it is written need not be read as JSON
		or.add(`(detail LIKE ? ESCAPE '\' AND `+inDetail+")", part, part)
	} else {
		or.add(inDetail, part)
	}
	c.add("("+strings.Join(or.all, " OR ")+")", or.args...)
}

// asItIs says whether a text stands in JSON as it is, whoever wrote it.
func asItIs(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`"\<>&`, r) })
}
