package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"
)

// socket speaks to an appliance's API on its unix socket. Where hundreds of
// machines are made, a process of the command line for each would take longer
// than what is measured.
type socket struct{ http.Client }

func newSocket(data string) *socket {
	return &socket{http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(data, "lunboot.sock"))
		},
	}}}
}

// do sends one request. An answer that is a problem document is an error in its
// words.
func (s *socket) do(ctx context.Context, method, path string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	q, err := http.NewRequestWithContext(ctx, method, "http://lunboot/api/v1"+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/json")
	a, err := s.Do(q)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
	if err = errors.Join(err, a.Body.Close()); err == nil && a.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, a.Status, bytes.TrimSpace(text))
	}
	return err
}
