package pages

import (
	"net/http"

	"lunboot/store/listing"
)

type subnetsView struct {
	Rows []listing.Subnet
	List tableQuery
	All  int // that there are, found or not
}

// subnets lists the networks that are served, also those behind relays.
func (s *site) subnets(w http.ResponseWriter, r *http.Request) {
	all, err := s.lists().Subnets(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v := subnetsView{All: len(all)}
	var bad error
	v.List, v.Rows, bad = listedBy(listing.Subnets(), narrowing{"mode", [][2]string{{"full", "Gives addresses"}, {"proxy", "Boots beside another server"}, {"off", "Off"}}},
		"/subnets", "10.77.0, interface:eth1, relay:yes", r, all)
	v.List.Table = "subnets"
	status, problem := refused(http.StatusOK, "", bad)
	s.render(w, r, status, "subnets", page{Title: "Subnets", Nav: "settings", List: v.List.URL(), Error: problem, Data: v})
}
