package chart

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func whole(f float64) string { return fmt.Sprintf("%g", f) }

func boots() Chart {
	return Chart{
		ID: "boots", Title: "Boots a day", Desc: "2 days", Place: "Day", Labels: []string{"Sat", "Sun"}, Format: whole,
		Series: []Series{{"came up", Good, []float64{3, 0}}, {"failed", Bad, []float64{1, 2}}},
	}
}

// elements reads the markup as XML, which it must be, and returns the attributes
// of each element of a name.
func elements(t *testing.T, markup, name string) (all []map[string]string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(markup))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%v in %s", err, markup)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == name {
			attrs := map[string]string{}
			for _, a := range e.Attr {
				attrs[a.Name.Local] = a.Value
			}
			all = append(all, attrs)
		}
	}
}

func number(t *testing.T, s string) float64 {
	t.Helper()
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestBarsStandUponEachOtherAndReachTheirValues(t *testing.T) {
	var good, bad []map[string]string
	for _, r := range elements(t, string(Bars(boots())), "rect") {
		switch {
		case r["x"] == "":
		case r["class"] == "c-good":
			good = append(good, r)
		case r["class"] == "c-bad":
			bad = append(bad, r)
		}
	}
	if len(good) != 1 || len(bad) != 2 {
		t.Fatalf("%d bars came up and %d failed", len(good), len(bad))
	}
	// The axis ends at 4, the sum of the first day.
	if y, h := number(t, good[0]["y"]), number(t, good[0]["height"]); h != 75 || y != 25 {
		t.Errorf("3 of 4 are drawn from %g, %g high", y, h)
	}
	if y, h := number(t, bad[0]["y"]), number(t, bad[0]["height"]); h != 25 || y != 0 {
		t.Errorf("1 of 4 upon it is drawn from %g, %g high", y, h)
	}
	if x, w := number(t, bad[1]["x"]), number(t, bad[1]["width"]); x < 500 || x+w > 1000 {
		t.Errorf("the second day's is drawn at %g, %g wide", x, w)
	}
}

func TestWhatColourTellsIsToldOtherwiseToo(t *testing.T) {
	markup := string(Bars(boots()))
	stripes := 0
	for _, r := range elements(t, markup, "rect") {
		if r["fill"] == "url(#boots-stripes)" {
			stripes++
		}
	}
	if stripes != 3 { // two bars and the key
		t.Errorf("%d of what failed have stripes", stripes)
	}
	for _, want := range []string{"<title>Sun: failed, 2</title>", `<th scope="row">Sun</th><td class="num">0</td><td class="num">2</td>`, `role="img" aria-labelledby="boots-t boots-d"`, `<desc id="boots-d">2 days</desc>`} {
		if !strings.Contains(markup, want) {
			t.Errorf("no %s in %s", want, markup)
		}
	}
	if ids := regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(markup, -1); len(ids) != 4 {
		t.Errorf("ids: %v", ids)
	}
}

// The pages' policy allows neither style nor script in the page.
func TestNothingIsStyledOrRunInThePage(t *testing.T) {
	for _, markup := range []string{string(Bars(boots())), string(Lines(boots()))} {
		for _, no := range []string{"style", "<script", "onload", "javascript:"} {
			if strings.Contains(markup, no) {
				t.Errorf("%q in %s", no, markup)
			}
		}
	}
}

func TestTextOfStrangersIsText(t *testing.T) {
	c := boots()
	hostile := `"><script>alert(1)</script>&`
	c.Title, c.Desc, c.Place, c.Labels[0], c.Series[0].Name, c.LevelName, c.Level = hostile, hostile, hostile, hostile, hostile, hostile, 1
	c.Format = func(float64) string { return hostile }
	for _, markup := range []string{string(Bars(c)), string(Lines(c))} {
		elements(t, markup, "x")
		if strings.Contains(markup, "<script") || !strings.Contains(markup, "&lt;script&gt;") {
			t.Errorf("it is markup: %s", markup)
		}
	}
}

func TestALineHasGapsWhereNothingIsKnown(t *testing.T) {
	nan := math.NaN()
	c := Chart{ID: "x", Labels: []string{"a", "b", "c", "d", "e"}, Format: whole, Series: []Series{{"read", First, []float64{nan, 1, nan, 2, 4}}}}
	var lines []string
	for _, l := range elements(t, string(Lines(c)), "polyline") {
		lines = append(lines, l["points"])
	}
	if want := []string{"247,75 253,75", "750,50 1000,0"}; strings.Join(lines, "; ") != strings.Join(want, "; ") {
		t.Errorf("drawn: %v, want %v", lines, want)
	}
	if markup := string(Lines(c)); !strings.Contains(markup, `<th scope="row">c</th><td class="num">–</td>`) {
		t.Errorf("the table makes a number of what is not known: %s", markup)
	}
}

func TestTheLevelIsWithinThePicture(t *testing.T) {
	c := boots()
	c.Level, c.LevelName = 8, "usually 8"
	for _, l := range elements(t, string(Bars(c)), "line") {
		if l["class"] == "c-level" && l["x2"] == "1000" {
			if y := number(t, l["y1"]); y != 20 { // 8 of 10
				t.Errorf("it is at %g", y)
			}
			return
		}
	}
	t.Error("there is none")
}

func TestTheAxisEndsAtARoundNumberAboveAll(t *testing.T) {
	for _, c := range []struct{ v, unit, want float64 }{
		{0, 10, 1}, {1, 10, 1}, {3, 10, 4}, {4, 10, 4}, {5, 10, 10}, {21, 10, 40}, {41, 10, 100}, {0.5, 10, 1},
		{1, 1024, 1}, {900, 1024, 1000}, {1024, 1024, 1024}, {1500, 1024, 2048}, {300 << 20, 1024, 400 << 20}, {math.Inf(1), 10, 1}, {math.NaN(), 10, 1},
	} {
		if got := round(c.v, c.unit); got != c.want || c.v < math.Inf(1) && got < c.v {
			t.Errorf("above %g by %g: %g, want %g", c.v, c.unit, got, c.want)
		}
	}
}

func TestAChartOfNothingIsEmptyAndWhole(t *testing.T) {
	for _, markup := range []string{string(Bars(Chart{ID: "x", Format: whole})), string(Lines(Chart{ID: "x", Format: whole, Labels: []string{"a"}, Series: []Series{{"s", First, []float64{math.NaN()}}}}))} {
		elements(t, markup, "x")
		if strings.Contains(markup, "NaN") || strings.Contains(markup, "Inf") {
			t.Error(markup)
		}
	}
}
