package cli

import (
	"os"
	"path/filepath"
	"strings"

	"lunboot/store"
)

// MediaCmd is the noun media.
type MediaCmd struct {
	List   MediaListCmd   `cmd:"" help:"List the media, with what was found in each."`
	Show   MediaShowCmd   `cmd:"" help:"Show a media file."`
	Add    MediaAddCmd    `cmd:"" help:"Add a disc (ISO), kernel, RAM disk, Windows image or other file; a connection that breaks is gone on with by the same command."`
	Remove MediaRemoveCmd `cmd:"" help:"Remove a media file that no profile names."`
}

// mediaWords says in a few words what a media file is.
func mediaWords(m store.Media) string {
	c := m.Contents
	switch {
	case c.Title != "":
		return c.Title
	case c.OS != "":
		return string(c.OS)
	}
	return c.Label
}

// MediaListCmd lists media.
type MediaListCmd struct{ listFlags }

// Run lists media.
func (l *MediaListCmd) Run(c *Context) error {
	var out list[store.Media]
	if err := c.Client.Do(c, "GET", "/media"+l.query(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, m := range out.Items {
			rows = append(rows, []string{m.Name, string(m.Kind), mediaWords(m), m.Contents.Arch, store.Bytes(m.Size), m.SHA256[:min(12, len(m.SHA256))], when(m.Created)})
		}
		c.table("NAME KIND CONTENTS ARCH SIZE SHA256 ADDED", rows)
	})
}

// MediaShowCmd shows a media file.
type MediaShowCmd struct {
	Media string `arg:"" help:"Name."`
}

// Run shows a media file.
func (s *MediaShowCmd) Run(c *Context) error {
	var m store.Media
	if err := c.Client.Do(c, "GET", "/media/"+esc(s.Media), nil, &m); err != nil {
		return err
	}
	return c.show(m, func() { c.showMedia(m) })
}

func (c *Context) showMedia(m store.Media) {
	in := m.Contents
	c.facts("Name", m.Name, "Kind", string(m.Kind), "System", string(in.OS), "Title", in.Title, "Architecture", in.Arch, "Label", in.Label, "File system", in.System,
		"Kernel", in.Kernel, "RAM disks", strings.Join(in.Initrds, " "), "Modules", in.Modloop, "BCD", in.BCD, "SDI", in.SDI, "WIM", in.WIM,
		"File", m.File, "Size", store.Bytes(m.Size), "SHA-256", m.SHA256, "Added", when(m.Created), "URL", "/files/"+m.Name, "Note", in.Note)
}

// MediaAddCmd adds a media file.
type MediaAddCmd struct {
	File        string `arg:"" help:"The file."`
	Name        string `help:"Name (default: made of the file's)."`
	OnAppliance bool   `help:"The file lies on the appliance, under this full path; it is copied there."`
}

// Run adds a media file.
func (a *MediaAddCmd) Run(c *Context) error {
	var m store.Media
	var err error
	if a.OnAppliance {
		m, err = a.copied(c)
	} else {
		m, err = a.upload(c)
	}
	if err != nil {
		return err
	}
	return c.show(m, func() {
		c.say("added media %s, %s", m.Name, store.Bytes(m.Size))
		c.showMedia(m)
	})
}

// copied lets the appliance copy a file of its own, and follows the job.
func (a *MediaAddCmd) copied(c *Context) (m store.Media, err error) {
	var job store.Job
	if err := c.Client.Do(c, "POST", "/media", map[string]any{"name": a.Name, "path": a.File}, &job); err != nil {
		return m, err
	}
	if job, err = endJob(c, job); err != nil {
		return m, err
	}
	err = c.Client.Do(c, "GET", "/media/"+esc(job.Subject), nil, &m)
	return m, err
}

func (a *MediaAddCmd) upload(c *Context) (m store.Media, err error) {
	f, err := os.Open(a.File)
	if err != nil {
		return m, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return m, err
	}
	if !st.Mode().IsRegular() || st.Size() == 0 {
		return m, store.Invalid("file", "%s is not a file with something in it", a.File)
	}
	u, err := a.begin(c, st.Size())
	if err != nil {
		return m, err
	}
	if u, err = c.sendWhole("/media-uploads", u, f); err != nil {
		return m, err
	}
	err = c.Client.Do(c, "POST", "/media-uploads/"+esc(u.ID)+"/finish", nil, &m)
	return m, err
}

// begin announces the upload, or finds the one of an earlier run.
func (a *MediaAddCmd) begin(c *Context, size int64) (u store.Upload, err error) {
	file := filepath.Base(a.File)
	name := a.Name
	if name == "" {
		name = store.MediaName(file)
	}
	var all list[store.Upload]
	if err := c.Client.Do(c, "GET", "/media-uploads", nil, &all); err != nil {
		return u, err
	}
	for _, o := range all.Items {
		if o.Name == name && o.File == file && o.Size == size {
			return o, nil
		}
	}
	err = c.Client.Do(c, "POST", "/media-uploads", map[string]any{"name": name, "size": size, "file": file}, &u)
	return u, err
}

// MediaRemoveCmd removes a media file.
type MediaRemoveCmd struct {
	Media string `arg:"" help:"Name."`
}

// Run removes a media file.
func (r *MediaRemoveCmd) Run(c *Context) error {
	if err := c.Client.Do(c, "DELETE", "/media/"+esc(r.Media), nil, nil); err != nil {
		return err
	}
	c.say("removed media %s", r.Media)
	return nil
}
