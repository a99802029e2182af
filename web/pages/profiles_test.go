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
