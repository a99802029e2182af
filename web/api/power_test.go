package api_test

import (
	"context"
	"strings"
	"testing"

	"lunboot/store"
	"lunboot/web/api"
)

// Wake knows one network, and a machine that cannot be reached.
func (boots) Wake(_ context.Context, by store.Actor, m store.Machine) ([]string, error) {
	if m.Name == "far" {
		return nil, &store.Error{Kind: store.KindUnavailable, Msg: "no network is served"}
	}
	return []string{"eth1"}, nil
}

func TestAMachineIsWoken(t *testing.T) {
	h := open(t)
	h.must(201, "POST", "/api/v1/machines", `{"name":"near","macs":["00:0c:29:00:00:11"]}`)
	h.must(201, "POST", "/api/v1/machines", `{"name":"far","macs":["00:0c:29:00:00:12"]}`)
	var w api.Woken
	h.must(200, "POST", "/api/v1/machines/near/wake", "").json(t, &w)
	if w.Machine != "near" || len(w.Networks) != 1 || w.Networks[0] != "eth1" {
		t.Errorf("%+v", w)
	}
	if a := h.must(503, "POST", "/api/v1/machines/far/wake", ""); !strings.Contains(string(a.body), "no network is served") {
		t.Errorf("%s", a.body)
	}
	h.must(404, "POST", "/api/v1/machines/none/wake", "")
}
