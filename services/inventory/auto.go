package inventory

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"lunboot/store"
)

// EnrollAll enrolls every unknown machine that is not ignored, or those of them
// that are named, in the order in which they were first seen. One that cannot be
// enrolled says why and keeps none of the others from it.
func (i *Inventory) EnrollAll(ctx context.Context, by store.Actor, spec store.EnrollSpec) ([]store.Enrolled, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	if spec.Profile != "" {
		if _, err := i.db.Profile(ctx, spec.Profile); err != nil {
			return nil, err
		}
	}
	if _, _, err := i.chosen(ctx, spec.Clone); err != nil {
		return nil, err
	}
	waiting, err := i.waiting(ctx)
	if err != nil {
		return nil, err
	}
	out, from := []store.Enrolled{}, numbers{}
	for _, mac := range spec.MACs {
		if !slices.ContainsFunc(waiting, func(u store.UnknownMachine) bool { return u.MAC == mac }) {
			out = append(out, store.Enrolled{MAC: mac, Problem: "It does not wait: it was enrolled or is ignored, or never asked."})
		}
	}
	for _, u := range waiting {
		if len(spec.MACs) > 0 && !slices.Contains(spec.MACs, u.MAC) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return out, err
		}
		e := store.Enrolled{MAC: u.MAC}
		m, err := i.enrollOne(ctx, by, u, spec, "", from)
		if err != nil {
			e.Problem = sentence(err)
		} else {
			e.Machine, e.Name = m.ID, m.Name
		}
		out = append(out, e)
	}
	return out, nil
}

// waiting lists the unknown machines that are not ignored, oldest first.
func (i *Inventory) waiting(ctx context.Context) ([]store.UnknownMachine, error) {
	us, err := i.db.UnknownMachines(ctx, false)
	slices.SortStableFunc(us, func(a, b store.UnknownMachine) int { return a.FirstSeen.Compare(b.FirstSeen) })
	return us, err
}

// enrollOne enrolls one machine, with the clone that was chosen. Without a name the
// pattern makes one.
func (i *Inventory) enrollOne(ctx context.Context, by store.Actor, u store.UnknownMachine, spec store.EnrollSpec, name string, from numbers) (store.Machine, error) {
	parent, clone, err := i.chosen(ctx, spec.Clone)
	if err != nil {
		return store.Machine{}, err
	}
	if u.UUID, err = i.freeUUID(ctx, u.UUID, 0); err != nil {
		return store.Machine{}, err
	}
	m, err := i.enroll(ctx, by, u, spec, name, from)
	if err != nil || parent.ID == 0 {
		return m, err
	}
	return m, i.equip(ctx, by, m, parent, clone)
}

// keptRules is the text of the rules. Before it, a list alone was kept, in which a
// rule without a volume meant none.
type keptRules struct {
	Rules store.AutoEnroll `json:"rules"`
}

func (k *keptRules) UnmarshalJSON(text []byte) error {
	if !bytes.HasPrefix(text, []byte("[")) {
		type plain keptRules
		return json.Unmarshal(text, (*plain)(k))
	}
	if err := json.Unmarshal(text, &k.Rules); err != nil {
		return err
	}
	for at := range k.Rules {
		k.Rules[at].CloneOf = cmp.Or(k.Rules[at].CloneOf, store.CloneOfNone)
	}
	return nil
}

// AutoEnroll returns the rules by which machines are enrolled by themselves.
func (i *Inventory) AutoEnroll(ctx context.Context) (store.AutoEnroll, error) {
	text, ok, err := i.db.Setting(ctx, store.SettingAutoEnroll)
	if err != nil || !ok {
		return nil, err
	}
	var kept keptRules
	if err := json.Unmarshal([]byte(text), &kept); err != nil {
		return nil, &store.Error{Kind: store.KindInternal, Op: "read setting", Subject: store.SettingAutoEnroll, Err: err}
	}
	return kept.Rules, nil
}

// SetAutoEnroll replaces the rules. Machines that wait are enrolled at once.
func (i *Inventory) SetAutoEnroll(ctx context.Context, by store.Actor, rules store.AutoEnroll) (store.AutoEnroll, error) {
	rules, err := rules.Normalize()
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		if _, _, err := i.chosen(ctx, r.Clone()); err != nil {
			return nil, err
		}
		if r.Profile == "" {
			continue
		}
		if _, err := i.db.Profile(ctx, r.Profile); store.IsNotFound(err) {
			return nil, store.Invalid("profile", "there is no profile %q", r.Profile)
		} else if err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(keptRules{rules})
	if err != nil {
		return nil, fmt.Errorf("write the rules: %w", err)
	}
	return rules, i.db.PutSetting(ctx, by, store.SettingAutoEnroll, string(text))
}

// Watch is the inventory's revision, as a sleeper waits for it.
type Watch interface {
	Revision() int64
	Changed(after int64) <-chan struct{}
}

// AutoEnroller enrolls unknown machines by the operator's rules as they show
// up. It is a services.Service that listens to nothing but the inventory.
type AutoEnroller struct {
	inv   *Inventory
	watch Watch
	told  map[store.MAC]bool // whose failure stands in the log
}

// autoPause is the shortest time between two looks: a storm of leases changes
// the inventory a thousand times a second.
const autoPause = 250 * time.Millisecond

// NewAutoEnroller makes the service.
func NewAutoEnroller(i *Inventory, w Watch) *AutoEnroller {
	return &AutoEnroller{inv: i, watch: w, told: map[store.MAC]bool{}}
}

// String names the service.
func (a *AutoEnroller) String() string { return "automatic enrolling" }

// Listen binds nothing.
func (a *AutoEnroller) Listen() error { return nil }

// Serve enrolls until ctx ends.
func (a *AutoEnroller) Serve(ctx context.Context) error {
	pause := time.NewTimer(autoPause)
	defer pause.Stop()
	for {
		seen := a.watch.Revision()
		if err := a.look(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		pause.Reset(autoPause)
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.watch.Changed(seen):
		}
	}
}

// look enrolls who waits now and has a rule.
func (a *AutoEnroller) look(ctx context.Context) error {
	i := a.inv
	rules, err := i.AutoEnroll(ctx)
	if err != nil || len(rules) == 0 {
		return err
	}
	i.acts.Lock()
	defer i.acts.Unlock()
	waiting, err := i.waiting(ctx)
	if err != nil {
		return err
	}
	waiting = slices.DeleteFunc(waiting, func(u store.UnknownMachine) bool { _, ok := rules.For(u.MAC); return !ok })
	if len(waiting) == 0 {
		return nil
	}
	have, _, err := i.db.Machines(ctx, store.MachineFilter{})
	if err != nil {
		return err
	}
	count, from := rules.Count(have), numbers{}
	for _, u := range waiting {
		r, _ := rules.For(u.MAC)
		if count[r.Prefix] >= r.Limit {
			a.tell(u.MAC, fmt.Errorf("there are %d machines whose MAC begins with %s, which is the rule's limit", count[r.Prefix], r.Prefix))
			continue
		}
		_, err := i.enrollOne(ctx, store.ActorAutoEnroll, u, store.EnrollSpec{Name: r.Name, Profile: r.Profile, Clone: r.Clone()}, "", from)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			a.tell(u.MAC, err)
			continue
		}
		count[r.Prefix]++
	}
	return nil
}

// tell logs once why a machine was not enrolled by itself.
func (a *AutoEnroller) tell(mac store.MAC, err error) {
	if len(a.told) >= store.MaxUnknownMachines {
		clear(a.told)
	}
	if !a.told[mac] {
		a.told[mac] = true
		a.inv.log.Warn("a machine was not enrolled by itself", "mac", mac, "reason", err)
	}
}
