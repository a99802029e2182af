package pages

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"lunboot/store"
)

// editField is one thing of a machine that can be typed anew.
type editField struct {
	Name, Label string
	Value       string // what stands in the form
	Was         string // what the form was made from
	Hint, Help  string
	Rows        int  // of a field with lines; 0: it is one line
	Mono        bool // it is read letter by letter
	Choices     [][2]string
	Bad         bool // it was refused
}

type editView struct {
	Machine store.Machine
	Self    string
	Fields  []editField
}

// editFields are the form's fields, as the machine is.
func editFields(m store.Machine) []editField {
	var macs []string
	for _, mac := range m.MACs {
		macs = append(macs, mac.String())
	}
	address, uuid := "", ""
	if m.Address.IsValid() {
		address = m.Address.String()
	}
	if !m.UUID.IsZero() {
		uuid = m.UUID.String()
	}
	fields := []editField{
		{Name: "name", Label: "Name", Value: m.Name, Hint: "lab-03", Help: "One DNS label. Its iSCSI name and its volumes do not follow."},
		{Name: "macs", Label: "MAC addresses, one a line", Value: strings.Join(macs, "\n"), Rows: max(2, len(macs)), Mono: true, Help: "Every card that it may boot by. The first is the one that labels and lists show."},
		{Name: "address", Label: "Reserved address", Value: address, Hint: "none", Mono: true, Help: "It is given this IPv4 address and nobody else is. Empty: one of the range."},
		{Name: "auth", Label: "How it logs in to its volumes", Value: string(m.Auth), Help: "New passwords are made where it needs some; its next script carries them.",
			Choices: [][2]string{{string(store.AuthMutual), "mutual CHAP: each proves itself to the other"}, {string(store.AuthCHAP), "CHAP: the machine proves itself"}, {string(store.AuthNone), "without a password: whoever gives its iSCSI name"}}},
		{Name: "tags", Label: "Tags, with commas between", Value: strings.Join(m.Tags, ", "), Hint: "room-204, windows"},
		{Name: "notes", Label: "Notes", Value: m.Notes, Rows: 3},
		{Name: "uuid", Label: "UUID", Value: uuid, Hint: "4c4c4544-0034-4810-8051-b4c04f564a32", Mono: true, Help: "What its firmware calls itself. A machine that asks with it is known by it, whatever its card."},
		{Name: "serial", Label: "Serial number", Value: m.Serial},
		{Name: "asset_tag", Label: "Asset tag", Value: m.AssetTag},
		{Name: "initiator", Label: "iSCSI name", Value: string(m.Initiator), Mono: true, Help: "A system that keeps its own copy of it logs in no more once it is another one."},
	}
	for i := range fields {
		fields[i].Value = formText(fields[i].Value)
		fields[i].Was = fields[i].Value
	}
	return fields
}

// formText is a text as a form sends it back: browsers end lines by two bytes and
// drop the first line end of a field with lines.
func formText(s string) string {
	return strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n"))
}

func (s *site) editMachine(w http.ResponseWriter, r *http.Request) {
	m, err := s.machineOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.showEdit(w, r, http.StatusOK, "", m, editFields(m))
}

func (s *site) showEdit(w http.ResponseWriter, r *http.Request, status int, problem string, m store.Machine, fields []editField) {
	s.render(w, r, status, "edit", page{Title: "Edit " + m.Name, Nav: "machines", Error: problem, Data: editView{m, machinePath(m.ID), fields}})
}

// editMachinePost changes what was typed anew, and nothing else: what somebody
// changed meanwhile stays, and the form that comes back with a refusal holds both.
func (s *site) editMachinePost(w http.ResponseWriter, r *http.Request) {
	m, err := s.machineOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, store.Invalid("form", "the form cannot be read"))
		return
	}
	typed := map[string]string{}
	for _, f := range editFields(m) {
		was := f.Was
		if r.PostForm.Has("was-" + f.Name) {
			was = formText(r.PostForm.Get("was-" + f.Name))
		}
		if now := formText(r.PostForm.Get(f.Name)); r.PostForm.Has(f.Name) && now != was {
			typed[f.Name] = now
		}
	}
	err = s.expect(r, m)
	var p store.MachinePatch
	if err == nil {
		p, err = editPatch(typed)
	}
	if err == nil && len(typed) > 0 {
		_, err = s.Machines.SetMachine(r.Context(), by(r), m.ID, p)
	}
	if err == nil {
		http.Redirect(w, r, machinePath(m.ID), http.StatusSeeOther)
		return
	}
	status, text := explain(err)
	text += s.meanwhile(r, m, err)
	if store.KindOf(err) == store.KindStale {
		text += " What you typed stands below still, beside what was changed: look at both, then save."
	}
	fields := editFields(m)
	for i := range fields {
		if now, ok := typed[fields[i].Name]; ok {
			fields[i].Value = now
		}
		fields[i].Bad = fields[i].Name == fieldAtFault(err)
	}
	s.showEdit(w, r, status, text, m, fields)
}

// fieldAtFault names the form's field that an error speaks of.
func fieldAtFault(err error) string {
	var e *store.Error
	if !errors.As(err, &e) {
		return ""
	}
	switch e.Field {
	case "mac":
		return "macs"
	case "iqn":
		return "initiator"
	}
	return e.Field
}

// editPatch reads what was typed.
func editPatch(typed map[string]string) (p store.MachinePatch, err error) {
	for _, text := range []struct {
		name string
		to   **string
	}{{"name", &p.Name}, {"serial", &p.Serial}, {"asset_tag", &p.AssetTag}, {"notes", &p.Notes}} {
		if t, ok := typed[text.name]; ok {
			*text.to = &t
		}
	}
	if p.Name != nil {
		*p.Name = strings.ToLower(*p.Name)
	}
	if t, ok := typed["macs"]; ok {
		macs := []store.MAC{}
		for _, word := range strings.FieldsFunc(t, func(c rune) bool { return strings.ContainsRune(" \n\t,;", c) }) {
			mac, err := store.ParseMAC(word)
			if err != nil {
				return p, err
			}
			macs = append(macs, mac)
		}
		p.MACs = &macs
	}
	if t, ok := typed["address"]; ok {
		var a netip.Addr
		if t != "" {
			if a, err = netip.ParseAddr(t); err != nil {
				return p, store.Invalid("address", "%q is not an IPv4 address", t)
			}
		}
		p.Address = &a
	}
	if t, ok := typed["uuid"]; ok {
		p.UUID = new(store.UUID)
		if err := p.UUID.UnmarshalText([]byte(t)); err != nil {
			return p, err
		}
	}
	if t, ok := typed["auth"]; ok {
		mode, err := store.ParseAuthMode(t)
		if err != nil {
			return p, err
		}
		p.Auth = &mode
	}
	if t, ok := typed["initiator"]; ok {
		name, err := store.ParseIQN(t)
		if err != nil {
			return p, err
		}
		p.Initiator = &name
	}
	if t, ok := typed["tags"]; ok {
		tags := []string{}
		for _, tag := range strings.FieldsFunc(t, func(c rune) bool { return c == ',' || c == '\n' }) {
			if tag = strings.TrimSpace(tag); tag != "" && !slices.Contains(tags, tag) {
				tags = append(tags, tag)
			}
		}
		p.Tags = &tags
	}
	return p, nil
}

// seenMapping finds the mapping that a form was made from, with a context in which
// acts on it are refused when it changed meanwhile. A LUN that has another volume by
// now is KindStale.
func (s *site) seenMapping(r *http.Request, m store.Machine, lun store.LUN) (store.Mapping, context.Context, error) {
	ctx := r.Context()
	revision, err := strconv.ParseInt(r.PostFormValue("mapping"), 10, 64)
	volume, err2 := strconv.ParseInt(r.PostFormValue("volume"), 10, 64)
	if err != nil || err2 != nil || revision <= 0 || volume <= 0 {
		return store.Mapping{}, ctx, store.Invalid("mapping", "the form does not say what it was made from; load the page again")
	}
	maps, err := s.Inventory.Mappings(ctx)
	if err != nil {
		return store.Mapping{}, ctx, err
	}
	at := slices.IndexFunc(maps, func(mp store.Mapping) bool { return mp.Machine == m.ID && mp.LUN == lun })
	if at < 0 {
		return store.Mapping{}, ctx, store.NoLUN(m.Name, lun, slices.DeleteFunc(slices.Clone(maps), func(mp store.Mapping) bool { return mp.Machine != m.ID }))
	}
	if maps[at].Volume != store.VolumeID(volume) {
		return store.Mapping{}, ctx, &store.Error{Kind: store.KindStale, Msg: fmt.Sprintf("LUN %d of %s was given another volume meanwhile; look at it again", lun, m.Name)}
	}
	return maps[at], store.Expecting(ctx, store.Expectation{Noun: "mapping", Key: fmt.Sprintf("%d/%d", m.ID, lun), Revision: revision}), nil
}

// setMapping changes the number of a machine's LUN, whether the machine boots from
// it, and whether it may write.
func (s *site) setMapping(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, func(m store.Machine) error {
		lun, err := store.ParseLUN(r.PostFormValue("lun"))
		if err != nil {
			return err
		}
		to, err := store.ParseLUN(strings.TrimSpace(r.PostFormValue("to")))
		if err != nil {
			return err
		}
		now, ctx, err := s.seenMapping(r, m, lun)
		if err != nil {
			return err
		}
		// Only what is another now: a mapping that boots is not looked at anew because
		// its number changed.
		p := store.MappingPatch{}
		if to != now.LUN {
			p.LUN = &to
		}
		if boot := r.PostFormValue("boot") != ""; boot != now.Boot {
			p.Boot = &boot
		}
		if reads := r.PostFormValue("read_only") != ""; reads != now.ReadOnly {
			p.ReadOnly = &reads
		}
		if p == (store.MappingPatch{}) {
			return nil
		}
		_, err = s.Volumes.SetMapping(ctx, by(r), m.ID, lun, p)
		return err
	})
}

// setOnce chooses the profile of the machine's next boot only; with none, what was
// chosen is taken back.
func (s *site) setOnce(w http.ResponseWriter, r *http.Request) {
	s.changeBack(w, r, func(m store.Machine) (string, string, error) {
		once := r.PostFormValue("profile")
		now, err := s.Machines.SetMachine(r.Context(), by(r), m.ID, store.MachinePatch{OnceProfile: &once})
		if err != nil || now.Revision == m.Revision {
			return "", "", err
		}
		said := fmt.Sprintf("The next boot of %s is by the profile %s, those after it by %s.", m.Name, once, m.Profile)
		if once == "" {
			said = fmt.Sprintf("The next boot of %s is by its own profile %s.", m.Name, m.Profile)
			if r.PostFormValue("done") != "" {
				said = "The installation is done. " + said
			}
		}
		return said, fmt.Sprintf("%d:%d:once:%s", m.ID, now.Revision, m.OnceProfile), nil
	})
}
