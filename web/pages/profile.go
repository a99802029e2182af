package pages

import (
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"lunboot/services/boot"
	"lunboot/store"
	"lunboot/web/pages/manual"
	"lunboot/web/pages/typed"
)

// profileField is one field of a form, with what it is for.
type profileField struct {
	Name, Label, Hint string
	Media             store.MediaKind // choose among these; empty: any text
	Choices           []string
	Lines             bool
	Value             string
	Fitting           []string // media to choose from
}

var (
	fieldMedia   = profileField{Name: "media", Label: "Disc or kernel, among the media", Media: store.MediaISO}
	fieldKernel  = profileField{Name: "kernel", Label: "Kernel: a URL, or a path below /files/", Hint: "the disc’s own"}
	fieldInitrd  = profileField{Name: "initrd", Label: "RAM disks, one a line", Hint: "the disc’s own", Lines: true}
	fieldCmdline = profileField{Name: "cmdline", Label: "Further words for the kernel", Hint: "console=ttyS0 --- quiet"}
	fieldDisk    = profileField{Name: "disk", Label: "Installs to", Choices: []string{"volume", "own"}}
)

// profileFields is what each kind is made of.
var profileFields = map[store.ProfileKind][]profileField{
	store.ProfileInstall: {fieldMedia, fieldDisk, {Name: "system", Label: "Whose installer it is", Choices: []string{"", "debian", "ubuntu", "fedora", "rhel", "alpine"}}, fieldCmdline, fieldKernel, fieldInitrd},
	store.ProfileKernel:  {fieldMedia, fieldCmdline, fieldKernel, fieldInitrd},
	store.ProfileWimboot: {{Name: "media", Label: "Disc of Windows", Media: store.MediaISO}, {Name: "wimboot", Label: "wimboot, the loader of Windows images", Media: store.MediaWimboot}, fieldDisk},
	store.ProfileMenu: {{Name: "items", Label: "Profiles that can be chosen, one a line, with = and a label behind it", Hint: "san = The lab’s Debian", Lines: true},
		{Name: "default", Label: "Started when nobody chooses"}, {Name: "timeout", Label: "After so many seconds", Hint: "30"}},
	store.ProfileLocal: {{Name: "bios", Label: "On BIOS", Choices: []string{"disk", "exit"}}, {Name: "drive", Label: "BIOS’s number of the disk", Hint: "0x80"}},
}

// profileTexts is what the text of a kind is, where it has one.
var profileTexts = map[store.ProfileKind]string{
	store.ProfileCustom:  "Script, with {{ }} variables. Text without #!ipxe in its first line gets the machine’s names set before it.",
	store.ProfileInstall: "Answers: preseed, kickstart or user-data, with {{ }} variables. Let it fetch {{done_url}} at its end, so that the next boot is that of what was installed.",
	store.ProfileWimboot: "Batch file that is run in place of setup, with {{ }} variables.",
}

// fits reports whether a media file can be what a field of a kind's form names.
func (f profileField) fits(kind store.ProfileKind, m store.Media) bool {
	switch {
	case m.Name == f.Value: // it stands there already
		return true
	case f.Media != store.MediaISO:
		return m.Kind == f.Media
	case kind == store.ProfileWimboot:
		return m.Kind == store.MediaISO && (m.Contents.OS == store.MediaWindows || m.Contents.OS == "")
	}
	return (m.Kind == store.MediaISO || m.Kind == store.MediaKernel) && m.Contents.OS != store.MediaWindows
}

// draftLine is a line of a text as it was typed.
type draftLine struct {
	Number int
	Text   string
	Bad    bool
}

// shownAround is how many lines stand before and behind one that is at fault.
const shownAround = 2

// around is the line at fault of a text, with those about it.
func around(text string, bad int) (out []draftLine) {
	for i, line := range strings.Split(text, "\n") {
		if n := i + 1; n >= bad-shownAround && n <= bad+shownAround {
			out = append(out, draftLine{n, line, n == bad})
		}
	}
	return out
}

type profileView struct {
	New      bool
	Profile  store.Profile
	Kinds    []store.ProfileKind
	What     map[store.ProfileKind]string
	Fields   []profileField
	TextHint string
	Vars     []manual.Variable // known in {{ }}
	Machines []store.Machine
	Machine  string // whose script is shown
	Script   string
	Trouble  string // why there is none
	Lines    []draftLine
	Missing  []string // files that it names and the appliance has not
	Draft    bool     // it is shown as it was typed, and is not saved
}

// profile shows a profile, with the script that a machine would get by it.
func (s *site) profile(w http.ResponseWriter, r *http.Request) {
	name := chi.URLParam(r, "profile")
	p := store.Profile{Kind: store.ProfileKind(r.FormValue("kind")), Name: r.FormValue("name")}
	if e, ok := manual.FindExample(r.FormValue("example")); ok {
		p = e.Profile
	}
	if _, err := store.ParseProfileKind(string(p.Kind)); err != nil {
		p.Kind = store.ProfileInstall
	}
	if name != "" {
		all, err := s.Inventory.Profiles(r.Context())
		i := slices.IndexFunc(all, func(p store.Profile) bool { return p.Name == name })
		if err == nil && i < 0 {
			err = store.NotFound("profile", name)
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		p = all[i]
	}
	s.showProfile(w, r, http.StatusOK, p, name == "", "")
}

func (s *site) showProfile(w http.ResponseWriter, r *http.Request, status int, p store.Profile, fresh bool, problem string) {
	v := profileView{New: fresh, Profile: p, What: profileWords, TextHint: profileTexts[p.Kind], Machine: r.FormValue("machine"), Vars: s.Manual.Variables, Draft: r.Method == http.MethodPost,
		Kinds: profileKinds()}
	media, err := s.Media.AllMedia(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	for _, f := range profileFields[p.Kind] {
		f.Value = p.Fields[f.Name]
		for _, m := range media {
			if f.Media != "" && f.fits(p.Kind, m) {
				f.Fitting = append(f.Fitting, m.Name)
			}
		}
		v.Fields = append(v.Fields, f)
	}
	if v.Machines, _, err = s.Inventory.Machines(r.Context(), store.MachineFilter{}); err != nil {
		s.fail(w, r, err)
		return
	}
	if v.Machine == "" && len(v.Machines) > 0 {
		v.Machine = v.Machines[0].Name
	}
	var m store.Machine
	if i := slices.IndexFunc(v.Machines, func(m store.Machine) bool { return m.Name == v.Machine }); i >= 0 {
		m = v.Machines[i]
	}
	switch {
	case v.Draft || fresh:
		v.Script, err = s.Scripts.Draft(r.Context(), m, p)
	case m.ID != 0:
		v.Script, err = s.Scripts.Preview(r.Context(), m, &p)
	}
	if err != nil && (v.Draft || !fresh) { // one that nobody wrote yet lacks everything
		_, v.Trouble = explain(err)
		for _, f := range typed.Faults(err) {
			if f.Field == "text" && f.Line > 0 {
				v.Lines = around(p.Text, f.Line)
			}
		}
		if problem == "" && v.Draft && r.Header.Get("HX-Request") == "" {
			status, problem = told(r, err)
		}
	}
	v.Missing = s.missing(p)
	title := p.Name
	if fresh {
		title = "New profile"
	}
	s.render(w, r, status, "profile", page{Title: title, Nav: "profiles", Live: !p.BuiltIn, Error: problem, Data: v})
}

// missing names the files of the appliance that a profile starts and that are not
// there: a machine would be answered 404.
func (s *site) missing(p store.Profile) (out []string) {
	for _, field := range []string{"kernel", "initrd"} {
		for _, path := range strings.Fields(p.Fields[field]) {
			if strings.Contains(path, "://") || strings.Contains(path, "{{") {
				continue // elsewhere, or told by the machine
			}
			name := strings.TrimPrefix(strings.TrimPrefix(path, boot.FilesRoot), "/")
			if clear, err := url.PathUnescape(name); err == nil {
				name = clear
			}
			f, err := s.Media.Open(name)
			if errors.Is(err, fs.ErrNotExist) {
				out = append(out, path)
			}
			if err == nil {
				_ = f.Close() // it was only looked for
			}
		}
	}
	return out
}

// maxProfileForm bounds the form: a script of 64 KiB, escaped.
const maxProfileForm = 256 << 10

// draft reads the form of a profile.
func draft(w http.ResponseWriter, r *http.Request) (store.Profile, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxProfileForm)
	if err := r.ParseForm(); err != nil {
		return store.Profile{}, store.Invalid("text", "the form is larger than a profile can be")
	}
	p := store.Profile{Name: strings.TrimSpace(r.PostFormValue("name")), Kind: store.ProfileKind(r.PostFormValue("kind")), Fields: map[string]string{}}
	p.Revision, _ = strconv.ParseInt(r.PostFormValue("revision"), 10, 64)
	for _, f := range profileFields[p.Kind] {
		if value := strings.TrimSpace(strings.ReplaceAll(r.PostFormValue(f.Name), "\r\n", "\n")); value != "" {
			p.Fields[f.Name] = value
		}
	}
	if profileTexts[p.Kind] != "" {
		p.Text = strings.ReplaceAll(r.PostFormValue("text"), "\r\n", "\n")
	}
	return p, nil
}

// previewProfile shows what the form makes as it stands, and saves nothing.
func (s *site) previewProfile(w http.ResponseWriter, r *http.Request) {
	p, err := draft(w, r)
	if err == nil {
		_, err = store.ParseProfileKind(string(p.Kind))
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.showProfile(w, r, http.StatusOK, p, p.Revision == 0, "")
}

// putProfile saves the form.
func (s *site) putProfile(w http.ResponseWriter, r *http.Request) {
	p, err := draft(w, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	all, err := s.Inventory.Profiles(r.Context())
	if err == nil && p.Revision == 0 && slices.ContainsFunc(all, func(o store.Profile) bool { return o.Name == p.Name }) {
		err = store.Conflict("name", "profile %s exists already; choose another name, or change that one", p.Name)
	}
	var kept store.Profile
	if err == nil {
		ctx := r.Context()
		if p.Revision == store.Absent { // nor does one that somebody makes at this moment become this one
			ctx = store.Expecting(ctx, store.Expectation{Noun: "profile", Key: p.Name, Revision: store.Absent})
		}
		kept, err = s.Profiles.PutProfile(ctx, by(r), p)
	}
	if err != nil {
		status, text := told(r, err)
		s.showProfile(w, r, status, p, p.Revision == 0, text)
		return
	}
	http.Redirect(w, r, "/profiles/"+url.PathEscape(kept.Name), http.StatusSeeOther)
}
