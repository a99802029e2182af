package pages

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	cdpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"lunboot/web/auth"
)

// printed prints the page as the print button does, and returns the measures of
// each page of paper in millimetres.
func printed(t *testing.T, ctx context.Context, name string) (pages [][2]float64) {
	t.Helper()
	out, err := chromedp.Call(ctx, cdpage.PrintToPDF, cdpage.PrintToPDFParams{PreferCSSPageSize: new(true), PrintBackground: new(true)})
	must(t, err)
	if !bytes.HasPrefix(out.Data, []byte("%PDF-")) {
		t.Fatal("it is no PDF")
	}
	if shots := os.Getenv("LUNBOOT_SCREENSHOTS"); shots != "" {
		must(t, os.WriteFile(filepath.Join(shots, name+".pdf"), out.Data, 0o644))
	}
	// A page's measures are its MediaBox, in points (ISO 32000-1 §14.11.2).
	for _, m := range regexp.MustCompile(`/MediaBox ?\[ ?0 0 ([\d.]+) ([\d.]+) ?\]`).FindAllSubmatch(out.Data, -1) {
		var at [2]float64
		for i := range at {
			at[i], err = strconv.ParseFloat(string(m[i+1]), 64)
			must(t, err)
			at[i] *= 25.4 / 72
		}
		pages = append(pages, at)
	}
	return pages
}

func TestLabelsArePrintedInTheMeasuresOfTheirSheet(t *testing.T) {
	ctx := browser(t)
	l := many(56) // and four more
	for i := range l.machines {
		l.machines[i].AssetTag = fmt.Sprintf("INV-2026-%05d", i)
	}
	hash, err := auth.HashPassword(labPassword)
	must(t, err)
	l.users["admin"] = hash
	base, _ := l.open(t)
	look(t, ctx, "dark", 1360) // paper is white whatever the screen is
	signIn(t, ctx, base)
	for _, c := range []struct {
		query        string
		pages        int
		page, first  [2]float64 // of paper, and of a label
		left, top    float64    // of the first label
		labels, used int
	}{
		{"size=cut", 3, [2]float64{210, 297}, [2]float64{63.33, 34}, 10, 10, 60, 0},
		{"size=a4x24", 3, [2]float64{210, 297}, [2]float64{70, 37}, 0, 0, 60, 0},
		{"size=a4x24&skip=20", 4, [2]float64{210, 297}, [2]float64{70, 37}, 0, 0, 60, 20},
		{"size=a4x14", 5, [2]float64{210, 297}, [2]float64{105, 42.3}, 0, 0, 60, 0},
		{"size=a4x40", 2, [2]float64{210, 297}, [2]float64{52.5, 29.7}, 0, 0, 60, 0},
		{"size=roll&search=lab", 4, [2]float64{62, 29}, [2]float64{62, 29}, 0, 0, 4, 0},
	} {
		must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/machines/labels?sort=name&"+c.query), chromedp.WaitVisible(chromedp.CSS(".labels"))))
		near := func(a, b float64) bool { return math.Abs(a-b) < 0.4 }
		pages := printed(t, ctx, "labels-"+c.query)
		if len(pages) != c.pages {
			t.Errorf("%s is %d pages, want %d", c.query, len(pages), c.pages)
		}
		for _, p := range pages {
			if !near(p[0], c.page[0]) || !near(p[1], c.page[1]) {
				t.Errorf("%s is printed on %v mm", c.query, p)
			}
		}
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"})
		must(t, err)
		out, err := chromedp.Run(ctx, chromedp.Evaluate[string](`(() => {
			const mm = 25.4 / 96, all = [...document.querySelectorAll(".labels li")], sheet = document.querySelector(".sheet").getBoundingClientRect(), first = all[0].getBoundingClientRect();
			const shown = [...document.querySelectorAll("main > *, .rail, .skip")].filter(e => getComputedStyle(e).display !== "none" && e.getBoundingClientRect().height > 0).map(e => e.className || e.tagName);
			const spills = all.filter(e => e.scrollHeight > e.clientHeight + 1 || e.scrollWidth > e.clientWidth + 1).map(e => e.innerText);
			return JSON.stringify({Width: first.width * mm, Height: first.height * mm, Left: (first.left - sheet.left) * mm, Top: (first.top - sheet.top) * mm, At: sheet.left, Labels: all.filter(e => e.querySelector("svg")).length, Used: document.querySelectorAll(".used").length, Shown: shown, Spills: spills, Paper: getComputedStyle(document.body).backgroundColor});
		})()`))
		must(t, err)
		var got struct {
			Width, Height, Left, Top, At float64
			Labels, Used                 int
			Shown, Spills                []string
			Paper                        string
		}
		must(t, json.Unmarshal([]byte(out), &got))
		if !near(got.Width, c.first[0]) || !near(got.Height, c.first[1]) || !near(got.Left, c.left) || !near(got.Top, c.top) || got.At != 0 || got.Labels != c.labels || got.Used != c.used {
			t.Errorf("%s is laid out as %s", c.query, out)
		}
		if len(got.Shown) != 1 || len(got.Spills) > 0 || got.Paper != "rgb(255, 255, 255)" {
			t.Errorf("%s prints %v besides labels, and %v do not fit on theirs; the paper is %s", c.query, got.Shown, got.Spills, got.Paper)
		}
		_, err = chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
		must(t, err)
		// On the screen it is the same, in the width that there is.
		for _, width := range []int{1360, 390} {
			look(t, ctx, "light", width)
			ratio, err := chromedp.Run(ctx, chromedp.Evaluate[float64](`(() => { const s = document.querySelector(".sheet").clientWidth, l = document.querySelector(".labels li").getBoundingClientRect(); return l.width / s * `+fmt.Sprint(c.page[0])+` })()`))
			must(t, err)
			if !near(ratio, c.first[0]) {
				t.Errorf("%s shows a label of %.1f mm at %d px", c.query, ratio, width)
			}
			shoot(t, ctx, os.Getenv("LUNBOOT_SCREENSHOTS"), fmt.Sprintf("labels-%s-%d", c.query, width))
		}
	}
}
