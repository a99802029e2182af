package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"lunboot/store"
	"lunboot/web/api"
	"lunboot/web/auth"
)

func (h *house) keyed(key, path, body string) answer {
	h.t.Helper()
	a, _ := h.with("Idempotency-Key", key, "POST", path, body)
	return a
}

func TestACreateIsDoneOnceUnderOneKey(t *testing.T) {
	h := open(t)
	const body = `{"name":"ci","scope":"read","days":3}`
	// Many at a time: one is done, all are told of it.
	var wg sync.WaitGroup
	answers := make(chan answer, 8)
	for range cap(answers) {
		wg.Go(func() { answers <- h.keyed("k1", "/api/v1/tokens", body) })
	}
	wg.Wait()
	close(answers)
	said := map[string]bool{}
	for a := range answers {
		if a.status != 201 {
			t.Errorf("answered %d %s", a.status, a.body)
		}
		said[string(a.body)] = true
	}
	if len(said) != 1 {
		t.Errorf("%d answers to one request: %v", len(said), said)
	}
	if ks, err := h.auth.Tokens(t.Context()); err != nil || len(ks) != 1 {
		t.Errorf("%d tokens, %v", len(ks), err)
	}
	if a := h.keyed("k1", "/api/v1/tokens", `{"name":"other","scope":"read","days":3}`); a.status != 422 || !strings.Contains(string(a.body), "another request") {
		t.Errorf("another request under the key: %d %s", a.status, a.body)
	}
	if a := h.keyed("k1", "/api/v1/volumes", body); a.status != 422 {
		t.Errorf("another path under the key: %d", a.status)
	}
	if a := h.keyed("k2", "/api/v1/tokens", body); a.status != http.StatusConflict {
		t.Errorf("the same under another key: %d %s", a.status, a.body)
	}
	if a := h.keyed("", "/api/v1/tokens", body); a.status != http.StatusConflict {
		t.Errorf("the same without a key: %d %s", a.status, a.body)
	}
	// What one does is no answer for another.
	h.as = auth.Identity{Actor: "somebody else", Scope: store.ScopeAdmin}
	if a := h.keyed("k1", "/api/v1/tokens", body); a.status != http.StatusConflict {
		t.Errorf("another's key: %d %s", a.status, a.body)
	}
	h.as = auth.Identity{Actor: "tester", Scope: store.ScopeRead}
	if a := h.keyed("k1", "/api/v1/tokens", body); a.status != http.StatusForbidden {
		t.Errorf("by one who may no more: %d %s", a.status, a.body)
	}
	h.as = admin
	for key, want := range map[string]int{strings.Repeat("k", 256): 422, "big": 413} {
		b := body
		if key == "big" {
			b = strings.Repeat(" ", 2<<20)
		}
		if a := h.keyed(key, "/api/v1/tokens", b); a.status != want || a.kind != "application/problem+json" {
			t.Errorf("a key of %d bytes and a body of %d: %d %s", len(key), len(b), a.status, a.body)
		}
	}
}

func TestWhoAsksTooOftenWaits(t *testing.T) {
	h := openWith(t, api.Rates{Known: 5, Stranger: 3})
	_, secret, err := h.auth.CreateToken(t.Context(), "tester", "busy", store.ScopeRead, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := h.auth.CreateToken(t.Context(), "tester", "calm", store.ScopeRead, 1)
	if err != nil {
		t.Fatal(err)
	}
	for who, n := range map[string]int{secret: 5, "lb_guess": 3} {
		for k := range n + 1 {
			req, err := http.NewRequest("GET", h.URL+"/api/v1/machines", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+who)
			var wait string
			a := h.sendFor(req, func(r *http.Response) { wait = r.Header.Get("Retry-After") })
			if limited := a.status == http.StatusTooManyRequests; limited != (k == n) || limited && (wait == "" || a.kind != "application/problem+json") {
				t.Errorf("request %d of %.8s: %d %s, Retry-After %q", k+1, who, a.status, a.body, wait)
			}
		}
	}
	if a := h.doAs(other, "GET", "/api/v1/machines", ""); a.status != 200 {
		t.Errorf("another token is answered %d", a.status)
	}
	for k := range 10 { // the appliance's own socket
		if a := h.do("GET", fmt.Sprintf("/api/v1/machines?offset=%d", k), ""); a.status != 200 {
			t.Errorf("the socket is answered %d", a.status)
		}
	}
}
