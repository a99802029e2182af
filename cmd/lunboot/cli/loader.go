package cli

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"lunboot/store"
)

// LoaderCmd is the noun loader.
type LoaderCmd struct {
	List   LoaderListCmd   `cmd:"" help:"List the loaders, with what each has inside."`
	Add    LoaderAddCmd    `cmd:"" help:"Add a loader of your own, or replace one of its name."`
	Remove LoaderRemoveCmd `cmd:"" help:"Take back a loader that was added, or a chain."`
}

// loader is a loader as the API shows it.
type loader struct {
	Name     string           `json:"name"`
	Role     store.LoaderRole `json:"role,omitempty"`
	Firmware string           `json:"firmware"`
	Arch     string           `json:"arch"`
	Version  string           `json:"version"`
	Features []string         `json:"features"`
	Opaque   bool             `json:"opaque"`
	License  string           `json:"license"`
	Size     int64            `json:"size"`
	SHA256   string           `json:"sha256"`
	Source   string           `json:"source"`
	Supplied bool             `json:"supplied"`
	Rung     int              `json:"rung"`
	Use      string           `json:"use"`
	Worked   int              `json:"worked"`
	Silent   int              `json:"silent"`
}

func (l loader) inside() string {
	if l.Opaque && len(l.Features) == 0 {
		return "cannot be told"
	}
	return strings.Join(l.Features, ", ")
}

// place is where it stands: on the ladder, or in a chain.
func (l loader) place() string {
	switch {
	case l.Role != store.LoaderAlone:
		return string(l.Role)
	case l.Rung > 0:
		return strconv.Itoa(l.Rung)
	}
	return ""
}

// LoaderListCmd lists loaders.
type LoaderListCmd struct{ listFlags }

// Run lists loaders.
func (l *LoaderListCmd) Run(c *Context) error {
	var out list[loader]
	if err := c.Client.Do(c, "GET", "/loaders"+l.query(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, l := range out.Items {
			rows = append(rows, []string{l.Name, l.Firmware, l.Arch, l.place(), l.Version, l.inside(), strconv.Itoa(l.Worked), strconv.Itoa(l.Silent), store.Bytes(l.Size), l.SHA256[:min(12, len(l.SHA256))], l.Source, l.License})
		}
		c.table("NAME FIRMWARE ARCH RUNG VERSION INSIDE WORKED SILENT SIZE SHA256 SOURCE LICENCE", rows)
	})
}

// LoaderAddCmd adds a loader.
type LoaderAddCmd struct {
	File  string `arg:"" help:"The file."`
	Name  string `help:"Name that machines ask for (default: the file's; for a chain's second what its first asks for)."`
	Chain string `help:"Chain that it belongs to, for Secure Boot: a shim first, a signed iPXE second." placeholder:"CHAIN"`
	Role  string `enum:"first,second," default:"" help:"Place in the chain: first or second."`
}

// Run adds a loader.
func (a *LoaderAddCmd) Run(c *Context) error {
	f, err := os.Open(a.File)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return store.Invalid("file", "%s is not a file", a.File)
	}
	q := url.Values{"file": {filepath.Base(a.File)}}
	for k, v := range map[string]string{"name": a.Name, "chain": a.Chain, "role": a.Role} {
		if v != "" {
			q.Set(k, v)
		}
	}
	resp, err := c.Client.send(c, "POST", "/loaders?"+q.Encode(), f, "application/octet-stream", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var l loader
	if err := json.NewDecoder(resp.Body).Decode(&l); err != nil {
		return fmt.Errorf("the answer to the upload could not be read: %w", err)
	}
	return c.show(l, func() {
		c.say("added loader %s for %s %s, %s; inside: %s", l.Name, l.Firmware, l.Arch, store.Bytes(l.Size), l.inside())
	})
}

// LoaderRemoveCmd removes a loader.
type LoaderRemoveCmd struct {
	Loader string `arg:"" help:"Name of a loader, of a chain, or of a file of a chain: CHAIN/FILE."`
}

// Run removes a loader.
func (r *LoaderRemoveCmd) Run(c *Context) error {
	parts := strings.SplitN(r.Loader, "/", 2)
	for i := range parts {
		parts[i] = esc(parts[i])
	}
	if err := c.Client.Do(c, "DELETE", "/loaders/"+strings.Join(parts, "/"), nil, nil); err != nil {
		return err
	}
	c.say("removed loader %s", r.Loader)
	return nil
}
