package pages

import (
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"lunboot/store"
)

func TestAnInterfaceIsAskedAndSetWithoutScript(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/settings")
	has(t, body, "10.77.0.1/24", "was not asked yet", "Ask the network<", "anybody else? not asked yet; lunboot is silent here")
	if len(l.asked) > 0 {
		t.Fatalf("showing the page asked %v", l.asked)
	}
	if code, to := post("/settings/network/eth1/ask"); code != http.StatusSeeOther || to != "/settings#if-eth1" {
		t.Fatalf("asking answered %d %s", code, to)
	}
	if !slices.Equal(l.asked, []string{"eth1"}) {
		t.Errorf("asked %v", l.asked)
	}
	_, body = get("/settings")
	has(t, body, "10.77.0.254 (02:00:00:00:00:02) gives addresses and boots nothing: proxy fits.", "Asked <time", "Ask the network again", "fits what was heard")
	if code, to := post("/settings/network/eth1", "mode", "proxy"); code != http.StatusSeeOther {
		t.Fatalf("choosing answered %d %s", code, to)
	}
	if got := l.facts.Interfaces[1].Mode; got != store.DHCPProxy {
		t.Errorf("the mode is %q", got)
	}
	_, body = get("/settings")
	has(t, body, "10.77.0.254 gives addresses; lunboot boots machines", `value="proxy" checked`)
	// An empty range is the one that was proposed.
	if code, _ := post("/settings/network/eth1", "mode", "full", "range", ""); code != http.StatusSeeOther || l.facts.Interfaces[1].Range != mustRange("10.77.0.128-10.77.0.254") {
		t.Errorf("full answered %d, the range is %s", code, l.facts.Interfaces[1].Range)
	}
	_, body = get("/settings")
	has(t, body, `class="wrong"`, `class="warn"`) // two servers give addresses
}

// bodyOf posts a form and returns the page that answers.
func bodyOf(t *testing.T, l *lab, path string, form url.Values) (int, string) {
	t.Helper()
	base, c := l.open(t)
	resp, err := c.PostForm(base+path, form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestAChoiceThatIsRefusedKeepsWhatWasTyped(t *testing.T) {
	l := full()
	_, post := l.enter(t)
	for _, c := range []struct {
		mode, rng string
		refuse    error
		status    int
	}{
		{"full", "10.77.0.9", nil, http.StatusUnprocessableEntity},
		{"proxy", "", store.Invalid("interface", "eth1 has no IPv4 address"), http.StatusUnprocessableEntity},
		{"full", "10.77.0.10-10.77.0.20", &store.Error{Kind: store.KindConflict, Msg: "another DHCP server answers there"}, http.StatusConflict},
	} {
		l.refuse = c.refuse
		code, body := post("/settings/network/eth1", "mode", c.mode, "range", c.rng)
		if code != c.status {
			t.Errorf("%s %q answered %d, want %d", c.mode, c.rng, code, c.status)
		}
		has(t, body, `role="alert"`, `value="`+c.mode+`" checked`, `name="range" value="`+c.rng+`"`)
		if l.facts.Interfaces[1].Mode != store.DHCPOff {
			t.Error("and was taken all the same")
		}
	}
	l.refuse = nil
	if code, _ := post("/settings/network/eth9/ask"); code != http.StatusNotFound {
		t.Errorf("an interface that is not there answered %d", code)
	}
}

func TestAFlagThatDecidedIsNamedAndItsFormIsLocked(t *testing.T) {
	l := full()
	l.trouble(t)
	get, _ := l.enter(t)
	_, body := get("/settings")
	_, card, _ := strings.Cut(body, `id="if-eth3"`)
	card, _, _ = strings.Cut(card, "</section>")
	has(t, card, "<fieldset disabled>", "Decided by the flag", "--dhcp-range 10.78.0.100-10.78.0.199")
	if strings.Contains(card, ">Save<") {
		t.Error("a locked form has a Save button")
	}
}

func TestHealthIsTheDoctorsList(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	_, body := get("/settings")
	has(t, body, "All is well")
	l.trouble(t)
	_, body = get("/settings")
	has(t, body, "2 things are wrong", `<li class="fault d1">`, "UDP port 69 on eth1 is shut", `iifname &#34;eth1&#34; udp dport 69 accept`, "Cannot be told", "Not asked, since this failed first")
	l.checks = l.checks[:3]
	_, body = get("/settings")
	has(t, body, "1 thing could be better")
}

func TestWhatAnotherServerSendsCannotBreakThePage(t *testing.T) {
	l := full()
	h := l.heard["eth0"].Heard
	h[1].File = `"><script>alert(1)</script>`
	get, post := l.enter(t)
	post("/settings/network/eth0/ask")
	_, body := get("/settings")
	has(t, body, "gives addresses and boots")
	if strings.Contains(body, "<script>alert") {
		t.Error("a boot file's name is not escaped")
	}
}

func TestTheFirstRunProposesWhatTheNetworksSay(t *testing.T) {
	l := full()
	status, body := bodyOf(t, l, "/setup/ask", url.Values{"code": {"WRONG"}})
	if status != http.StatusForbidden || len(l.asked) > 0 {
		t.Errorf("without the code: %d, asked %v", status, l.asked)
	}
	has(t, body, "The code does not fit")
	base, c := l.open(t)
	resp, err := c.PostForm(base+"/setup/ask", url.Values{"code": {l.auth.Code()}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(l.asked)
	if !slices.Equal(l.asked, []string{"eth0", "eth1"}) {
		t.Errorf("asked %v", l.asked)
	}
	has(t, string(b), "10.77.0.254 (02:00:00:00:00:02) gives addresses and boots nothing: proxy fits", `name="mode-eth1" value="proxy" checked`, `name="mode-eth0" value="off" checked`, l.auth.Code())
	if l.chosen != nil {
		t.Error("asking chose something")
	}
	resp, err = c.PostForm(base+"/setup", url.Values{"code": {l.auth.Code()}, "password": {labPassword}, "mode-eth0": {"off"}, "mode-eth1": {"proxy"}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther || len(l.chosen) != 1 || l.chosen[0] != (SetupChoice{Interface: "eth1", Mode: store.DHCPProxy}) {
		t.Errorf("answered %d, chosen %+v", resp.StatusCode, l.chosen)
	}
}

func TestAProposalFitsWhatWasHeard(t *testing.T) {
	link := func(name string, def bool, heard ...store.Heard) store.Link {
		return store.Link{Name: name, Default: def, Carrier: true, Proposed: mustRange("10.0.0.10-10.0.0.20"), Survey: &store.Survey{Heard: heard}}
	}
	router := store.Heard{As: store.ClientPlain, Server: netip.MustParseAddr("10.0.0.1"), Offered: netip.MustParseAddr("10.0.0.50")}
	proxy := store.Heard{As: store.ClientBIOS, Server: netip.MustParseAddr("10.0.0.2"), PXE: true}
	other := store.Link{Name: "eth9"}
	small, silent, office, unplugged, failed := link("eth1", false), link("eth1", false), link("eth1", true), link("eth1", false), link("eth1", false)
	small.Proposed, silent.Survey, office.Survey, unplugged.Carrier, failed.Survey.Failed = store.Range{}, nil, nil, false, "no right to ask"
	for name, c := range map[string]struct {
		link store.Link
		all  []store.Link
		want store.DHCPMode
		why  string // a word of it; empty: what was heard says it all
		fits store.DHCPMode
	}{
		"nobody answers":                      {link("eth1", false), []store.Link{other}, store.DHCPFull, "", store.DHCPFull},
		"nobody, on the only card":            {link("eth1", false), nil, store.DHCPFull, "", store.DHCPFull},
		"nobody, and no range fits":           {small, nil, store.DHCPOff, "write down the addresses", store.DHCPFull},
		"nobody, for there is no cable":       {unplugged, nil, store.DHCPOff, "No cable", ""},
		"nobody, on an office's only card":    {link("eth1", true), nil, store.DHCPOff, "silence proves little", ""},
		"nobody, on the way to the Internet":  {link("eth1", true), []store.Link{other}, store.DHCPOff, "leads to the Internet", ""},
		"a router":                            {link("eth1", false, router), []store.Link{other}, store.DHCPProxy, "", store.DHCPProxy},
		"a router, on the only card":          {link("eth1", true, router), nil, store.DHCPProxy, "", store.DHCPProxy},
		"the way to the Internet":             {link("eth1", true, router), []store.Link{other}, store.DHCPOff, "leads to the Internet", store.DHCPProxy},
		"only a boot server":                  {link("eth1", false, proxy), nil, store.DHCPOff, "", ""},
		"not asked, the first of all":         {silent, []store.Link{other}, store.DHCPOff, "Not asked yet", ""},
		"not asked, the only card":            {silent, nil, store.DHCPOff, "Not asked yet", ""},
		"not asked, an office's only card":    {office, nil, store.DHCPOff, "leads to the Internet", ""},
		"the question could not be asked":     {failed, nil, store.DHCPOff, "", ""},
		"it could not, and there is no cable": {store.Link{Name: "eth1", Proposed: small.Proposed, Survey: failed.Survey}, nil, store.DHCPOff, "", ""},
	} {
		got, why := proposal(c.link, append([]store.Link{c.link}, c.all...))
		if got != c.want || (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s: %q is proposed, want %q; because %q", name, got, c.want, why)
		}
		if fits := (linkView{Link: c.link}).Fits(); fits != c.fits {
			t.Errorf("%s: %q is said to fit what was heard, want %q", name, fits, c.fits)
		}
	}
}

// Whoever opens the page and presses its last button has chosen to answer nobody.
func TestTheFirstRunProposesNothingForNetworksThatWereNotAsked(t *testing.T) {
	l := full()
	base, c := l.open(t)
	resp, err := c.Get(base + "/setup?code=" + l.auth.Code())
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	has(t, string(b), `name="mode-eth0" value="off" checked`, `name="mode-eth1" value="off" checked`, "Not asked yet, so off is chosen.", "It leads to the Internet")
}

// What was chosen stands when the page comes again, and is not told to be something
// else.
func TestTheFirstRunSaysOffOfNoNetworkForWhichSomethingElseWasChosen(t *testing.T) {
	l := full()
	base, c := l.open(t)
	resp, err := c.PostForm(base+"/setup", url.Values{"code": {l.auth.Code()}, "password": {"short"}, "mode-eth0": {"off"}, "mode-eth1": {"full"}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	has(t, string(b), `name="mode-eth0" value="off" checked`, `name="mode-eth1" value="full" checked`)
	if n := strings.Count(string(b), "so off is chosen"); n != 1 {
		t.Errorf("of %d networks it says that off is chosen", n)
	}
}
