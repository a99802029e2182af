package listing_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/listing"
)

type fruit struct {
	name, kind string
	weight     int
}

var fruits = listing.List[fruit]{Fields: []listing.Field[fruit]{
	{Name: "name", Texts: func(f fruit) []string { return []string{f.name} }, Words: true, Column: true},
	{Name: "kind", Texts: func(f fruit) []string { return []string{f.kind} }, Values: []string{"stone", "berry"}},
	{Name: "weight", Order: func(a, b fruit) int { return a.weight - b.weight }, Column: true},
}}

func TestAListIsSearchedSortedAndPaged(t *testing.T) {
	basket := []fruit{{"Plum", "stone", 30}, {"currant", "berry", 1}, {"apricot", "stone", 30}, {"green plum", "stone", 20}}
	for _, c := range []struct {
		q     listing.Query
		want  string
		total int
	}{
		{listing.Query{}, "Plum currant apricot green plum", 4},
		{listing.Query{Search: "plum"}, "Plum green plum", 2},
		{listing.Query{Search: "kind:STONE green"}, "green plum", 1},
		{listing.Query{Search: `"green plum"`}, "green plum", 1},
		{listing.Query{Search: "plum green"}, "green plum", 1},
		{listing.Query{Search: "name:cur"}, "currant", 1},
		{listing.Query{Search: "colour:red"}, "", 0},
		{listing.Query{Sort: "name"}, "apricot currant green plum Plum", 4},
		{listing.Query{Sort: "-weight"}, "Plum apricot green plum currant", 4},
		{listing.Query{Sort: "weight", Page: store.Page{Limit: 2, Offset: 1}}, "green plum Plum", 4},
		{listing.Query{Page: store.Page{Limit: 2, Offset: 9}}, "", 4},
		{listing.Query{Page: store.Page{Offset: -3}}, "Plum currant apricot green plum", 4},
	} {
		page, total, err := fruits.Find(basket, c.q)
		var names []string
		for _, f := range page {
			names = append(names, f.name)
		}
		if err != nil || total != c.total || strings.Join(names, " ") != c.want {
			t.Errorf("%+v finds %q of %d, %v", c.q, names, total, err)
		}
	}
	if n := fruits.Count(basket, "kind"); n["stone"] != 3 || n["berry"] != 1 || len(n) != 2 {
		t.Errorf("by kind they are %v", n)
	}
	if only := fruits.With(basket, "kind", "berry"); len(only) != 1 || only[0].name != "currant" {
		t.Errorf("berries are %v", only)
	}
	if basket[0].name != "Plum" {
		t.Error("a look sorts what it looks at")
	}
	for _, q := range []listing.Query{{Search: "kind:nut"}, {Search: "name:"}, {Sort: "colour"}, {Sort: "kind"}} {
		if _, _, err := fruits.Find(basket, q); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if k, c := fruits.Keys(), fruits.Columns(); fmt.Sprint(k, c) != "[name kind] [name weight]" {
		t.Errorf("keys and columns are %v %v", k, c)
	}
}

func TestMachinesAreFoundWithTheirBootsAndSorted(t *testing.T) {
	at := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	src := listing.MachineSource{
		Machines: func(_ context.Context, f store.MachineFilter) ([]store.Machine, int, error) {
			if f.Tag == "broken" {
				return nil, 0, errors.New("the disk broke")
			}
			return []store.Machine{
				{ID: 1, Name: "a", Profile: "san", LastSeen: at, Address: netip.MustParseAddr("10.0.0.9")},
				{ID: 2, Name: "b", Profile: "local", LastSeen: at.Add(-time.Hour), Address: netip.MustParseAddr("10.0.0.10")},
				{ID: 3, Name: "c", Profile: "san"},
			}, 3, nil
		},
		Latest: func(id store.MachineID, _ store.MAC) (store.Attempt, bool) {
			return store.Attempt{Outcome: store.OutcomeFailed, Updated: at.Add(time.Minute)}, id == 2
		},
	}
	names := func(ms []*listing.Machine) (out string) {
		for _, m := range ms {
			out += m.Name
		}
		return out
	}
	for by, want := range map[string]string{"": "bac", "attention": "bac", "-attention": "cab", "name": "abc", "-name": "cba", "profile": "bac", "address": "cab", "seen": "bac", "-seen": "cab"} {
		ms, err := src.Find(t.Context(), store.MachineSearch{})
		if err == nil {
			err = listing.SortMachines(ms, by)
		}
		if err != nil || names(ms) != want {
			t.Errorf("by %q they are %s, %v", by, names(ms), err)
		}
	}
	ms, err := src.Find(t.Context(), store.MachineSearch{State: store.BootFailed})
	if err != nil || names(ms) != "b" || !ms[0].Seen.Equal(at.Add(time.Minute)) {
		t.Errorf("failed are %s, %v", names(ms), err)
	}
	if _, err := src.Find(t.Context(), store.MachineSearch{MachineFilter: store.MachineFilter{Tag: "broken"}}); err == nil {
		t.Error("a fault is taken for nothing")
	}
	if err := listing.SortMachines(ms, "colour"); store.KindOf(err) != store.KindInvalid {
		t.Errorf("by a colour: %v", err)
	}
}
