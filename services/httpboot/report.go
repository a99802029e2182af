package httpboot

import (
	"context"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"lunboot/scripts"
	"lunboot/services/boot/attempt"
	"lunboot/store"
)

// Bounds of a report.
const (
	maxReport   = 4 << 10
	maxNewer    = 64              // attempts that are looked through for a newer boot
	explainTime = 2 * time.Second // the machine waits with a black screen
)

// report takes a machine's own word: a step that failed, with iPXE's code, or
// that its operating system is up. A report of a failure is answered with a
// script that explains it; the case number is the attempt's, which pages and
// commands know. HEAD reports nothing.
func (s *Server) report(w *responseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusOK)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxReport)
	at := s.bootAddr(r)
	addr := remote(r)
	if err := r.ParseForm(); err != nil {
		s.emit(store.Event{Kind: store.EventReportStray, Addr: addr, Detail: store.Detail{Reason: "a report that cannot be read"}})
		w.script(http.StatusOK, s.wrong(r, "The appliance could not read this machine's report."))
		return
	}
	n, _ := strconv.ParseInt(r.Form.Get("attempt"), 10, 64)
	id, key := store.AttemptID(n), r.Form.Get("key")
	d := store.Detail{Step: word(r.Form.Get("step")), Code: code(r.Form.Get("code"))}
	genuine := id > 0 && s.cfg.Attempts.Check(id, key)

	if r.Form.Get("done") != "" && genuine {
		s.reportDone(w, r, id, d)
		return
	}
	if r.Form.Get("up") != "" || r.Form.Get("done") != "" {
		s.reportUp(w, r, genuine, id, d)
		return
	}
	if !genuine {
		d.Reason = "a report without a valid attempt and key"
		s.emit(store.Event{Kind: store.EventReportStray, Addr: addr, Detail: d})
		w.script(http.StatusOK, s.wrong(r, "The appliance does not know the attempt that this report speaks of.", "iPXE's error code was "+d.Code))
		return
	}
	s.emit(store.Event{Kind: store.EventReport, Addr: addr, Attempt: id, Detail: d})
	title := "This boot failed at the step " + d.Step + ", with iPXE's error code " + d.Code + "."
	cause, fix := "The appliance has no explanation for it yet; the attempt's page shows what it saw.", ""
	if s.cfg.Explainer != nil {
		ctx, cancel := context.WithTimeout(r.Context(), explainTime)
		defer cancel()
		if t, c, f, ok := s.cfg.Explainer.Explain(ctx, id); ok {
			title, cause, fix = t, c, f
		}
	}
	w.script(http.StatusOK, scripts.Explained(at, title, cause, fix, scripts.Help{Case: strconv.FormatInt(int64(id), 10), Admin: s.admin(r)}))
}

// reportDone takes an installer's word that it has finished. If its boot was the
// one that the profile for the next boot was for, that is used up, on disk, before
// it is answered: the next boot is that of what was installed.
func (s *Server) reportDone(w *responseWriter, r *http.Request, id store.AttemptID, d store.Detail) {
	a, err := s.cfg.Attempts.Attempt(r.Context(), id)
	if err == nil && a.Machine != 0 {
		err = s.settle(r.Context(), a, remote(r), local(r).Addr())
	}
	if err != nil && !store.IsNotFound(err) {
		s.cfg.Log.Error("an installer's report could not be kept", "attempt", id, "error", err)
		s.refuse(w, r, http.StatusServiceUnavailable, "The appliance could not keep this report; send it again.")
		return
	}
	d.Step = "done"
	s.emit(store.Event{Kind: store.EventInstalled, Addr: remote(r), Attempt: id, Machine: a.Machine, MAC: a.MAC, Detail: d})
	w.script(http.StatusOK, scripts.Recorded)
}

// settle uses up the profile for the next boot if a is the boot that it was for:
// made by it, or by what its menu offers, and the newest boot of its machine. An
// installer of yesterday says nothing of the one that was chosen today. Who asked for
// the script, or who reports, has to be the machine: the key that is reported with is
// given to everybody who says its name.
func (s *Server) settle(ctx context.Context, a store.Attempt, addr, reached netip.Addr) error {
	m, err := s.cfg.Inventory.Machine(ctx, a.Machine)
	if err != nil || m.OnceProfile == "" {
		return err
	}
	if ok := a.Owned; !ok {
		if ok, _ = s.allowed(ctx, m, addr, reached); !ok {
			return nil
		}
	}
	once, err := s.cfg.Inventory.Profile(ctx, m.OnceProfile)
	if err != nil || !once.Gives(attempt.ProfileOf(a)) {
		return err
	}
	// What runs now may ask for an address again, which begins an attempt as
	// well. Only one with a script is another boot.
	newer, _, err := s.cfg.Attempts.Attempts(ctx, store.AttemptFilter{Machine: m.ID, Page: store.Page{Limit: maxNewer}})
	if err != nil {
		return err
	}
	for _, n := range newer {
		if n.ID > a.ID && attempt.ProfileOf(n) != "" {
			return nil
		}
	}
	if len(newer) > 0 && newer[len(newer)-1].ID > a.ID {
		return nil // too long ago
	}
	_, err = s.cfg.Inventory.ConsumeOnce(ctx, m.ID, once.Name, attempt.ScriptAt(a))
	return err
}

// reportUp takes the word of an operating system. It may know the attempt, from
// its script; else the MAC that holds its address speaks for it.
func (s *Server) reportUp(w *responseWriter, r *http.Request, genuine bool, id store.AttemptID, d store.Detail) {
	addr := remote(r)
	e := store.Event{Kind: store.EventReportUp, Addr: addr, Detail: d}
	if genuine {
		e.Attempt = id
	} else {
		e.Kind = store.EventReportStray
		e.Detail.Reason = "a machine says that it is up, without a valid attempt and key, or a MAC that holds its address"
		if mac, err := store.ParseMAC(r.Form.Get("mac")); err == nil {
			if ok, _ := s.cfg.Evidence.Owns(r.Context(), addr, mac); ok {
				e = store.Event{Kind: store.EventReportUp, Addr: addr, MAC: mac, Detail: d}
				if m, err := s.cfg.Inventory.MachineByMAC(r.Context(), mac); err == nil {
					e.Machine = m.ID
				}
			}
		}
	}
	s.emit(e)
	w.script(http.StatusOK, scripts.Recorded)
}

// word keeps the letters, digits and hyphens of a step's name.
func word(s string) string {
	const most = 32
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return -1
	}, strings.ToLower(s))
	return s[:min(len(s), most)]
}

// code reads iPXE's error code: up to eight hexadecimal digits, whose leading
// zeros ${errno} leaves out. Anything else is no code.
func code(s string) string {
	s = strings.ToLower(strings.TrimPrefix(s, "0x"))
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil || n == 0 {
		return ""
	}
	return strings.Repeat("0", 8-len(strconv.FormatUint(n, 16))) + strconv.FormatUint(n, 16)
}
