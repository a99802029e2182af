package pages

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"rsc.io/qr"

	"lunboot/store"
	"lunboot/store/listing"
)

// labelsPage is how many labels one page holds at most: four sheets of 24.
const labelsPage = 96

// label is what is glued to one machine.
type label struct {
	ID      store.MachineID
	Name    string
	MAC     string
	More    int // further MACs
	Address string
	Tag     string // its asset tag
	Code    qrCode
}

// qrCode is a QR code as the path of an SVG.
type qrCode struct {
	Side int // modules, the quiet zone included
	Path string
}

// quietZone is the light margin that readers need (ISO/IEC 18004 §6.3.8).
const quietZone = 4

// drawQR draws a text as a QR code: one stroke a row of dark modules.
func drawQR(text string) (qrCode, error) {
	c, err := qr.Encode(text, qr.M)
	if err != nil {
		return qrCode{}, fmt.Errorf("make a QR code: %w", err)
	}
	var b strings.Builder
	for y := range c.Size {
		for x := 0; x < c.Size; x++ {
			from := x
			for x < c.Size && c.Black(x, y) {
				x++
			}
			if x > from {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", from+quietZone, y+quietZone, x-from, x-from)
			}
		}
	}
	return qrCode{Side: c.Size + 2*quietZone, Path: b.String()}, nil
}

// labelSize is what labels are printed on.
type labelSize struct {
	Key   string // names its class in the stylesheet, where its measures are
	Text  string
	Each  string // one label's measures
	Sheet string // what one is called, singular
	Per   int    // labels a sheet
}

// labelSizes are what labels can be printed on. Sheets of labels reach from edge
// to edge: three of 70 mm are as wide as A4, eight of 37 mm as high.
func labelSizes() []labelSize {
	return []labelSize{
		{"cut", "Paper to cut: 24 on A4", "63 × 34 mm", "sheet of A4", 24},
		{"a4x24", "Label sheet: 24 on A4, 70 × 37 mm", "70 × 37 mm", "sheet of A4", 24},
		{"a4x14", "Label sheet: 14 on A4, 105 × 42.3 mm", "105 × 42.3 mm", "sheet of A4", 14},
		{"a4x40", "Label sheet: 40 on A4, 52.5 × 29.7 mm", "52.5 × 29.7 mm", "sheet of A4", 40},
		{"roll", "Label printer: 62 × 29 mm", "62 × 29 mm", "label", 1},
	}
}

type labelsView struct {
	Sheets        [][]label // a label without a number is a place that stays empty
	Size          labelSize
	Sizes         []labelSize
	Skip          int // places that were used already
	Count         int // labels on this page
	First, Last   int
	Total         int
	Before, After string
	Where         string      // what the codes lead to, without the number
	Kept          [][2]string // what the form sends again
}

// Words is what will be printed.
func (v labelsView) Words() string {
	sheets := fmt.Sprintf("%d %s", len(v.Sheets), strings.Replace(v.Size.Sheet, "sheet", "sheets", 1))
	if len(v.Sheets) == 1 {
		sheets = "one " + v.Size.Sheet
	}
	labels := fmt.Sprintf("%d labels", v.Count)
	if v.Count == 1 {
		labels = "1 label"
	}
	if v.Size.Per == 1 {
		return labels + " of " + v.Size.Each + ", one after the other"
	}
	return labels + " of " + v.Size.Each + " on " + sheets
}

// labels is the sheet to print for the machines that are ticked, or for all of a
// search.
func (s *site) labels(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	list := readListQuery(q)
	var ms []store.Machine
	var err error
	if len(q["id"]) > 0 || q.Get("all") != "" {
		ms, err = s.chosen(r.Context(), list, q)
	} else {
		var all []*listing.Machine
		all, _, _, err = s.find(r.Context(), list)
		for _, m := range all {
			ms = append(ms, m.Machine)
		}
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v := labelsView{Total: len(ms), Where: "http://" + r.Host + "/machines/", Sizes: labelSizes()}
	if r.TLS != nil {
		v.Where = "https://" + r.Host + "/machines/"
	}
	v.Size = v.Sizes[max(0, slices.IndexFunc(v.Sizes, func(l labelSize) bool { return l.Key == q.Get("size") }))]
	step := labelsPage / v.Size.Per * v.Size.Per
	from := max(0, min(list.From, (len(ms)-1)/step*step))
	if n, err := strconv.Atoi(q.Get("skip")); err == nil && from == 0 {
		v.Skip = min(max(n, 0), v.Size.Per-1)
	}
	all := make([]label, v.Skip)
	for _, m := range listing.Cut(ms, store.Page{Offset: from, Limit: step}) {
		l := label{ID: m.ID, Name: m.Name, Tag: m.AssetTag}
		if len(m.MACs) > 0 {
			l.MAC, l.More = m.MACs[0].String(), len(m.MACs)-1
		}
		if m.Address.IsValid() {
			l.Address = m.Address.String()
		}
		if l.Code, err = drawQR(v.Where + strconv.FormatInt(int64(m.ID), 10)); err != nil {
			s.fail(w, r, err)
			return
		}
		all = append(all, l)
		v.Count++
	}
	if v.Count > 0 {
		v.Sheets = slices.Collect(slices.Chunk(all, v.Size.Per))
	}
	v.First, v.Last = from+1, from+v.Count
	at := func(from int) string {
		u := url.Values{}
		for key, values := range q {
			u[key] = values
		}
		u.Set("from", strconv.Itoa(from))
		return "/machines/labels?" + u.Encode()
	}
	if from > 0 {
		v.Before = at(max(0, from-step))
	}
	if v.Last < v.Total {
		v.After = at(v.Last)
	}
	for _, key := range []string{"id", "all", "match", "search", "show", "sort"} {
		for _, value := range q[key] {
			v.Kept = append(v.Kept, [2]string{key, value})
		}
	}
	s.render(w, r, http.StatusOK, "labels", page{Title: "Labels", Nav: "machines", Data: v})
}
