package api

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

// conditional are the paths of the nouns that have a revision. Their answers
// carry it as ETag, and a change of them may name it in If-Match: two people who
// edit one machine then do not overwrite each other (RFC 9110 §13.1.1). The tag
// is the noun's revision and no hash of the answer: what a machine does by
// itself, such as being seen, changes no tag.
var conditional = []string{
	"/api/v1/machines/{machine}", "/api/v1/volumes/{volume}", "/api/v1/mappings/{machine}/{lun}",
	"/api/v1/profiles/{profile}", "/api/v1/subnets/{subnet}", "/api/v1/users/{user}",
	"/api/v1/settings/{key}", "/api/v1/auto-enroll", "/api/v1/oidc",
}

// conditionalActs are the operations on a part of such a noun, or that do
// something to it: they take the noun's ETag as well.
var conditionalActs = []string{
	"freeze-volume", "promote-volume", "flatten-volume", "roll-back-volume", "take-snapshot", "remove-snapshot", "set-version", "remove-version",
	"set-password",
}

// making are the operations that make what is not there yet, at the path that it
// has from then on. They take If-None-Match: of two people who make one thing, one
// does (RFC 9110 §13.1.2).
var making = []string{"set-profile", "set-password"}

// takesCondition reports whether an operation takes If-Match.
func takesCondition(op *huma.Operation) bool {
	return slices.Contains([]string{http.MethodPatch, http.MethodPut, http.MethodDelete}, op.Method) && slices.Contains(conditional, op.Path) || slices.Contains(conditionalActs, op.OperationID)
}

// describeConditions writes the headers into the OpenAPI description.
func describeConditions(_ *huma.OpenAPI, op *huma.Operation) {
	if op.Method == http.MethodPost {
		op.Parameters = append(op.Parameters, &huma.Param{Name: onceHeader, In: "header", Schema: &huma.Schema{Type: "string"},
			Description: "any text of up to 255 bytes: the same request under the same key, within a day and one run of the appliance, is answered as it was first and done once"})
	}
	if !takesCondition(op) {
		return
	}
	op.Parameters = append(op.Parameters, &huma.Param{Name: "If-Match", In: "header", Schema: &huma.Schema{Type: "string"},
		Description: "the ETag of the noun as it was seen, or *; when it changed since, nothing is done: 412, and the answer lists what changed"})
	if slices.Contains(making, op.OperationID) {
		op.Parameters = append(op.Parameters, &huma.Param{Name: "If-None-Match", In: "header", Schema: &huma.Schema{Type: "string"},
			Description: "*: only while there is none; when there is one, nothing is done: 412"})
	}
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses["412"] = &huma.Response{Description: "The noun is no longer what the condition names.", Content: map[string]*huma.MediaType{"application/problem+json": {}}}
}

// tag sets the ETag of an answer that is one noun with a revision.
func tag(hc huma.Context, _ string, v any) (any, error) {
	if !slices.Contains(conditional, hc.Operation().Path) && !takesCondition(hc.Operation()) && hc.Operation().Method != http.MethodPost {
		return v, nil
	}
	r := reflect.Indirect(reflect.ValueOf(v))
	if r.Kind() != reflect.Struct {
		return v, nil
	}
	if f := r.FieldByName("Revision"); f.IsValid() && f.Kind() == reflect.Int64 && f.Int() > 0 {
		hc.SetHeader("ETag", etag(f.Int()))
	}
	return v, nil
}

func etag(revision int64) string { return `"` + strconv.FormatInt(revision, 10) + `"` }

// stale is the problem document of a change that came too late.
type stale struct {
	huma.ErrorModel
	Current int64         `json:"current_revision"`
	Changes []store.Audit `json:"changes"` // the newest first
}

// maxStale bounds the changes that a refusal lists.
const maxStale = 20

// conditions refuses a change of a noun that is no longer what If-Match says, and
// the making of one that is there by If-None-Match. What changes between this look
// and the act is found by the act itself, which is told what to expect.
func (s *server) conditions(a huma.API) func(huma.Context, func(huma.Context)) {
	return func(hc huma.Context, next func(huma.Context)) {
		given, none := hc.Header("If-Match"), ""
		if slices.Contains(making, hc.Operation().OperationID) {
			none = hc.Header("If-None-Match")
		}
		// Whoever may not read learns nothing here; the operation refuses them.
		if status, _ := refusal(hc.Context(), store.ScopeRead); given == "" && none == "" || status != 0 || !takesCondition(hc.Operation()) {
			next(hc)
			return
		}
		n, err := s.noun(hc)
		if err != nil && !store.IsNotFound(err) {
			writeError(a, hc, problem(err))
			return
		}
		there := err == nil
		// In this order (RFC 9110 §13.2.2).
		stands := given == "" || there && matches(given, n.Revision)
		taken := none != "" && there && matches(strings.ReplaceAll(none, "W/", ""), n.Revision) // weakly: ibid. §13.1.2
		if stands && !taken {
			next(huma.WithContext(hc, store.Expecting(hc.Context(), n.Expectation)))
			return
		}
		p := &stale{Current: n.Revision, Changes: []store.Audit{}}
		p.Status, p.Title = http.StatusPreconditionFailed, http.StatusText(http.StatusPreconditionFailed)
		switch {
		case err != nil:
			p.Detail = err.Error()
		case stands:
			p.Detail = store.Exists(n.Noun, n.name, n.Revision).Msg
		default:
			seen, _ := strconv.ParseInt(strings.Trim(given, `" `), 10, 64)
			p.Detail = store.Stale(n.Noun, n.name, n.Revision, seen).Msg
			if p.Changes, err = s.since(hc.Context(), n, seen); err != nil {
				writeError(a, hc, problem(err))
				return
			}
		}
		writeError(a, hc, p)
	}
}

// writeError writes a problem document.
func writeError(a huma.API, hc huma.Context, err error) {
	status := http.StatusInternalServerError
	if e, ok := err.(huma.StatusError); ok {
		status = e.GetStatus()
	}
	doc, lost := a.Transform(hc, strconv.Itoa(status), err)
	if lost != nil {
		panic(lost) // a transformer lost a type: a fault of ours
	}
	hc.SetHeader("Content-Type", "application/problem+json")
	hc.SetStatus(status)
	if err := a.Marshal(hc.BodyWriter(), "application/json", doc); err != nil {
		panic(err) // the writer of answers lost a type: a fault of ours
	}
}

// matches reports whether an If-Match names a revision. Weak tags match nothing
// (RFC 9110 §8.8.3.2).
func matches(given string, revision int64) bool {
	for _, t := range strings.Split(given, ",") {
		if t = strings.TrimSpace(t); t == "*" || t == etag(revision) {
			return true
		}
	}
	return false
}

// target is the noun that a request names, as it is now.
type target struct {
	store.Expectation
	name    string
	subject string // as the audit log calls it
}

// noun finds the noun of a conditional request.
func (s *server) noun(hc huma.Context) (target, error) {
	ctx := hc.Context()
	path := hc.Operation().Path
	of := func(noun string) bool { return path == noun || strings.HasPrefix(path, noun+"/") }
	switch {
	case of("/api/v1/machines/{machine}"):
		m, err := s.Acts.FindMachine(ctx, hc.Param("machine"))
		return target{store.Expectation{Noun: "machine", Key: strconv.FormatInt(int64(m.ID), 10), Revision: m.Revision}, m.Name, m.Name}, err
	case of("/api/v1/volumes/{volume}"):
		v, err := s.Volumes.FindVolume(ctx, hc.Param("volume"))
		return target{store.Expectation{Noun: "volume", Key: strconv.FormatInt(int64(v.ID), 10), Revision: v.Revision}, v.Name, v.Name}, err
	case of("/api/v1/profiles/{profile}"):
		name := hc.Param("profile") // also of one that is not there
		p, err := s.Store.Profile(ctx, name)
		return target{store.Expectation{Noun: "profile", Key: name, Revision: p.Revision}, name, name}, err
	case of("/api/v1/users/{user}"):
		name := hc.Param("user")
		u, err := s.Access.User(ctx, name)
		return target{store.Expectation{Noun: "user", Key: name, Revision: u.Revision}, name, name}, err
	case of("/api/v1/subnets/{subnet}"):
		id, err := strconv.ParseInt(hc.Param("subnet"), 10, 64)
		if err != nil {
			return target{}, store.NotFound("subnet with number", hc.Param("subnet"))
		}
		n, err := s.subnet(ctx, id)
		return target{store.Expectation{Noun: "subnet", Key: strconv.FormatInt(n.ID, 10), Revision: n.Revision}, n.Name(), n.Name()}, err
	case of("/api/v1/settings/{key}"):
		v, err := s.setting(ctx, hc.Param("key"))
		return target{store.Expectation{Noun: "setting", Key: string(v.Key), Revision: v.Revision}, string(v.Key), string(v.Key)}, err
	case of("/api/v1/auto-enroll"):
		revision, err := s.Store.SettingRevision(ctx, store.SettingAutoEnroll)
		return target{store.Expectation{Noun: "setting", Key: store.SettingAutoEnroll, Revision: revision}, store.SettingAutoEnroll, store.SettingAutoEnroll}, err
	case of("/api/v1/oidc"):
		o, err := s.SignIn.OIDC(ctx)
		return target{store.Expectation{Noun: "oidc", Key: "provider", Revision: o.Revision}, "provider", "provider"}, err
	}
	return s.mappingTarget(ctx, hc.Param("machine"), hc.Param("lun"))
}

func (s *server) mappingTarget(ctx context.Context, machine, lun string) (target, error) {
	l, err := store.ParseLUN(lun)
	if err != nil {
		return target{}, store.NotFound("mapping of LUN", lun)
	}
	m, err := s.Acts.FindMachine(ctx, machine)
	if err != nil {
		return target{}, err
	}
	mp, err := s.mapping(ctx, m, l)
	key := strconv.FormatInt(int64(m.ID), 10) + "/" + strconv.FormatUint(uint64(l), 10)
	return target{store.Expectation{Noun: "mapping", Key: key, Revision: mp.Revision}, "of LUN " + lun + " of " + m.Name, m.Name}, err
}

// mapping finds the mapping of one LUN.
func (s *server) mapping(ctx context.Context, machine store.Machine, l store.LUN) (store.Mapping, error) {
	all, err := s.Store.MappingsOf(ctx, machine.ID)
	if err != nil {
		return store.Mapping{}, err
	}
	for _, m := range all {
		if m.LUN == l {
			return m, nil
		}
	}
	return store.Mapping{}, store.NoLUN(machine.Name, l, all)
}

// since lists what was done to a noun after the revision that somebody saw: each
// change moved it by one, and what changed nothing, such as waking a machine, is
// none.
func (s *server) since(ctx context.Context, n target, seen int64) ([]store.Audit, error) {
	limit := n.Revision - seen
	if seen <= 0 || limit <= 0 || limit > maxStale {
		limit = maxStale
	}
	f := store.AuditFilter{Noun: n.Noun, Subject: n.subject, Moved: true, Page: store.Page{Limit: int(limit)}}
	if n.Noun == "mapping" { // whose subject is the machine, which has others
		f.Limit = 500
	}
	rows, _, err := s.Store.AuditLog(ctx, f)
	rows = slices.DeleteFunc(rows, func(a store.Audit) bool {
		switch {
		case n.Noun == "mapping":
			return !n.ofLUN(a)
		case n.Noun == "setting": // whose revision is the number of its last change, and one
			return seen > 0 && a.ID < seen
		}
		return a.Quiet()
	})
	if rows == nil {
		rows = []store.Audit{}
	}
	return rows[:min(len(rows), int(limit))], err
}

// ofLUN reports whether a change of a machine's mappings is one of the target's.
func (n target) ofLUN(a store.Audit) bool {
	_, lun, _ := strings.Cut(n.Key, "/")
	return strings.HasPrefix(a.Detail, "LUN "+lun+" ") || strings.Contains(a.Detail, "(was LUN "+lun+")")
}
