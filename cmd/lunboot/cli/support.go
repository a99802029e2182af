package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"lunboot/store"
)

// SupportCmd is 'lunboot support'.
type SupportCmd struct {
	File string `arg:"" help:"File to write, a tar.gz of JSON files; - for the standard output."`
}

// Run downloads a support bundle.
func (s *SupportCmd) Run(c *Context) error {
	resp, err := c.Client.send(c, http.MethodGet, "/support-bundle", nil, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if s.File == "-" {
		_, err = io.Copy(c.Out, resp.Body)
		return err
	}
	f, err := os.OpenFile(s.File, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, resp.Body)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", s.File, err)
	}
	c.say("%s: %s, without passwords; it has names and addresses", s.File, store.Bytes(n))
	return nil
}
