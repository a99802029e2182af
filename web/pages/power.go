package pages

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"lunboot/store"
)

// Power switches machines on and off.
type Power interface {
	// Wake sends the packet that wakes a machine, and returns the networks that it
	// went to.
	Wake(ctx context.Context, by store.Actor, m store.Machine) ([]string, error)
	// PowerState asks a machine's BMC whether the machine is on.
	PowerState(context.Context, store.Machine) (store.PowerReport, error)
	// Power gives an order to a machine's BMC.
	Power(ctx context.Context, by store.Actor, m store.Machine, o store.PowerOrder) (store.PowerReport, error)
}

// powerView is what the page of a machine knows of its power.
type powerView struct {
	Asked     bool // its BMC was
	At        time.Time
	State     store.PowerState
	Problem   string              // why its BMC does not say
	Untrusted *store.UntrustedBMC // its certificate is to be looked at first
}

// Text is the state in words.
func (p powerView) Text() string {
	switch p.State {
	case store.PowerStateOn:
		return "On"
	case store.PowerStateOff:
		return "Off"
	case store.PowerStateMove:
		return "Between on and off"
	}
	return "Its BMC does not know"
}

func (s *site) wake(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, func(m store.Machine) error {
		_, err := s.Power.Wake(r.Context(), by(r), m)
		return err
	})
}

// askPower shows the machine with what its BMC says. The page asks by itself where
// there is JavaScript, since a BMC takes seconds to answer.
func (s *site) askPower(w http.ResponseWriter, r *http.Request) {
	m, err := s.machineOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.powerPage(w, r, http.StatusOK, page{}, s.ask(r.Context(), m))
}

func (s *site) ask(ctx context.Context, m store.Machine) powerView {
	report, err := s.Power.PowerState(ctx, m)
	p := powerView{Asked: true, At: s.Now(), State: report.State}
	if err != nil {
		errors.As(err, &p.Untrusted)
		_, p.Problem = explain(err)
	}
	return p
}

func (s *site) powerPage(w http.ResponseWriter, r *http.Request, status int, p page, power powerView) {
	s.machinePageWith(w, r, status, p, func(v *machineView) { v.Power = power })
}

// setPower gives an order. What a running system would lose is said beside the
// button, and has to be agreed to.
func (s *site) setPower(w http.ResponseWriter, r *http.Request) {
	m, err := s.machineOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	var report store.PowerReport
	act, err := store.ParsePowerAct(r.PostFormValue("act"))
	o := store.PowerOrder{Act: act, Network: r.PostFormValue("once") == "pxe", Force: r.PostFormValue("lose") == "yes"}
	if o.Network {
		o.Profile = r.PostFormValue("profile")
	}
	if err == nil && act.Loses() && !o.Force {
		err = store.Invalid("lose", "nothing was done: agree that %s may lose what it has not written yet", m.Name)
	}
	if err == nil {
		report, err = s.Power.Power(r.Context(), by(r), m, o)
	}
	if err != nil {
		status, text := told(r, err)
		p := powerView{}
		errors.As(err, &p.Untrusted)
		s.powerPage(w, r, status, page{Error: text}, p)
		return
	}
	s.powerPage(w, r, http.StatusOK, page{Said: upper(report.Says)}, powerView{Asked: true, At: s.Now(), State: report.State})
}

// setBMC says what switches the machine.
func (s *site) setBMC(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, func(m store.Machine) error {
		b, err := store.ParseBMC(strings.TrimSpace(r.PostFormValue("bmc")))
		if err != nil {
			return err
		}
		b.Secret = r.PostFormValue("secret")
		if b.Protocol == store.BMCRedfish {
			b.Trust = store.BMCTrust(r.PostFormValue("trust"))
		}
		_, err = s.Machines.SetMachine(r.Context(), by(r), m.ID, store.MachinePatch{BMC: &b})
		return err
	})
}

// trustBMC pins the certificate that somebody compared.
func (s *site) trustBMC(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, func(m store.Machine) error {
		print, err := store.ParseFingerprint(r.PostFormValue("fingerprint"))
		if err != nil {
			return err
		}
		b := m.BMC
		b.Fingerprint = print
		_, err = s.Machines.SetMachine(r.Context(), by(r), m.ID, store.MachinePatch{BMC: &b})
		return err
	})
}

// Bounds of switching many machines on.
const (
	switchAtOnce = 8
	switchTime   = 2 * time.Minute
)

// switchAll switches machines, each by its BMC, or by waking its card where it
// has none. It returns an error for each machine.
func (s *site) switchAll(ctx context.Context, who store.Actor, ms []store.Machine, act store.PowerAct) []error {
	ctx, cancel := context.WithTimeout(ctx, switchTime)
	defer cancel()
	errs := make([]error, len(ms))
	var g errgroup.Group
	g.SetLimit(switchAtOnce)
	for i, m := range ms {
		g.Go(func() error {
			switch {
			case ctx.Err() != nil:
				errs[i] = &store.Error{Kind: store.KindUnavailable, Msg: "there was no time left for it; choose it again"}
			case m.BMC.IsZero() && act == store.PowerOn:
				_, errs[i] = s.Power.Wake(ctx, who, m)
			default:
				_, errs[i] = s.Power.Power(ctx, who, m, store.PowerOrder{Act: act})
			}
			return nil
		})
	}
	g.Wait() // each of them returns nil: what went wrong is in errs
	return errs
}
