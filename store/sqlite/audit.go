package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// Audit returns one page of the audit log, newest first, and its length.
func (db *DB) Audit(ctx context.Context, p store.Page) ([]store.Audit, int, error) {
	return db.AuditLog(ctx, store.AuditFilter{Page: p})
}

// auditWhere is the condition of a filter.
func auditWhere(f store.AuditFilter) (string, []any, error) {
	var w conditions
	if f.Actor != "" {
		w.add("actor = ?", string(f.Actor))
	}
	switch {
	case f.Moved && f.Noun == "volume":
		w.add("(action LIKE 'volume.%' OR action LIKE 'snapshot.%' OR action LIKE 'version.%')")
	case f.Noun != "":
		w.add("action LIKE ? ESCAPE '\\'", literal(f.Noun)+".%")
	}
	if f.Moved {
		for _, act := range store.PassingActs() {
			w.add("action <> ?", act)
		}
	} else { // what store.Audit.Quiet says
		w.add("NOT (actor = ? AND action = 'volume.update' AND detail = ?)", string(store.ActorSystem), store.BecameReady)
	}
	if f.Subject != "" {
		w.add("subject = ?", f.Subject)
	}
	w.span("at", f.Since, f.Until)
	for _, t := range f.Search.Terms {
		switch t.Key {
		case "who":
			w.like("actor", t.Value)
		case "what":
			w.like("action", t.Value)
		case "subject":
			w.like("subject", t.Value)
		default:
			return "", nil, store.Invalid("search", "changes are not searched by %s", t.Key)
		}
	}
	for _, word := range f.Search.Words {
		w.like("actor || char(10) || action || char(10) || subject || char(10) || detail", word)
	}
	return w.where(), w.args, store.CheckSort(f.Sort, store.AuditColumns())
}

// auditOrder is the order of a listing. A search reads every row once, as they lie,
// and sorts what it finds: by an index of the order it would fetch each by itself.
func auditOrder(f store.AuditFilter) string {
	name, falls := strings.CutPrefix(f.Sort, "-")
	column, ok := map[string]string{"who": "actor", "what": "action", "subject": "subject"}[name]
	if len(f.Search.Words)+len(f.Search.Terms) > 0 {
		column = "+" + column
	}
	switch {
	case !ok && falls:
		return " ORDER BY id"
	case !ok:
		return " ORDER BY id DESC"
	case falls:
		column += " DESC"
	}
	return " ORDER BY " + column + ", id DESC"
}

// AuditLog returns one page of the changes that a filter matches, and how many
// there are.
func (db *DB) AuditLog(ctx context.Context, f store.AuditFilter) ([]store.Audit, int, error) {
	limit, offset := dbfile.Page(f.Page)
	where, args, err := auditWhere(f)
	if err != nil {
		return nil, 0, err
	}
	var (
		out   []store.Audit
		total int
	)
	err = db.file.Read(ctx, func(q dbfile.Querier) (err error) {
		if total, err = dbfile.One(ctx, q, dbfile.Scalar[int], nil, "SELECT count(*) FROM audit"+where, args...); err != nil {
			return err
		}
		out, err = dbfile.List(ctx, q, scanAudit, auditColumns+where+auditOrder(f)+" LIMIT ? OFFSET ?", append(args, limit, offset)...)
		return err
	})
	return out, total, err
}

const auditColumns = "SELECT id, at, actor, action, subject, detail, changes FROM audit"

func scanAudit(r dbfile.Row) (a store.Audit, err error) {
	var (
		at      int64
		changes string
	)
	if err = r.Scan(&a.ID, &at, &a.Actor, &a.Action, &a.Subject, &a.Detail, &changes); err != nil {
		return a, err
	}
	a.At = dbfile.Instant(at)
	return a, json.Unmarshal([]byte(changes), &a.Changes)
}

// EveryChange finds all changes that a filter matches, whatever its page says.
func (db *DB) EveryChange(ctx context.Context, f store.AuditFilter) (store.Parts[store.Audit], error) {
	where, args, err := auditWhere(f)
	if err != nil {
		return nil, err
	}
	ids, err := dbfile.List(ctx, db.file.Reader(), dbfile.Scalar[int64], "SELECT id FROM audit"+where+auditOrder(f), args...)
	return parts(db.file, ids, auditColumns+" WHERE id ", scanAudit, func(a store.Audit) int64 { return a.ID }), err
}

// Auditors returns everybody who ever changed something, by name.
func (db *DB) Auditors(ctx context.Context) ([]store.Actor, error) {
	return dbfile.List(ctx, db.file.Reader(), dbfile.Scalar[store.Actor], "SELECT DISTINCT actor FROM audit ORDER BY actor")
}

// diff collects what changed between two states of a noun, as the audit log
// shows it: in words, and field by field. It is empty when nothing did.
type diff struct {
	words   []string
	changes []store.FieldChange
}

func (d *diff) note(words, label, old, now string) {
	d.words = append(d.words, words)
	d.changes = append(d.changes, store.FieldChange{Field: label, Before: old, After: now})
}

// add notes a field that changed.
func (d *diff) add(label, old, now string) {
	switch {
	case old == now:
	case old == "":
		d.note(label+" "+now, label, old, now)
	case now == "":
		d.note("no "+label+" (was "+old+")", label, old, now)
	default:
		d.note(label+" "+old+" → "+now, label, old, now)
	}
}

// flag notes a switch that changed.
func (d *diff) flag(label string, old, now bool) {
	if old != now {
		word := map[bool]string{true: "on", false: "off"}
		d.note(label+" "+word[now], label, word[old], word[now])
	}
}

// number notes a number that changed; 0 is none.
func (d *diff) number(label string, old, now int64) {
	d.add(label, strings.TrimPrefix(fmt.Sprint(old), "0"), strings.TrimPrefix(fmt.Sprint(now), "0"))
}

// secret notes that a secret changed, and nothing of what it is.
func (d *diff) secret(label, old, now string) {
	switch {
	case old == now:
	case now == "":
		d.note(label+" removed", label, "(set)", "")
	case old == "":
		d.note(label+" set", label, "", "(set)")
	default:
		d.note(label+" set", label, "(set)", "(set anew)")
	}
}

// long notes a text that changed and may be long: in words its length, and before
// and after the lines that differ, as far as there is room for them.
func (d *diff) long(label, old, now string) {
	if old != now {
		was, is := excerpts(label, old, now)
		d.note(fmt.Sprintf("%s changed (%d bytes)", label, len(now)), label, was, is)
	}
}

// maxExcerpt bounds what the audit log repeats of one state of a text, in bytes. A
// profile's text fits whole, but for the longest.
const maxExcerpt = 4 << 10

// secretWord is a word in whose line a password may stand: in a kernel's command
// line, an installer's answers or a script.
var secretWord = regexp.MustCompile(`(?i)passw|passphrase|rootpw|secret|token|credential|crypt|psk|chap|private key|(^|[^a-z])(key|pwd?|pass|hash)\b`)

// inURL is a password in a URL.
var inURL = regexp.MustCompile(`(//[^\s/@:]*):[^\s/@]+@`)

// markup is XML or JSON, where a value need not stand in the line of its name.
var markup = regexp.MustCompile(`(?m)\A\s*[{\[]|^\s*(<[?!/A-Za-z]|"[^"]*"\s*:)`)

// excerpts is what the audit log repeats of a text before and after a change: the
// lines that differ, or, of one that there is on one side alone, all. What may be
// a password is left out, since the log outlives the text by years. Of XML and JSON,
// and of a text that is a secret by its name, it is the size alone.
func excerpts(label, old, now string) (string, string) {
	old, now = strings.TrimPrefix(old, "\ufeff"), strings.TrimPrefix(now, "\ufeff")
	if secretWord.MatchString(label) || markup.MatchString(old) || markup.MatchString(now) {
		return sized(old), sized(now)
	}
	was, is := strings.Split(strings.TrimRight(old, "\n"), "\n"), strings.Split(strings.TrimRight(now, "\n"), "\n")
	// A line is cut away by what it is, and shown by what may be shown of it.
	wasShown, isShown := open(was), open(is)
	if old != "" && now != "" {
		for len(was) > 0 && len(is) > 0 && was[0] == is[0] {
			was, is, wasShown, isShown = was[1:], is[1:], wasShown[1:], isShown[1:]
		}
		for len(was) > 0 && len(is) > 0 && was[len(was)-1] == is[len(is)-1] {
			was, is = was[:len(was)-1], is[:len(is)-1]
		}
	}
	return bounded(wasShown[:len(was)]), bounded(isShown[:len(is)])
}

func sized(text string) string {
	if text == "" {
		return ""
	}
	return fmt.Sprintf("(%d bytes)", len(text))
}

// open is what may be shown of each line. A line with a secret's word is left out,
// and so is what belongs to it: lines that are deeper, those after a backslash, and
// the rest of the text after what begins a quotation, a here-document or a PEM block.
func open(lines []string) []string {
	shown := make([]string, len(lines))
	deep, on, rest := -1, false, false // deep is how far the line with the word is indented
	for i, line := range lines {
		at := len(line) - len(strings.TrimLeft(line, " \t"))
		secret := secretWord.MatchString(line)
		switch {
		case secret, rest, on, deep >= 0 && (at > deep || strings.TrimSpace(line) == ""):
			shown[i] = "…"
			if secret && (deep < 0 || at < deep) {
				deep = at
			}
			on = strings.HasSuffix(line, "\\")
			rest = rest || strings.Contains(line, "<<") || strings.Contains(line, "PRIVATE KEY") ||
				strings.Count(line, `"`)%2 == 1 || strings.Count(line, "'")%2 == 1
		default:
			deep = -1
			shown[i] = inURL.ReplaceAllString(line, "$1:…@")
		}
	}
	return shown
}

func bounded(lines []string) string {
	out := strings.Join(lines, "\n")
	if len(out) > maxExcerpt {
		out = strings.ToValidUTF8(out[:maxExcerpt], "") + fmt.Sprintf("… (%d bytes in all)", len(out))
	}
	return out
}

// gone is the snapshot of a noun that is removed, with what is said of it in words.
func (d diff) gone(words ...string) diff {
	d.words = words
	return d
}

func (d diff) String() string { return strings.Join(d.words, "; ") }

func (d diff) empty() bool { return len(d.words) == 0 }

func joinMACs(macs []store.MAC) string {
	s := make([]string, len(macs))
	for i, m := range macs {
		s[i] = m.String()
	}
	return strings.Join(s, ", ")
}

func joinQuirks(quirks []store.Quirk) string {
	s := make([]string, len(quirks))
	for i, q := range quirks {
		s[i] = string(q)
	}
	return strings.Join(s, ", ")
}

// shown is a UUID's text, empty when there is none.
func shown(u store.UUID) string {
	if u.IsZero() {
		return ""
	}
	return u.String()
}

// addrShown is an address's text, empty when there is none.
func addrShown(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// addrText is an address as it is stored: NULL when there is none.
func addrText(a netip.Addr) any { return dbfile.Text(a) }

// jsonList is a list as it is stored.
func jsonList[T any](v []T) string {
	if len(v) == 0 {
		return "[]"
	}
	b, err := json.Marshal(v)
	if err != nil {
		// Only lists of texts, addresses and pairs of texts come here; none can fail.
		panic(err)
	}
	return string(b)
}

// Record writes an audit row of an act that changes no row: a backup, a
// download of secrets.
func (db *DB) Record(ctx context.Context, actor store.Actor, action, subject, detail string) error {
	return db.write(ctx, "write the audit log", func(t *tx) error { return t.audit(actor, action, subject, detail) })
}
