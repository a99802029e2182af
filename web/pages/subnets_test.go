package pages

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

// served gives the lab networks of each mode.
func (l *lab) served() {
	l.subnets = []store.Subnet{
		{ID: 1, Interface: "eth1", Prefix: netip.MustParsePrefix("10.77.0.0/24"), Mode: store.DHCPFull, Range: mustRange("10.77.0.100-10.77.0.199"), Router: netip.MustParseAddr("10.77.0.254"), DNS: []netip.Addr{netip.MustParseAddr("10.77.0.53")}, Domain: "lab.example", LeaseTime: 4 * time.Hour},
		{ID: 2, Prefix: netip.MustParsePrefix("10.9.0.0/16"), Mode: store.DHCPProxy},
		{ID: 3, Interface: "eth0", Prefix: netip.MustParsePrefix("192.0.2.0/24"), Mode: store.DHCPOff},
	}
}

func TestSubnetsAreListed(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	_, body := get("/subnets")
	has(t, body, "No network is served yet", "lunboot subnet add", `aria-current="page">Subnets</a>`)
	l.served()
	_, body = get("/subnets")
	has(t, body, "10.77.0.100-10.77.0.199", `<a class="count" href="/leases?show=bound&amp;search=interface%3Aeth1">1</a>`, "behind a relay", "reserved ones only", "10.77.0.53 lab.example", "100 addresses", "</span>4h<", `Gives addresses <b class="num">1</b>`)
	_, body = get("/subnets?search=relay:yes")
	before(t, body, []string{"10.9.0.0/16"}, "10.77.0.0/24")
	_, body = get("/subnets?sort=-network")
	before(t, body, []string{"192.0.2.0/24", "10.77.0.0/24", "10.9.0.0/16"})
	_, body = get("/subnets?show=off&search=eth")
	before(t, body, []string{"192.0.2.0/24"}, "10.77.0.0/24")
	_, body = get("/subnets?search=nothing")
	has(t, body, "No subnet fits", `value="nothing"`)
	if code, body := get("/subnets?search=mode:x"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "there are: full, proxy, off") || !strings.Contains(body, "10.77.0.0/24") {
		t.Errorf("a search that is none answers %d", code)
	}
	_, body = get("/settings")
	has(t, body, `href="/subnets"`)
}

func TestMappingsAreListed(t *testing.T) {
	l := full()
	l.mappings = append(l.mappings, store.Mapping{Machine: 1, Volume: 4, LUN: 12, ReadOnly: true, Created: noon.Add(-time.Hour)})
	get, _ := l.enter(t)
	_, body := get("/mappings?sort=lun")
	before(t, body, []string{`<a href="/volumes/2">debian12</a>`, `<a href="/volumes/4">spare</a>`})
	has(t, body, `<a class="name" href="/machines/1">lab-01</a>`, "boots from this", "read-only", "8 GiB", `Booted from <b class="num">2</b>`)
	_, body = get("/mappings?search=lun:2")
	before(t, body, []string{">debian12</a>"}, ">spare</a>") // and not 12
	_, body = get("/mappings?search=readonly:yes+spare")
	before(t, body, []string{">spare</a>"}, ">debian12</a>")
	_, body = get("/mappings?show=no")
	before(t, body, []string{">spare</a>"}, ">debian12</a>")
	_, body = get("/mappings?search=machine:nobody")
	has(t, body, "No mapping fits")
	if code, body := get("/mappings?search=boot:x"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "there are: yes, no") {
		t.Errorf("a search that is none answers %d", code)
	}
	l.mappings = nil
	_, body = get("/mappings")
	has(t, body, "No machine has a volume yet")
	_, body = get("/volumes")
	has(t, body, `href="/mappings"`)
}

func TestPeopleAndTokensAreSearched(t *testing.T) {
	l := full()
	l.users["vera"], l.roles["vera"] = "hash", store.RoleViewer
	get, post := l.enter(t)
	_, body := get("/people")
	has(t, body, "<strong>vera</strong>", "<strong>admin</strong>", `<a href="/people?show=viewer">Viewers <b class="num">1</b></a>`, `aria-sort="none"`)
	_, body = get("/people?search=ver&sort=name")
	before(t, body, []string{`name="search" value="ver"`, `<strong>vera</strong>`}, `action="/people/admin/role"`)
	_, body = get("/people?show=admin")
	before(t, body, []string{`action="/people/admin/role"`}, `action="/people/vera/role"`)
	_, body = get("/people?search=nobody")
	has(t, body, "Nobody fits.")
	if code, body := get("/people?search=role:owner"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "there are: viewer, operator, admin") {
		t.Errorf("a search that is none answers %d", code)
	}
	get("/people?search=ver")
	if code, to := post("/people/vera/role", "role", "operator", "revision", "1", "search", "ver"); code != http.StatusSeeOther || to != "/people?search=ver" {
		t.Errorf("an act leads to %d %s", code, to)
	}
	_, body = post("/people/vera/remove", "confirm", "v", "search", "ver")
	has(t, body, "Nobody was removed", `name="search" value="ver"`)

	_, body = get("/tokens")
	has(t, body, "No tokens", "an example comes with it")
	l.tokens = []store.Token{{ID: 1, Name: "ci", Scope: "read", LastUsed: noon}, {ID: 2, Name: "robot", Scope: "admin", Expires: noon.Add(-time.Hour)}, {ID: 3, Name: "robot-2", Scope: "read", Expires: noon.Add(time.Hour)}}
	_, body = get("/tokens?sort=expires")
	before(t, body, []string{"<strong>robot<", "<strong>robot-2<", "<strong>ci<"})
	_, body = get("/tokens?search=expired:yes")
	before(t, body, []string{"<strong>robot<"}, "<strong>ci<", "<strong>robot-2<")
	_, body = get("/tokens?search=ever:no&show=read")
	before(t, body, []string{"<strong>robot-2<"}, "<strong>ci<", "<strong>robot<")
	_, body = get("/tokens?search=nobody")
	has(t, body, "No token fits")
	if code, _ := get("/tokens?search=scope:x"); code != http.StatusUnprocessableEntity {
		t.Errorf("a search that is none answers %d", code)
	}
	if code, body := post("/people/tokens", "name", "x", "scope", "read", "days", "many"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "is no number of days") {
		t.Errorf("a token of no days answers %d", code)
	}
	if code, _ := post("/people/tokens/x/remove"); code != http.StatusNotFound {
		t.Errorf("no token answers %d", code)
	}
}

// Who may log in, and by what, is for admins: also as a table.
func TestPeopleAndTokensAreForAdmins(t *testing.T) {
	l := full()
	l.tokens = []store.Token{{ID: 1, Name: "ci", Scope: "read"}}
	get, _ := l.as(t, store.RoleOperator)
	for _, path := range []string{"/tokens", "/export/tokens", "/export/users"} {
		if code, body := get(path); code != http.StatusForbidden || !strings.Contains(body, "needs the role admin") || strings.Contains(body, "<strong>ci<") {
			t.Errorf("%s answers %d", path, code)
		}
	}
	_, body := get("/people")
	if strings.Contains(body, "Who may log in") || strings.Contains(body, `href="/tokens"`) {
		t.Error("an operator is shown who may log in")
	}
	_, body = get("/help")
	if strings.Contains(body, `href="/tokens"`) {
		t.Error("the help leads to what is refused")
	}
	for _, path := range []string{"/events", "/subnets", "/mappings", "/export/events", "/export/subnets", "/export/mappings"} {
		if code, _ := get(path); code != http.StatusOK {
			t.Errorf("%s answers %d", path, code)
		}
	}
}

func TestANetworkIsChangedOnItsPageWithoutScript(t *testing.T) {
	l := full()
	l.served()
	l.subnets[0].Revision = 7
	get, post := l.enter(t)
	_, body := get("/subnets/1")
	has(t, body, `name="router" value="10.77.0.254"`, `name="dns" value="10.77.0.53"`, `name="lease_time" value="4h"`, `name="revision" value="7"`, `<option value="full" selected>`)
	form := []string{"revision", "7", "mode", "full", "range", "10.77.0.50-10.77.0.60", "router", "10.77.0.1", "dns", "10.77.0.1, 9.9.9.9", "lease_time", "30m", "domain", "lab.example", "search", "a.example b.example", "ntp", "10.77.0.3", "next_server", "10.77.0.1"}
	if code, to := post("/subnets/1", form...); code != http.StatusSeeOther || to != "/subnets" {
		t.Fatalf("it answers %d %s", code, to)
	}
	n := l.subnets[0]
	if n.Range != mustRange("10.77.0.50-10.77.0.60") || n.Router != netip.MustParseAddr("10.77.0.1") || len(n.DNS) != 2 || n.LeaseTime != 30*time.Minute || len(n.Search) != 2 || len(n.NTP) != 1 || !n.NextServer.IsValid() || n.Interface != "eth1" {
		t.Errorf("it is %+v", n)
	}
	// Somebody else changed it since: what is now is shown, so that a second try does
	// not undo that unseen.
	l.subnets[0].DNS = []netip.Addr{netip.MustParseAddr("10.77.0.9")}
	code, body := post("/subnets/1", form...)
	if code != http.StatusPreconditionFailed {
		t.Errorf("a form that is too old answers %d", code)
	}
	has(t, body, `name="dns" value="10.77.0.9"`, `name="revision" value="8"`)
	code, body = post("/subnets/1", "revision", "8", "mode", "full", "range", "10.77.0.9", "router", "10.9.0.1", "dns", "nobody", "lease_time", "soon")
	if code != http.StatusUnprocessableEntity || l.subnets[0].Revision != 8 {
		t.Errorf("nonsense answers %d", code)
	}
	has(t, body, `name="range" value="10.77.0.9"`, `id="fault-range"`, `id="fault-dns"`, `id="fault-lease_time"`, `value="soon"`)
	if strings.Count(body, "autofocus") != 1 {
		t.Errorf("%d fields have the focus", strings.Count(body, "autofocus"))
	}
	if code, body = post("/subnets/1", "revision", "8", "mode", "full", "ntp", "never"); !strings.Contains(body, "<details open=\"\"><summary>More") {
		t.Errorf("%d: the field at fault is hidden", code)
	}
}

func TestANetworkBehindARelayIsAddedAndRemoved(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/subnets/new")
	has(t, body, `name="prefix"`, "Behind a relay", "IP helper")
	if code, body := post("/subnets", "mode", "full", "prefix", "10.9.0.0", "router", "10.9.0.1"); code != http.StatusUnprocessableEntity || !strings.Contains(body, `name="prefix" value="10.9.0.0"`) || !strings.Contains(body, `id="fault-prefix"`) {
		t.Errorf("no network: %d", code)
	}
	if code, to := post("/subnets", "mode", "full", "prefix", "10.9.0.0/24", "range", "10.9.0.10-10.9.0.20", "router", "10.9.0.1"); code != http.StatusSeeOther || to != "/subnets" || len(l.subnets) != 1 {
		t.Fatalf("it answers %d %s", code, to)
	}
	if code, body := post("/subnets/1/remove", "confirm", "yes"); code != http.StatusUnprocessableEntity || len(l.subnets) != 1 || !strings.Contains(body, `id="fault-confirm"`) {
		t.Errorf("without its name: %d", code)
	}
	if code, _ := post("/subnets/1/remove", "confirm", "10.9.0.0/24"); code != http.StatusSeeOther || len(l.subnets) != 0 {
		t.Errorf("with its name: %d", code)
	}
	if code, _ := get("/subnets/1"); code != http.StatusNotFound {
		t.Errorf("one that is gone: %d", code)
	}
}

func TestANetworkWithoutARouterIsSaidOnItsInterface(t *testing.T) {
	l := full()
	l.served()
	get, _ := l.enter(t)
	_, body := get("/settings")
	has(t, body, `href="/subnets/1"`, `href="/subnets/3"`)
	if strings.Contains(body, "no router and no name servers") {
		t.Error("a network with a router is said to have none")
	}
	l.subnets[0].Router, l.subnets[0].DNS = netip.Addr{}, nil
	_, body = get("/settings")
	has(t, body, "Machines are told no router and no name servers.")
}
