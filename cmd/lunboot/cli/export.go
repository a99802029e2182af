package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"lunboot/store"
)

// ExportCmd writes a list into a table.
type ExportCmd struct {
	List   string `arg:"" enum:"machines,volumes,unknown-machines,leases,sessions,jobs,profiles,media,loaders,subnets,mappings,attempts,events,audit,users,tokens" help:"Which list: ${enum}. The table of machines can be imported again, as CSV; people and tokens are for admins."`
	File   string `arg:"" optional:"" default:"-" help:"File to write; - or nothing: standard output."`
	Search string `help:"Only what this finds, as in the list."`
	Sort   string `help:"Column to sort by, as in the list; with a hyphen before it the other way, as in --sort=-name." placeholder:"COLUMN"`
	Format string `enum:"csv,json" default:"csv" help:"Format of the table: ${enum}."`
}

// Run writes the table.
func (e *ExportCmd) Run(c *Context) error {
	q := url.Values{"search": {e.Search}, "sort": {e.Sort}, "format": {e.Format}}
	return c.save("/exports/"+esc(e.List)+"?"+q.Encode(), e.File)
}

// save writes a table that the appliance answers into a file, which is there when
// all of it has arrived, or to standard output.
func (c *Context) save(path, file string) error {
	resp, err := c.Client.send(c, http.MethodGet, path, nil, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if file == "-" {
		_, err := io.Copy(c.Out, resp.Body)
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	_, err = io.Copy(tmp, resp.Body)
	if bad := tmp.Close(); err == nil {
		err = bad
	}
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("write the table: %w", err)
	}
	c.say("wrote %s", file)
	return nil
}

// VolumeExportCmd writes a volume to a file, as it is at that moment.
type VolumeExportCmd struct {
	Volume   string `arg:"" help:"Id or name."`
	File     string `arg:"" help:"File to write; one that is there is replaced once the new one is whole."`
	Format   string `enum:"raw,qcow2" default:"raw" help:"Format of the file: ${enum}."`
	Compress bool   `help:"Pack a qcow2 with zlib: smaller, and slower to make."`
}

// Run fetches the volume. The file has its name only when it is whole.
func (e *VolumeExportCmd) Run(c *Context) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(e.File), "."+filepath.Base(e.File)+".*") // 0600: a disk has secrets
	if err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name()))
		}
	}()
	q := url.Values{"format": {e.Format}, "compress": {strconv.FormatBool(e.Compress)}}
	resp, err := c.Client.send(c, http.MethodGet, "/volumes/"+esc(e.Volume)+"/export?"+q.Encode(), nil, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sum := sha256.New()
	out := &sparse{f: tmp}
	n, err := io.CopyBuffer(out, io.TeeReader(resp.Body, io.MultiWriter(sum, &fetched{c: c, total: resp.ContentLength})), make([]byte, 1<<20))
	if err != nil {
		return fmt.Errorf("the export was cut off after %s; lunboot job list says why: %w", store.Bytes(n), err)
	}
	if err := errors.Join(tmp.Truncate(n), tmp.Sync()); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	if err := os.Rename(tmp.Name(), e.File); err != nil {
		return err
	}
	if err := errors.Join(tmp.Close(), syncFolder(filepath.Dir(e.File))); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	made := struct {
		File   string `json:"file"`
		Size   int64  `json:"size"`
		SHA256 string `json:"sha256"`
	}{e.File, n, hex.EncodeToString(sum.Sum(nil))}
	return c.show(made, func() {
		c.say("exported volume %s to %s, %s, SHA-256 %s", e.Volume, made.File, store.Bytes(made.Size), made.SHA256)
	})
}

// fetched shows how far it is.
type fetched struct {
	c           *Context
	done, total int64
	told        int64
}

func (f *fetched) Write(p []byte) (int, error) {
	if f.done += int64(len(p)); f.done-f.told >= 16<<20 || f.done == f.total {
		f.told = f.done
		f.c.progress("exported", f.done, f.total)
	}
	return len(p), nil
}

// sparse leaves runs of zeros out of a new file: they are holes.
type sparse struct {
	f  *os.File
	at int64
}

var zeros [4096]byte

func (s *sparse) Write(p []byte) (n int, err error) {
	for n < len(p) {
		// Pieces end where the granules of the file do.
		k := min(len(p)-n, len(zeros)-int(s.at%int64(len(zeros))))
		if b := p[n : n+k]; !bytes.Equal(b, zeros[:k]) {
			if _, err := s.f.WriteAt(b, s.at); err != nil {
				return n, err
			}
		}
		n, s.at = n+k, s.at+int64(k)
	}
	return n, nil
}
