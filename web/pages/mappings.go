package pages

import (
	"net/http"

	"lunboot/store"
	"lunboot/store/listing"
)

type mappingsView struct {
	Rows []store.MappingView
	List tableQuery
	All  int // that there are, found or not
}

// mappings lists which volume is which LUN of which machine.
func (s *site) mappings(w http.ResponseWriter, r *http.Request) {
	all, err := s.lists().Mappings(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v := mappingsView{All: len(all)}
	var bad error
	v.List, v.Rows, bad = listedBy(listing.Mappings(), narrowing{"boot", [][2]string{{"yes", "Booted from"}, {"no", "Further LUNs"}}}, "/mappings", "machine:lab-03, volume:win11, lun:0, readonly:yes", r, all)
	v.List.Table = "mappings"
	status, problem := refused(http.StatusOK, "", bad)
	s.render(w, r, status, "mappings", page{Title: "LUN mappings", Nav: "volumes", Live: true, List: v.List.URL(), Error: problem, Data: v})
}
