package store

import "testing"

func TestAFixIsReadAsItWasWritten(t *testing.T) {
	for kind, takes := range fixArguments() {
		a := FixAction{Kind: kind}
		if takes {
			a.Argument = "some-thing.1"
		}
		got, err := ParseFix(a.String())
		if err != nil || got != a {
			t.Errorf("%s is read as %+v, %v", a, got, err)
		}
	}
	for _, s := range []string{"", "map-lun-", "map-lun", "guide-windows", "enroll-x", "check-again-"} {
		if a, err := ParseFix(s); KindOf(err) != KindInvalid {
			t.Errorf("%q is read as %+v", s, a)
		}
	}
}

func TestOnlyWhatADiagnosisOffersIsOffered(t *testing.T) {
	d := Diagnosis{Fixes: []Fix{{Label: "by hand"}, {Action: "map-lun-0", Label: "Map it as LUN 0"}}}
	if !d.Offers(FixAction{FixMapLUN, "0"}) || d.Offers(FixAction{FixMapLUN, "1"}) || d.Offers(FixAction{Kind: FixSecret}) {
		t.Error(d)
	}
}
