package attempt

import (
	"testing"
	"time"
)

func TestWhatAScriptWaitsForStandsInItsText(t *testing.T) {
	for _, c := range []struct {
		name, script string
		number       string // of the line that waits for somebody
		asks         bool
		pause        time.Duration
	}{
		{"nothing", "#!ipxe\nset username x\nsanboot iscsi:10.77.0.1:::2:iqn || goto failed\n", "", false, 0},
		{"a prompt", "#!ipxe\n\nprompt Press a key || goto lunboot_3\nsanboot iscsi:x || goto lunboot_4\n", "3", true, 0},
		{"a prompt with a time", "prompt --timeout 5000 --key s Press S && shell ||\nsanboot iscsi:x", "", false, 5 * time.Second},
		{"the same in one word", "prompt --timeout=5000 Press\nsanboot iscsi:x", "", false, 5 * time.Second},
		{"a time of no length", "prompt --timeout 0 Press || goto lunboot_1\nsanboot iscsi:x", "1", true, 0},
		{"a menu of ours", "menu lab-12\nitem san Boot\nchoose lunboot_choice || goto none\nchain x", "", true, 0},
		{"a menu with a time", "menu lab-12\nitem san Boot\nchoose --default san --timeout 90000 lunboot_choice || goto none\nchain x", "", false, 90 * time.Second},
		{"a shell behind a label", ":again shell || goto lunboot_7\nsanboot iscsi:x", "7", true, 0},
		{"a shell in the operator's mark", "shell || goto lunboot__2\nsanboot iscsi:x", "2", true, 0},
		{"sleeps", "sleep 20\nsleep 3 || goto lunboot_2\nsanboot iscsi:x\nsleep 60", "", false, 23 * time.Second},
		{"for ever", "sleep 99999999\nsanboot iscsi:x", "", false, maxPause},
		{"a comment", "# prompt Press a key\nsanboot iscsi:x", "", false, 0},
		{"after it has failed", "sanboot iscsi:x || goto failed\n:failed\nprompt Press a key\n", "", false, 0},
		{"numbers that are none", "sleep soon\nprompt --timeout soon Press\nsanboot iscsi:x", "", true, 0},
		{"no script", "", "", false, 0},
	} {
		number, _, asks := AsksSomebody(c.script)
		if asks != c.asks || number != c.number || pause(c.script) != c.pause {
			t.Errorf("%s: waits %v at line %q, and for %v; want %v at %q, and %v", c.name, asks, number, pause(c.script), c.asks, c.number, c.pause)
		}
	}
}
