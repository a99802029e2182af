package typed

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"lunboot/store"
)

// Fault is what is wrong with one field.
type Fault struct {
	Field, Text string
	Line        int // of its text, from 1; 0 for none
}

// Faults lists the fields that an error speaks of, each once, in its order.
func Faults(err error) (out []Fault) {
	var walk func(error)
	walk = func(err error) {
		switch e := err.(type) {
		case *store.Error:
			if e.Field != "" && !slices.ContainsFunc(out, func(f Fault) bool { return f.Field == e.Field }) {
				out = append(out, Fault{e.Field, sentence(e.Error()), e.Line})
			}
			if e.Field == "" {
				walk(e.Err)
			}
		case interface{ Unwrap() []error }:
			for _, one := range e.Unwrap() {
				walk(one)
			}
		case interface{ Unwrap() error }:
			walk(e.Unwrap())
		}
	}
	walk(err)
	return out
}

func sentence(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return strings.TrimSuffix(string(unicode.ToUpper(r))+s[n:], ".") + "."
}

// Refill puts what was typed back into the form of a page that was sent to path
// and refused, marks the fields at fault, each with what is wrong with it beside
// it, and gives the first of them the focus. Passwords and files are not put
// back. A page without that form comes back as it is.
func Refill(page []byte, path string, values url.Values, faults []Fault) ([]byte, error) {
	doc, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		return nil, fmt.Errorf("read a page that was made: %w", err)
	}
	f := sentTo(doc, path, values)
	if f == nil {
		return page, nil
	}
	seen := map[string]int{}
	fields := map[string]*html.Node{}
	for _, c := range slices.Collect(f.Descendants()) { // texts are put in on the way
		name := get(c, "name")
		if name == "" || !isField(c) {
			continue
		}
		put(c, values[name], seen[name])
		seen[name]++
		if fields[name] == nil {
			fields[name] = c
		}
	}
	first := true
	for _, fault := range faults {
		c := fields[fault.Field]
		if c == nil {
			continue
		}
		mark(c, fault)
		if first {
			set(c, "autofocus", "")
			first = false
		}
		open(c)
	}
	open(f)
	var b bytes.Buffer
	if err := html.Render(&b, doc); err != nil {
		return nil, fmt.Errorf("write a page that was made: %w", err)
	}
	return b.Bytes(), nil
}

// sentTo finds the form that a page sends to a path: of several, the one whose
// hidden fields are those that came. A revision may have moved meanwhile.
func sentTo(doc *html.Node, path string, values url.Values) (found *html.Node) {
	most := -1
	for n := range doc.Descendants() {
		if n.DataAtom != atom.Form || !strings.EqualFold(get(n, "method"), "post") {
			continue
		}
		if to, _, _ := strings.Cut(get(n, "action"), "?"); to != path && !slices.ContainsFunc(slices.Collect(n.Descendants()), func(c *html.Node) bool { return get(c, "formaction") == path }) {
			continue
		}
		same, other := 0, false
		for c := range n.Descendants() {
			name := get(c, "name")
			if c.DataAtom != atom.Input || get(c, "type") != "hidden" || strings.HasPrefix(name, "revision") {
				continue
			}
			if slices.Contains(values[name], get(c, "value")) {
				same++
			} else if values.Has(name) {
				other = true
			}
		}
		if !other && same > most {
			found, most = n, same
		}
	}
	return found
}

// isField reports whether somebody fills an element in, by whatever means.
func isField(n *html.Node) bool {
	switch n.DataAtom {
	case atom.Select, atom.Textarea:
		return true
	case atom.Input:
		switch get(n, "type") {
		case "hidden", "submit", "button":
			return false
		}
		return true
	}
	return false
}

// put puts the values of a field's name back; at is how many fields of that name
// stand before it.
func put(n *html.Node, values []string, at int) {
	kind := get(n, "type")
	switch {
	case kind == "password", kind == "file":
	case kind == "checkbox" || kind == "radio":
		value := "on" // what a browser sends for a tick without one (HTML, 4.10.5.1.15)
		if has(n, "value") {
			value = get(n, "value")
		}
		drop(n, "checked")
		if slices.Contains(values, value) {
			set(n, "checked", "")
		}
	case at >= len(values):
	case n.DataAtom == atom.Input:
		set(n, "value", values[at])
	case n.DataAtom == atom.Textarea:
		for n.FirstChild != nil {
			n.RemoveChild(n.FirstChild)
		}
		n.AppendChild(&html.Node{Type: html.TextNode, Data: strings.ReplaceAll(values[at], "\r\n", "\n")})
	default:
		choose(n, values[at])
	}
}

// choose selects the option of a value, when there is one.
func choose(n *html.Node, value string) {
	var to *html.Node
	for o := range n.Descendants() {
		if o.DataAtom == atom.Option && valueOf(o) == value {
			to = o
			break
		}
	}
	if to == nil {
		return
	}
	for o := range n.Descendants() {
		drop(o, "selected")
	}
	set(to, "selected", "")
}

// valueOf is what an option sends: its text when it has no value.
func valueOf(o *html.Node) string {
	if has(o, "value") {
		return get(o, "value")
	}
	var b strings.Builder
	for c := range o.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// mark says that a field is at fault, to eyes and to screen readers.
func mark(n *html.Node, f Fault) {
	id := "fault-" + f.Field
	set(n, "aria-invalid", "true")
	set(n, "aria-describedby", strings.TrimSpace(get(n, "aria-describedby")+" "+id))
	// Behind the label: within, it would be read out as the field's name.
	after := n
	for p := n.Parent; p != nil && p.DataAtom != atom.Form; p = p.Parent {
		if p.DataAtom == atom.Label {
			after = p
			break
		}
	}
	says := &html.Node{Type: html.ElementNode, Data: "p", DataAtom: atom.P, Attr: []html.Attribute{{Key: "class", Val: "fault"}, {Key: "id", Val: id}}}
	says.AppendChild(&html.Node{Type: html.TextNode, Data: f.Text})
	after.Parent.InsertBefore(says, after.NextSibling)
}

// open shows what an element lies hidden in.
func open(n *html.Node) {
	for p := n.Parent; p != nil; p = p.Parent {
		if p.DataAtom == atom.Details {
			set(p, "open", "")
		}
	}
}

func has(n *html.Node, key string) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == key })
}

func get(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func set(n *html.Node, key, value string) {
	for i := range n.Attr {
		if n.Attr[i].Key == key {
			n.Attr[i].Val = value
			return
		}
	}
	n.Attr = append(n.Attr, html.Attribute{Key: key, Val: value})
}

func drop(n *html.Node, key string) {
	n.Attr = slices.DeleteFunc(n.Attr, func(a html.Attribute) bool { return a.Key == key })
}
