package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"lunboot/store"
	"lunboot/store/archive"
)

// BackupCmd is 'lunboot backup'.
type BackupCmd struct {
	File    string `arg:"" help:"File to write, with mode 0600, since it holds secrets that can be read: of CHAP, BMCs, the single sign-on and the webhook. One that is there is replaced once the new one was checked."`
	Journal bool   `help:"The events and attempts too."`
	Volumes bool   `help:"The bytes of volumes too, but of devices. A volume that a machine writes to is copied as it is at one moment, as after a power cut. When one cannot be copied, the file is written without it and the exit code is 1."`
	Hash    *bool  `negatable:"" help:"Read all volumes that are left out, so that their SHA-256 is known, or with --no-hash none (default: golden volumes and what others stand on, each once)."`
}

// Run makes a backup, reads it again from the disk and checks every byte, and
// gives it its name only then.
func (b *BackupCmd) Run(c *Context) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(b.File), "."+filepath.Base(b.File)+".*") // 0600: it holds secrets
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name()))
		}
	}()
	q := url.Values{"journal": {strconv.FormatBool(b.Journal)}, "volumes": {strconv.FormatBool(b.Volumes)}, "hash": {strconv.FormatBool(b.Hash != nil && *b.Hash)}, "no_hash": {strconv.FormatBool(b.Hash != nil && !*b.Hash)}}
	resp, err := b.begin(c, "/backup?"+q.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got := &arriving{c: c, w: tmp}
	_, err = io.Copy(got, resp.Body)
	c.working("")
	if err != nil {
		return fmt.Errorf("the backup was cut off, the appliance's log says why: %w", err)
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	c.working("checking what was written")
	m, err := archive.Verify(c, tmp)
	c.working("")
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), b.File); err != nil {
		return err
	}
	if err := errors.Join(tmp.Close(), syncFolder(filepath.Dir(b.File))); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	if err := c.show(m, func() { printBackup(c, b.File, m) }); err != nil {
		return err
	}
	for _, v := range m.Volumes {
		if v.LeftOut != "" {
			return fmt.Errorf("the backup %s is without the bytes of volume %s: %s", b.File, v.Volume, v.LeftOut)
		}
	}
	return nil
}

// begin asks for the backup, and shows how far the appliance is with what it reads
// before the first byte comes.
func (b *BackupCmd) begin(c *Context, path string) (*http.Response, error) {
	if !c.terminal() {
		return c.Client.send(c, http.MethodPost, path, nil, "", nil)
	}
	ctx, stop := context.WithCancel(c)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			var p store.BackupProgress
			if err := c.Client.Do(ctx, http.MethodGet, "/backup", nil, &p); err == nil && p.Total > 0 {
				what := "a layer that others stand on"
				if p.Volume != "" {
					what = "volume " + p.Volume
				}
				c.working(fmt.Sprintf("reading %s for its SHA-256: %d %% of %s", what, p.Done*100/p.Total, store.Bytes(p.Total)))
			}
		}
	}()
	resp, err := c.Client.send(c, http.MethodPost, path, nil, "", nil)
	stop()
	<-ended
	c.working("")
	return resp, err
}

// arriving counts what comes, on a terminal.
type arriving struct {
	c    *Context
	w    io.Writer
	n    int64
	said time.Time
}

func (a *arriving) Write(b []byte) (int, error) {
	n, err := a.w.Write(b)
	if a.n += int64(n); time.Since(a.said) > 200*time.Millisecond {
		a.said = time.Now()
		a.c.working(store.Bytes(a.n) + " have come")
	}
	return n, err
}

func printBackup(c *Context, name string, m archive.Manifest) {
	c.say("wrote and checked %s: %d files of lunboot %s", name, len(m.Files), m.Version)
	c.say("it holds secrets that can be read, such as those of CHAP and BMCs; its mode is 0600, and a copy needs the same")
	var rows [][]string
	for _, v := range m.Volumes {
		in := "left out"
		switch {
		case v.Included && v.Running:
			in = "in it, running: as after a power cut"
		case v.Included:
			in = "in it"
		case v.LeftOut != "":
			in = "left out: " + v.LeftOut
		}
		rows = append(rows, []string{v.Volume, filepath.Base(v.Name), store.Bytes(v.Size), in, v.SHA256})
	}
	if len(rows) > 0 {
		c.table("VOLUME FILE SIZE BYTES SHA-256", rows)
	}
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
