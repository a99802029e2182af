package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"lunboot/services/boot"
	"lunboot/services/events"
	"lunboot/services/inventory"
	"lunboot/store"
	"lunboot/store/sqlite"
	"lunboot/store/volume"
	"lunboot/store/volume/stage"
	"lunboot/web/api"
	"lunboot/web/auth"
	"lunboot/web/auth/oidc"
)

// house is the API over a real inventory, without the parts that speak to a
// network.
type house struct {
	*httptest.Server
	t         *testing.T
	router    *chi.Mux
	api       huma.API
	db        *sqlite.DB
	inventory *inventory.Inventory
	journal   *events.Journal
	table     *sqlite.Journal
	live      *live
	auth      *auth.Auth
	// as is who asks where no Authorization says it.
	as auth.Identity
}

// live has a session, and others that a test adds.
type live struct{ also []store.Session }

func (l *live) Sessions() []store.Session { return append([]store.Session{{ID: "s1"}}, l.also...) }
func (*live) DropSession(_ context.Context, _ store.Actor, id string) error {
	if id != "s1" {
		return store.NotFound("session", id)
	}
	return nil
}

type boots struct{}

func (boots) Attempt(_ context.Context, id store.AttemptID) (store.Attempt, error) {
	if id == 77 { // runs, on the first machine
		return store.Attempt{ID: id, Machine: 1, Outcome: store.OutcomeRunning, FirstSeq: 1, LastSeq: 1}, nil
	}
	return store.Attempt{}, store.NotFound("attempt", fmt.Sprint(id))
}
func (boots) Latest(id store.MachineID, _ store.MAC) (store.Attempt, bool) {
	return store.Attempt{ID: 1, Outcome: store.OutcomeFailed}, id == 2
}
func (boots) Attempts(_ context.Context, f store.AttemptFilter) ([]store.Attempt, int, error) {
	if f.MAC == (store.MAC{0, 0, 0, 0, 0, 0xff}) {
		return nil, 0, errors.New("the disk broke")
	}
	return nil, 0, nil
}

func (boots) EveryAttempt(context.Context, store.AttemptFilter) (store.Parts[store.Attempt], error) {
	return func(context.Context) ([]store.Attempt, error) { return nil, nil }, nil
}

// shelf takes loaders.
type shelf struct{}

func (s *shelf) Manifest() []boot.LoaderInfo {
	return []boot.LoaderInfo{{Name: boot.SNPOnly, Firmware: "UEFI", Arch: "x86-64", Features: []string{"iSCSI"}, Rung: 1}}
}

func (s *shelf) Add(_ context.Context, _ store.Actor, u boot.LoaderUpload, r io.Reader) (boot.LoaderInfo, error) {
	b, err := io.ReadAll(r)
	if !bytes.HasPrefix(b, []byte("MZ")) {
		return boot.LoaderInfo{}, store.Invalid("file", "it is no loader")
	}
	return boot.LoaderInfo{Name: boot.Loader(u.Chain + "/" + u.Name + " of " + u.File), Role: u.Role, Size: int64(len(b))}, err
}

func (s *shelf) Remove(_ context.Context, _ store.Actor, name string) error {
	return store.NotFound("uploaded loader", name)
}

func TestLoadersAreListedAddedAndRemoved(t *testing.T) {
	h := open(t)
	var list api.List[boot.LoaderInfo]
	h.must(200, "GET", "/api/v1/loaders", "").json(t, &list)
	if list.Total != 1 || list.Items[0].Name != boot.SNPOnly || list.Items[0].Rung != 1 {
		t.Errorf("the list is %+v", list)
	}
	var made boot.LoaderInfo
	h.must(201, "POST", "/api/v1/loaders?chain=secure&role=second&name=grubx64.efi&file=ipxe.efi", "MZ").json(t, &made)
	if made.Name != "secure/grubx64.efi of ipxe.efi" || made.Role != store.LoaderSecond || made.Size != 2 {
		t.Errorf("it is added as %+v", made)
	}
	h.must(422, "POST", "/api/v1/loaders?name=x.efi", "")
	h.must(422, "POST", "/api/v1/loaders?name=x.efi&role=third", "MZ")
	for path, name := range map[string]string{"/api/v1/loaders/secure": `\"secure\"`, "/api/v1/loaders/secure/grubx64.efi": `\"secure/grubx64.efi\"`} {
		if a := h.must(404, "DELETE", path, ""); !strings.Contains(string(a.body), name) {
			t.Errorf("DELETE %s answers %s", path, a.body)
		}
	}
}

// Capture has the packets of attempt 7 alone.
func (boots) Capture(_ context.Context, id store.AttemptID) ([]byte, string, error) {
	if id != 7 {
		return nil, "", store.NotFound("attempt", fmt.Sprint(id))
	}
	return []byte("\x0a\x0d\x0d\x0apackets"), "lab-12-attempt-7.pcapng", nil
}

// Prepare makes a backup that breaks off when it is to hold volumes.
func (boots) Prepare(_ context.Context, _ store.Actor, spec store.BackupSpec) (store.Backup, error) {
	if spec.Hash == store.HashAll {
		return nil, store.InUse("another backup is being made")
	}
	return saved{spec.Volumes}, nil
}

func (boots) Progress() store.BackupProgress {
	return store.BackupProgress{Volume: "golden", Done: 1, Total: 4}
}

type saved struct{ breaks bool }

func (saved) Name() string { return "lunboot-2026.tar.gz" }
func (saved) Close() error { return nil }
func (s saved) Send(_ context.Context, w io.Writer) error {
	if s.breaks {
		io.WriteString(w, "half")
		return errors.New("the disk broke")
	}
	_, err := io.WriteString(w, "whole")
	return err
}

func TestABackupIsAFileThatIsWholeOrCutOff(t *testing.T) {
	h := open(t)
	if a := h.must(200, "POST", "/api/v1/backup", ""); a.kind != "application/gzip" || string(a.body) != "whole" {
		t.Errorf("it is %s: %s", a.kind, a.body)
	}
	if a := h.must(409, "POST", "/api/v1/backup?hash=true", ""); !strings.Contains(string(a.body), "another backup") {
		t.Errorf("a second one at a time: %s", a.body)
	}
	h.must(422, "POST", "/api/v1/backup?hash=true&no_hash=true", "")
	if a := h.must(200, "GET", "/api/v1/backup", ""); !strings.Contains(string(a.body), `"volume":"golden","done":1,"total":4`) {
		t.Errorf("how far it has come: %s", a.body)
	}
	resp, err := h.Client().Post(h.URL+"/api/v1/backup?volumes=true", "", nil)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("half of a backup looks whole")
	}
}

type scripted struct{}

func (scripted) Preview(_ context.Context, m store.Machine, p *store.Profile) (string, error) {
	return "#!ipxe\necho " + m.Name + "\n", nil
}

// wires is a network with one interface.
type wires struct{}

func (wires) Links(context.Context) ([]store.Link, error) {
	return []store.Link{{Name: "eth1", Up: true, Carrier: true, Mode: store.DHCPFull, Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")}}}, nil
}

func (wires) Ask(_ context.Context, name string) (store.Survey, error) {
	if name != "eth1" {
		return store.Survey{}, store.NotFound("interface", name)
	}
	return store.Survey{Interface: name, Heard: []store.Heard{{As: store.ClientUEFI, Server: netip.MustParseAddr("10.77.0.254"), File: "grub.efi"}}}, nil
}

// dry answers a dry run with what it was asked.
type dry struct{}

func (dry) Explain(_ context.Context, m store.Machine, q store.ExplainQuery) (store.DryRun, error) {
	if q.Arch == "z80" {
		return store.DryRun{}, store.Invalid("arch", "%q is no client architecture", q.Arch)
	}
	return store.DryRun{Machine: m.ID, Name: m.Name, MAC: q.MAC, Platform: q.Arch, Relay: q.Relay}, nil
}

type log struct {
	*events.Journal
	table *sqlite.Journal
}

func (l log) FindEvents(ctx context.Context, f store.EventFilter) ([]store.Event, int, error) {
	return l.table.FindEvents(ctx, f)
}

func (l log) EveryEvent(ctx context.Context, f store.EventFilter) (store.Parts[store.Event], error) {
	return l.table.EveryEvent(ctx, f)
}

func (l log) After(ctx context.Context, f store.EventFilter) ([]store.Event, int64, error) {
	items, err := l.Journal.After(ctx, f.After, f.Limit)
	upto := f.After
	if len(items) > 0 {
		upto = items[len(items)-1].Seq
	}
	return items, upto, err
}

var admin = auth.Identity{Actor: "tester", Scope: store.ScopeAdmin}

func open(t *testing.T) *house {
	t.Helper()
	return openWith(t, api.Rates{Known: 1 << 20, Stranger: 1 << 20})
}

func openWith(t *testing.T, rates api.Rates) *house {
	t.Helper()
	dir, quiet := t.TempDir(), slog.New(slog.DiscardHandler)
	db, err := sqlite.Open(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	table, err := sqlite.OpenJournal(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	journal, err := events.New(table, quiet, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := volume.OpenPool(dir+"/volumes", quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	staged, err := stage.Open(dir+"/uploads", quiet, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { staged.Close() })
	on := &live{}
	inv, err := inventory.New(inventory.Config{DB: db, Volumes: pool, Layers: pool, Shelf: staged, Sessions: on, Log: quiet, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	h := &house{t: t, router: chi.NewRouter(), db: db, inventory: inv, journal: journal, table: table, live: on, as: admin}
	h.auth, err = auth.New(t.Context(), auth.Config{
		Users: db, Tokens: db, Sessions: db, Provider: db, Log: quiet, Now: time.Now, Peer: func(context.Context) (int, bool) { return 0, false },
	})
	if err != nil {
		t.Fatal(err)
	}
	through := oidc.New(oidc.Config{
		Rows: db, URL: func() string { return "http://10.77.0.1:8080" }, EndFederated: h.auth.EndFederated, Version: "test", Log: quiet, Now: time.Now,
	})
	h.router.Use(h.auth.API, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				r = r.WithContext(auth.With(r.Context(), h.as))
			}
			next.ServeHTTP(w, r)
		})
	})
	h.api = api.Mount(h.router, api.Config{
		Store:     db,
		Acts:      inv,
		Volumes:   inv,
		Space:     inventory.NewSpaceWatch(inv, func(store.Space) {}).Space,
		Sessions:  on,
		Attempts:  boots{},
		Captures:  boots{},
		Events:    log{journal, table},
		Scripts:   scripted{},
		Explainer: dry{},
		Loaders:   &shelf{},
		Media:     library(t, db, inv),
		Power:     boots{},
		Access:    h.auth,
		SignIn:    through,
		Network:   wires{},
		Backups:   boots{},
		Rates:     rates,
		Health:    func(context.Context) api.Health { return api.Health{OK: true, Version: "test"} }, Version: "test", Log: quiet,
	})
	h.Server = httptest.NewServer(h.router)
	h.Client().Transport.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
	t.Cleanup(h.Server.Close)
	return h
}

type answer struct {
	status int
	kind   string
	body   []byte
}

func (a answer) json(t *testing.T, out any) {
	t.Helper()
	if err := json.Unmarshal(a.body, out); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}

func (h *house) send(req *http.Request) answer {
	h.t.Helper()
	return h.sendFor(req, func(*http.Response) {})
}

// sendFor is send, for a look at the answer's headers too.
func (h *house) sendFor(req *http.Request, look func(*http.Response)) answer {
	h.t.Helper()
	resp, err := h.Client().Do(req)
	if err != nil {
		h.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	look(resp)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header.Get("Content-Type"), b}
}

func (h *house) do(method, path, body string) answer {
	h.t.Helper()
	return h.doAs("", method, path, body)
}

func (h *house) doAs(token, method, path, body string) answer {
	h.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, h.URL+path, r)
	if err != nil {
		h.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return h.send(req)
}

func (h *house) must(status int, method, path, body string) answer {
	h.t.Helper()
	a := h.do(method, path, body)
	if a.status != status {
		h.t.Fatalf("%s %s: %d, want %d: %s", method, path, a.status, status, a.body)
	}
	return a
}

// routes walks the router, so that a route that is added is tested too.
func (h *house) routes() (out [][2]string) {
	err := chi.Walk(h.router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if strings.HasPrefix(route, "/api/v1/") {
			out = append(out, [2]string{method, route})
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if len(out) < 40 {
		h.t.Fatalf("the walk finds only %d routes: %v", len(out), out)
	}
	return out
}

func TestTheDescriptionNamesEveryRoute(t *testing.T) {
	h := open(t)
	h.as = auth.Identity{} // a client generator has no token yet
	a := h.must(http.StatusOK, "GET", "/api/openapi.json", "")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Summary     string
			Security    []map[string][]string
			Responses   map[string]any
		}
	}
	a.json(t, &doc)
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("it is OpenAPI %q", doc.OpenAPI)
	}
	ids, described := map[string]bool{}, 0
	for _, r := range h.routes() {
		op, ok := doc.Paths[r[1]][strings.ToLower(r[0])]
		switch {
		case !ok:
			t.Errorf("%s %s is not in the description", r[0], r[1])
		case op.OperationID == "" || ids[op.OperationID]:
			t.Errorf("%s %s: the id %q is empty or taken", r[0], r[1], op.OperationID)
		case op.Summary == "" || len(op.Responses) == 0:
			t.Errorf("%s %s says nothing of itself", r[0], r[1])
		case len(op.Security) != 1 || len(op.Security[0]["token"]) != 1:
			t.Errorf("%s %s does not say which scope it needs: %v", r[0], r[1], op.Security)
		}
		ids[op.OperationID] = true
		described++
	}
	total := 0
	for _, p := range doc.Paths {
		total += len(p)
	}
	if total != described {
		t.Errorf("the description has %d operations, the router %d", total, described)
	}
	if op := doc.Paths["/api/v1/volumes/import"]["post"]; op.Responses["202"] == nil {
		t.Errorf("an import answers %v; it goes on after the answer, so 202", op.Responses)
	}
}

// wantAdmin are the routes that an operator may not use.
var wantAdmin = []string{"GET /api/v1/tokens", "POST /api/v1/tokens", "DELETE /api/v1/tokens/{token}", "GET /api/v1/users", "POST /api/v1/users", "GET /api/v1/users/{user}", "PATCH /api/v1/users/{user}", "DELETE /api/v1/users/{user}", "PUT /api/v1/users/{user}/password", "POST /api/v1/subnets", "PATCH /api/v1/subnets/{subnet}", "DELETE /api/v1/subnets/{subnet}", "POST /api/v1/volumes/import", "POST /api/v1/volumes/attach", "POST /api/v1/backup", "POST /api/v1/media", "PUT /api/v1/settings/{key}", "GET /api/v1/support-bundle", "GET /api/v1/oidc", "PUT /api/v1/oidc", "DELETE /api/v1/oidc", "POST /api/v1/oidc/try"}

func TestEveryRouteAsksWhoItIs(t *testing.T) {
	h := open(t)
	fill := strings.NewReplacer("{machine}", "m1", "{volume}", "v1", "{lun}", "0", "{mac}", "00:0c:29:00:00:01", "{profile}", "p", "{address}", "10.0.0.1",
		"{token}", "1", "{user}", "admin", "{job}", "1", "{session}", "s1", "{attempt}", "1", "{code}", "1d704539", "{login}", "none", "{key}", "router-adverts", "{loader}", "x.efi", "{chain}", "secure", "{subnet}", "1", "{upload}", "none", "{snapshot}", "s1", "{version}", "1", "{media}", "m", "{list}", "leases")
	for _, r := range h.routes() {
		method, path := r[0], fill.Replace(r[1])
		if strings.ContainsAny(path, "{}") {
			t.Errorf("%s: give its parameter a value in this test", path)
			continue
		}
		need := store.ScopeRead
		if method != http.MethodGet && r[1] != "/api/v1/logins/{login}" { // one's own
			need = store.ScopeOperate
		}
		if r[1] == "/api/v1/volumes/{volume}/export" { // a disk has secrets
			need = store.ScopeOperate
		}
		if slices.Contains(wantAdmin, method+" "+r[1]) {
			need = store.ScopeAdmin
		}
		for _, scope := range []store.Scope{"", "nonsense", store.ScopeRead, store.ScopeOperate} {
			if scope.Allows(need) {
				continue
			}
			want := http.StatusForbidden
			if scope == "" {
				want = http.StatusUnauthorized
			}
			h.as = auth.Identity{Actor: "x", Scope: scope}
			for _, body := range []string{"", "{}", "{", strings.Repeat(" ", 2<<20)} {
				a := h.do(method, path, body)
				if a.status != want || a.kind != "application/problem+json" {
					t.Errorf("%s %s with the scope %q and a body of %d bytes: %d %s %s, want %d", method, path, scope, len(body), a.status, a.kind, a.body, want)
				}
				if method == http.MethodGet {
					break
				}
			}
		}
		// And who may, may: whatever else is wrong, it is not who asks.
		h.as = auth.Identity{Actor: "x", Scope: need}
		if method != http.MethodGet {
			if a := h.do(method, path, "{}"); a.status == http.StatusUnauthorized || a.status == http.StatusForbidden || a.status >= 500 {
				t.Errorf("%s %s with the scope %s: %d %s", method, path, need, a.status, a.body)
			}
		} else if a := h.do(method, path, ""); a.status == http.StatusUnauthorized || a.status == http.StatusForbidden || a.status >= 500 {
			t.Errorf("%s %s with the scope %s: %d %s", method, path, need, a.status, a.body)
		}
	}
}

func TestSecretsNeedAdminAndAreSaidOnlyOnDemand(t *testing.T) {
	h := open(t)
	h.must(http.StatusCreated, "POST", "/api/v1/machines", `{"name":"m1","macs":["00:0c:29:00:00:01"],"chap_secret":"twelve-bytes"}`)
	for _, path := range []string{"/api/v1/machines", "/api/v1/machines/m1", "/api/v1/machines/m1?secrets=false", "/api/v1/machines/m1/script", "/api/v1/audit"} {
		if a := h.must(http.StatusOK, "GET", path, ""); bytes.Contains(a.body, []byte("twelve-bytes")) {
			t.Errorf("%s tells the secret: %s", path, a.body)
		}
	}
	if a := h.must(http.StatusOK, "PATCH", "/api/v1/machines/m1", `{"notes":"x"}`); bytes.Contains(a.body, []byte("twelve-bytes")) {
		t.Errorf("a change tells the secret: %s", a.body)
	}
	if a := h.must(http.StatusOK, "GET", "/api/v1/machines/m1?secrets=true", ""); !bytes.Contains(a.body, []byte("twelve-bytes")) {
		t.Errorf("an admin asks for the secret: %s", a.body)
	}
	h.as.Scope = store.ScopeOperate
	h.must(http.StatusForbidden, "GET", "/api/v1/machines/m1?secrets=true", "")
}

func TestANetworkIsAskedOnRequestOnly(t *testing.T) {
	h := open(t)
	var links struct{ Items []store.Link }
	h.must(http.StatusOK, "GET", "/api/v1/network/interfaces", "").json(t, &links)
	if len(links.Items) != 1 || links.Items[0].Name != "eth1" || links.Items[0].Survey != nil {
		t.Errorf("the interfaces are %+v", links.Items)
	}
	var heard store.Survey
	h.must(http.StatusCreated, "POST", "/api/v1/network/probe", `{"interface":"eth1"}`).json(t, &heard)
	if len(heard.Heard) != 1 || heard.Heard[0].File != "grub.efi" || heard.Heard[0].As != store.ClientUEFI {
		t.Errorf("heard %+v", heard)
	}
	h.must(http.StatusNotFound, "POST", "/api/v1/network/probe", `{"interface":"eth9"}`)
	h.as.Scope = store.ScopeRead
	h.must(http.StatusForbidden, "POST", "/api/v1/network/probe", `{"interface":"eth1"}`)
}

type problem struct {
	Title, Detail string
	Status        int
	Errors        []struct{ Location, Message string }
}

func TestACaptureIsAFile(t *testing.T) {
	h := open(t)
	r, err := h.Client().Get(h.URL + "/api/v1/attempts/7/capture")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || string(b) != "\x0a\x0d\x0d\x0apackets" {
		t.Errorf("%q, %v", b, err)
	}
	if got := r.Header.Get("Content-Type"); got != "application/x-pcapng" {
		t.Errorf("the type is %q", got)
	}
	if got := r.Header.Get("Content-Disposition"); got != `attachment; filename="lab-12-attempt-7.pcapng"` {
		t.Errorf("it is given as %q", got)
	}
}

func TestErrorsNameTheFieldAtFault(t *testing.T) {
	h := open(t)
	h.must(http.StatusCreated, "POST", "/api/v1/machines", `{"name":"m1","macs":["00:0c:29:00:00:01"]}`)
	h.must(http.StatusCreated, "POST", "/api/v1/volumes", `{"name":"v1","size":1048576}`)
	h.must(http.StatusCreated, "POST", "/api/v1/mappings", `{"machine":"m1","volume":"v1"}`)
	for _, c := range []struct {
		method, path, body string
		status             int
		field              string
	}{
		{"POST", "machines", `{"name":"m2","macs":["00:0c:29:00:00:01"]}`, 409, "body.macs"},
		{"POST", "machines", `{"name":"m1","macs":["00:0c:29:00:00:02"]}`, 409, "body.name"},
		{"POST", "machines", `{"name":"m2","macs":["nonsense"]}`, 422, "body.macs"},
		{"POST", "machines", `{"name":"m2","macs":["00:0c:29:00:00:02"],"chap_secret":"short"}`, 422, "body.chap_secret"},
		{"POST", "machines", `{"name":"m2","macs":["00:0c:29:00:00:02"],"address":"x"}`, 422, "body.address"},
		{"POST", "machines", `{"name":"m2","macs":["00:0c:29:00:00:02"],"uuid":"x"}`, 422, "body.uuid"},
		{"PATCH", "machines/m1", `{"auth":"x"}`, 422, "body.auth"},
		{"PATCH", "machines/m1", `{"quirks":["no-lunch"]}`, 422, "body.quirks"},
		{"PATCH", "machines/m1", `{"quirks":["option-43","no-option-43"]}`, 422, "body.quirks"},
		{"PATCH", "machines/m1", `{"revision":99,"notes":"x"}`, 409, ""},
		{"POST", "volumes", `{"name":"v1","size":1048576}`, 409, "body.name"},
		{"POST", "volumes", `{"name":"v2","size":1}`, 422, "body.size"},
		{"POST", "volumes", `{"name":"v2","size":1048576,"block_size":520}`, 422, "body.block_size"},
		{"PATCH", "volumes/v1", `{"size":2097152,"name":"v9"}`, 422, "body.size"},
		{"PATCH", "volumes/v1", `{"size":2097152,"revision":99}`, 409, "body.revision"},
		{"DELETE", "volumes/v1", ``, 409, ""},
		{"POST", "volumes/import", `{"name":"v2","path":"/etc"}`, 422, "body.path"},
		{"POST", "volumes/import", `{"name":"v2","path":"/etc/passwd","format":"qcow2"}`, 422, "body.format"},
		{"POST", "mappings", `{"machine":"m1","volume":"v1","lun":16384}`, 422, "body.lun"},
		{"POST", "mappings", `{"machine":"nobody","volume":"v1"}`, 404, "body.machine"},
		{"POST", "mappings", `{"machine":"m1","volume":"none"}`, 404, "body.volume"},
		{"POST", "machines", `{"name":"m2","macs":["00:0c:29:00:00:02"],"initiator":"x"}`, 422, "body.initiator"},
		{"PUT", "settings/space-low", `{"value":"much"}`, 422, "body.value"},
		{"PUT", "settings/nosuch", `{"value":"on"}`, 404, "path.key"},
		{"POST", "volumes/v1/rollback", `{"to":"nosuch"}`, 404, "body.to"},
		{"PUT", "profiles/x", `{"kind":"x"}`, 422, "body.kind"},
		{"PUT", "profiles/x%20y", `{"kind":"local"}`, 422, "path.profile"},
		{"GET", "machines?search=state:odd", ``, 422, "query.search"},
		{"GET", "machines?sort=size", ``, 422, "query.sort"},
		{"GET", "volumes?sort=odd", ``, 422, "query.sort"},
		{"GET", "events?search=kind:odd", ``, 422, "query.search"},
		{"GET", "events?mac=odd", ``, 422, "query.mac"},
		{"GET", "machines/m1/script?profile=odd", ``, 404, "query.profile"},
		{"POST", "subnets", `{"prefix":"10.88.0.0"}`, 422, "body.prefix"},
		{"POST", "subnets", `{}`, 422, "body.prefix"},
		{"POST", "subnets", `{"prefix":"10.88.0.0/24","range":"10.99.0.1-10.99.0.9"}`, 422, "body.range"},
		{"POST", "subnets", `{"prefix":"10.88.0.0/24","range":"10.99.0.1"}`, 422, "body.range"},
		{"POST", "subnets", `{"prefix":"10.88.0.0/24","mode":"x"}`, 422, "body.mode"},
		{"POST", "subnets", `{"prefix":"10.88.0.0/24","dns":["x"]}`, 422, "body.dns"},
		{"POST", "subnets", `{"prefix":"10.88.0.0/24","next_server":"x"}`, 422, "body.next_server"},
		{"PATCH", "subnets/99", `{"domain":"lab.example"}`, 404, ""},
		{"GET", "subnets/99", ``, 404, ""},
		{"DELETE", "subnets/99", ``, 404, ""},
		{"POST", "tokens", `{"name":"t","scope":"god"}`, 422, "body.scope"},
		{"POST", "tokens", `{"name":"t","scope":"read","days":0}`, 422, "body.days"},
		{"POST", "tokens", `{"name":"t","scope":"read","days":400}`, 422, "body.days"},
		{"PUT", "users/admin/password", `{"password":"short"}`, 422, "body.password"},
		{"GET", "explain/zz", ``, 422, "path.code"},
		{"GET", "machines/m2", ``, 404, ""},
		{"GET", "attempts?machine=m2", ``, 404, "query.machine"},
		{"GET", "attempts?machine=00:00:00:00:00:ff", ``, 500, ""},
	} {
		a := h.do(c.method, "/api/v1/"+c.path, c.body)
		var p problem
		if a.kind != "application/problem+json" || a.status != c.status {
			t.Errorf("%s %s %s: %d %s %s", c.method, c.path, c.body, a.status, a.kind, a.body)
			continue
		}
		a.json(t, &p)
		if p.Status != c.status || p.Detail == "" {
			t.Errorf("%s %s %s: %s", c.method, c.path, c.body, a.body)
		}
		if c.field != "" && !slices.ContainsFunc(p.Errors, func(e struct{ Location, Message string }) bool {
			return e.Location == c.field && e.Message != ""
		}) {
			t.Errorf("%s %s %s does not name %s: %s", c.method, c.path, c.body, c.field, a.body)
		}
	}
	if a := h.must(http.StatusOK, "GET", "/api/v1/volumes/v1", ""); !bytes.Contains(a.body, []byte(`"size":1048576`)) {
		t.Errorf("half of a refused change is done: %s", a.body)
	}
}

func TestHostileRequestsAreTheClientsFault(t *testing.T) {
	h := open(t)
	h.must(http.StatusCreated, "POST", "/api/v1/machines", `{"name":"m1","macs":["00:0c:29:00:00:01"]}`)
	deep := strings.Repeat(`{"name":`, 50000) + `1` + strings.Repeat(`}`, 50000)
	bodies := []string{"", "null", "[]", `"x"`, "1", "true", "{", `{"name":5}`, `{"macs":"x"}`, `{"macs":[1]}`, `{"name":{"a":1}}`, `{"size":"8G","name":1}`, `{"size":1e99}`, `{"lun":-1e400}`,
		`{"name":"\ud800"}`, `{"nosuchfield":1}`, "\x00\x01\x02", "<xml/>", deep, `{"name":"` + strings.Repeat("a", 2<<20) + `"}`, `{"days":99999999999999999999,"name":1}`}
	for _, r := range h.routes() {
		if r[0] == http.MethodGet || r[0] == http.MethodDelete || strings.HasSuffix(r[1], "/upload") || strings.HasSuffix(r[1], "/backup") || strings.HasSuffix(r[1], "/wake") || strings.HasSuffix(r[1], "/oidc/look") { // the one takes any bytes, the others none
			continue
		}
		path := strings.NewReplacer("{machine}", "m1", "{volume}", "v1", "{lun}", "0", "{mac}", "00:0c:29:00:00:01", "{profile}", "p", "{user}", "u", "{version}", "1").Replace(r[1])
		for _, b := range bodies {
			if a := h.do(r[0], path, b); a.status < 400 || a.status >= 500 || a.kind != "application/problem+json" {
				t.Errorf("%s %s with %.40q: %d %s %.200s", r[0], path, b, a.status, a.kind, a.body)
			}
		}
	}
	for _, path := range []string{
		"machines/%00", "machines/..%2f..%2fetc", "machines/" + strings.Repeat("x", 8000), "machines?limit=-1", "machines?limit=99999999", "machines?offset=x", "machines?limit=1e3",
		"jobs/x", "attempts/99999999999999999999", "events?after=x", "events?after=-1", "events?mac=x", "events?limit=99999999999999999999", "nosuch", "",
	} {
		a := h.do("GET", "/api/v1/"+path, "")
		if a.status < 400 || a.status >= 500 || a.kind != "application/problem+json" {
			t.Errorf("GET %.60s: %d %s %.200s", path, a.status, a.kind, a.body)
		}
	}
	for _, r := range [][2]string{{"PUT", "/api/v1/machines"}, {"DELETE", "/api/v1/machines"}, {"PATCH", "/api/v1/volumes"}, {"POST", "/api/v1/events"}, {"DELETE", "/api/v1/mappings/m1/99999999999999999999"}, {"DELETE", "/api/v1/leases/x"}, {"DELETE", "/api/v1/tokens/x"}} {
		if a := h.do(r[0], r[1], ""); a.status < 400 || a.status >= 500 || a.kind != "application/problem+json" {
			t.Errorf("%s %s: %d %s %.200s", r[0], r[1], a.status, a.kind, a.body)
		}
	}
	var list struct{ Total int }
	h.must(http.StatusOK, "GET", "/api/v1/machines", "").json(t, &list)
	if list.Total != 1 {
		t.Errorf("hostile requests made machines: %d", list.Total)
	}
}

func TestATokensLife(t *testing.T) {
	h := open(t)
	var made struct {
		ID    int64
		Token string
		Scope string
	}
	h.must(http.StatusCreated, "POST", "/api/v1/tokens", `{"name":"ci","scope":"operate"}`).json(t, &made)
	if !strings.HasPrefix(made.Token, "lb_") || made.Scope != "operate" {
		t.Fatalf("%+v", made)
	}
	if a := h.must(http.StatusOK, "GET", "/api/v1/tokens", ""); bytes.Contains(a.body, []byte(made.Token)) || bytes.Contains(a.body, []byte("hash")) {
		t.Errorf("the listing tells it: %s", a.body)
	}
	if a := h.doAs(made.Token, "POST", "/api/v1/machines", `{"name":"m1","macs":["00:0c:29:00:00:01"]}`); a.status != http.StatusCreated {
		t.Errorf("it does not work: %d %s", a.status, a.body)
	}
	if a := h.must(http.StatusOK, "GET", "/api/v1/audit", ""); !bytes.Contains(a.body, []byte(`token ci`)) {
		t.Errorf("the audit does not name it: %s", a.body)
	}
	if a := h.doAs(made.Token, "GET", "/api/v1/tokens", ""); a.status != http.StatusForbidden {
		t.Errorf("it may look at tokens: %d", a.status)
	}
	h.must(http.StatusNoContent, "DELETE", fmt.Sprintf("/api/v1/tokens/%d", made.ID), "")
	if a := h.doAs(made.Token, "GET", "/api/v1/machines", ""); a.status != http.StatusUnauthorized {
		t.Errorf("it works after its end: %d", a.status)
	}
}

func (h *house) emit(n int) {
	for range n {
		h.journal.Emit(store.Event{At: time.Now(), Kind: store.EventMachineChanged, Detail: store.Detail{Hostname: "m1", Reason: "line one\nline two"}})
	}
}

// listen reads a stream of events: the ids that come.
func (h *house) listen(ctx context.Context, query, lastID string) <-chan string {
	h.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", h.URL+"/api/v1/events"+query, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := h.Client().Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		h.t.Fatalf("%s %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	ids := make(chan string, 1000)
	go func() { // ends with ctx
		defer close(ids)
		defer resp.Body.Close()
		id := ""
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			if now, ok := strings.CutPrefix(s.Text(), "id: "); ok {
				id = now
			}
			if data, ok := strings.CutPrefix(s.Text(), "data: "); ok {
				if ids <- id; !json.Valid([]byte(data)) {
					ids <- "no JSON: " + data
				}
			}
		}
	}()
	return ids
}

func (h *house) expect(ids <-chan string, want ...string) {
	h.t.Helper()
	for _, w := range want {
		select {
		case got := <-ids:
			if got != w {
				h.t.Errorf("the stream has %q, want %q", got, w)
			}
		case <-time.After(5 * time.Second):
			h.t.Fatalf("event %s does not come", w)
		}
	}
	select {
	case got := <-ids:
		h.t.Errorf("the stream goes on with %q", got)
	case <-time.After(20 * time.Millisecond):
	}
}

// After a restore without the journal numbers begin anew: whoever comes with one of
// before hears of what happens from now on.
func TestAStreamThatResumesBeyondTheEndGoesOnAtTheEnd(t *testing.T) {
	h := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h.emit(3)
	h.listed(3)
	byHeader, byQuery := h.listen(ctx, "", "900"), h.listen(ctx, "?after=900", "")
	h.emit(1)
	h.expect(byHeader, "4")
	h.expect(byQuery, "4")
}

// listed waits until the journal has so many events.
func (h *house) listed(n int64) {
	h.t.Helper()
	for end := time.Now().Add(5 * time.Second); h.journal.LastSeq() < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("the journal has %d events, want %d", h.journal.LastSeq(), n)
		}
	}
}

func TestEventsListAndStreamAndResume(t *testing.T) {
	h := open(t)
	if a := h.must(http.StatusOK, "GET", "/api/v1/events", ""); string(bytes.TrimSpace(a.body)) != `{"items":[],"total":0}` {
		t.Errorf("an empty journal: %s", a.body)
	}
	h.emit(3)
	var list struct{ Items []store.Event }
	h.must(http.StatusOK, "GET", "/api/v1/events?after=1&limit=1", "").json(t, &list)
	if len(list.Items) != 1 || list.Items[0].Seq != 2 {
		t.Errorf("after 1, one: %+v", list.Items)
	}

	ctx, cancel := context.WithCancel(t.Context())
	now := h.listen(ctx, "", "") // from the present end
	h.expect(now)
	back := h.listen(ctx, "?after=1", "")
	h.expect(back, "2", "3")
	h.emit(2)
	h.expect(now, "4", "5")
	h.expect(back, "4", "5")
	cancel()
	for range now {
	}
	for range back {
	}

	// The connection broke after 3: nothing is lost, nothing comes twice, and
	// the header beats the address that the first connection had.
	again := h.listen(t.Context(), "?after=1", "3")
	h.expect(again, "4", "5")
	h.emit(1)
	h.expect(again, "6")
	h.expect(h.listen(t.Context(), "", "nonsense"))

	// More than one read of the journal.
	h.emit(1200)
	many := h.listen(t.Context(), "", "6")
	for i := 7; i <= 1206; i++ {
		if got := <-many; got != fmt.Sprint(i) {
			t.Fatalf("the stream has %s, want %d", got, i)
		}
	}
}

// pattern is bytes without end, made as they are read.
type pattern struct{ at int64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte((p.at + int64(i)) * 7 >> 3)
	}
	b[0] |= 1 // no hole is made of it
	p.at += int64(len(b))
	return len(b), nil
}

func (h *house) upload(path string, body io.Reader, size int64) answer {
	h.t.Helper()
	req, err := http.NewRequest("POST", h.URL+"/api/v1/volumes/"+path, body)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Expect", "100-continue") // no byte leaves before it is wanted
	req.ContentLength = size
	return h.send(req)
}

func TestUploadsStream(t *testing.T) {
	h := open(t)
	const size = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	a := h.upload("big/upload?block_size=4096&read_only=true", io.LimitReader(&pattern{}, size), size)
	runtime.ReadMemStats(&after)
	if a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if grew := after.TotalAlloc - before.TotalAlloc; grew > size/2 {
		t.Errorf("an upload of 64 MiB took %d MiB of memory", grew>>20)
	}
	var v store.Volume
	a.json(t, &v)
	if v.Size != size || v.BlockSize != 4096 || !v.ReadOnly || v.Shared || v.State != store.VolumeReady {
		t.Errorf("%+v", v)
	}
}

func TestUploadsThatFailLeaveNothing(t *testing.T) {
	h := open(t)
	for name, c := range map[string]struct {
		a      answer
		status int
	}{
		"no length":            {h.upload("x/upload", io.LimitReader(&pattern{}, 4096), -1), 422},
		"nothing":              {h.upload("x/upload", nil, 0), 422},
		"larger than the disk": {h.upload("x/upload", io.LimitReader(&pattern{}, 4096), 60<<40), 503},
		"a bad name":           {h.upload("..%2fx/upload", io.LimitReader(&pattern{}, 4096), 4096), 422},
		"a bad block size":     {h.upload("x/upload?block_size=7", io.LimitReader(&pattern{}, 4096), 4096), 422},
		"compressed":           {h.upload("x/upload", io.MultiReader(strings.NewReader("\x1f\x8b\x08"), io.LimitReader(&pattern{}, 4093)), 4096), 422},
	} {
		if c.a.status != c.status || c.a.kind != "application/problem+json" {
			t.Errorf("%s: %d %s", name, c.a.status, c.a.body)
		}
	}
	// One that breaks off.
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", h.URL+"/api/v1/volumes/x/upload", &breaking{cancel: cancel})
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 8 << 20
	if resp, err := h.Client().Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("it broke off and is %s", resp.Status)
	}
	for range 500 {
		vs, err := h.db.Volumes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(vs) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("what broke off is still there")
}

// breaking is a body whose sender dies after a mebibyte.
type breaking struct {
	pattern
	cancel context.CancelFunc
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.at > 1<<20 {
		b.cancel()
		return 0, io.ErrUnexpectedEOF
	}
	return b.pattern.Read(p)
}

func TestAnImportIsAJobThatCanBeSeen(t *testing.T) {
	h := open(t)
	a := h.must(http.StatusAccepted, "POST", "/api/v1/volumes/import", `{"name":"v1","path":"/proc/self/exe"}`)
	var got api.Imported
	a.json(t, &got)
	if got.Job.ID == 0 || got.Volume.Name != "v1" {
		t.Fatalf("%s", a.body)
	}
	for range 1000 {
		var jobs api.List[store.Job]
		h.must(http.StatusOK, "GET", "/api/v1/jobs", "").json(t, &jobs)
		if len(jobs.Items) == 1 && jobs.Items[0].State == store.JobDone {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the job does not end")
}

func TestListsPage(t *testing.T) {
	h := open(t)
	for i := range 5 {
		h.must(http.StatusCreated, "POST", "/api/v1/machines", fmt.Sprintf(`{"name":"m%d","macs":["00:0c:29:00:00:0%d"],"tags":["rack%d"]}`, i, i, i%2))
	}
	for query, want := range map[string][2]int{"": {5, 5}, "?limit=2": {2, 5}, "?limit=2&offset=4": {1, 5}, "?offset=9": {0, 5}, "?search=m3": {1, 1}, "?tag=rack0": {3, 3}, "?search=nosuch": {0, 0}} {
		var got api.List[api.Machine]
		h.must(http.StatusOK, "GET", "/api/v1/machines"+query, "").json(t, &got)
		if len(got.Items) != want[0] || got.Total != want[1] || got.Items == nil {
			t.Errorf("machines%s: %d of %d, want %v", query, len(got.Items), got.Total, want)
		}
	}
}

func TestASubnetIsAddedChangedAndRemoved(t *testing.T) {
	h := open(t)
	into := func(a answer, n *store.Subnet) {
		t.Helper()
		*n = store.Subnet{}
		if err := json.Unmarshal(a.body, n); err != nil {
			t.Fatalf("%v: %s", err, a.body)
		}
	}
	var n store.Subnet
	into(h.must(http.StatusCreated, "POST", "/api/v1/subnets", `{"prefix":"10.88.0.7/24","range":"10.88.0.100-10.88.0.199","router":"10.88.0.1","dns":["9.9.9.9"],"lease_time":3600000000000}`), &n)
	if n.Prefix.String() != "10.88.0.0/24" || n.Mode != store.DHCPFull || n.LeaseTime != time.Hour || len(n.DNS) != 1 {
		t.Fatalf("added %+v", n)
	}
	path := "/api/v1/subnets/" + strconv.FormatInt(n.ID, 10)
	into(h.must(http.StatusOK, "PATCH", path, `{"revision":1,"range":"","search":["lab.example"],"dns":[]}`), &n)
	if n.Range.From.IsValid() || n.DNS != nil || n.Router.String() != "10.88.0.1" || n.Revision != 2 {
		t.Errorf("changed to %+v", n)
	}
	if a := h.do("PATCH", path, `{"revision":1,"domain":"lab.example"}`); a.status != http.StatusConflict {
		t.Errorf("a change of an older revision: %d %s", a.status, a.body)
	}
	var same store.Subnet
	into(h.must(http.StatusOK, "GET", path, ""), &same)
	if same.Revision != 2 || same.Domain != "" {
		t.Errorf("it is %+v", same)
	}
	if a := h.do("POST", "/api/v1/subnets", `{"prefix":"10.88.0.128/25"}`); a.status != http.StatusConflict || !strings.Contains(string(a.body), "overlaps") {
		t.Errorf("an overlap: %d %s", a.status, a.body)
	}
	h.must(http.StatusNoContent, "DELETE", path, "")
	if all, _ := h.db.Subnets(t.Context()); len(all) != 0 {
		t.Errorf("left: %+v", all)
	}
}

// Who is meant by a name is who has it when something happens, not who had it when
// somebody began to follow; and a boot that goes on has no end yet.
func TestAFollowedSearchKnowsWhoCameLater(t *testing.T) {
	h := open(t)
	var first api.Machine
	h.must(201, "POST", "/api/v1/machines", `{"name":"lab-1","macs":["00:0c:29:00:03:01"]}`).json(t, &first)
	h.emit(1)
	named, word, boot := h.listen(t.Context(), "?search=machine:lab-9", ""), h.listen(t.Context(), "?search=lab-9", ""), h.listen(t.Context(), "?search=attempt:77", "")
	if first.ID != 1 {
		t.Fatalf("the first machine is %d", first.ID)
	}
	var late api.Machine
	h.must(201, "POST", "/api/v1/machines", `{"name":"lab-9","macs":["00:0c:29:00:03:09"]}`).json(t, &late)
	for _, m := range []api.Machine{late, first} {
		h.journal.Emit(store.Event{At: time.Now(), Kind: store.EventScriptSent, Machine: m.ID, MAC: m.MACs[0]})
	}
	last := h.journal.LastSeq()
	for what, stream := range map[string]struct {
		ids  <-chan string
		want int64
	}{"its name": {named, last - 1}, "a word": {word, last - 1}, "a boot": {boot, last}} {
		got := ""
		for got != fmt.Sprint(stream.want) {
			select {
			case got = <-stream.ids:
			case <-time.After(10 * time.Second):
				t.Fatalf("%s: the last event that came is %q, want %d", what, got, stream.want)
			}
		}
	}
}
