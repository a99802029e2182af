package api_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"lunboot/store"
	"lunboot/web/auth"
)

// unpacked is a support bundle by file name.
func unpacked(t *testing.T, b []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(h.Name, "lunboot-support/")] = string(content)
	}
}

func TestASupportBundleTellsMuchAndNoSecret(t *testing.T) {
	h := open(t)
	h.nouns()
	secrets := []string{"forward-secret-1", "reverse-secret-2", "sesame-open-99", "hooks-are-signed", "rootpw hunter22", "secret-path-77", "sso-secret-55", "Summer2026!", "hunter", "plain-words-31", "shelf-words-32"}
	h.must(201, "POST", "/api/v1/machines", `{"name":"m2","notes":"shelf-words-32","macs":["00:0c:29:00:00:02"],"auth":"mutual","chap_user":"chapuser-one","chap_secret":"forward-secret-1","reverse_user":"reverseuser-1","reverse_secret":"reverse-secret-2"}`)
	h.must(204, "PUT", "/api/v1/settings/webhook-secret", `{"value":"hooks-are-signed"}`)
	h.must(204, "PUT", "/api/v1/settings/webhook-url", `{"value":"https://hooks.example/secret-path-77"}`)
	h.must(200, "PUT", "/api/v1/profiles/p1", `{"kind":"custom","text":"#!ipxe\n# rootpw hunter22\n"}`)
	for i, text := range []string{
		"<AdministratorPassword><Value>Summer2026!</Value></AdministratorPassword>", "<AdministratorPassword>\n<Value>\nSummer2026!\n</Value>\n</AdministratorPassword>",
		`{"password":"hunter22"}`, "#!/bin/sh\nPASSWORD=\"a hunter23\"\n", "#!/bin/sh\necho one\n",
	} {
		name := fmt.Sprintf("/api/v1/profiles/answers-%d", i)
		body, err := json.Marshal(map[string]any{"kind": "custom", "text": text})
		if err != nil {
			t.Fatal(err)
		}
		h.must(200, "PUT", name, string(body))
		h.must(204, "DELETE", name, "")
	}
	if log := string(h.must(200, "GET", "/api/v1/audit", "").body); strings.Contains(log, "Summer2026!") || strings.Contains(log, "hunter") || !strings.Contains(log, "echo one") {
		t.Errorf("the audit log repeats %s", log)
	}
	h.must(200, "PUT", "/api/v1/profiles/words", `{"kind":"custom","text":"#!ipxe\necho plain-words-31\n"}`)
	h.must(204, "PUT", "/api/v1/users/u1/password", `{"password":"sesame-open-99"}`)
	h.must(200, "PUT", "/api/v1/oidc", `{"issuer":"https://sso.example.org","client_id":"lunboot","secret":"sso-secret-55","default_role":"viewer"}`)
	if o, err := h.db.OIDC(t.Context()); err != nil || o.Secret != "sso-secret-55" {
		t.Fatal(o, err)
	}
	var token struct{ Token string }
	h.must(201, "POST", "/api/v1/tokens", `{"name":"robot","scope":"read","days":7}`).json(t, &token)
	if token.Token == "" {
		t.Fatal("no token was made")
	}
	secrets = append(secrets, token.Token)
	// They are all where they could be taken from.
	shown := string(h.must(200, "GET", "/api/v1/machines/m2?secrets=true", "").body) + string(h.must(200, "GET", "/api/v1/profiles/p1", "").body)
	for _, s := range secrets[:2] {
		if !strings.Contains(shown, s) {
			t.Fatalf("the lab has no %s: %s", s, shown)
		}
	}
	if m, err := h.db.MachineByName(t.Context(), "m2"); err != nil || m.CHAP.Secret != "forward-secret-1" {
		t.Fatal(m, err)
	}

	a := h.must(200, "GET", "/api/v1/support-bundle", "")
	if a.kind != "application/gzip" {
		t.Error(a.kind)
	}
	files := unpacked(t, a.body)
	for name, content := range files {
		for _, s := range secrets {
			if strings.Contains(content, s) {
				t.Errorf("%s has %q in it", name, s)
			}
		}
		if name != "README.txt" && !json.Valid([]byte(content)) {
			t.Errorf("%s is no JSON: %s", name, content)
		}
	}
	for name, want := range map[string]string{
		"machines.json": `"name": "m2"`, "volumes.json": `"name": "v1"`, "mappings.json": `"lun": 0`, "profiles.json": `"name": "p1"`, "subnets.json": "10.9.0.0/24",
		"settings.json": `"key": "webhook-secret"`, "oidc.json": "sso.example.org", "audit.json": "setting.put", "health.json": `"ok"`, "README.txt": "no passwords", "about.json": `"platform"`,
		"attempts.json": "", "events.json": "", "leases.json": "", "sessions.json": "", "jobs.json": "", "loaders.json": "", "unknown-machines.json": "", "space.json": "",
	} {
		if content, ok := files[name]; !ok || !strings.Contains(content, want) {
			t.Errorf("%s (%t) has no %s: %s", name, ok, want, content)
		}
	}
	if len(files) != 19 {
		t.Errorf("%d files", len(files))
	}
	if log := string(h.must(200, "GET", "/api/v1/audit", "").body); !strings.Contains(log, "support.create") {
		t.Error("nobody knows who took it")
	}

	h.as = auth.Identity{Actor: "robot", Scope: store.ScopeOperate}
	h.must(403, "GET", "/api/v1/support-bundle", "")
}
