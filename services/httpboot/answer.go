package httpboot

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lunboot/scripts"
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

// answers sends an installer its file of answers, made for its machine. It may
// hold passwords, so it goes to the address that the machine holds and to nobody
// else. The installer may report with the attempt that its path carries.
func (s *Server) answers(w *responseWriter, r *http.Request, name string) {
	p, ok := parseAnswerPath(name)
	if !ok {
		s.noFile(w, r, name, fs.ErrNotExist)
		return
	}
	m, text, err := s.answerOf(r, p)
	var e *store.Error
	switch {
	case store.IsNotFound(err):
		s.noFile(w, r, name, fs.ErrNotExist)
		return
	case errors.As(err, &e) && e.Kind == store.KindDenied:
		s.emit(store.Event{Kind: store.EventScriptWithheld, Addr: remote(r), Machine: m.ID, MAC: firstMAC(m), Detail: store.Detail{URL: withoutKey(boundedURL(r.URL), p.key), Profile: p.profile, Reason: e.Msg}})
		s.refuse(w, r, http.StatusForbidden, e.Msg)
		return
	case err != nil:
		s.cfg.Log.Error("an answer file could not be made", "machine", p.machine, "profile", p.profile, "file", p.file, "error", err)
		s.refuse(w, r, http.StatusInternalServerError, "The answer file "+p.file+" of "+p.machine+" cannot be made; the appliance's log says why.")
		return
	}
	ev := store.Event{Kind: store.EventFileSent, Addr: remote(r), Machine: m.ID, MAC: firstMAC(m), Attempt: p.attempt,
		Detail: store.Detail{URL: withoutKey(boundedURL(r.URL), p.key), File: p.file, IPXE: isIPXE(r)}}
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

// withoutKey masks the key that speaks for a machine.
func withoutKey(url, key string) string {
	if key == "" {
		return url
	}
	return strings.ReplaceAll(url, key, "(secret)")
}

func firstMAC(m store.Machine) store.MAC {
	if len(m.MACs) == 0 {
		return store.MAC{}
	}
	return m.MACs[0]
}

// answerOf makes the text. Its errors are KindNotFound for what there is not, and
// KindDenied for an asker who may not have it.
func (s *Server) answerOf(r *http.Request, p answerPath) (m store.Machine, text string, err error) {
	ctx := r.Context()
	if m, err = s.cfg.Inventory.MachineByName(ctx, p.machine); err != nil {
		return m, "", err
	}
	a := s.ask(r)
	a.dry = true
	genuine := p.attempt != 0 && s.cfg.Attempts.Check(p.attempt, p.key)
	if !genuine {
		p.attempt, p.key = 0, ""
		mine, err := s.gives(ctx, m, p.profile)
		if err != nil {
			return m, "", err
		}
		if !mine {
			return m, "", store.NotFound("answer file", p.file)
		}
	}
	if ok, why := s.allowed(ctx, m, a.addr, a.reached); !ok {
		return m, "", &store.Error{Kind: store.KindDenied, Msg: "The answers of " + m.Name + " may carry a password, and are given only to the address that the machine holds. " + why}
	}
	plan, err := s.plan(ctx, m, p.profile, a)
	var blocked *blockedError
	if err != nil && !errors.As(err, &blocked) {
		return m, "", err
	}
	plan.facts.Attempt, plan.facts.Key = p.attempt, p.key
	text, err = scripts.Answer(plan.profile, plan.facts, p.file)
	return m, text, err
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
	if p.Kind != store.ProfileMenu {
		return false, nil
	}
	menu, err := p.Menu()
	if err != nil {
		return false, nil // a menu that cannot be shown offers nothing
	}
	return menu.Offers(choice), nil
}
