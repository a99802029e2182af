package pages

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"lunboot/store"
	"lunboot/web/auth"
)

// scopeOf is what a form's path asks of who sends it. The routes refuse by the
// same rules; a test sends every form that is left on every page.
func scopeOf(path string) store.Scope {
	under := func(prefix string) bool { return strings.HasPrefix(path, prefix) }
	switch {
	case path == "/logout", under("/me/"):
		return store.ScopeRead
	case path == "/people", under("/people/"), path == "/tokens", path == "/volumes/import", path == "/volumes/attach", path == "/media/path", path == "/settings/backup",
		path == "/subnets", under("/subnets/"), under("/settings/appliance/"), under("/settings/oidc"), under("/settings/network/") && !strings.HasSuffix(path, "/ask"):
		return store.ScopeAdmin
	}
	return store.ScopeOperate
}

// offered leaves out of a page what somebody may not do: forms that would be
// refused, what holds nothing else, and what is marked for admins or for those
// who change things. A form that is marked data-shows stays as what it shows.
func offered(page []byte, who auth.Identity) ([]byte, error) {
	if who.May(store.ScopeAdmin) {
		return page, nil
	}
	doc, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		return nil, fmt.Errorf("read a page that was made: %w", err)
	}
	prune(doc, who)
	var b bytes.Buffer
	if err := html.Render(&b, doc); err != nil {
		return nil, fmt.Errorf("write a page that was made: %w", err)
	}
	return b.Bytes(), nil
}

// prune does it below one element, and reports whether something went.
func prune(n *html.Node, who auth.Identity) (went bool) {
	for c := n.FirstChild; c != nil; {
		next := c.NextSibling
		switch {
		case c.Type != html.ElementNode:
		case barred(c, who):
			n.RemoveChild(c)
			went = true
		case c.DataAtom == atom.Form && refusedTo(c, who):
			went = true
			if has, _ := attr(c, "data-shows"); !has {
				n.RemoveChild(c)
				break
			}
			show(c)
		case prune(c, who):
			went = true
			if hollow(c) {
				n.RemoveChild(c)
			}
		}
		c = next
	}
	return went
}

func attr(n *html.Node, key string) (bool, string) {
	for _, a := range n.Attr {
		if a.Key == key {
			return true, a.Val
		}
	}
	return false, ""
}

// barred reports what is marked for others: class admin, and class writes for
// those who only look.
func barred(n *html.Node, who auth.Identity) bool {
	_, class := attr(n, "class")
	classes := strings.Fields(class)
	return slices.Contains(classes, "admin") || slices.ContainsFunc(classes, func(c string) bool { return c == "writes" || c == "tickbox" }) && !who.May(store.ScopeOperate)
}

func refusedTo(form *html.Node, who auth.Identity) bool {
	_, method := attr(form, "method")
	_, action := attr(form, "action")
	return strings.EqualFold(method, "post") && !who.May(scopeOf(action))
}

// show makes of a form what it shows: its fields, which nobody can change, and
// nothing to press.
func show(form *html.Node) {
	_, class := attr(form, "class")
	// It stays a form of its own: radio buttons of two would else be one group.
	form.Attr = []html.Attribute{{Key: "class", Val: class}}
	var strip func(*html.Node)
	strip = func(n *html.Node) {
		for c := n.FirstChild; c != nil; {
			next := c.NextSibling
			_, kind := attr(c, "type")
			if c.DataAtom == atom.Button || c.DataAtom == atom.Input && kind == "hidden" {
				n.RemoveChild(c)
			} else {
				strip(c)
			}
			c = next
		}
	}
	strip(form)
	fields := &html.Node{Type: html.ElementNode, Data: "fieldset", DataAtom: atom.Fieldset, Attr: []html.Attribute{{Key: "disabled"}, {Key: "class", Val: "shown"}}}
	for form.FirstChild != nil {
		c := form.FirstChild
		form.RemoveChild(c)
		fields.AppendChild(c)
	}
	form.AppendChild(fields)
}

// hollow reports whether an element that lost something holds nothing more that
// somebody would look at: a summary that opens nothing, a card with a heading
// alone.
func hollow(n *html.Node) bool {
	switch n.DataAtom {
	case atom.Details, atom.Section, atom.Li, atom.Div, atom.Span, atom.Ul:
	default:
		return false
	}
	var holds func(*html.Node) bool
	holds = func(n *html.Node) bool {
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			switch {
			case c.Type == html.TextNode && strings.TrimSpace(c.Data) != "":
				return true
			case c.Type != html.ElementNode, c.DataAtom == atom.Summary, c.DataAtom == atom.H2, c.DataAtom == atom.Svg:
			case c.DataAtom == atom.Input, c.DataAtom == atom.A, holds(c):
				return true
			}
		}
		return false
	}
	return !holds(n)
}
