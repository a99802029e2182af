package redfish

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/services/power/fault"
	"lunboot/store"
)

func open(t *testing.T, to Target, within time.Duration) (*BMC, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	t.Cleanup(cancel)
	return Open(ctx, to)
}

func must(t *testing.T, to Target) *BMC {
	t.Helper()
	b, err := open(t, to, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestABMCDoesWhatItIsTold(t *testing.T) {
	s := one()
	m := newMock(t, s)
	b := must(t, m.to())
	state := func(want store.PowerState) {
		t.Helper()
		if is, err := b.State(); is != want || err != nil {
			t.Fatalf("it is %q (%v), want %q", is, err, want)
		}
	}
	state(store.PowerStateOff)
	if err := b.BootNetworkOnce(); err != nil {
		t.Fatal(err)
	}
	if s.enabled != "Once" || s.target != "Pxe" || s.mode != "UEFI" {
		t.Errorf("the next boot: %s %s by %s", s.enabled, s.target, s.mode)
	}
	for _, c := range []struct {
		act  store.PowerAct
		says string
		then store.PowerState
	}{
		{store.PowerOn, "On", store.PowerStateOn},
		{store.PowerReset, "ForceRestart", store.PowerStateOn},
		{store.PowerCycle, "PowerCycle", store.PowerStateOn},
		{store.PowerShutdown, "GracefulShutdown", store.PowerStateOn},
		{store.PowerOff, "ForceOff", store.PowerStateOff},
	} {
		if err := b.Do(c.act, stateOf(b.system)); err != nil {
			t.Fatalf("%s: %v", c.act, err)
		}
		if last := s.did[len(s.did)-1]; last != c.says {
			t.Errorf("%s was said as %s", c.act, last)
		}
		state(c.then)
	}
	b.Close()
	if len(m.sessions) != 0 || m.made != 1 {
		t.Errorf("%d of %d sessions are left behind", len(m.sessions), m.made)
	}
}

func TestAnActIsSaidAsTheSystemKnowsIt(t *testing.T) {
	for name, c := range map[string]struct {
		allowed []string
		act     store.PowerAct
		want    string
		why     fault.Why
	}{
		"on by force":                  {[]string{"ForceOn", "ForceOff"}, store.PowerOn, "[ForceOn]", ""},
		"a cycle of two":               {[]string{"On", "ForceOff"}, store.PowerCycle, "[ForceOff On]", ""},
		"a shutdown by its button":     {[]string{"PushPowerButton"}, store.PowerShutdown, "[PushPowerButton]", ""},
		"nothing is listed":            {nil, store.PowerReset, "[ForceRestart]", ""},
		"a cycle without its half":     {[]string{"ForceOff", "Nmi"}, store.PowerCycle, "[]", fault.Unable},
		"a reset that there is not":    {[]string{"On", "ForceOff"}, store.PowerReset, "[]", fault.Unable},
		"a shutdown that there is not": {[]string{"On", "ForceOff"}, store.PowerShutdown, "[]", fault.Unable},
	} {
		t.Run(name, func(t *testing.T) {
			s := one()
			s.resets, s.state = c.allowed, "On"
			b := must(t, newMock(t, s).to())
			err := b.Do(c.act, store.PowerStateOn)
			if fault.Of(err) != c.why || fmt.Sprint(s.did) != c.want {
				t.Errorf("it did %v: %v", s.did, err)
			}
			if c.why != "" && !strings.Contains(err.Error(), "ForceOff") {
				t.Errorf("it does not say what the BMC can: %v", err)
			}
		})
	}
}

func TestTheSystemThatIsMeantIsTold(t *testing.T) {
	blade := func(n int) *system {
		s := one()
		s.id, s.uuid, s.serial = fmt.Sprint(n), fmt.Sprintf("4c4c4544-0034-4810-8051-b4c04f564a%02d", n), fmt.Sprintf("SN-%d", n)
		return s
	}
	third, err := store.ParseUUID(blade(3).uuid)
	if err != nil {
		t.Fatal(err)
	}
	turned := blade(3)
	turned.uuid = "44454c4c-3400-1048-8051-b4c04f564a03"
	for name, c := range map[string]struct {
		systems []*system
		uuid    store.UUID
		serial  string
		want    string
		why     fault.Why
	}{
		"by its UUID":                 {[]*system{blade(1), blade(2), blade(3), blade(4), blade(5)}, third, "", "3", ""},
		"by its UUID, turned round":   {[]*system{blade(1), turned}, third, "", "3", ""},
		"by its serial number":        {[]*system{blade(1), blade(2)}, store.UUID{}, "sn-2", "2", ""},
		"the only one":                {[]*system{blade(7)}, store.UUID{}, "", "7", ""},
		"the only one, by its serial": {[]*system{blade(7)}, third, "SN-7", "7", ""},
		"the only one is another":     {[]*system{blade(7)}, third, "", "", fault.Other},
		"none of several":             {[]*system{blade(1), blade(2)}, third, "SN-9", "", fault.Other},
		"none at all":                 {nil, third, "", "", fault.Answer},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMock(t, c.systems...)
			to := m.to()
			to.UUID, to.Serial = c.uuid, c.serial
			b, err := open(t, to, 30*time.Second)
			if fault.Of(err) != c.why {
				t.Fatal(err)
			}
			if err == nil {
				defer b.Close()
				if b.system.ID != c.want {
					t.Errorf("system %s is told", b.system.ID)
				}
				return
			}
			for _, s := range c.systems {
				if len(s.did) > 0 {
					t.Errorf("system %s did %v", s.id, s.did)
				}
			}
			if len(m.sessions) != 0 {
				t.Error("a session is left behind")
			}
		})
	}
}

func TestNothingIsSentToABMCThatIsNotTrusted(t *testing.T) {
	m := newMock(t, one())
	for name, pin := range map[string]string{"none is trusted yet": "", "another is trusted": strings.Repeat("ab", 32)} {
		to := m.to()
		to.BMC.Fingerprint = pin
		_, err := open(t, to, 10*time.Second)
		var u *store.UntrustedBMC
		if u, _ = err.(*store.UntrustedBMC); u == nil || u.Fingerprint != m.fingerprint() || u.Was != pin || !strings.Contains(err.Error(), "--bmc-fingerprint "+m.fingerprint()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	to := m.to()
	to.BMC.Trust, to.BMC.Fingerprint = store.BMCVerify, ""
	if _, err := open(t, to, 10*time.Second); fault.Of(err) != fault.Certificate {
		t.Errorf("vouched for by nobody: %v", err)
	}
	m.mu.Lock()
	if len(m.asked) > 0 {
		t.Errorf("it was sent %v", m.asked)
	}
	m.mu.Unlock()
	to.BMC.Trust = store.BMCNone
	must(t, to)
}

func TestABMCWithoutSessionsTakesThePasswordEachTime(t *testing.T) {
	for name, set := range map[string]func(*mock){"it has none": func(m *mock) { m.noSessions = true }, "none is left": func(m *mock) { m.full = true }} {
		s := one()
		m := newMock(t, s)
		set(m)
		b := must(t, m.to())
		if err := b.Do(store.PowerOn, store.PowerStateOff); err != nil || s.state != "On" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnETagThatIsStaleIsNoReasonToGiveUp(t *testing.T) {
	s := one()
	m := newMock(t, s)
	b := must(t, m.to())
	s.etag++ // somebody changed the system meanwhile
	if err := b.BootNetworkOnce(); err != nil || s.enabled != "Once" {
		t.Errorf("%v, %s", err, s.enabled)
	}
}

func TestABMCThatAsksToWaitIsWaitedFor(t *testing.T) {
	s := one()
	m := newMock(t, s)
	left := 2
	m.odd = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, ".Reset") || left == 0 {
			return false
		}
		left--
		w.Header().Set("Retry-After", "0")
		refuse(w, 503, "Base.1.15.ServiceTemporarilyUnavailable", "The service is temporarily unavailable.")
		return true
	}
	b := must(t, m.to())
	if err := b.Do(store.PowerOn, store.PowerStateOff); err != nil || left != 0 || !slices.Equal(s.did, []string{"On"}) {
		t.Errorf("%v, %d left, it did %v", err, left, s.did)
	}
}

func TestABMCThatSaysYesAndDoesNothingIsFoundOut(t *testing.T) {
	m := newMock(t, one())
	m.liar = true
	b, err := open(t, m.to(), 4*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.BootNetworkOnce(); fault.Of(err) != fault.Ignored {
		t.Errorf("the next boot: %v", err)
	}
	if err := b.Do(store.PowerOn, store.PowerStateOff); fault.Of(err) != fault.Ignored || !strings.Contains(err.Error(), "lab-01 is off") {
		t.Errorf("on: %v", err)
	}
}

func TestWhatKeepsOneFromABMCIsSaidInWords(t *testing.T) {
	plain := httptestPlain(t)
	status := func(code int, header ...string) func(*mock) {
		return func(m *mock) {
			m.odd = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/Systems") {
					for i := 0; i+1 < len(header); i += 2 {
						w.Header().Set(header[i], header[i+1])
					}
					refuse(w, code, "Base.1.15.GeneralError", "The\x1b[31m BMC\nis unwell.")
					return true
				}
				return false
			}
		}
	}
	body := func(text string) func(*mock) {
		return func(m *mock) {
			m.odd = func(w http.ResponseWriter, r *http.Request) bool { fmt.Fprint(w, text); return true }
		}
	}
	for name, c := range map[string]struct {
		set  func(*mock)
		to   func(*Target)
		want fault.Why
		says string
	}{
		"a wrong password":    {nil, func(to *Target) { to.BMC.Secret = "hunter3" }, fault.Password, "the user ana"},
		"one with basic":      {func(m *mock) { m.noSessions = true }, func(to *Target) { to.BMC.Secret = "hunter3" }, fault.Password, "the user ana"},
		"nobody listens":      {nil, func(to *Target) { to.BMC.Address = closedPort(t) }, fault.Closed, "does not listen"},
		"no TLS":              {nil, func(to *Target) { to.BMC.Address = plain }, fault.TLS, "speaks no TLS"},
		"a name that is none": {nil, func(to *Target) { to.BMC.Address = "bmc.invalid" }, fault.NoName, "bmc.invalid"},
		"nothing comes back":  {func(m *mock) { m.odd = silence }, nil, fault.Silent, "did not answer in time"},
		"another web server":  {body("<html>printer</html>"), nil, fault.Answer, "no Redfish service"},
		"a number for a root": {body("17"), nil, fault.Answer, "no Redfish service"},
		"no such page": {func(m *mock) {
			m.odd = func(w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true }
		}, nil, fault.Answer, "has no Redfish service"},
		"it is busy":             {status(503), nil, fault.Busy, "The [31m BMC is unwell."},
		"it is busy for an hour": {status(503, "Retry-After", "3600"), nil, fault.Busy, "try again"},
		"it fails":               {status(500), nil, fault.Answer, "status 500"},
		"it sends us elsewhere":  {status(302, "Location", "https://elsewhere.invalid/redfish/v1/Systems"), nil, fault.Unable, "status 302"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMock(t, one())
			if c.set != nil {
				c.set(m)
			}
			to := m.to()
			if c.to != nil {
				c.to(&to)
			}
			b, err := open(t, to, 3*time.Second)
			if err == nil {
				b.Close()
			}
			if fault.Of(err) != c.want || !strings.Contains(fmt.Sprint(err), c.says) || strings.ContainsAny(fmt.Sprint(err), "\x1b\n") {
				t.Errorf("%s: %q", fault.Of(err), err)
			}
			if strings.Contains(fmt.Sprint(err, fault.Error("lab-01", err)), to.BMC.Secret) {
				t.Errorf("the password is told: %v", err)
			}
		})
	}
}

// Whether something was done by then decides what the operator is told.
func TestABMCThatFallsOverAfterItTookAnOrderIsToldApart(t *testing.T) {
	for name, c := range map[string]struct {
		took bool // what it is told; it does not answer to questions
		tell func(*BMC) error
		want fault.Why
	}{
		"an order, at once":      {false, func(b *BMC) error { return b.Do(store.PowerOn, store.PowerStateOff) }, fault.Busy},
		"an order, half way":     {true, func(b *BMC) error { return b.Do(store.PowerOn, store.PowerStateOff) }, fault.Untold},
		"a cycle, at once":       {false, func(b *BMC) error { return b.Do(store.PowerCycle, store.PowerStateOn) }, fault.Busy},
		"the next boot, at once": {false, (*BMC).BootNetworkOnce, fault.Busy},
		"the next boot, later":   {true, (*BMC).BootNetworkOnce, fault.Untold},
	} {
		t.Run(name, func(t *testing.T) {
			s := one()
			s.resets, s.state = []string{"On", "ForceOff"}, "Off"
			m := newMock(t, s)
			b := must(t, m.to())
			m.mu.Lock()
			m.odd = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodDelete || c.took && r.Method != http.MethodGet {
					return false
				}
				refuse(w, 503, "Base.1.15.ServiceShuttingDown", "It restarts.")
				return true
			}
			m.mu.Unlock()
			if err := c.tell(b); fault.Of(err) != c.want || fault.Before(err) != (c.want == fault.Busy) || !strings.Contains(fmt.Sprint(err), "It restarts.") {
				t.Errorf("%s: %v", fault.Of(err), err)
			}
		})
	}
	// A cycle of two of which the second is refused.
	s := one()
	s.resets, s.state = []string{"On", "ForceOff"}, "On"
	m := newMock(t, s)
	b := must(t, m.to())
	m.mu.Lock()
	m.odd = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || len(s.did) == 0 {
			return false
		}
		refuse(w, 503, "Base.1.15.ServiceShuttingDown", "It restarts.")
		return true
	}
	m.mu.Unlock()
	if err := b.Do(store.PowerCycle, store.PowerStateOn); fault.Of(err) != fault.Half || fault.Before(err) || !strings.Contains(err.Error(), "lab-01 was switched off, and not on again: ") {
		t.Errorf("%s: %v", fault.Of(err), err)
	}
}

func TestAUserWhoMayOnlyLookIsToldSo(t *testing.T) {
	s := one()
	m := newMock(t, s)
	m.readOnly = true
	b := must(t, m.to())
	if is, err := b.State(); is != store.PowerStateOff || err != nil {
		t.Errorf("%q, %v", is, err)
	}
	for what, err := range map[string]error{"the next boot": b.BootNetworkOnce(), "on": b.Do(store.PowerOn, store.PowerStateOff)} {
		if fault.Of(err) != fault.Rights || !strings.Contains(err.Error(), "role Operator") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestABMCThatCannotBootFromTheNetworkIsLeftAlone(t *testing.T) {
	s := one()
	s.targets = []string{"None", "Hdd"}
	b := must(t, newMock(t, s).to())
	if err := b.BootNetworkOnce(); fault.Of(err) != fault.Unable || !strings.Contains(err.Error(), "None, Hdd") {
		t.Error(err)
	}
}

// One BMC that is somebody else's by now must not take the appliance's memory: a
// look at it is enough to have it asked.
func TestWhatABMCSendsIsBounded(t *testing.T) {
	padded := func(s *system, padding int) []byte {
		d := s.document("/redfish/v1/Systems/" + s.id)
		d["Oem"] = map[string]any{"Padding": strings.Repeat("x", padding)}
		out, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	many := func(n int) []*system {
		var all []*system
		for i := range n {
			s := one()
			s.id, s.uuid = fmt.Sprint(i+1), fmt.Sprintf("4c4c4544-0034-4810-8051-b4c04f5640%02d", i)
			all = append(all, s)
		}
		return all
	}
	for name, c := range map[string]struct {
		systems, padding int
		says             string
	}{
		"a system that is large":         {1, maxBody - 4096, ""},
		"a system that is too large":     {1, maxBody, "no Redfish service that can be understood"},
		"systems that are large":         {32, maxBody / 8, "none is lab-01"},
		"as much as an order may take":   {maxSystems, maxBody * 31 / 32, "none is lab-01"},
		"more systems than are asked of": {maxSystems + 1, 0, "more than 64 systems"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMock(t, many(c.systems)...)
			m.odd = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Accept-Encoding") != "" {
					t.Errorf("a BMC may send what is small and unpacks to a lot: %s", r.Header.Get("Accept-Encoding"))
				}
				for _, s := range m.systems {
					if r.Method == http.MethodGet && r.URL.Path == "/redfish/v1/Systems/"+s.id {
						w.Write(padded(s, c.padding))
						return true
					}
				}
				return false
			}
			to := m.to()
			if c.systems == 1 {
				to.UUID = store.UUID{}
			}
			b, err := open(t, to, 30*time.Second)
			if err == nil {
				b.Close()
			}
			if (err == nil) != (c.says == "") || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("%.300v", err)
			}
		})
	}
}

func TestAnOrderTakesNoMoreThanItMay(t *testing.T) {
	m := newMock(t, one())
	b, err := open(t, m.to(), 2*time.Minute) // as long as 16 MiB may take
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	m.mu.Lock()
	m.odd = func(w http.ResponseWriter, r *http.Request) bool {
		fmt.Fprintf(w, `{"PowerState":"On","Oem":{"Padding":%q}}`, strings.Repeat("x", maxBody-4096))
		return true
	}
	m.mu.Unlock()
	for n := 0; ; n++ {
		is, err := b.State()
		if err != nil {
			if fault.Of(err) != fault.Answer || !strings.Contains(err.Error(), "16 MiB") || n < maxLogin/maxBody-1 {
				t.Errorf("after %d answers: %v", n, err)
			}
			return
		}
		if is != store.PowerStateOn || n > 2*maxLogin/maxBody {
			t.Fatalf("it is %q after %d answers", is, n)
		}
	}
}

// The library joins a BMC's links to its address as text.
func TestABMCsLinksLeadNowhereElse(t *testing.T) {
	elsewhere := newMock(t, one())
	at := strings.TrimPrefix(elsewhere.URL, "https://")
	for name, path := range map[string]string{
		"another host": "@" + at + "/redfish/v1/Systems", "another port": "0/redfish/v1/Systems", "a user of its own": "@" + at, "a host after its own": ".elsewhere.invalid/x",
	} {
		t.Run(name, func(t *testing.T) {
			m := newMock(t, one())
			m.odd = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.TrimSuffix(r.URL.Path, "/") != "/redfish/v1" {
					return false
				}
				answer(w, 200, map[string]any{"@odata.id": "/redfish/v1/", "Id": "RootService", "Name": "Root", "Systems": link(path), "SessionService": link("/redfish/v1/SessionService"),
					"Links": map[string]any{"Sessions": link("/redfish/v1/SessionService/Sessions")}})
				return true
			}
			b, err := open(t, m.to(), 10*time.Second)
			if err == nil {
				b.Close()
			}
			if fault.Of(err) != fault.Answer {
				t.Errorf("%s: %v", fault.Of(err), err)
			}
			if len(m.sessions) != 0 {
				t.Error("a session is left behind")
			}
		})
	}
	// One whose certificate would be taken too, since whoever answers is trusted.
	m := newMock(t, one())
	m.odd = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		w.Header().Set("Location", "@"+at+"/x")
		w.Header().Set("X-Auth-Token", "token")
		answer(w, 201, map[string]any{})
		return true
	}
	to := m.to()
	to.BMC.Trust, to.BMC.Fingerprint = store.BMCNone, ""
	if b, err := open(t, to, 10*time.Second); err == nil {
		b.Close()
	}
	web := newClient(to)
	for _, u := range []string{"http://" + to.BMC.HostPort() + "/", "https://" + to.BMC.HostPort() + "@" + at + "/", "https://ana:hunter2@" + to.BMC.HostPort() + "/", elsewhere.URL} {
		resp, err := web.Get(u)
		if err == nil {
			resp.Body.Close()
		}
		if fault.Of(err) != fault.Answer || !strings.Contains(fmt.Sprint(err), "elsewhere") || strings.Contains(fmt.Sprint(err), "hunter2") {
			t.Errorf("%s: %v", u, err)
		}
	}
	elsewhere.mu.Lock()
	defer elsewhere.mu.Unlock()
	if len(elsewhere.asked) > 0 {
		t.Errorf("another was sent %v", elsewhere.asked)
	}
}

// silence answers when nobody asks any more.
func silence(_ http.ResponseWriter, r *http.Request) bool {
	<-r.Context().Done()
	return true
}

// closedPort is an address at which nobody listens.
func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// httptestPlain is a web server without TLS.
func httptestPlain(t *testing.T) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.NotFoundHandler()}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().String()
}

// Whatever a BMC says of its system, an order ends and nothing falls over.
func FuzzSystem(f *testing.F) {
	for _, s := range []string{`{}`, `null`, `[]`, `{"Boot":{"BootSourceOverrideTarget@Redfish.AllowableValues":[1]}}`, `{"PowerState":7,"UUID":null}`, `{"Actions":{"#ComputerSystem.Reset":{"target":"//elsewhere/x"}}}`} {
		f.Add([]byte(s))
	}
	good, err := json.Marshal(one().document("/redfish/v1/Systems/1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, document []byte) {
		m := newMock(t, one())
		m.odd = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/Systems/1") {
				w.Write(document)
				return true
			}
			return false
		}
		to := m.to()
		to.UUID = store.UUID{}
		b, err := open(t, to, 2*time.Second)
		if err != nil {
			return
		}
		defer b.Close()
		b.BootNetworkOnce()
		b.Do(store.PowerReset, store.PowerStateOn)
	})
}
