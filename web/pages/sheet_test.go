package pages

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rsc.io/qr"

	"lunboot/store/sheet"
)

// send posts a form with a file.
func send(t *testing.T, l *lab, path, file string, fields ...string) (int, string) {
	t.Helper()
	base, c := l.open(t)
	resp, err := c.PostForm(base+"/login", map[string][]string{"password": {labPassword}})
	must(t, err)
	resp.Body.Close()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i+1 < len(fields); i += 2 {
		must(t, w.WriteField(fields[i], fields[i+1]))
	}
	part, err := w.CreateFormFile("file", "machines.csv")
	must(t, err)
	_, err = io.WriteString(part, file)
	must(t, err)
	must(t, w.Close())
	resp, err = c.Post(base+path, w.FormDataContentType(), &b)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(body)
}

func TestATableIsLookedAtBeforeItIsImported(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/machines/import")
	has(t, body, `enctype="multipart/form-data"`, `name="table"`, "asset_tag", "Look what it would do", `href="/machines"`)
	_, body = get("/machines")
	has(t, body, `href="/machines/import"`)
	table := "name,macs\r\nlab-20,00:07:e9:0f:ea:f5\r\nlab-21,nothing\r\nlab-01,\r\n"
	code, body := send(t, l, "/machines/import", "\ufeff"+table)
	if code != http.StatusOK || len(l.machines) != 4 {
		t.Errorf("a look answers %d and leaves %d machines", code, len(l.machines))
	}
	has(t, body, "What would be done", "1 new · 1 changed · 0 as they are · 1 refused", "is not a MAC address", "Add 1 machine and change 1 machine", "<del>10.77.0.101</del>", "lab-21,nothing")
	if strings.Index(body, "Refused") > strings.Index(body, ">New<") {
		t.Error("what is refused stands behind what is not")
	}
	match := regexp.MustCompile(`name="match" value="([^"]*)"`).FindStringSubmatch(body)
	if match == nil {
		t.Fatal("the page has no match")
	}
	if code, body = post("/machines/import", "table", table, "act", "import", "match", "other"); code != http.StatusConflict || len(l.machines) != 4 {
		t.Errorf("another state answers %d", code)
	}
	has(t, body, "something changed since", "What would be done")
	if code, body = post("/machines/import", "table", table, "act", "import", "match", match[1]); code != http.StatusOK || len(l.machines) != 5 {
		t.Errorf("it answers %d and leaves %d machines", code, len(l.machines))
	}
	has(t, body, "Imported: 1 machine added, 1 machine changed.", "What was done", "refused lines are below")
	for what, form := range map[string][]string{"nothing": {}, "no table": {"table", "colour\nred"}, "no quotes": {"table", "name\n\"a"}} {
		if code, body := post("/machines/import", form...); code != http.StatusUnprocessableEntity || !strings.Contains(body, `role="alert"`) {
			t.Errorf("%s answers %d", what, code)
		}
	}
	if code, body := send(t, l, "/machines/import", strings.Repeat("x", sheet.MaxBytes+10)); code != http.StatusUnprocessableEntity || !strings.Contains(body, "larger than 2 MiB") {
		t.Errorf("too large a table answers %d", code)
	}
	if code, _ := send(t, l, "/machines/import", strings.Repeat("x", 5*sheet.MaxBytes)); code != http.StatusUnprocessableEntity {
		t.Errorf("a table that does not end answers %d", code)
	}
}

func TestWhatATableSaysCannotBreakThePage(t *testing.T) {
	l := full()
	l.enter(t)
	_, body := send(t, l, "/machines/import", "name,macs,notes\na,00:07:e9:0f:ea:f5,</textarea><script>alert(1)</script>\n<b>,x,y\n")
	for _, bad := range []string{"</textarea><script>", "<b>,x"} {
		if strings.Contains(body, bad) {
			t.Errorf("the page carries %q", bad)
		}
	}
}

func TestTheVerdictsOnTwoThousandLinesAreALightPage(t *testing.T) {
	l := full()
	l.enter(t)
	var table strings.Builder
	table.WriteString("name,macs,profile,tags\n")
	for n := range 2000 {
		fmt.Fprintf(&table, "pc-%04d,00:07:e9:%02x:%02x:%02x,san,room 3\n", n, n*7919>>8&255, n*104729>>4&255, n*31&255)
	}
	_, body := send(t, l, "/machines/import", table.String())
	has(t, body, "2000 new", "And 1800 lines more.", "Add 2000 machines")
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err := io.WriteString(w, body)
	must(t, err)
	must(t, w.Close())
	if z.Len() > 100<<10 {
		t.Errorf("it weighs %d bytes", z.Len())
	}
}

func TestLabelsArePrintedForTheTickedAndForAll(t *testing.T) {
	l := many(200)
	get, _ := l.enter(t)
	names := func(path string) []string {
		t.Helper()
		code, body := get(path)
		if code != http.StatusOK {
			t.Errorf("%s answers %d", path, code)
		}
		var out []string
		for _, m := range regexp.MustCompile(`<strong>([^<]*)</strong><span class="mono">`).FindAllStringSubmatch(body, -1) {
			out = append(out, m[1])
		}
		return out
	}
	if got := names("/machines/labels?id=2&id=1001"); !slices.Equal(got, []string{"lab-12", "pc-0001"}) {
		t.Errorf("ticked are %v", got)
	}
	if got := names("/machines/labels?search=lab&sort=name"); !slices.Equal(got, []string{"lab-01", "lab-03", "lab-08", "lab-12"}) {
		t.Errorf("found are %v", got)
	}
	_, body := get("/machines/labels?search=pc-&sort=name")
	has(t, body, "1–96 of 200", `rel="next"`, `role="img"`)
	if strings.Contains(body, "style=") {
		t.Error("a strict policy lets no style in")
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err := io.WriteString(w, body)
	must(t, err)
	must(t, w.Close())
	if z.Len() > 100<<10 {
		t.Errorf("96 labels weigh %d bytes", z.Len())
	}
	if got := names("/machines/labels?search=pc-&sort=name&from=192"); len(got) != 8 {
		t.Errorf("the last page has %d", len(got))
	}
	// What will be printed is said before it is, for the size that is chosen.
	has(t, body, "96 labels of 63 × 34 mm on 4 sheets of A4", `<option value="cut" selected>`, `name="search" value="pc-"`, `name="skip"`)
	_, body = get("/machines/labels?search=pc-&sort=name&size=a4x14&skip=3")
	has(t, body, "84 labels of 105 × 42.3 mm on 7 sheets of A4", "1–84 of 200", `value="3"`, "from=84")
	if n := strings.Count(body, `class="used"`); n != 3 {
		t.Errorf("%d places are used", n)
	}
	_, body = get("/machines/labels?id=2&size=roll&skip=9")
	has(t, body, "1 label of 62 × 29 mm, one after the other", `name="id" value="2"`)
	if strings.Contains(body, `name="skip"`) || strings.Contains(body, `class="used"`) {
		t.Error("a roll has places that were used")
	}
	_, body = get("/machines/labels?id=2&size=a4x24&skip=99")
	has(t, body, "1 label of 70 × 37 mm on one sheet of A4", `value="23"`)
	_, body = get("/machines/labels?id=2&size=napkin&skip=x")
	has(t, body, `<option value="cut" selected>`, `name="skip" value="0"`)
	if code, body := get("/machines/labels?search=nobody"); code != http.StatusOK || !strings.Contains(body, "No machine fits") {
		t.Errorf("nobody answers %d", code)
	}
	if code, _ := get("/machines/labels?search=pc-&all=yes&match=12"); code != http.StatusConflict {
		t.Errorf("others by now answer %d", code)
	}
	if code, _ := get("/machines/labels?id=4711"); code != http.StatusNotFound {
		t.Errorf("a machine that is none answers %d", code)
	}
	_, body = get("/machines")
	has(t, body, `formaction="/machines/labels"`, `href="/machines/labels"`)
}

func TestACodeIsDrawnAsItIsEncoded(t *testing.T) {
	const text = "https://lunboot.example:8080/machines/12345"
	c, err := qr.Encode(text, qr.M)
	must(t, err)
	code, err := drawQR(text)
	must(t, err)
	dark := make([]bool, code.Side*code.Side)
	for _, m := range regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1h-(\d+)z`).FindAllStringSubmatch(code.Path, -1) {
		var at [4]int
		for i := range at {
			at[i], err = strconv.Atoi(m[i+1])
			must(t, err)
		}
		if at[2] != at[3] {
			t.Errorf("%s is no rectangle", m[0])
		}
		for x := at[0]; x < at[0]+at[2]; x++ {
			dark[at[1]*code.Side+x] = true
		}
	}
	for y := range code.Side {
		for x := range code.Side {
			inside := x >= quietZone && y >= quietZone && x < code.Side-quietZone && y < code.Side-quietZone
			if want := inside && c.Black(x-quietZone, y-quietZone); dark[y*code.Side+x] != want {
				t.Fatalf("module %d,%d is dark: %v", x, y, !want)
			}
		}
	}
}
