package redfish

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"lunboot/store"
)

// mock is a BMC that speaks Redfish as DSP0266 and the schemas ComputerSystem
// 1.20 and SessionService 1.1 have it: links, sessions, ETags, actions with their
// allowed values, and error documents.
type mock struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	systems  []*system
	sessions map[string]string // token to path
	made     int               // sessions ever
	asked    []string
	// what is odd about it
	noSessions bool                                              // no SessionService, as a small BMC
	full       bool                                              // no session is left to give
	readOnly   bool                                              // the user may look only
	liar       bool                                              // it says yes to everything and does nothing
	odd        func(w http.ResponseWriter, r *http.Request) bool // answers in its place
}

type system struct {
	id, uuid, serial, state string
	resets                  []string // allowed
	targets                 []string
	enabled, target, mode   string
	etag                    int
	did                     []string
}

func newMock(t *testing.T, systems ...*system) *mock {
	t.Helper()
	m := &mock{t: t, systems: systems, sessions: map[string]string{}}
	m.Server = httptest.NewUnstartedServer(m)
	m.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are refused, as they should be
	m.StartTLS()
	t.Cleanup(m.Close)
	return m
}

// one is a system as most BMCs have it.
func one() *system {
	return &system{id: "1", uuid: "4c4c4544-0034-4810-8051-b4c04f564a32", serial: "4H4QJV2", state: "Off",
		resets:  []string{"On", "ForceOff", "GracefulShutdown", "ForceRestart", "PowerCycle", "Nmi"},
		targets: []string{"None", "Pxe", "Hdd", "BiosSetup"}, enabled: "Disabled", target: "None", mode: "UEFI"}
}

const mockUser, mockSecret = "ana", "hunter2"

// fingerprint is of its certificate.
func (m *mock) fingerprint() string {
	sum := sha256.Sum256(m.Certificate().Raw)
	return hex.EncodeToString(sum[:])
}

// to is the mock as the BMC of a machine with the first system's UUID.
func (m *mock) to() Target {
	u, err := store.ParseUUID(one().uuid)
	if err != nil {
		m.t.Fatal(err)
	}
	return Target{Machine: "lab-01", Log: slog.New(slog.DiscardHandler), UUID: u, BMC: store.BMC{Protocol: store.BMCRedfish, Address: strings.TrimPrefix(m.URL, "https://"),
		User: mockUser, Secret: mockSecret, Trust: store.BMCPinned, Fingerprint: m.fingerprint()}}
}

func (m *mock) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, r.Method+" "+r.URL.Path)
	if m.odd != nil && m.odd(w, r) {
		return
	}
	path := strings.TrimSuffix(r.URL.Path, "/")
	if path == "/redfish/v1" && r.Method == http.MethodGet {
		root := map[string]any{"@odata.id": "/redfish/v1/", "Id": "RootService", "Name": "Root", "RedfishVersion": "1.15.0", "Systems": link("/redfish/v1/Systems")}
		if !m.noSessions {
			root["SessionService"] = link("/redfish/v1/SessionService")
			root["Links"] = map[string]any{"Sessions": link("/redfish/v1/SessionService/Sessions")}
		}
		answer(w, 200, root)
		return
	}
	if path == "/redfish/v1/SessionService/Sessions" && r.Method == http.MethodPost && !m.noSessions {
		m.login(w, r)
		return
	}
	if !m.known(r) {
		refuse(w, 401, "Base.1.15.NoValidSession", "There is no valid session established with the implementation.")
		return
	}
	if strings.HasPrefix(path, "/redfish/v1/SessionService/Sessions/") && r.Method == http.MethodDelete {
		for token, p := range m.sessions {
			if p == path {
				delete(m.sessions, token)
			}
		}
		w.WriteHeader(204)
		return
	}
	if path == "/redfish/v1/Systems" {
		m.collection(w, r)
		return
	}
	for _, s := range m.systems {
		at := "/redfish/v1/Systems/" + s.id
		switch {
		case path == at && r.Method == http.MethodGet:
			w.Header().Set("ETag", fmt.Sprintf(`W/"%d"`, s.etag))
			answer(w, 200, s.document(at))
		case path == at && r.Method == http.MethodPatch:
			m.patch(w, r, s)
		case path == at+"/Actions/ComputerSystem.Reset" && r.Method == http.MethodPost:
			m.reset(w, r, s)
		default:
			continue
		}
		return
	}
	refuse(w, 404, "Base.1.15.ResourceMissingAtURI", "The resource at the URI was not found.")
}

// collection lists the systems two a page.
func (m *mock) collection(w http.ResponseWriter, r *http.Request) {
	skip := 0
	fmt.Sscanf(r.URL.RawQuery, "$skip=%d", &skip)
	members := []any{}
	for _, s := range m.systems[skip:min(skip+2, len(m.systems))] {
		members = append(members, link("/redfish/v1/Systems/"+s.id))
	}
	c := map[string]any{"@odata.id": "/redfish/v1/Systems", "Name": "Systems", "Members@odata.count": len(m.systems), "Members": members}
	if skip+2 < len(m.systems) {
		c["Members@odata.nextLink"] = fmt.Sprintf("/redfish/v1/Systems?$skip=%d", skip+2)
	}
	answer(w, 200, c)
}

func (m *mock) login(w http.ResponseWriter, r *http.Request) {
	var in struct{ UserName, Password string }
	json.NewDecoder(r.Body).Decode(&in)
	switch {
	case m.full:
		refuse(w, 503, "Base.1.15.SessionLimitExceeded", "The session establishment failed due to the number of simultaneous sessions.")
	case in.UserName != mockUser || in.Password != mockSecret:
		refuse(w, 401, "Base.1.15.ResourceAtUriUnauthorized", "Invalid username or password.")
	default:
		m.made++
		token, path := fmt.Sprintf("token-%d", m.made), fmt.Sprintf("/redfish/v1/SessionService/Sessions/%d", m.made)
		m.sessions[token] = path
		w.Header().Set("X-Auth-Token", token)
		w.Header().Set("Location", path)
		answer(w, 201, map[string]any{"@odata.id": path, "Id": "1", "Name": "Session", "UserName": in.UserName})
	}
}

func (m *mock) known(r *http.Request) bool {
	if token := r.Header.Get("X-Auth-Token"); token != "" {
		return m.sessions[token] != ""
	}
	user, secret, ok := r.BasicAuth()
	return ok && user == mockUser && secret == mockSecret
}

func (s *system) document(at string) map[string]any {
	boot := map[string]any{"BootSourceOverrideEnabled": s.enabled, "BootSourceOverrideTarget": s.target, "BootSourceOverrideMode": s.mode}
	if s.targets != nil {
		boot["BootSourceOverrideTarget@Redfish.AllowableValues"] = s.targets
	}
	reset := map[string]any{"target": at + "/Actions/ComputerSystem.Reset"}
	if s.resets != nil {
		reset["ResetType@Redfish.AllowableValues"] = s.resets
	}
	return map[string]any{"@odata.id": at, "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem", "Id": s.id, "Name": "System", "UUID": s.uuid, "SerialNumber": s.serial,
		"PowerState": s.state, "Boot": boot, "Actions": map[string]any{"#ComputerSystem.Reset": reset}, "Status": map[string]any{"State": "Enabled", "Health": "OK"}}
}

func (m *mock) patch(w http.ResponseWriter, r *http.Request, s *system) {
	if want := r.Header.Get("If-Match"); want != "" && want != fmt.Sprintf(`W/"%d"`, s.etag) {
		refuse(w, 412, "Base.1.15.PreconditionFailed", "The ETag supplied did not match the current ETag of the resource.")
		return
	}
	if m.readOnly {
		refuse(w, 403, "Base.1.15.InsufficientPrivilege", "There are insufficient privileges for the account.")
		return
	}
	body, _ := io.ReadAll(r.Body)
	var in struct {
		Boot struct {
			Enabled string  `json:"BootSourceOverrideEnabled"`
			Target  string  `json:"BootSourceOverrideTarget"`
			Mode    *string `json:"BootSourceOverrideMode"`
		}
	}
	if err := json.Unmarshal(body, &in); err != nil || in.Boot.Mode != nil {
		m.t.Errorf("a change of the boot mode, or no change at all: %s (%v)", body, err)
	}
	if s.targets != nil && !slices.Contains(s.targets, in.Boot.Target) {
		refuse(w, 400, "Base.1.15.PropertyValueNotInList", "The value is not in the list of acceptable values.")
		return
	}
	if !m.liar {
		s.enabled, s.target = in.Boot.Enabled, in.Boot.Target
	}
	s.etag++
	w.WriteHeader(204)
}

func (m *mock) reset(w http.ResponseWriter, r *http.Request, s *system) {
	if m.readOnly {
		refuse(w, 403, "Base.1.15.InsufficientPrivilege", "There are insufficient privileges for the account.")
		return
	}
	var in struct{ ResetType string }
	json.NewDecoder(r.Body).Decode(&in)
	if s.resets != nil && !slices.Contains(s.resets, in.ResetType) {
		refuse(w, 400, "Base.1.15.ActionParameterNotSupported", "The parameter ResetType is not supported.")
		return
	}
	s.did = append(s.did, in.ResetType)
	if !m.liar {
		switch in.ResetType {
		case "On", "ForceOn", "PowerCycle", "ForceRestart":
			s.state = "On"
		case "ForceOff":
			s.state = "Off"
		}
	}
	s.etag++
	w.WriteHeader(204)
}

func link(path string) map[string]any { return map[string]any{"@odata.id": path} }

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("OData-Version", "4.0")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// refuse answers an error document (DSP0266 §8.6).
func refuse(w http.ResponseWriter, status int, id, message string) {
	answer(w, status, map[string]any{"error": map[string]any{"code": "Base.1.15.GeneralError", "message": "A general error has occurred.",
		"@Message.ExtendedInfo": []any{map[string]any{"MessageId": id, "Message": message, "Severity": "Critical"}}}})
}
