package store

import "strings"

// OneLine makes what somebody else says fit for a sentence, or for the log: one line
// of text of so many bytes at most, which holds on to nothing longer. What was cut
// ends with an ellipsis.
func OneLine(s string, most int) string {
	looked := 8 * most // should the rest be blank
	cut := len(s) > looked
	if cut {
		s = s[:looked]
	}
	s = strings.ToValidUTF8(s, "")
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f && r < 0xa0 }), " ")
	if len(s) > most {
		s, cut = strings.ToValidUTF8(s[:most], ""), true
	}
	if cut {
		return s + "…"
	}
	return strings.Clone(s)
}

// ShellQuote writes text as one argument of a shell's command, whatever is in it.
func ShellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
