package sheet

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"lunboot/store"
)

// Format is how a table is written.
type Format string

// The formats.
const (
	CSV  Format = "csv"  // RFC 4180, in UTF-8
	JSON Format = "json" // RFC 8259: an array of objects
)

// Formats lists every format.
func Formats() []Format { return []Format{CSV, JSON} }

// ParseFormat reads a format; none is CSV.
func ParseFormat(s string) (Format, error) {
	f := Format(strings.ToLower(s))
	switch {
	case f == "":
		return CSV, nil
	case slices.Contains(Formats(), f):
		return f, nil
	}
	return "", store.Invalid("format", "%q is no format of a table; there are: csv, json", s)
}

// MediaType is the media type of a table.
func (f Format) MediaType() string {
	if f == JSON {
		return "application/json"
	}
	return "text/csv; charset=utf-8" // RFC 7111
}

// Column is one column of a table that is only written. A cell is a text, a list
// of texts, a number, a truth or a time; nil and the zero time are empty.
type Column[T any] struct {
	Name string
	Cell func(T) any
}

// Table is the columns of a list, in their order.
type Table[T any] []Column[T]

// Out writes a table row by row.
type Out[T any] struct {
	cols Table[T]
	csv  *csv.Writer // nil for JSON
	json *bufio.Writer
	n    int
}

// Write begins a table.
func (t Table[T]) Write(w io.Writer, f Format) (*Out[T], error) {
	o := &Out[T]{cols: t}
	if f == JSON {
		o.json = bufio.NewWriter(w)
		_, err := o.json.WriteString("[")
		return o, err
	}
	o.csv = csv.NewWriter(w)
	head := make([]string, len(t))
	for i, c := range t {
		head[i] = c.Name
	}
	return o, o.csv.Write(head)
}

// Row writes one row.
func (o *Out[T]) Row(item T) error {
	if o.csv != nil {
		cells := make([]string, len(o.cols))
		for i, c := range o.cols {
			cells[i] = guarded(cellText(c.Cell(item)))
		}
		return o.csv.Write(cells)
	}
	var b bytes.Buffer
	before := ",\n "
	if o.n == 0 {
		before = "\n "
	}
	o.n++
	b.WriteString(before + "{")
	for i, c := range o.cols {
		if i > 0 {
			b.WriteString(", ")
		}
		key, err := json.Marshal(c.Name)
		if err != nil {
			return err
		}
		value, err := json.Marshal(cellJSON(c.Cell(item)))
		if err != nil {
			return fmt.Errorf("write %s: %w", c.Name, err)
		}
		b.Write(key)
		b.WriteString(": ")
		b.Write(value)
	}
	b.WriteByte('}')
	_, err := o.json.Write(b.Bytes())
	return err
}

// Flush sends what was written so far.
func (o *Out[T]) Flush() error {
	if o.csv != nil {
		o.csv.Flush()
		return o.csv.Error()
	}
	return o.json.Flush()
}

// Close ends the table.
func (o *Out[T]) Close() error {
	if o.json != nil {
		if _, err := o.json.WriteString("\n]\n"); err != nil {
			return err
		}
	}
	return o.Flush()
}

func cellText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []string:
		return strings.Join(v, " ")
	case int:
		return strconv.Itoa(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		if v.IsZero() {
			return ""
		}
		return v.UTC().Format(time.RFC3339)
	}
	return fmt.Sprint(v)
}

func cellJSON(v any) any {
	switch v := v.(type) {
	case time.Time:
		if v.IsZero() {
			return nil
		}
		return v.UTC()
	case []string:
		if v == nil {
			return []string{}
		}
	}
	return v
}
