package inventory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"lunboot/store"
)

// ImportMachines makes and changes machines by the lines of a table. Each line
// is judged as if those before it were done; the good ones are then written in
// one transaction, with the state in which they were judged: what changed in
// between fails the whole, and nothing is half done. A dry run only judges.
func (i *Inventory) ImportMachines(ctx context.Context, by store.Actor, spec store.MachineImportSpec) (store.MachineImport, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	p, err := i.planImport(ctx)
	if err != nil {
		return store.MachineImport{}, err
	}
	for _, line := range spec.Lines {
		v, err := p.judge(ctx, line)
		if err != nil {
			return store.MachineImport{}, err
		}
		p.add(v)
	}
	p.out.Match = hex.EncodeToString(p.seen.Sum(nil)[:16])
	if spec.DryRun {
		return p.out, nil
	}
	if spec.Match != "" && spec.Match != p.out.Match {
		return p.out, store.Conflict("match", "nothing was imported: something changed since the lines were looked at, and they would do something else now; look at them again")
	}
	if len(p.put) > 0 {
		done, err := i.db.PutMachines(ctx, by, p.put)
		if err != nil {
			return p.out, fmt.Errorf("nothing was imported: %w", err)
		}
		for n, m := range done {
			what := "changed"
			if p.put[n].ID == 0 {
				what = "added"
				p.out.Lines[p.at[n]].Machine = m.ID
			}
			i.freeReserved(ctx, by, p.old[n], m)
			i.changed(m, what)
		}
	}
	p.out.Done = true
	return p.out, nil
}

// importPlan is the inventory as it would be after the lines that were judged.
// New machines have negative numbers in it.
type importPlan struct {
	i        *Inventory
	machines map[store.MachineID]store.Machine
	taken    map[string]store.MachineID // by what only one machine may have
	profiles map[string]bool
	lines    map[store.MachineID]int // which line is about a machine
	out      store.MachineImport
	seen     interface {
		Write([]byte) (int, error)
		Sum([]byte) []byte
	}
	put, old []store.Machine // what is written, and what was before
	at       []int           // the line of each in out
}

func (i *Inventory) planImport(ctx context.Context) (*importPlan, error) {
	all, _, err := i.db.Machines(ctx, store.MachineFilter{})
	if err != nil {
		return nil, err
	}
	p := &importPlan{
		i: i, machines: map[store.MachineID]store.Machine{}, taken: map[string]store.MachineID{}, profiles: map[string]bool{}, lines: map[store.MachineID]int{}, seen: sha256.New(),
		out: store.MachineImport{Lines: []store.LineVerdict{}},
	}
	for _, m := range all {
		p.keep(m)
	}
	return p, nil
}

// unique is one thing that only one machine may have.
type unique struct{ key, field, text string }

func uniques(m store.Machine) []unique {
	out := []unique{{"name " + m.Name, "name", "the name " + m.Name}, {"initiator " + string(m.Initiator), "initiator", "the initiator name " + string(m.Initiator)}}
	for _, mac := range m.MACs {
		out = append(out, unique{"mac " + mac.String(), "macs", "the MAC " + mac.String()})
	}
	if !m.UUID.IsZero() {
		out = append(out, unique{"uuid " + m.UUID.String(), "uuid", "the UUID " + m.UUID.String()})
	}
	if m.Address.IsValid() {
		out = append(out, unique{"address " + m.Address.String(), "address", "the reserved address " + m.Address.String()})
	}
	return out
}

// keep puts a machine in the place of what it was.
func (p *importPlan) keep(m store.Machine) {
	if old, ok := p.machines[m.ID]; ok {
		for _, u := range uniques(old) {
			delete(p.taken, u.key)
		}
	}
	for _, u := range uniques(m) {
		p.taken[u.key] = m.ID
	}
	p.machines[m.ID] = m
}

// target finds the machine that a line is about: by its name, its MACs or its
// UUID, which must not speak of two. Zero: it is about a new one.
func (p *importPlan) target(patch store.MachinePatch) (id store.MachineID, err error) {
	var by string
	find := func(what, key, field string) {
		found, ok := p.taken[key]
		switch {
		case !ok || err != nil:
		case id != 0 && found != id:
			err = store.Conflict(field, "%s is that of %s, and %s is that of %s", what, p.machines[found].Name, by, p.machines[id].Name)
		default:
			id, by = found, what
		}
	}
	if patch.Name != nil {
		find("the name "+*patch.Name, "name "+*patch.Name, "name")
	}
	if patch.MACs != nil {
		for _, m := range *patch.MACs {
			find("the MAC "+m.String(), "mac "+m.String(), "macs")
		}
	}
	if patch.UUID != nil && !patch.UUID.IsZero() {
		find("the UUID "+patch.UUID.String(), "uuid "+patch.UUID.String(), "uuid")
	}
	return id, err
}

// judge says what becomes of one line, and does it in the plan. Its error is one
// of the inventory, not of the line.
func (p *importPlan) judge(ctx context.Context, line store.MachineLine) (store.LineVerdict, error) {
	v := store.LineVerdict{Line: line.Line}
	if line.Patch.Name != nil {
		v.Name = *line.Patch.Name
	}
	refuse := func(err error) (store.LineVerdict, error) {
		var e *store.Error
		if !errors.As(err, &e) || e.Kind == store.KindInternal || e.Kind == store.KindCorrupt || e.Kind == store.KindUnavailable {
			return v, err
		}
		v.Verdict, v.Field, v.Reason = store.VerdictRefused, e.Field, strings.ReplaceAll(err.Error(), "\n", "; ")
		if v.Field == "mac" {
			v.Field = "macs" // as the column is called
		}
		return v, nil
	}
	if line.Err != nil {
		return refuse(line.Err)
	}
	id, err := p.target(line.Patch)
	if err != nil {
		return refuse(err)
	}
	if before := p.lines[id]; id != 0 && before != 0 {
		return refuse(store.Conflict("", "line %d is about the same machine", before))
	}
	old := p.machines[id]
	m, err := p.made(old, line.Patch)
	if err != nil {
		return refuse(err)
	}
	v.Name = m.Name
	changes := sheetChanges(old, m)
	if id > 0 {
		v.Machine = id
		if len(changes) == 0 {
			v.Verdict = store.VerdictSame
			p.lines[id] = line.Line
			return v, nil
		}
	}
	if err := p.fits(ctx, old, m); err != nil {
		return refuse(err)
	}
	v.Verdict, v.Changes = store.VerdictChanged, changes
	p.put, p.old, p.at = append(p.put, m), append(p.old, old), append(p.at, len(p.out.Lines))
	if id == 0 {
		v.Verdict, m.ID = store.VerdictNew, -store.MachineID(line.Line)
	}
	p.keep(m)
	p.lines[m.ID] = line.Line
	return v, nil
}

// made is the machine that a line makes of old, or of nothing.
func (p *importPlan) made(old store.Machine, patch store.MachinePatch) (store.Machine, error) {
	if patch.Notes != nil && strings.ReplaceAll(old.Notes, "\r\n", "\n") == *patch.Notes {
		patch.Notes = nil // a table knows one kind of line end
	}
	if old.ID != 0 {
		m, err := patched(old, patch)
		if err == nil {
			err = m.Validate()
		}
		return m, err
	}
	switch {
	case patch.Name == nil:
		return store.Machine{}, store.Invalid("name", "there is no such machine, and a new one needs a name")
	case patch.MACs == nil:
		return store.Machine{}, store.Invalid("macs", "there is no machine %s, and a new one needs a MAC", *patch.Name)
	}
	return p.i.newMachine(store.MachineSpec{
		Name: *patch.Name, MACs: *patch.MACs, UUID: value(patch.UUID), Serial: value(patch.Serial), AssetTag: value(patch.AssetTag), Initiator: value(patch.Initiator), Auth: value(patch.Auth),
		Address: value(patch.Address), Profile: value(patch.Profile), Loader: value(patch.Loader), Tags: value(patch.Tags), Notes: value(patch.Notes), Quirks: value(patch.Quirks),
	})
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// fits refuses a machine that another one, or something that is not there, is in
// the way of.
func (p *importPlan) fits(ctx context.Context, old, m store.Machine) error {
	for _, u := range uniques(m) {
		switch other, ok := p.taken[u.key]; {
		case !ok || other == m.ID:
		case u.field == "name":
			return store.Conflict(u.field, "machine %s exists already; choose another name", m.Name)
		default:
			return store.Conflict(u.field, "machine %s has %s already", p.machines[other].Name, u.text)
		}
	}
	there, known := p.profiles[m.Profile]
	if !known {
		_, err := p.i.db.Profile(ctx, m.Profile)
		if err != nil && !store.IsNotFound(err) {
			return err
		}
		there = err == nil
		p.profiles[m.Profile] = there
	}
	if !there {
		return store.Invalid("profile", "there is no profile %q", m.Profile)
	}
	if m.Address != old.Address {
		if err := p.i.checkAddress(ctx, &m); err != nil {
			return err
		}
	}
	if m.Loader != old.Loader {
		return p.i.checkLoader(m)
	}
	return nil
}

// add counts a verdict and lets it into what Match stands for.
func (p *importPlan) add(v store.LineVerdict) {
	p.out.Lines = append(p.out.Lines, v)
	switch v.Verdict {
	case store.VerdictNew:
		p.out.New++
	case store.VerdictChanged:
		p.out.Changed++
	case store.VerdictSame:
		p.out.Same++
	default:
		p.out.Refused++
	}
	revision := int64(0)
	if v.Machine != 0 {
		revision = p.machines[v.Machine].Revision
	}
	if err := json.NewEncoder(p.seen).Encode(struct {
		store.LineVerdict
		Revision int64
	}{v, revision}); err != nil {
		panic(err) // texts and numbers become JSON, and a sum takes every byte
	}
}

// sheetChanges are the fields that differ, called as the table calls them. What
// is generated for a new machine is not among them.
func sheetChanges(old, m store.Machine) (out []store.FieldChange) {
	add := func(field, before, after string) {
		if before != after {
			out = append(out, store.FieldChange{Field: field, Before: before, After: after})
		}
	}
	add("name", old.Name, m.Name)
	add("macs", joined(old.MACs), joined(m.MACs))
	if old.UUID != m.UUID {
		add("uuid", shownUUID(old.UUID), shownUUID(m.UUID))
	}
	add("serial", old.Serial, m.Serial)
	add("asset_tag", old.AssetTag, m.AssetTag)
	add("address", shownAddress(old.Address), shownAddress(m.Address))
	add("profile", old.Profile, m.Profile)
	add("tags", strings.Join(old.Tags, ", "), strings.Join(m.Tags, ", "))
	add("notes", old.Notes, m.Notes)
	if old.ID != 0 {
		add("initiator", string(old.Initiator), string(m.Initiator))
	}
	add("auth", string(old.Auth), string(m.Auth))
	add("loader", old.Loader, m.Loader)
	add("quirks", joined(old.Quirks), joined(m.Quirks))
	return out
}

func joined[T any](items []T) string {
	out := make([]string, len(items))
	for i, v := range items {
		out[i] = fmt.Sprint(v)
	}
	return strings.Join(out, " ")
}

func shownUUID(u store.UUID) string {
	if u.IsZero() {
		return ""
	}
	return u.String()
}

func shownAddress(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
