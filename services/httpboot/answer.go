package httpboot

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lunboot/scripts"
	"lunboot/services/boot"
	"lunboot/services/boot/attempt"
	"lunboot/store"
)

// answerPath is a path below /files/answer/, as scripts.AnswerPath makes it.
type answerPath struct {
	machine, profile, file string
	attempt                store.AttemptID // zero: none was said
	key                    string
}

func parseAnswerPath(name string) (p answerPath, ok bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 5 || parts[0] != store.AnswerRoot {
		return p, false
	}
	id, key, _ := strings.Cut(parts[3], "-")
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n < 0 {
		return p, false
	}
	return answerPath{machine: parts[1], profile: parts[2], file: parts[4], attempt: store.AttemptID(n), key: key}, true
}

const answersRoot = boot.FilesRoot + store.AnswerRoot + "/"

// shown masks in a path the key that speaks for a machine. A path that is askew
// may hold it later than where it belongs.
func shown(path string) string {
	rest, ok := strings.CutPrefix(path, answersRoot)
	if !ok {
		return path
	}
	parts := strings.Split(rest, "/")
	for i := min(2, len(parts)); i < len(parts); i++ {
		if id, key, ok := strings.Cut(parts[i], "-"); ok && key != "" && strings.Trim(id, "0123456789") == "" {
			parts[i] = id + "-secret"
		}
	}
	return answersRoot + strings.Join(parts, "/")
}

// answers sends an installer its file of answers, made for its machine. It may
// hold passwords, so it goes to the address that the machine holds and to nobody
// else. The installer may report with the attempt that its path carries.
func (s *Server) answers(w *responseWriter, r *http.Request, name string) {
	p, ok := parseAnswerPath(name)
	if !ok {
		s.noFile(w, r, name, fs.ErrNotExist)
		return
	}
	m, text, by, err := s.answerOf(r, p)
	var e *store.Error
	switch {
	case store.IsNotFound(err):
		s.noFile(w, r, name, fs.ErrNotExist)
		return
	case errors.As(err, &e) && e.Kind == store.KindDenied:
		s.emit(store.Event{Kind: store.EventScriptWithheld, Addr: remote(r), Machine: m.ID, MAC: firstMAC(m), Detail: store.Detail{URL: boundedURL(r.URL), Profile: p.profile, Reason: e.Msg}})
		s.refuse(w, r, http.StatusForbidden, e.Msg)
		return
	case err != nil:
		s.cfg.Log.Error("an answer file could not be made", "machine", p.machine, "profile", p.profile, "file", p.file, "error", err)
		s.refuse(w, r, http.StatusInternalServerError, "The answer file "+p.file+" of "+p.machine+" cannot be made; the appliance's log says why.")
		return
	}
	ev := store.Event{Kind: store.EventFileSent, Addr: remote(r), Machine: m.ID, MAC: firstMAC(m), Attempt: by.ID,
		Detail: store.Detail{URL: boundedURL(r.URL), File: p.file, IPXE: isIPXE(r)}}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	s.send(w, r, ev, strings.NewReader(text), time.Time{})
}

// refuse answers with an error's status: iPXE's command fails then.
func (s *Server) refuse(w *responseWriter, r *http.Request, status int, why string) {
	if isIPXE(r) {
		w.script(status, s.wrong(r, why))
		return
	}
	http.Error(w, why, status)
}

func firstMAC(m store.Machine) store.MAC {
	if len(m.MACs) == 0 {
		return store.MAC{}
	}
	return m.MACs[0]
}

// answerOf makes the text; by is the attempt that its ticket proves, the zero one
// when none does. Its errors are KindNotFound for what there is not, and
// KindDenied for an asker who may not have it.
func (s *Server) answerOf(r *http.Request, p answerPath) (m store.Machine, text string, by store.Attempt, err error) {
	ctx := r.Context()
	if m, err = s.cfg.Inventory.MachineByName(ctx, p.machine); err != nil {
		return m, "", by, err
	}
	if by, err = s.ticket(ctx, m, p); err != nil {
		return m, "", by, err
	}
	mine := by.ID != 0
	if mine {
		mine, err = s.madeBy(ctx, by, p.profile)
	}
	if err == nil && !mine {
		mine, err = s.gives(ctx, m, p.profile)
	}
	if err != nil {
		return m, "", by, err
	}
	if !mine {
		return m, "", by, store.NotFound("answer file", p.file)
	}
	a := s.ask(r)
	a.dry = true
	if ok, why := s.allowed(ctx, m, a.addr, a.reached); !ok {
		return m, "", by, &store.Error{Kind: store.KindDenied, Msg: "The answers of " + m.Name + " may carry a password, and are given only to the address that the machine holds. " + why}
	}
	// An installer says nothing of its machine: its boot did.
	a.id.MAC, a.id.Platform = by.MAC, platform(cmp.Or(by.Firmware, m.Firmware))
	plan, err := s.plan(ctx, m, p.profile, a)
	var blocked *blockedError
	if err != nil && !errors.As(err, &blocked) {
		return m, "", by, err
	}
	if by.ID != 0 {
		plan.facts.Attempt, plan.facts.Key = by.ID, p.key
	}
	text, err = scripts.Answer(plan.profile, plan.facts, p.file)
	return m, text, by, err
}

// ticket returns the attempt that a path's ticket proves to be the machine's, the
// zero one when it proves nothing.
func (s *Server) ticket(ctx context.Context, m store.Machine, p answerPath) (store.Attempt, error) {
	if p.attempt == 0 || !s.cfg.Attempts.Check(p.attempt, p.key) {
		return store.Attempt{}, nil
	}
	by, err := s.cfg.Attempts.Attempt(ctx, p.attempt)
	if err != nil && !store.IsNotFound(err) || err == nil && by.Machine == m.ID {
		return by, err
	}
	return store.Attempt{}, nil
}

// madeBy reports whether an attempt's script was made by a profile, or by a menu
// that offers it.
func (s *Server) madeBy(ctx context.Context, by store.Attempt, profile string) (bool, error) {
	given := attempt.ProfileOf(by)
	if given == "" || given == profile {
		return given != "", nil
	}
	return s.offers(ctx, given, profile)
}

// gives reports whether a machine may be given a profile: its own, the one of
// its next boot, or what one of these offers in a menu.
func (s *Server) gives(ctx context.Context, m store.Machine, profile string) (bool, error) {
	for _, own := range []string{m.Profile, m.OnceProfile} {
		if own == "" {
			continue
		}
		if own == profile {
			return true, nil
		}
		if ok, err := s.offers(ctx, own, profile); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// offers reports whether a profile is a menu that offers another one.
func (s *Server) offers(ctx context.Context, name, choice string) (bool, error) {
	p, err := s.cfg.Inventory.Profile(ctx, name)
	if err != nil {
		if store.IsNotFound(err) {
			return false, nil
		}
		return false, err
	}
	return p.Kind == store.ProfileMenu && p.Gives(choice), nil
}
