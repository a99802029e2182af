package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

// EachActs do one act for many machines, in a job.
type EachActs interface {
	CloneForEach(ctx context.Context, by store.Actor, machines []store.MachineID, choice store.CloneChoice) (store.Job, error)
}

func (s *server) each(a huma.API) {
	op := operation(a, http.MethodPost, "/machines/clones", "give-clones",
		"Give machines a clone each of a golden volume, to boot from; a job does it, and its verdicts say what became of each machine. One that boots from a volume already is skipped, so the same request again goes on with what was broken off", store.ScopeOperate)
	op.DefaultStatus = http.StatusAccepted
	huma.Register(a, op, func(ctx context.Context, in *struct {
		Body struct {
			Machines []string `json:"machines,omitempty" maxItems:"10000" doc:"names, MACs, UUIDs or ids"`
			Search   string   `json:"search,omitempty" doc:"instead: the machines that this finds, as in the list of machines"`
			All      bool     `json:"all,omitempty" doc:"instead: every machine"`
			CloneOf  string   `json:"clone_of,omitempty" doc:"the golden volume; absent: that of the setting default-golden, else the only one"`
			Reset    bool     `json:"reset_at_boot,omitempty" doc:"the clones begin anew at each boot"`
			Volatile bool     `json:"volatile,omitempty" doc:"with reset_at_boot: nobody waits for the disk, which is faster; what the machines wrote is discarded after a crash of the appliance's machine"`
		}
	}) (*body[store.Job], error) {
		b := in.Body
		ids, err := s.meant(ctx, b.Machines, b.Search, b.All)
		if err != nil {
			return nil, problem(err)
		}
		return reply(s.Acts.CloneForEach(ctx, actor(ctx), ids, store.CloneChoice{Of: b.CloneOf, Reset: b.Reset, Volatile: b.Volatile}))
	})
}

// meant are the machines that a request names in one of three ways.
func (s *server) meant(ctx context.Context, keys []string, search string, all bool) (ids []store.MachineID, err error) {
	ways := 0
	for _, used := range []bool{len(keys) > 0, search != "", all} {
		if used {
			ways++
		}
	}
	if ways != 1 {
		return nil, store.Invalid("machines", "say which machines are meant in one way: by machines, by search or by all")
	}
	for _, key := range keys {
		m, err := s.Acts.FindMachine(ctx, key)
		if err != nil {
			return nil, named("machines", err)
		}
		ids = append(ids, m.ID)
	}
	if len(keys) > 0 {
		return ids, nil
	}
	found, _, err := s.findMachines(ctx, MachineQuery{Search: search}, store.Page{})
	if err != nil {
		return nil, err
	}
	for _, m := range found {
		ids = append(ids, m.ID)
	}
	if len(ids) == 0 {
		return nil, store.Invalid("search", "no machine fits, so none gets a clone")
	}
	return ids, nil
}
