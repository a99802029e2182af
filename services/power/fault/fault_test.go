package fault

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestABMCsWordsAreOneShortLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "",
		"  It is\r\n busy.\t":                   "It is busy.",
		"The\x1b[31m BMC\u009b31m is\x00unwell": "The [31m BMC 31m is unwell",
		"caf\xe9":                               "caf",
		strings.Repeat("x", maxWords):           strings.Repeat("x", maxWords),
		strings.Repeat("x", maxWords+1):         strings.Repeat("x", maxWords) + "…",
		strings.Repeat(" ", 4<<20) + "end":      "…",
	} {
		if got := Words(in); got != want {
			t.Errorf("%.40q becomes %q, want %q", in, got, want)
		}
	}
	if got := Words(strings.Repeat("é", 4<<20)); !utf8.ValidString(got) || len(got) > maxWords+len("…") {
		t.Errorf("a letter is cut: %q", got)
	}
}
