package pages

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
)

// profileField is one field of a form, with what it is for.
type profileField struct {
	Name, Label, Hint string
	Media             store.MediaKind // choose among these; empty: any text
	Choices           []string
	Lines             bool
	Value             string
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

type profileView struct {
	New      bool
	Profile  store.Profile
	Kinds    []store.ProfileKind
	What     map[store.ProfileKind]string
	Fields   []profileField
	TextHint string
	Media    []store.Media
	Machines []store.Machine
	Machine  string // whose script is shown
	Script   string
	Trouble  string // why there is none
}

// profile shows a profile, with the script that a machine would get by it.
func (s *site) profile(w http.ResponseWriter, r *http.Request) {
	name := chi.URLParam(r, "profile")
	p := store.Profile{Kind: store.ProfileKind(r.FormValue("kind")), Name: r.FormValue("name")}
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
	v := profileView{New: fresh, Profile: p, What: profileWords, TextHint: profileTexts[p.Kind], Machine: r.FormValue("machine"),
		Kinds: []store.ProfileKind{store.ProfileInstall, store.ProfileKernel, store.ProfileWimboot, store.ProfileMenu, store.ProfileLocal, store.ProfileSAN, store.ProfileCustom}}
	for _, f := range profileFields[p.Kind] {
		f.Value = p.Fields[f.Name]
		v.Fields = append(v.Fields, f)
	}
	var err error
	if v.Media, err = s.Media.AllMedia(r.Context()); err != nil {
		s.fail(w, r, err)
		return
	}
	if v.Machines, _, err = s.Inventory.Machines(r.Context(), store.MachineFilter{}); err != nil {
		s.fail(w, r, err)
		return
	}
	if v.Machine == "" && len(v.Machines) > 0 {
		v.Machine = v.Machines[0].Name
	}
	if i := slices.IndexFunc(v.Machines, func(m store.Machine) bool { return m.Name == v.Machine }); i >= 0 && !fresh {
		if v.Script, err = s.Scripts.Preview(r.Context(), v.Machines[i], &p); err != nil {
			_, v.Trouble = explain(err)
		}
	}
	title := p.Name
	if fresh {
		title = "New profile"
	}
	s.render(w, r, status, "profile", page{Title: title, Nav: "profiles", Error: problem, Data: v})
}

// maxProfileForm bounds the form: a script of 64 KiB, escaped.
const maxProfileForm = 256 << 10

// putProfile saves the form.
func (s *site) putProfile(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxProfileForm)
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, store.Invalid("text", "the form is larger than a profile can be"))
		return
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
