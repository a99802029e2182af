// Package chart draws bars and lines as SVG, on the server: no script, no style
// of its own, so that they stand under a policy that allows neither. Colours are
// the stylesheet's, by class; what colour tells, stripes or dashes tell as well;
// and below each picture stand its numbers as a table.
//
// A picture is stretched to the room that it has
// (https://www.w3.org/TR/SVG2/coords.html#PreserveAspectRatioAttribute). What is
// written stands beside it in HTML, so that it is readable at every width.
package chart

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// Series is one row of values; NaN where there is none.
type Series struct {
	Name   string
	Look   Look
	Values []float64
}

// Look is how a series looks: the class that has its colour.
type Look string

// The looks. Bad has stripes, Second has dashes.
const (
	Good   Look = "good"
	Unsure Look = "unsure"
	Bad    Look = "bad"
	First  Look = "first"
	Second Look = "second"
)

// Chart is what is drawn.
type Chart struct {
	ID     string // unique in its page
	Title  string
	Desc   string // what a person would say of the picture
	Place  string // the heading of the labels: "Day"
	Labels []string
	Series []Series
	// Format writes a value with its unit.
	Format func(float64) string
	// Unit is the step in which units grow, 10 or 1024; 10 when it is 0.
	Unit float64
	// Level is a line across, with its name; none when it is 0.
	Level     float64
	LevelName string
}

// The picture's own measures, before it is stretched.
const (
	width  = 1000.0
	height = 100.0
)

// Bars draws a bar for each label, the series upon each other.
func Bars(c Chart) template.HTML {
	top := 0.0
	for i := range c.Labels {
		sum := 0.0
		for _, s := range c.Series {
			sum += s.at(i)
		}
		top = max(top, sum)
	}
	return c.figure(top, false, func(b *strings.Builder, scale float64) {
		slot := width / float64(max(1, len(c.Labels)))
		for i, label := range c.Labels {
			y := height
			for _, s := range c.Series {
				v := s.at(i)
				if v <= 0 {
					continue
				}
				h := v * scale
				y -= h
				at := fmt.Sprintf(`x="%s" y="%s" width="%s" height="%s"`, num(float64(i)*slot+slot*0.1), num(y), num(slot*0.8), num(h))
				fmt.Fprintf(b, `<g><title>%s: %s, %s</title><rect class="c-%s" %s/>`, esc(label), esc(s.Name), esc(c.Format(v)), s.Look, at)
				if s.Look == Bad {
					fmt.Fprintf(b, `<rect fill="url(#%s-stripes)" %s/>`, esc(c.ID), at)
				}
				b.WriteString(`</g>`)
			}
		}
	})
}

// Lines draws a line for each series; where a value is missing, it has a gap.
func Lines(c Chart) template.HTML {
	top := 0.0
	for _, s := range c.Series {
		for i := range s.Values {
			top = max(top, s.at(i))
		}
	}
	return c.figure(top, true, func(b *strings.Builder, scale float64) {
		step := width / float64(max(1, len(c.Labels)-1))
		for _, s := range c.Series {
			var points []string
			end := func() {
				if len(points) == 1 { // a point alone has no length to be seen by
					x, y, _ := strings.Cut(points[0], ",")
					f, _ := strconv.ParseFloat(x, 64)
					points = []string{num(max(0, f-3)) + "," + y, num(min(width, f+3)) + "," + y}
				}
				if len(points) > 0 {
					fmt.Fprintf(b, `<polyline class="c-line c-%s" vector-effect="non-scaling-stroke" points="%s"><title>%s</title></polyline>`, s.Look, strings.Join(points, " "), esc(s.Name))
				}
				points = nil
			}
			for i, v := range s.Values {
				if math.IsNaN(v) {
					end()
					continue
				}
				points = append(points, num(float64(i)*step)+","+num(height-s.at(i)*scale))
			}
			end()
		}
	})
}

// at is a value as it is drawn.
func (s Series) at(i int) float64 {
	if i >= len(s.Values) || math.IsNaN(s.Values[i]) || math.IsInf(s.Values[i], 0) || s.Values[i] < 0 {
		return 0
	}
	return s.Values[i]
}

func (c Chart) figure(top float64, lines bool, draw func(b *strings.Builder, scale float64)) template.HTML {
	top = round(max(top, c.Level), c.Unit)
	var b strings.Builder
	id := esc(c.ID)
	fmt.Fprintf(&b, `<figure class="chart" id="%s"><div class="c-body"><div class="c-y" aria-hidden="true">`, id)
	fmt.Fprintf(&b, `<span>%s</span><span>0</span></div>`, esc(c.Format(top)))
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" preserveAspectRatio="none" role="img" aria-labelledby="%s-t %s-d"><title id="%s-t">%s</title><desc id="%s-d">%s</desc>`, width, height, id, id, id, esc(c.Title), id, esc(c.Desc))
	for _, s := range c.Series {
		if s.Look == Bad {
			fmt.Fprintf(&b, `<defs><pattern id="%s-stripes" width="4" height="6" patternUnits="userSpaceOnUse"><rect class="c-stripe" width="4" height="2"/></pattern></defs>`, id)
			break
		}
	}
	for _, y := range []float64{0, height / 2, height} {
		fmt.Fprintf(&b, `<line class="c-grid" x1="0" x2="%g" y1="%g" y2="%g" vector-effect="non-scaling-stroke"/>`, width, y, y)
	}
	draw(&b, height/top)
	if c.Level > 0 {
		y := num(height - c.Level*height/top)
		fmt.Fprintf(&b, `<line class="c-level" x1="0" x2="%g" y1="%s" y2="%s" vector-effect="non-scaling-stroke"><title>%s</title></line>`, width, y, y, esc(c.LevelName))
	}
	b.WriteString(`</svg>`)
	if n := len(c.Labels); n > 0 {
		fmt.Fprintf(&b, `<div class="c-x" aria-hidden="true"><span>%s</span>`, esc(c.Labels[0]))
		if n > 2 {
			fmt.Fprintf(&b, `<span>%s</span>`, esc(c.Labels[n/2]))
		}
		if n > 1 {
			fmt.Fprintf(&b, `<span>%s</span>`, esc(c.Labels[n-1]))
		}
		b.WriteString(`</div>`)
	}
	b.WriteString(`</div><figcaption><ul class="c-key">`)
	for _, s := range c.Series {
		b.WriteString(`<li><svg class="c-swatch" viewBox="0 0 14 14" aria-hidden="true">`)
		if lines {
			fmt.Fprintf(&b, `<line class="c-line c-%s" x1="0" x2="14" y1="7" y2="7"/>`, s.Look)
		} else {
			fmt.Fprintf(&b, `<rect class="c-%s" width="14" height="14"/>`, s.Look)
		}
		if s.Look == Bad && !lines {
			fmt.Fprintf(&b, `<rect fill="url(#%s-stripes)" width="14" height="14"/>`, id)
		}
		fmt.Fprintf(&b, `</svg>%s</li>`, esc(s.Name))
	}
	if c.Level > 0 {
		fmt.Fprintf(&b, `<li><svg class="c-swatch" viewBox="0 0 14 14" aria-hidden="true"><line class="c-level" x1="0" x2="14" y1="7" y2="7"/></svg>%s</li>`, esc(c.LevelName))
	}
	b.WriteString(`</ul>`)
	c.table(&b)
	b.WriteString(`</figcaption></figure>`)
	return template.HTML(b.String()) // every text in it went through esc
}

// table is the same in numbers, for who does not see the picture and for who
// wants to know.
func (c Chart) table(b *strings.Builder) {
	fmt.Fprintf(b, `<details><summary>In numbers</summary><div class="c-scroll" tabindex="0" role="region" aria-label="%s, in numbers"><table><caption class="vh">%s</caption><thead><tr><th scope="col">%s</th>`, esc(c.Title), esc(c.Title), esc(c.Place))
	for _, s := range c.Series {
		fmt.Fprintf(b, `<th scope="col">%s</th>`, esc(s.Name))
	}
	b.WriteString(`</tr></thead><tbody>`)
	for i, label := range c.Labels {
		fmt.Fprintf(b, `<tr><th scope="row">%s</th>`, esc(label))
		for _, s := range c.Series {
			text := "–"
			if i < len(s.Values) && !math.IsNaN(s.Values[i]) {
				text = c.Format(s.Values[i])
			}
			fmt.Fprintf(b, `<td class="num">%s</td>`, esc(text))
		}
		b.WriteString(`</tr>`)
	}
	b.WriteString(`</tbody></table></div></details>`)
}

// round is the end of the axis: the least of 1, 2, 4 and 10 times a power of the
// unit that is not below v. All have a whole half.
func round(v, unit float64) float64 {
	if !(v > 0) || math.IsInf(v, 0) {
		return 1
	}
	scale := 1.0
	if unit == 1024 {
		for v > scale*1000 {
			scale *= 1024
		}
	}
	for step := scale; ; step *= 10 {
		for _, k := range []float64{1, 2, 4} {
			if v <= k*step {
				return k * step
			}
		}
	}
}

// num writes a coordinate with as many digits as can be seen.
func num(f float64) string {
	return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(f, 'f', 2, 64), "0"), ".")
}

func esc(s string) string { return html.EscapeString(s) }
