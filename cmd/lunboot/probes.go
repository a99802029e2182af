package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5/middleware"

	"lunboot/services"
	"lunboot/services/doctor"
	"lunboot/web/probe"
)

// running is how every service is and, as a part of its own, how DHCP is on each
// interface where somebody chose it: one that is paused beside another server, or
// that cannot be listened on, is a part that does not do its work, although the
// service runs.
func (a *appliance) running(ctx context.Context) []services.Health {
	out := a.super.Health()
	chosen, err := a.network.chosen(ctx)
	if err != nil {
		return append(out, services.Health{Name: "DHCP subnets", Reason: err.Error()})
	}
	for _, s := range chosen {
		if s.Interface == "" || slices.ContainsFunc(out, func(h services.Health) bool { return h.Name == dhcpOn+s.Interface }) {
			continue // behind a relay: it comes in at any interface
		}
		h := services.Health{Name: dhcpOn + s.Interface, Healthy: a.network.serves(s)}
		if !h.Healthy {
			h.Reason = cmp.Or(a.trouble(s.Interface), "its service has not started yet")
		}
		out = append(out, h)
	}
	for _, name := range a.cmd.Interface { // that --dhcp auto could not ask about yet
		if text := a.trouble(name); text != "" && !slices.ContainsFunc(out, func(h services.Health) bool { return h.Name == dhcpOn+name }) {
			out = append(out, services.Health{Name: dhcpOn + name, Reason: text})
		}
	}
	return out
}

// dhcpOn stands before an interface's name in that of its part.
const dhcpOn = "DHCP on "

// parts says of each part whether machines can boot by it now: every service,
// the inventory, and the folder of the volumes. When the appliance is told to
// stop none is, so that nobody is sent here any more.
func (a *appliance) parts(stopping context.Context) func(context.Context) []probe.Part {
	return func(ctx context.Context) []probe.Part {
		up := stopping.Err() == nil
		var out []probe.Part
		for _, s := range a.running(ctx) {
			out = append(out, probe.Part{Name: s.Name, Ready: up && s.Healthy})
		}
		_, _, err := a.db.Setting(ctx, settingTarget)
		out = append(out, probe.Part{Name: "inventory", Ready: up && err == nil})
		_, err = a.pool.Free()
		return append(out, probe.Part{Name: "volumes", Ready: up && err == nil})
	}
}

// footAge is how old what the foot of every page says may be.
const footAge = 5 * time.Second

// footWait bounds how long it is found out.
const footWait = 10 * time.Second

// foot is what the doctor said last, for the foot of every page.
type foot struct {
	mu   sync.Mutex
	at   time.Time
	text string
}

// says returns in a few words what is wrong, empty when nothing is. What is found is
// for everybody who asks next, so it is found out to its end also when who asked
// first has gone.
func (f *foot) says(ctx context.Context, look func(context.Context) []string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.at) < footAge {
		return f.text
	}
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), footWait)
	defer done()
	wrong := look(ctx)
	switch f.text = ""; len(wrong) {
	case 0:
	case 1:
		f.text = "1 thing is wrong: " + wrong[0]
	default:
		f.text = fmt.Sprintf("%d things are wrong", len(wrong))
	}
	f.at = time.Now()
	return f.text
}

// wrong names what is: the same as the page Settings counts.
func (a *appliance) wrong(ctx context.Context) (names []string) {
	for _, s := range a.running(ctx) {
		if !s.Healthy {
			names = append(names, s.Name)
		}
	}
	for _, c := range a.checks(ctx) {
		if c.State == doctor.Fault {
			names = append(names, c.Name)
		}
	}
	return names
}

// heads answers HEAD as GET, without the body (RFC 9110 §9.3.2), but for streams,
// which have no end.
func heads(next http.Handler) http.Handler {
	get := middleware.GetHead(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/live" || strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
			next.ServeHTTP(w, r)
			return
		}
		get.ServeHTTP(w, r)
	})
}
