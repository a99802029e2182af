package diagnose

import (
	"strings"
	"testing"
)

// Who did something here stands in the log of changes, and nowhere else.
func TestWhoAsksWhoDidItIsSentToThePageChanges(t *testing.T) {
	n := 0
	for _, e := range Catalogue() {
		if !strings.Contains(e.Help, "says who") {
			continue
		}
		n++
		if !strings.Contains(e.Help, "The page Changes (Settings, Changes), or lunboot audit, says who") {
			t.Errorf("%s: %s", e.Code, e.Help)
		}
	}
	if n < 2 {
		t.Errorf("%d codes speak of who did it; LB-TGT-08 and LB-BOOT-07 do", n)
	}
}

// A sign is shown as it is typed, beside its name.
func TestWordsOfTheTradeAreSaidAsTheyAre(t *testing.T) {
	d := own("prompt Press a key || goto lunboot_1\nsanboot iscsi:10.77.0.1:::2:iqn").quiet().first(t, lab12(win11))
	if d.Code != "LB-SCR-11" || !strings.Contains(d.Fixes[1].Label, "two vertical bars (||) at its end") {
		t.Errorf("%s: %+v", d.Code, d.Fixes)
	}
	if e, _ := Find("LB-SCR-14"); e.Name != "Its kernel is a text file" {
		t.Errorf("LB-SCR-14 is called %s", e.Name)
	}
	if e, _ := Find("LB-NET-04"); !strings.Contains(e.Help, "behind NAT") {
		t.Errorf("LB-NET-04: %s", e.Help)
	}
}
