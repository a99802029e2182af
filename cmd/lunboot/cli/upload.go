package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"lunboot/store"
)

const (
	// pieceSize is what one request carries: what a lost connection costs at
	// most besides the time.
	pieceSize = 64 << 20
	// sendTries is how often a piece that brought nothing is sent again.
	sendTries = 8
)

// piece is a part of a file as a request's body.
type piece struct {
	*io.SectionReader
	sum *runningSum
	at  int64
}

// Read notes what passes for the checksum.
func (p *piece) Read(b []byte) (int, error) {
	n, err := p.SectionReader.Read(b)
	p.sum.add(b[:n], p.at)
	p.at += int64(n)
	return n, err
}

// runningSum is the SHA-256 of a file of which parts may be read twice.
type runningSum struct {
	hash.Hash
	upto int64
}

func (s *runningSum) add(b []byte, at int64) {
	if skip := s.upto - at; skip > 0 {
		b = b[min(skip, int64(len(b))):]
		at = s.upto
	}
	if at == s.upto {
		s.Write(b)
		s.upto += int64(len(b))
	}
}

// upload sends the image in pieces and goes on where a connection broke. One
// that was begun before, of the same name and size, is gone on with, too.
func (v *VolumeImportCmd) upload(c *Context) error {
	f, err := os.Open(v.File)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Size() == 0 {
		return store.Invalid("path", "%s is not a file with an image in it", v.File)
	}
	u, err := v.begin(c, st.Size())
	if err != nil {
		return err
	}
	if u, err = c.sendWhole("/uploads", u, f); err != nil {
		return err
	}
	var out struct {
		Volume store.Volume `json:"volume"`
		Job    store.Job    `json:"job"`
	}
	if err := c.Client.Do(c, "POST", "/uploads/"+esc(u.ID)+"/finish", nil, &out); err != nil {
		return err
	}
	return v.finished(c, out.Job, "uploaded")
}

// sendWhole sends the rest of a file to an upload below path, goes on where a
// connection breaks, and compares the checksums of both ends.
func (c *Context) sendWhole(path string, u store.Upload, f *os.File) (store.Upload, error) {
	sum := &runningSum{Hash: sha256.New()}
	// What arrived in an earlier run counts for the checksum as well.
	if _, err := io.Copy(io.Discard, &piece{io.NewSectionReader(f, 0, u.Offset), sum, 0}); err != nil {
		return u, err
	}
	for tries := 0; !u.Whole(); {
		c.progress("sent", u.Offset, u.Size)
		before := u.Offset
		next, err := c.send(path, u, f, sum)
		var refused *refusal
		if err != nil && (c.Err() != nil || errors.As(err, &refused) && next.ID == "") {
			return u, fmt.Errorf("%w; what was sent is kept, the same command goes on", err)
		}
		if next.ID != "" {
			u = next
		}
		if u.Offset > before {
			tries = 0
			continue
		}
		if tries++; tries == sendTries {
			return u, fmt.Errorf("%w; what was sent is kept, the same command goes on", err)
		}
		select {
		case <-c.Done():
			return u, c.Err()
		case <-time.After(min(time.Second<<tries, 30*time.Second) / 4):
		}
	}
	c.progress("sent", u.Size, u.Size)
	if got := hex.EncodeToString(sum.Sum(nil)); u.SHA256 != got {
		err := c.Client.Do(c, "DELETE", path+"/"+esc(u.ID), nil, nil)
		return u, errors.Join(fmt.Errorf("the file has the SHA-256 %s and what arrived %s: the file changed meanwhile; send it again", got, u.SHA256), err)
	}
	return u, nil
}

// begin announces the upload, or finds the one of an earlier run.
func (v *VolumeImportCmd) begin(c *Context, size int64) (store.Upload, error) {
	file := filepath.Base(v.File)
	var all list[store.Upload]
	if err := c.Client.Do(c, "GET", "/uploads", nil, &all); err != nil {
		return store.Upload{}, err
	}
	for _, u := range all.Items {
		if u.Name == v.Volume && u.File == file && u.Size == size {
			return u, nil
		}
	}
	var u store.Upload
	in := map[string]any{"name": v.Volume, "size": size, "file": file, "format": v.Format, "sha256": v.SHA256, "block_size": v.BlockSize, "read_only": v.ReadOnly, "shared": v.Shared}
	return u, c.Client.Do(c, "POST", "/uploads", in, &u)
}

// send sends the next piece and says how far the upload is by the appliance's
// own word, also when the piece broke; ID is empty when that cannot be had.
func (c *Context) send(path string, u store.Upload, f *os.File, sum *runningSum) (store.Upload, error) {
	body := &piece{io.NewSectionReader(f, u.Offset, min(pieceSize, u.Size-u.Offset)), sum, u.Offset}
	header := http.Header{"Upload-Offset": {strconv.FormatInt(u.Offset, 10)}}
	resp, err := c.Client.send(c, "PATCH", path+"/"+esc(u.ID), body, "application/octet-stream", header)
	var next store.Upload
	if err == nil {
		err = decode(resp, &next)
	}
	if err != nil {
		next = store.Upload{}
		ctx, cancel := context.WithTimeout(c, 10*time.Second)
		defer cancel()
		if asked := c.Client.Do(ctx, "GET", path+"/"+esc(u.ID), nil, &next); asked != nil {
			return store.Upload{}, err
		}
	}
	return next, err
}

// finished waits for the job that makes the volume, and shows it.
func (v *VolumeImportCmd) finished(c *Context, job store.Job, how string) error {
	job, err := waitJob(c, job)
	if err != nil {
		return err
	}
	if job.State != store.JobDone {
		return fmt.Errorf("import %s: %s", v.Volume, job.Error)
	}
	shown := struct {
		store.VolumeDetail
		Preflight store.Preflight `json:"preflight"`
	}{}
	err = c.Client.Do(c, "GET", "/volumes/"+esc(v.Volume), nil, &shown.VolumeDetail)
	if err == nil {
		err = c.Client.Do(c, "GET", "/volumes/"+esc(v.Volume)+"/preflight", nil, &shown.Preflight)
	}
	if err != nil {
		return err
	}
	return c.show(shown, func() {
		p := shown.Preflight
		c.say("%s volume %s, %s from %s", how, shown.Name, store.Bytes(shown.Size), shown.From)
		c.say("it holds: %s; boots on BIOS: %s; boots on UEFI: %s", p.Summary, bootable(p.BIOS), bootable(p.UEFI))
		c.sayTakes(shown.VolumeDetail)
	})
}

// VolumeUploadsCmd lists what is being sent.
type VolumeUploadsCmd struct {
	Remove string `placeholder:"ID" help:"Drop this one, with what arrived of it."`
	Finish string `placeholder:"ID" help:"Try again to make a volume of this one, which has arrived."`
}

// Run lists the uploads, or ends one.
func (u *VolumeUploadsCmd) Run(c *Context) error {
	if u.Remove != "" {
		if err := c.Client.Do(c, "DELETE", "/uploads/"+esc(u.Remove), nil, nil); err != nil {
			return err
		}
		c.say("removed the upload %s", u.Remove)
		return nil
	}
	if u.Finish != "" {
		var out struct {
			Volume store.Volume `json:"volume"`
			Job    store.Job    `json:"job"`
		}
		if err := c.Client.Do(c, "POST", "/uploads/"+esc(u.Finish)+"/finish", nil, &out); err != nil {
			return err
		}
		return (&VolumeImportCmd{Volume: out.Volume.Name}).finished(c, out.Job, "uploaded")
	}
	var all list[store.Upload]
	if err := c.Client.Do(c, "GET", "/uploads", nil, &all); err != nil {
		return err
	}
	return c.show(all, func() {
		var rows [][]string
		for _, u := range all.Items {
			rows = append(rows, []string{u.ID, u.Name, u.File, fmt.Sprintf("%s of %s", store.Bytes(u.Offset), store.Bytes(u.Size)), when(u.Touched), u.Problem})
		}
		c.table("ID VOLUME FILE ARRIVED LAST PROBLEM", rows)
	})
}
