package store

import (
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWhatOthersSayIsOneShortLine(t *testing.T) {
	const most = 200
	for in, want := range map[string]string{
		"":                                      "",
		"  It is\r\n busy.\t":                   "It is busy.",
		"The\x1b[31m BMC\u009b31m is\x00unwell": "The [31m BMC 31m is unwell",
		"caf\xe9":                               "caf",
		strings.Repeat("x", most):               strings.Repeat("x", most),
		strings.Repeat("x", most+1):             strings.Repeat("x", most) + "…",
		strings.Repeat(" ", 2*most) + "end":     "end",
		strings.Repeat(" ", 4<<20) + "end":      "…",
	} {
		if got := OneLine(in, most); got != want {
			t.Errorf("%.40q becomes %q, want %q", in, got, want)
		}
	}
	if got := OneLine(strings.Repeat("é", 4<<20), most); !utf8.ValidString(got) || len(got) > most+len("…") {
		t.Errorf("a letter is cut: %q", got)
	}
	if got := OneLine("xé", 2); got != "x…" {
		t.Errorf("half a letter is kept: %q", got)
	}
}

func TestAnyTextIsOneArgumentOfAShell(t *testing.T) {
	for _, s := range []string{"", "plain", "it's", "'", "a b; $(reboot) `id` \\ \"x\" *", "-n", "two\nlines"} {
		if out, err := exec.Command("sh", "-c", "printf %s "+ShellQuote(s)).Output(); err != nil || string(out) != s {
			t.Errorf("%q becomes %q, %v", s, out, err)
		}
	}
}
