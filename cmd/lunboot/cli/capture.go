package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"lunboot/store"
)

// AttemptCaptureCmd downloads an attempt's packets.
type AttemptCaptureCmd struct {
	Attempt int64  `arg:"" help:"Id."`
	File    string `arg:"" help:"File to write, in the format pcapng; - for the standard output."`
}

// Run downloads an attempt's packets.
func (d *AttemptCaptureCmd) Run(c *Context) (err error) {
	resp, err := c.Client.send(c, "GET", "/attempts/"+strconv.FormatInt(d.Attempt, 10)+"/capture", nil, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if d.File == "-" {
		_, err = io.Copy(c.Out, resp.Body)
		return err
	}
	f, err := os.Create(d.File)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, resp.Body)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", d.File, err)
	}
	c.say("%s: %s", d.File, store.Bytes(n))
	return nil
}
