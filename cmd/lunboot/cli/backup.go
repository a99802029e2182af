package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"lunboot/store"
	"lunboot/store/archive"
)

// BackupCmd is 'lunboot backup'.
type BackupCmd struct {
	File    string `arg:"" help:"File to write, with mode 0600, since it holds secrets that can be read: of CHAP, BMCs, the single sign-on and the webhook. One that is there is replaced once the new one was checked."`
	Journal bool   `help:"The events and attempts too."`
	Volumes bool   `help:"The bytes of volumes too, but of those that a machine may be writing to."`
	Hash    bool   `help:"Read the volumes that are left out, so that their SHA-256 is known."`
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
	q := url.Values{"journal": {strconv.FormatBool(b.Journal)}, "volumes": {strconv.FormatBool(b.Volumes)}, "hash": {strconv.FormatBool(b.Hash)}}
	resp, err := c.Client.send(c, http.MethodPost, "/backup?"+q.Encode(), nil, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(tmp, resp.Body); err != nil {
		return fmt.Errorf("the backup was cut off, the appliance's log says why: %w", err)
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	m, err := archive.Verify(c, tmp)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), b.File); err != nil {
		return err
	}
	if err := errors.Join(tmp.Close(), syncFolder(filepath.Dir(b.File))); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return c.show(m, func() { printBackup(c, b.File, m) })
}

func printBackup(c *Context, name string, m archive.Manifest) {
	c.say("wrote and checked %s: %d files of lunboot %s", name, len(m.Files), m.Version)
	c.say("it holds secrets that can be read, such as those of CHAP and BMCs; its mode is 0600, and a copy needs the same")
	var rows [][]string
	for _, v := range m.Volumes {
		in := "left out"
		if v.Included {
			in = "in it"
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
