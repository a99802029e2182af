package store

import (
	"strings"
	"testing"
)

func TestAPrefixIsReadInEverySpellingAndMatchesWholeBytes(t *testing.T) {
	for _, s := range []string{"00:07:e9", "00-07-E9", "0007.e9", "0007e9", " 0007E9 "} {
		p, err := ParseMACPrefix(s)
		if err != nil || p != "00:07:e9" {
			t.Errorf("%q is %q, %v", s, p, err)
		}
	}
	for _, s := range []string{"", "0", "000", "zz", "00:07:e9:00:00:00:00", "01:00:5e", "00:0"} {
		if p, err := ParseMACPrefix(s); KindOf(err) != KindInvalid {
			t.Errorf("%q is %q, %v", s, p, err)
		}
	}
	p := MACPrefix("00:07:e9")
	if !p.Matches(MAC{0, 7, 0xe9, 1, 2, 3}) || p.Matches(MAC{0, 7, 0xe8, 1, 2, 3}) || MACPrefix("").Matches(MAC{1}) {
		t.Error("the prefix matches what it must not, or not what it must")
	}
	if whole, err := ParseMACPrefix("00:07:e9:01:02:03"); err != nil || !whole.Matches(MAC{0, 7, 0xe9, 1, 2, 3}) {
		t.Errorf("a whole MAC is no prefix: %v", err)
	}
}

func TestAPatternNamesEachMachineDifferently(t *testing.T) {
	m := MAC{0, 7, 0xe9, 0x0f, 0xea, 0xf5}
	for s, want := range map[string]string{"lab-{n}": "lab-7", "Lab-{nn}": "lab-07", "{nnn}x": "007x", "pc-{mac}": "pc-eaf5", "r{n}-{mac}": "r7-eaf5"} {
		p, err := ParseNamePattern(s)
		if err != nil || p.Name(7, m) != want {
			t.Errorf("%q makes %q, %v; want %q", s, p.Name(7, m), err, want)
		}
	}
	if p, err := ParseNamePattern(" "); err != nil || p != "" {
		t.Errorf("no pattern is %q, %v", p, err)
	}
	for _, s := range []string{"lab", "lab-{x}", "lab {n}", "-{n}", "lab.{n}", strings.Repeat("x", 60) + "{nnnn}", "{n", "ü{n}", "lab-{nnnnn}"} {
		if p, err := ParseNamePattern(s); KindOf(err) != KindInvalid {
			t.Errorf("%q is the pattern %q, %v", s, p, err)
		}
	}
}

func TestRulesAreTidiedOrRefused(t *testing.T) {
	rules, err := AutoEnroll{{Prefix: "0007E9", Name: "LAB-{n}"}, {Prefix: "00-07", Limit: 3}}.Normalize()
	if err != nil || rules[0] != (AutoEnrollRule{"00:07:e9", "lab-{n}", "", DefaultAutoEnrollLimit, "", false, false}) || rules[1].Prefix != "00:07" {
		t.Fatalf("%+v, %v", rules, err)
	}
	if r, ok := rules.For(MAC{0, 7, 0xe9}); !ok || r.Prefix != "00:07:e9" {
		t.Errorf("the first rule that matches decides, not %+v", r)
	}
	if _, ok := rules.For(MAC{2}); ok {
		t.Error("a rule matches a MAC of another maker")
	}
	count := rules.Count([]Machine{{MACs: []MAC{{0, 7, 0xe9, 1}, {0, 7, 0xe9, 2}}}, {MACs: []MAC{{2}, {0, 7, 1}}}, {MACs: []MAC{{2}}}})
	if count["00:07:e9"] != 1 || count["00:07"] != 1 {
		t.Errorf("counted %v", count)
	}
	many := make(AutoEnroll, MaxAutoEnrollRules+1)
	for _, bad := range []AutoEnroll{{{Prefix: "zz"}}, {{Prefix: "00:07"}, {Prefix: "0007"}}, {{Prefix: "00", Name: "same"}}, {{Prefix: "00", Limit: -1}}, {{Prefix: "00", Limit: 5000}}, many} {
		if _, err := bad.Normalize(); KindOf(err) != KindInvalid {
			t.Errorf("%+v is taken: %v", bad, err)
		}
	}
}
