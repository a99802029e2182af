package pages

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/web/pages/typed"
)

// SubnetActs are the operator's acts on networks that are served.
type SubnetActs interface {
	PutSubnet(context.Context, store.Actor, store.Subnet) (store.Subnet, error)
	DeleteSubnet(ctx context.Context, by store.Actor, id int64) error
}

type subnetView struct {
	Subnet store.Subnet
	Is     map[string]string // what its fields hold
	Self   string
}

// Name names the network.
func (v subnetView) Name() string { return v.Subnet.Name() }

func subnetPath(id int64) string { return fmt.Sprintf("/subnets/%d", id) }

// subnetOf is the subnet of a request's path; a new one, behind a relay, for none.
func (s *site) subnetOf(r *http.Request) (store.Subnet, error) {
	key := chi.URLParam(r, "subnet")
	if key == "" {
		return store.Subnet{Mode: store.DHCPFull}, nil
	}
	all, err := s.Inventory.Subnets(r.Context())
	if err != nil {
		return store.Subnet{}, err
	}
	at := slices.IndexFunc(all, func(n store.Subnet) bool { return fmt.Sprint(n.ID) == key })
	if at < 0 {
		return store.Subnet{}, store.NotFound("subnet with number", key)
	}
	return all[at], nil
}

// subnet shows one network with all that machines there are told.
func (s *site) subnet(w http.ResponseWriter, r *http.Request) {
	s.showSubnet(w, r, http.StatusOK, "")
}

func (s *site) showSubnet(w http.ResponseWriter, r *http.Request, status int, problem string) {
	n, err := s.subnetOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v := subnetView{Subnet: n, Is: typed.SubnetFields(n), Self: "/subnets"}
	title := "New subnet"
	if n.ID != 0 {
		v.Self, title = subnetPath(n.ID), n.Name()
	}
	s.render(w, r, status, "subnet", page{Title: title, Nav: "settings", Error: problem, Data: v})
}

// putSubnet saves the form of a network.
func (s *site) putSubnet(w http.ResponseWriter, r *http.Request) {
	n, err := s.subnetOf(r)
	if err == nil {
		n.Revision, err = formRevision(r)
	}
	if err == nil {
		err = typed.Subnet(&n, r.PostFormValue)
	}
	if err == nil {
		n, err = s.Subnets.PutSubnet(r.Context(), by(r), n)
	}
	if err != nil {
		status, text := told(r, err)
		s.showSubnet(w, r, status, text)
		return
	}
	toList(w, r, "/subnets")
}

// removeSubnet ends to serve a network, once its name was typed.
func (s *site) removeSubnet(w http.ResponseWriter, r *http.Request) {
	n, err := s.subnetOf(r)
	if err == nil {
		err = meant(r, n.Prefix.String(), "machines there get nothing any more; leases that were given stay until they end")
	}
	if err == nil {
		err = s.Subnets.DeleteSubnet(r.Context(), by(r), n.ID)
	}
	if err != nil {
		status, text := told(r, err)
		s.showSubnet(w, r, status, text)
		return
	}
	toList(w, r, "/subnets")
}

// meant refuses an act that cannot be taken back until the name of what it
// concerns was typed.
func meant(r *http.Request, name, loss string) error {
	if strings.TrimSpace(r.PostFormValue("confirm")) == name {
		return nil
	}
	return store.Invalid("confirm", "nothing was done: type %s to confirm: %s", name, loss)
}
