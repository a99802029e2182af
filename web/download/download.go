// Package download sends what is made while it is sent, for pages and API alike:
// with its length where it is known, in parts where it can be had so, and never
// half of it as a whole.
package download

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"lunboot/store"
)

// Serve answers a GET with an exported volume, and closes it.
func Serve(w http.ResponseWriter, r *http.Request, x store.Export, log *slog.Logger) {
	var failed error
	defer func() { x.Close(failed) }()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="`+x.Name()+`"`)
	if part := x.Part(); part != nil {
		in := &noted{ReadSeeker: part}
		sent := &counted{ResponseWriter: w}
		http.ServeContent(sent, r, "", time.Time{}, in)
		want, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
		switch {
		case in.err != nil:
			failed = in.err
		case err != nil:
		case sent.n < want:
			failed = errors.New("whoever fetched it broke off")
		}
	} else {
		if n := x.Length(); n >= 0 {
			h.Set("Content-Length", strconv.FormatInt(n, 10))
		}
		w.WriteHeader(http.StatusOK)
		if f, ok := w.(http.Flusher); ok {
			f.Flush() // what is packed first takes its time
		}
		failed = x.Send(r.Context(), w)
	}
	if failed != nil {
		log.Warn("an export was not sent whole", "file", x.Name(), "error", failed)
		panic(http.ErrAbortHandler)
	}
}

// noted remembers why a read failed: http.ServeContent does not say.
type noted struct {
	io.ReadSeeker
	err error
}

func (n *noted) Read(p []byte) (int, error) {
	k, err := n.ReadSeeker.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return k, err
}

// counted counts what was sent.
type counted struct {
	http.ResponseWriter
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }
