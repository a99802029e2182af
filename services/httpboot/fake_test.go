package httpboot

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

// lab is an inventory in memory, with everything else that a Server needs.
type lab struct {
	t *testing.T

	mu       sync.Mutex
	machines []store.Machine
	unknown  map[store.MAC]store.UnknownMachine
	volumes  map[store.VolumeID]store.Volume
	mappings []store.Mapping
	profiles map[string]store.Profile
	media    []store.Media
	attempts map[store.AttemptID]store.MachineID
	given    map[store.AttemptID]store.Event // the newest script of each
	sick     error                           // when set, every look-up fails with it
	broken   string                          // the one method that fails with sick, or panics when sick is nil
	events   []store.Event
	begun    int
	armed    []store.MachineID
	baseline map[store.MachineID]store.Baseline
	contents map[store.VolumeID]store.Preflight // of those that are not blank
	looked   int
	chosen   time.Time                        // when the profile of a next boot was
	hung     map[store.VolumeID]chan struct{} // a look at one of these lasts until it is closed
	started  bool                             // boots whose script was given started what it says, and began anew
	owners   map[netip.Addr]store.MAC
	fetched  []netip.Addr

	explain  func(store.AttemptID) (string, string, string, bool)
	beginErr error
	cfg      Config
	srv      *httptest.Server
}

const labKey = "0123456789abcdef"

var (
	macA = store.MAC{0x52, 0x54, 0, 0, 0, 0x0a}
	macB = store.MAC{0x52, 0x54, 0, 0, 0, 0x0b}
	macC = store.MAC{0x52, 0x54, 0, 0, 0, 0x0c}
	macX = store.MAC{0x52, 0x54, 0, 0, 0, 0x99}

	uuidA = store.UUID{0xaa, 1}
	uuidB = store.UUID{0xbb, 1}
	uuidC = store.UUID{0xcc, 1}
)

func labMachine(id store.MachineID, name string, mac store.MAC, uuid store.UUID) store.Machine {
	return store.Machine{
		ID: id, Name: name, MACs: []store.MAC{mac}, UUID: uuid, Serial: "SN-" + name, AssetTag: "TAG-" + name,
		Initiator: store.IQN("iqn.2026-11.lunboot:" + name), Auth: store.AuthMutual, Profile: "san",
		CHAP:    store.Credential{User: name, Secret: "ForwardOf" + name + "01234"},
		Reverse: store.Credential{User: "lunboot", Secret: "ReverseOf" + name + "01234"},
	}
}

// newLab has the machines a, b and c, of which a boots LUN 2 and the others
// LUN 0, on loopback, where every machine is taken to hold 127.0.0.1.
func newLab(t *testing.T, change ...func(*lab)) *lab {
	l := &lab{
		t:        t,
		machines: []store.Machine{labMachine(1, "a", macA, uuidA), labMachine(2, "b", macB, uuidB), labMachine(3, "c", macC, uuidC)},
		unknown:  map[store.MAC]store.UnknownMachine{},
		attempts: map[store.AttemptID]store.MachineID{}, given: map[store.AttemptID]store.Event{},
		volumes: map[store.VolumeID]store.Volume{
			1: {ID: 1, Name: "debian", State: store.VolumeReady}, 2: {ID: 2, Name: "data", State: store.VolumeReady}, 3: {ID: 3, Name: "win", State: store.VolumeReady},
		},
		mappings: []store.Mapping{
			{ID: 1, Machine: 1, Volume: 1, LUN: 2, Boot: true}, {ID: 2, Machine: 1, Volume: 2, LUN: 3},
			{ID: 3, Machine: 2, Volume: 3, LUN: 0, Boot: true}, {ID: 4, Machine: 3, Volume: 3, LUN: 0, Boot: true},
		},
		profiles: map[string]store.Profile{
			"san":     {Name: "san", Kind: store.ProfileSAN},
			"local":   {Name: "local", Kind: store.ProfileLocal},
			"install": {Name: "install", Kind: store.ProfileKernel, Fields: map[string]string{"kernel": "vmlinuz", "initrd": "initrd.gz"}},
		},
		owners: map[netip.Addr]store.MAC{}, baseline: map[store.MachineID]store.Baseline{}, contents: map[store.VolumeID]store.Preflight{},
	}
	l.cfg = Config{
		Inventory: l, Attempts: l, Volumes: l, Evidence: l, Files: l, Emit: l,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: func() time.Time { return time.Unix(1_800_000_000, 0) },
		Target: "iqn.2026-11.lunboot:target", ISCSIPort: func() uint16 { return 3260 },
		AdminURL: func(a netip.Addr) string { return "http://" + a.String() + ":8080/" },
		Fetched:  func(a netip.Addr) { l.mu.Lock(); defer l.mu.Unlock(); l.fetched = append(l.fetched, a) },
	}
	for _, c := range change {
		c(l)
	}
	l.srv = httptest.NewServer(Handler(l.cfg))
	t.Cleanup(l.srv.Close)
	return l
}

// trustAll makes every machine hold the loopback address.
func trustAll(l *lab) { l.cfg.Guard = GuardOff }

// trip is the fault of one method. The caller holds no lock.
func (l *lab) trip(method string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != method {
		return nil
	}
	if l.sick == nil {
		panic(method + " is broken")
	}
	return l.sick
}

func (l *lab) find(key string, f func(store.Machine) bool) (store.Machine, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sick != nil && l.broken == "" {
		return store.Machine{}, l.sick
	}
	for _, m := range l.machines {
		if f(m) {
			return m, nil
		}
	}
	return store.Machine{}, store.NotFound("machine", key)
}

func (l *lab) Machine(_ context.Context, id store.MachineID) (store.Machine, error) {
	if err := l.trip("Machine"); err != nil {
		return store.Machine{}, err
	}
	return l.find("id", func(m store.Machine) bool { return m.ID == id })
}

func (l *lab) MachineByName(_ context.Context, s string) (store.Machine, error) {
	if err := l.trip("MachineByName"); err != nil {
		return store.Machine{}, err
	}
	return l.find(s, func(m store.Machine) bool { return m.Name == s })
}

func (l *lab) MachineByUUID(_ context.Context, u store.UUID) (store.Machine, error) {
	if err := l.trip("MachineByUUID"); err != nil {
		return store.Machine{}, err
	}
	return l.find(u.String(), func(m store.Machine) bool { return m.UUID == u })
}

func (l *lab) MachineByMAC(_ context.Context, mac store.MAC) (store.Machine, error) {
	if err := l.trip("MachineByMAC"); err != nil {
		return store.Machine{}, err
	}
	return l.find(mac.String(), func(m store.Machine) bool {
		for _, a := range m.MACs {
			if a == mac {
				return true
			}
		}
		return false
	})
}

func (l *lab) MachineBySerial(_ context.Context, s string) (store.Machine, error) {
	if err := l.trip("MachineBySerial"); err != nil {
		return store.Machine{}, err
	}
	return l.find(s, func(m store.Machine) bool { return m.Serial == s })
}

func (l *lab) MachineByAssetTag(_ context.Context, s string) (store.Machine, error) {
	if err := l.trip("MachineByAssetTag"); err != nil {
		return store.Machine{}, err
	}
	return l.find(s, func(m store.Machine) bool { return m.AssetTag == s })
}

func (l *lab) MappingsOf(_ context.Context, id store.MachineID) ([]store.Mapping, error) {
	if err := l.trip("MappingsOf"); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []store.Mapping
	for _, m := range l.mappings {
		if m.Machine == id {
			out = append(out, m)
		}
	}
	return out, nil
}

func (l *lab) Volume(_ context.Context, id store.VolumeID) (store.Volume, error) {
	if err := l.trip("Volume"); err != nil {
		return store.Volume{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if v, ok := l.volumes[id]; ok {
		return v, nil
	}
	return store.Volume{}, store.NotFound("volume", "id")
}

func (l *lab) Profile(_ context.Context, name string) (store.Profile, error) {
	if err := l.trip("Profile"); err != nil {
		return store.Profile{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.profiles[name]; ok {
		return p, nil
	}
	return store.Profile{}, store.NotFound("profile", name)
}

func (l *lab) AllMedia(context.Context) ([]store.Media, error) {
	if err := l.trip("AllMedia"); err != nil {
		return nil, err
	}
	return l.media, nil
}

func (l *lab) Attempt(_ context.Context, id store.AttemptID) (store.Attempt, error) {
	if err := l.trip("Attempt"); err != nil {
		return store.Attempt{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.attempts[id] != 0 {
		return l.attempt(id), nil
	}
	return store.Attempt{}, store.NotFound("attempt", "id")
}

// attempt is what the fold makes of a boot; mu is held.
func (l *lab) attempt(id store.AttemptID) store.Attempt {
	a := store.Attempt{ID: id, Machine: l.attempts[id]}
	if e, ok := l.given[id]; ok {
		a.MAC, a.Firmware, a.Owned = e.MAC, e.Detail.Firmware, e.Detail.Owned
		a.Stages = []store.Stage{{Name: store.StageScript, State: store.StageDone, Ended: l.cfg.Now(), Detail: "Profile " + e.Detail.Profile + ", matched by " + e.Detail.MatchedBy}}
		if a.Outcome = store.OutcomeFailed; l.started {
			a.Outcome = store.OutcomeUp
		}
	}
	return a
}

func (l *lab) Attempts(_ context.Context, f store.AttemptFilter) (out []store.Attempt, _ int, _ error) {
	if err := l.trip("Attempts"); err != nil {
		return nil, 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, m := range l.attempts {
		if m == f.Machine {
			out = append(out, l.attempt(id))
		}
	}
	slices.SortFunc(out, func(a, b store.Attempt) int { return int(b.ID - a.ID) })
	return out[:min(len(out), f.Limit)], len(out), nil
}

func (l *lab) UnknownMachine(_ context.Context, mac store.MAC) (store.UnknownMachine, error) {
	if err := l.trip("UnknownMachine"); err != nil {
		return store.UnknownMachine{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if u, ok := l.unknown[mac]; ok {
		return u, nil
	}
	return store.UnknownMachine{}, store.NotFound("unknown machine", mac.String())
}

func (l *lab) SeeUnknown(_ context.Context, some ...store.UnknownMachine) error {
	if err := l.trip("SeeUnknown"); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range some {
		u.Ignored = l.unknown[u.MAC].Ignored
		u.Count += l.unknown[u.MAC].Count
		l.unknown[u.MAC] = u
	}
	return nil
}

func (l *lab) SeenMachine(_ context.Context, id store.MachineID, firmware, arch string, at time.Time) error {
	if err := l.trip("SeenMachine"); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.machines {
		if l.machines[i].ID == id {
			l.machines[i].Firmware, l.machines[i].Arch, l.machines[i].LastSeen = firmware, arch, at
		}
	}
	return nil
}

func (l *lab) ArmBoot(_ context.Context, id store.MachineID) error {
	if err := l.trip("ArmBoot"); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = append(l.armed, id)
	return nil
}

func (l *lab) ConsumeOnce(_ context.Context, id store.MachineID, profile string, chosen time.Time) (used bool, err error) {
	if err := l.trip("ConsumeOnce"); err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.machines {
		if l.machines[i].ID == id && l.machines[i].OnceProfile == profile && profile != "" && !l.chosen.After(chosen) {
			l.machines[i].OnceProfile, used = "", true
		}
	}
	return used, nil
}

func (l *lab) Baseline(_ context.Context, id store.MachineID) (store.Baseline, error) {
	if err := l.trip("Baseline"); err != nil {
		return store.Baseline{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.baseline[id]; ok {
		return b, nil
	}
	return store.Baseline{}, store.NotFound("baseline", "id")
}

func (l *lab) PutBaseline(_ context.Context, id store.MachineID, profile string, b store.Baseline) error {
	if err := l.trip("PutBaseline"); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if was, ok := l.baseline[id]; !ok || was.Volume != b.Volume || was.Attempt > b.Attempt {
		l.baseline[id] = b
	}
	return nil
}

func (l *lab) Look(ctx context.Context, v store.Volume) (store.Preflight, error) {
	if err := l.trip("Look"); err != nil {
		return store.Preflight{}, err
	}
	l.mu.Lock()
	l.looked++
	found, hung := l.contents[v.ID], l.hung[v.ID]
	l.mu.Unlock()
	if hung != nil {
		<-hung // as storage does, whatever ctx says
	}
	return found, nil
}

func (l *lab) Begin(_ context.Context, _ store.MAC, m store.MachineID) (store.AttemptID, string, error) {
	if err := l.trip("Begin"); err != nil {
		return 0, "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.beginErr != nil {
		return 0, "", l.beginErr
	}
	l.begun++
	l.attempts[store.AttemptID(41+l.begun)] = m
	return store.AttemptID(41 + l.begun), labKey, nil
}

func (l *lab) Check(id store.AttemptID, key string) bool { return id >= 42 && key == labKey }

func (l *lab) Owns(_ context.Context, addr netip.Addr, mac store.MAC) (bool, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owners[addr] == mac, "the test says so"
}

func (l *lab) Explain(_ context.Context, id store.AttemptID) (string, string, string, bool) {
	if l.trip("Explain") != nil {
		return "", "", "", false
	}
	return l.explain(id)
}

func (l *lab) Open(name boot.Loader) ([]byte, bool) {
	if l.trip("Open") != nil {
		return nil, false
	}
	if name != boot.SNPOnly && name != boot.Undionly {
		return nil, false
	}
	return []byte("loader " + string(name) + strings.Repeat("x", 2000)), true
}

func (l *lab) Emit(e store.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
	if e.Kind == store.EventScriptSent {
		l.given[e.Attempt] = e
	}
}

// said returns the events so far and forgets them.
func (l *lab) said() []store.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.events
	l.events = nil
	return e
}

// saidOne wants one event. What is said of a file that was sent comes after its
// last byte, so a client may have it all a moment before.
func (l *lab) saidOne(kind store.EventKind) store.Event {
	l.t.Helper()
	var events []store.Event
	for end := time.Now().Add(5 * time.Second); len(events) == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		events = l.said()
	}
	if len(events) != 1 || events[0].Kind != kind {
		l.t.Fatalf("the events are %+v, want one %s", events, kind)
	}
	return events[0]
}

func (l *lab) do(method, path string, header ...string) (*http.Response, string) {
	l.t.Helper()
	return l.send(method, path, nil, header...)
}

func (l *lab) send(method, path string, body io.Reader, header ...string) (*http.Response, string) {
	l.t.Helper()
	req, err := http.NewRequest(method, l.srv.URL+path, body)
	if err != nil {
		l.t.Fatal(err)
	}
	req.Header.Set("User-Agent", "iPXE/1.0.0+git-20190125.36a4c85-5.1")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return res, string(text)
}

// get is what an iPXE does; it wants a script, with status 200.
func (l *lab) get(path string) string {
	l.t.Helper()
	res, body := l.do("GET", path)
	if res.StatusCode != 200 || !strings.HasPrefix(body, "#!ipxe\n") {
		l.t.Fatalf("GET %s answers %s and %q, want a script", path, res.Status, body)
	}
	if ct := res.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/plain") {
		l.t.Errorf("GET %s has the content type %q", path, ct)
	}
	if res.ContentLength != int64(len(body)) {
		l.t.Errorf("GET %s announces %d bytes and sends %d", path, res.ContentLength, len(body))
	}
	return body
}

func contains(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, w := range wants {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in\n%s", w, text)
		}
	}
}

func lacks(t *testing.T, text string, nots ...string) {
	t.Helper()
	for _, w := range nots {
		if strings.Contains(text, w) {
			t.Errorf("%q stands in\n%s", w, text)
		}
	}
}

var errSick = errors.New("database disk image is malformed")
