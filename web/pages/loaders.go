package pages

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"lunboot/services/boot"
	"lunboot/store"
)

// Loaders keeps the network boot programs, and chooses one for a machine.
type Loaders interface {
	Manifest() []boot.LoaderInfo
	Add(ctx context.Context, by store.Actor, u boot.LoaderUpload, r io.Reader) (boot.LoaderInfo, error)
	Remove(ctx context.Context, by store.Actor, name string) error
}

type loadersView struct {
	Rows   []boot.LoaderInfo
	List   tableQuery
	Chains []string
	Own    []removable
}

// removable is what was uploaded: a file that stands alone, or a chain.
type removable struct {
	Name  string
	Files string
}

func (s *site) loaders(w http.ResponseWriter, r *http.Request) {
	s.showLoaders(w, r, http.StatusOK, "")
}

func (s *site) showLoaders(w http.ResponseWriter, r *http.Request, status int, problem string) {
	all := s.Loaders.Manifest()
	var v loadersView
	var bad error
	v.List, v.Rows, bad = listed(boot.LoaderList(), "/loaders", "Name, firmware:uefi, inside:nfs", r, all)
	v.List.Table = "loaders"
	status, problem = refused(status, problem, bad)
	for _, l := range all {
		switch n := len(v.Own); {
		case !l.Supplied:
		case l.Chain == "":
			v.Own = append(v.Own, removable{Name: string(l.Name)})
		case n > 0 && v.Own[n-1].Name == l.Chain:
			v.Own[n-1].Files += " and " + l.Name.File()
		default:
			v.Own = append(v.Own, removable{Name: l.Chain, Files: l.Name.File()})
			v.Chains = append(v.Chains, l.Chain)
		}
	}
	s.render(w, r, status, "loaders", page{Title: "Loaders", Nav: "loaders", List: v.List.URL(), Error: problem, Data: v})
}

// loaderAct shows the loaders again: redirected when it worked, with the reason
// when it did not.
func (s *site) loaderAct(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		status, text := told(r, err)
		s.showLoaders(w, r, status, text)
		return
	}
	toList(w, r, "/loaders")
}

// maxForm is more than the fields of the form take besides the file.
const maxForm = 64 << 10

// addLoader takes a file from the form. Its parts are read as they come, so
// that nothing is kept of what is refused.
func (s *site) addLoader(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, store.MaxLoader+maxForm)
	parts, err := r.MultipartReader()
	if err != nil {
		s.loaderAct(w, r, store.Invalid("file", "choose a file"))
		return
	}
	var u boot.LoaderUpload
	r.PostForm = url.Values{} // what was typed, for a form that is refused
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			s.loaderAct(w, r, store.Invalid("file", "choose a file"))
			return
		}
		if err != nil {
			s.loaderAct(w, r, store.Invalid("file", "the upload broke off: %v", err))
			return
		}
		if part.FormName() == "file" {
			// The file is the form's last part: what it is called is known.
			if u.File = part.FileName(); u.File == "" {
				s.loaderAct(w, r, store.Invalid("file", "choose a file"))
				return
			}
			_, err = s.Loaders.Add(r.Context(), by(r), u, part)
			s.loaderAct(w, r, err)
			return
		}
		text, err := io.ReadAll(io.LimitReader(part, 256))
		if err != nil {
			s.loaderAct(w, r, store.Invalid("file", "the upload broke off: %v", err))
			return
		}
		value := strings.TrimSpace(string(text))
		r.PostForm.Add(part.FormName(), string(text))
		switch part.FormName() {
		case "name":
			u.Name = value
		case "chain":
			u.Chain = value
		case "role":
			u.Role = store.LoaderRole(value)
		}
	}
}

func (s *site) removeLoader(w http.ResponseWriter, r *http.Request) {
	name := r.PostFormValue("name")
	err := meant(r, name, "it is deleted for good")
	if err == nil {
		err = s.Loaders.Remove(r.Context(), by(r), name)
	}
	s.loaderAct(w, r, err)
}

// loaderChoice is one loader that a machine may name for itself.
type loaderChoice struct{ Name, Text string }

// loaderChoices lists what a machine of this sort can start.
func (s *site) loaderChoices(m store.Machine) []loaderChoice {
	p := boot.PlatformNamed(m.Firmware, m.Arch)
	var out []loaderChoice
	for _, l := range s.Loaders.Manifest() {
		if l.Role == store.LoaderSecond || p.Firmware != boot.FirmwareUnknown && p.Arch != boot.ArchUnknown && !p.Runs(boot.PlatformNamed(l.Firmware, l.Arch)) {
			continue
		}
		c := loaderChoice{Name: string(l.Name), Text: string(l.Name)}
		if l.Chain != "" {
			c = loaderChoice{Name: l.Chain, Text: "chain " + l.Chain}
		}
		out = append(out, c)
	}
	return out
}

func (s *site) setLoader(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, func(m store.Machine) error {
		name := r.PostFormValue("loader")
		_, err := s.Machines.SetMachine(r.Context(), by(r), m.ID, store.MachinePatch{Loader: &name})
		return err
	})
}
