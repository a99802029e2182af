package pages

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"rsc.io/qr"

	"lunboot/store"
	"lunboot/store/listing"
)

// labelsPage is how many labels one page holds: four sheets of 24.
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

type labelsView struct {
	Labels        []label
	First, Last   int
	Total         int
	Before, After string
	Where         string // what the codes lead to, without the number
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
	v := labelsView{Total: len(ms), Where: "http://" + r.Host + "/machines/"}
	if r.TLS != nil {
		v.Where = "https://" + r.Host + "/machines/"
	}
	from := max(0, min(list.From, (len(ms)-1)/labelsPage*labelsPage))
	for _, m := range listing.Cut(ms, store.Page{Offset: from, Limit: labelsPage}) {
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
		v.Labels = append(v.Labels, l)
	}
	v.First, v.Last = from+1, from+len(v.Labels)
	at := func(from int) string {
		u := url.Values{}
		for key, values := range q {
			u[key] = values
		}
		u.Set("from", strconv.Itoa(from))
		return "/machines/labels?" + u.Encode()
	}
	if from > 0 {
		v.Before = at(max(0, from-labelsPage))
	}
	if v.Last < v.Total {
		v.After = at(v.Last)
	}
	s.render(w, r, http.StatusOK, "labels", page{Title: "Labels", Nav: "machines", Data: v})
}
