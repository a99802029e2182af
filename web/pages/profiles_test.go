package pages

import (
	"context"
	"net/http"
	"slices"
	"testing"

	"lunboot/store"
)

func (l *lab) DeleteProfile(_ context.Context, _ store.Actor, name string) error {
	l.uploads = append(l.uploads, "removed profile "+name)
	return l.refuse
}

func TestThePageOfTheProfilesSaysWhatEachDoes(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	code, body := get("/profiles")
	if code != http.StatusOK {
		t.Fatalf("status %d", code)
	}
	has(t, body, "starts the machine’s own volume over iSCSI", "starts the machine’s own disk", "built in", `href="/media"`, `href="/loaders"`)
	if code, to := post("/profiles/remove", "name", "old"); code != http.StatusSeeOther || to != "/profiles" || !slices.Equal(l.uploads, []string{"removed profile old"}) {
		t.Errorf("a removal answers %d %s, %q", code, to, l.uploads)
	}
	l.refuse = store.InUse("profile old belongs to machine lab-01")
	if code, _ := post("/profiles/remove", "name", "old"); code != http.StatusConflict {
		t.Errorf("a profile in use: %d", code)
	}
}

func (l *lab) Wake(_ context.Context, _ store.Actor, m store.Machine) ([]string, error) {
	l.uploads = append(l.uploads, "woke "+m.Name)
	return []string{"eth1"}, l.refuse
}

func TestAMachineIsWokenFromItsPage(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/machines/2")
	has(t, body, `action="/machines/2/wake"`)
	if code, _ := post("/machines/2/wake"); code != http.StatusSeeOther || len(l.uploads) != 1 {
		t.Errorf("it answers %d, %q", code, l.uploads)
	}
	l.refuse = &store.Error{Kind: store.KindUnavailable, Msg: "no network is served"}
	if code, _ := post("/machines/2/wake"); code != http.StatusServiceUnavailable {
		t.Errorf("a wake that cannot be sent answers %d", code)
	}
}
