package fault

import (
	"strings"
	"testing"
)

func TestABMCsWordsAreOneShortLine(t *testing.T) {
	if got, want := Words("It is\r\n"+strings.Repeat("x", maxWords)), "It is "+strings.Repeat("x", maxWords-len("It is "))+"…"; got != want {
		t.Errorf("it becomes %q", got)
	}
}
