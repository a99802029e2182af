// Package sheet reads and writes machines as tables that spreadsheet programs
// read and write: comma-separated values (RFC 4180), also with semicolons or
// tabs.
//
// A table's first line names its columns. Columns are called as the machine's
// fields are called everywhere else; those that only tell something, such as
// last_seen, are passed over when a table comes back. Secrets are in no table:
// none is written, and one that holds some is refused.
package sheet

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"lunboot/store"
)

// Bounds of a table that is read.
const (
	MaxBytes = 2 << 20
	MaxLines = 5000
)

// Clear is the cell that empties a field. An empty cell leaves it as it is, so
// that a table with half of the cells filled takes nothing away.
const Clear = "-"

// column is one field of a machine in a table.
type column struct {
	name string
	// read puts a cell that says something into a patch.
	read func(p *store.MachinePatch, cell string) error
	// clear empties the field; nil for a field that a machine cannot be without.
	clear func(p *store.MachinePatch)
	write func(r Row) string
}

// Row is a machine with what is told of it beside.
type Row struct {
	store.Machine
	Volume   string // that it boots
	LastBoot string
	LastSeen string
}

func text(field func(p *store.MachinePatch) **string) (func(*store.MachinePatch, string) error, func(*store.MachinePatch)) {
	return func(p *store.MachinePatch, cell string) error { *field(p) = &cell; return nil },
		func(p *store.MachinePatch) { *field(p) = new("") }
}

// columns are all columns, in the order in which they are written.
func columns() []column {
	serial, noSerial := text(func(p *store.MachinePatch) **string { return &p.Serial })
	asset, noAsset := text(func(p *store.MachinePatch) **string { return &p.AssetTag })
	notes, noNotes := text(func(p *store.MachinePatch) **string { return &p.Notes })
	loader, noLoader := text(func(p *store.MachinePatch) **string { return &p.Loader })
	profile, _ := text(func(p *store.MachinePatch) **string { return &p.Profile })
	return []column{
		{name: "name", write: func(r Row) string { return r.Name }, read: func(p *store.MachinePatch, cell string) error {
			name := strings.ToLower(cell)
			p.Name = &name
			return store.ValidateHostname(name)
		}},
		{name: "macs", read: readMACs, write: func(r Row) string {
			var out []string
			for _, m := range r.MACs {
				out = append(out, m.String())
			}
			return strings.Join(out, " ")
		}},
		{name: "uuid", write: func(r Row) string {
			if r.UUID.IsZero() {
				return ""
			}
			return r.UUID.String()
		}, read: func(p *store.MachinePatch, cell string) error {
			u, err := store.ParseUUID(cell)
			p.UUID = &u
			return err
		}, clear: func(p *store.MachinePatch) { p.UUID = &store.UUID{} }},
		{name: "serial", read: serial, clear: noSerial, write: func(r Row) string { return r.Serial }},
		{name: "asset_tag", read: asset, clear: noAsset, write: func(r Row) string { return r.AssetTag }},
		{name: "address", write: func(r Row) string {
			if !r.Address.IsValid() {
				return ""
			}
			return r.Address.String()
		}, read: func(p *store.MachinePatch, cell string) error {
			a, err := netip.ParseAddr(cell)
			if err != nil || !a.Is4() {
				return store.Invalid("address", "%q is not an IPv4 address", cell)
			}
			p.Address = &a
			return nil
		}, clear: func(p *store.MachinePatch) { p.Address = &netip.Addr{} }},
		{name: "profile", read: profile, write: func(r Row) string { return r.Profile }},
		{name: "tags", write: func(r Row) string { return strings.Join(r.Tags, ",") }, read: func(p *store.MachinePatch, cell string) error {
			tags := []string{}
			for _, t := range strings.Split(cell, ",") {
				if t = strings.TrimSpace(t); t != "" && !slices.Contains(tags, t) {
					tags = append(tags, t)
				}
			}
			p.Tags = &tags
			return nil
		}, clear: func(p *store.MachinePatch) { p.Tags = &[]string{} }},
		{name: "notes", read: notes, clear: noNotes, write: func(r Row) string { return r.Notes }},
		{name: "initiator", write: func(r Row) string { return string(r.Initiator) }, read: func(p *store.MachinePatch, cell string) error {
			q, err := store.ParseIQN(cell)
			p.Initiator = &q
			return err
		}},
		{name: "volume", write: func(r Row) string { return r.Volume }},
		{name: "firmware", write: func(r Row) string { return r.Firmware }},
		{name: "arch", write: func(r Row) string { return r.Arch }},
		{name: "last_boot", write: func(r Row) string { return r.LastBoot }},
		{name: "last_seen", write: func(r Row) string { return r.LastSeen }},
		{name: "auth", write: func(r Row) string { return string(r.Auth) }, read: func(p *store.MachinePatch, cell string) error {
			m, err := store.ParseAuthMode(strings.ToLower(cell))
			p.Auth = &m
			return err
		}},
		{name: "loader", read: loader, clear: noLoader, write: func(r Row) string { return r.Loader }},
		{name: "quirks", read: readQuirks, write: func(r Row) string {
			var out []string
			for _, q := range r.Quirks {
				out = append(out, string(q))
			}
			return strings.Join(out, " ")
		}, clear: func(p *store.MachinePatch) { p.Quirks = &[]store.Quirk{} }},
	}
}

// between splits a list in a cell, by whatever people put between.
func between(r rune) bool { return strings.ContainsRune(" ,;|\t\r\n", r) }

func readMACs(p *store.MachinePatch, cell string) error {
	macs := []store.MAC{}
	for _, t := range strings.FieldsFunc(cell, between) {
		m, err := store.ParseMAC(t)
		if err != nil {
			return err
		}
		macs = append(macs, m)
	}
	p.MACs = &macs
	return nil
}

func readQuirks(p *store.MachinePatch, cell string) error {
	quirks := []store.Quirk{}
	for _, t := range strings.FieldsFunc(cell, between) {
		q, err := store.ParseQuirk(strings.ToLower(t))
		if err != nil {
			return err
		}
		quirks = append(quirks, q)
	}
	p.Quirks = &quirks
	return nil
}

// Columns names the columns that a table may have, those first that are taken
// from it.
func Columns() (taken, told []string) {
	for _, c := range columns() {
		if c.read != nil {
			taken = append(taken, c.name)
		} else {
			told = append(told, c.name)
		}
	}
	return taken, told
}

// Read reads a table of machines. A line that cannot be read is among the lines,
// with the reason; an error means that the whole is no table of machines.
func Read(r io.Reader) ([]store.MachineLine, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return nil, &store.Error{Kind: store.KindInvalid, Field: "file", Msg: "the table did not arrive whole", Err: err}
	}
	if len(b) > MaxBytes {
		return nil, store.Invalid("file", "the table is larger than %s; import it in parts", store.Bytes(MaxBytes))
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) || !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		return nil, store.Invalid("file", "the table is not UTF-8 text; save it as “CSV UTF-8”")
	}
	comma, b, skipped := separator(b)
	in := csv.NewReader(bytes.NewReader(b))
	in.Comma, in.FieldsPerRecord = comma, -1
	var (
		head []*column // nil for a column that only tells
		out  []store.MachineLine
	)
	for {
		cells, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, badQuotes(err, skipped)
		}
		line, _ := in.FieldPos(0)
		line += skipped
		switch {
		case !slices.ContainsFunc(cells, func(c string) bool { return strings.TrimSpace(c) != "" }): // a spreadsheet's empty line
		case head == nil:
			if head, err = readHead(cells); err != nil {
				return nil, err
			}
		case len(out) == MaxLines:
			return nil, store.Invalid("file", "the table has more than %d lines; import it in parts", MaxLines)
		default:
			l := store.MachineLine{Line: line}
			l.Patch, l.Err = readLine(head, cells)
			out = append(out, l)
		}
	}
	if head == nil {
		return nil, store.Invalid("file", "the table is empty; its first line names the columns, such as name,macs,profile")
	}
	return out, nil
}

// badQuotes names the line at which the quotation marks do not fit.
func badQuotes(err error, skipped int) error {
	var p *csv.ParseError
	if errors.As(err, &p) {
		return store.Invalid("file", "line %d: a quotation mark stands where none may, or one is not closed; double those that belong to the text", p.StartLine+skipped)
	}
	return &store.Error{Kind: store.KindInvalid, Field: "file", Msg: "the table cannot be read", Err: err}
}

// separator finds what stands between the cells: what the first line has most of
// outside of quotation marks. Some programs say it in a line of its own, sep=;
// that is skipped.
func separator(b []byte) (comma rune, rest []byte, skipped int) {
	first, after, _ := bytes.Cut(b, []byte("\n"))
	first = bytes.TrimSuffix(first, []byte("\r"))
	if s, ok := bytes.CutPrefix(bytes.ToLower(first), []byte("sep=")); ok && len(s) == 1 && strings.ContainsRune(",;\t", rune(s[0])) {
		return rune(s[0]), after, 1
	}
	for len(bytes.TrimSpace(first)) == 0 && len(after) > 0 { // the line that the reader takes for the first
		first, after, _ = bytes.Cut(after, []byte("\n"))
	}
	count, quoted := map[rune]int{}, false
	for _, r := range string(first) {
		if r == '"' {
			quoted = !quoted
		} else if !quoted {
			count[r]++
		}
	}
	comma = ','
	for _, r := range []rune{';', '\t'} {
		if count[r] > count[comma] {
			comma = r
		}
	}
	return comma, b, 0
}

// readHead finds the columns that the first line names. A name that is none
// would be a field that nobody sets and everybody believes to be set.
func readHead(cells []string) ([]*column, error) {
	known := columns()
	var head []*column
	seen := map[string]bool{}
	for _, cell := range cells {
		name := strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(strings.TrimSpace(cell)))
		switch name {
		case "mac":
			name = "macs"
		case "tag":
			name = "tags"
		case "iqn":
			name = "initiator"
		case "": // a spreadsheet's empty column
			head = append(head, nil)
			continue
		}
		i := slices.IndexFunc(known, func(c column) bool { return c.name == name })
		switch {
		case strings.Contains(name, "secret") || strings.Contains(name, "password"):
			return nil, store.Invalid("file", "the column %q would hold secrets, which are in no table: they are made by the appliance, or given to one machine at a time", strings.TrimSpace(cell))
		case i < 0:
			taken, told := Columns()
			return nil, store.Invalid("file", "there is no column %q; there are %s, and without effect %s", strings.TrimSpace(cell), strings.Join(taken, ", "), strings.Join(told, ", "))
		case seen[name]:
			return nil, store.Invalid("file", "the column %q is there twice", name)
		}
		seen[name] = true
		if known[i].read == nil {
			head = append(head, nil)
		} else {
			head = append(head, &known[i])
		}
	}
	if !seen["name"] && !seen["macs"] && !seen["uuid"] {
		return nil, store.Invalid("file", "no column says which machine a line is about; name, macs or uuid does")
	}
	return head, nil
}

func readLine(head []*column, cells []string) (p store.MachinePatch, err error) {
	for i, cell := range cells {
		if i >= len(head) {
			if strings.TrimSpace(cell) != "" {
				return store.MachinePatch{}, store.Invalid("file", "the line has %d cells, the first line has %d", len(cells), len(head))
			}
			continue
		}
		c := head[i]
		if c == nil || strings.TrimSpace(cell) == "" {
			continue
		}
		if c.name != "notes" {
			cell = strings.TrimSpace(cell)
		}
		switch {
		case strings.TrimSpace(cell) != Clear:
			err = c.read(&p, plain(cell))
		case c.clear != nil:
			c.clear(&p)
		default:
			err = store.Invalid(c.name, "a machine cannot be without it; leave the cell empty to change nothing")
		}
		if err != nil {
			var e *store.Error
			if errors.As(err, &e) {
				e.Field = c.name // "mac" is in the column macs
			}
			return store.MachinePatch{}, err
		}
	}
	return p, nil
}

// formula are the characters at which a table program begins to calculate.
const formula = "=+-@\t\r"

// cellEnd are the characters behind which some table program, of some country,
// begins another cell, whatever stands in quotation marks.
const cellEnd = ";\t\r\n"

// guarded keeps a table program from running what a machine said of itself as a
// formula; plain takes it back.
func guarded(s string) string {
	var out strings.Builder
	for i := range len(s) {
		if calculates(s, i) {
			out.WriteByte('\'')
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

func plain(s string) string {
	var out strings.Builder
	for i, first := 0, true; i < len(s); i++ {
		if first && s[i] == '\'' && i+1 < len(s) && (s[i+1] == '\'' || strings.IndexByte(formula, s[i+1]) >= 0) {
			i++
		}
		out.WriteByte(s[i])
		first = strings.IndexByte(cellEnd, s[i]) >= 0
	}
	return out.String()
}

// calculates reports whether a cell that began at byte i of s would be calculated,
// or loses a quotation mark to plain.
func calculates(s string, i int) bool {
	return (i == 0 || strings.IndexByte(cellEnd, s[i-1]) >= 0) && (s[i] == '\'' || strings.IndexByte(formula, s[i]) >= 0)
}

// Writer writes a table of machines.
type Writer struct {
	out  *csv.Writer
	cols []column
}

// NewWriter writes the first line of a table.
func NewWriter(w io.Writer) (*Writer, error) {
	t := &Writer{out: csv.NewWriter(w), cols: columns()}
	head := make([]string, len(t.cols))
	for i, c := range t.cols {
		head[i] = c.name
	}
	return t, t.out.Write(head)
}

// Write writes one machine.
func (t *Writer) Write(r Row) error {
	cells := make([]string, len(t.cols))
	for i, c := range t.cols {
		cells[i] = guarded(c.write(r))
	}
	return t.out.Write(cells)
}

// Flush ends the table.
func (t *Writer) Flush() error {
	t.out.Flush()
	return t.out.Error()
}
