package scripts

import (
	"net/url"
	"strings"
)

// ascii replaces the few letters of people's typography that our own sentences
// use; iPXE's console knows ASCII only.
var ascii = strings.NewReplacer("’", "'", "‘", "'", "“", `"`, "”", `"`, "–", "-", "—", "-", "…", "...", "→", "->", "×", "x", "\u00a0", " ")

// Text makes a string from outside safe to stand on a line after echo, a
// comment or a prompt: one line of printable ASCII that iPXE neither expands
// (${...}), nor ends (a word that begins with #, or is ||, && or ;), nor takes
// for an option (a first word that begins with -).
func Text(s string) string {
	s = ascii.Replace(s)
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case r < 0x20 || r >= 0x7f || r == '$':
			return '?'
		}
		return r
	}, s)
	words := strings.Fields(s)
	for i, w := range words {
		switch {
		case w == "||" || w == "&&" || w == ";":
			words[i] = ","
		case w[0] == '#':
			words[i] = "No." + strings.TrimLeft(w, "#")
		case i == 0 && w[0] == '-':
			words[i] = "~" + strings.TrimLeft(w, "-")
		}
	}
	return strings.Join(words, " ")
}

// Word makes a string from outside safe to stand as one word of a command: no
// white space, nothing that iPXE expands or splits at, and never empty, since
// an empty word would shift the ones behind it.
func Word(s string) string {
	w := strings.ReplaceAll(Text(s), " ", "_")
	if w == "" {
		return "?"
	}
	return w
}

// escapeURL makes a string from outside safe to stand in the path or the query of a
// URL (RFC 3986 §2.1). The colons of a MAC may stand in both.
func escapeURL(s string) string {
	return strings.NewReplacer("+", "%20", "%3A", ":").Replace(url.QueryEscape(s))
}

// wrap breaks a sentence into lines that fit an 80-column console.
func wrap(s string) []string {
	const width = 76
	var out []string
	line := ""
	for _, w := range strings.Fields(Text(s)) {
		if line != "" && len(line)+1+len(w) > width {
			out = append(out, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	if line != "" {
		out = append(out, Text(line))
	}
	for i := range out {
		out[i] = Text(out[i]) // a word that begins a line is a first word now
	}
	return out
}
