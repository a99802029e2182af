package httpboot

import (
	"io"
	"net/http"
	"strconv"
)

// responseWriter keeps the promise of this package's documentation: whatever
// answers an iPXE with an error, a library's handler included, the body is a
// script. It counts what was sent, and still hands files to the kernel
// (sendfile).
type responseWriter struct {
	http.ResponseWriter
	req *http.Request
	// stand makes the script that goes in place of an error's page; nil for
	// those who are no iPXE.
	stand  func(status int) string
	ours   bool // the answer is made by this package, and needs no stand-in
	status int
	bytes  int64
	stood  bool // the stand-in was sent; the page that follows goes nowhere
}

func (w *responseWriter) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	if status < http.StatusBadRequest || w.ours || w.stand == nil {
		w.status = status
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.ours, w.stood = true, true
	for _, h := range []string{"Content-Encoding", "Etag", "Last-Modified"} { // of what was to be sent
		w.Header().Del(h)
	}
	text := w.stand(status)
	w.heads(text)
	w.status = status
	w.ResponseWriter.WriteHeader(status)
	if w.req.Method != http.MethodHead {
		n, _ := io.WriteString(w.ResponseWriter, text)
		w.bytes += int64(n)
	}
}

func (w *responseWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.stood {
		return len(b), nil
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom lets net/http send a file without copying it.
func (w *responseWriter) ReadFrom(r io.Reader) (int64, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.stood {
		return io.Copy(io.Discard, r)
	}
	if l, ok := r.(*io.LimitedReader); ok {
		if s, ok := l.R.(sourced); ok {
			if from, ok := s.Source(); ok {
				r = io.LimitReader(from, l.N)
			}
		}
	}
	n, err := io.Copy(w.ResponseWriter, r)
	w.bytes += n
	return n, err
}

// sourced is a file whose bytes stand together in a larger one, from which the
// kernel can send them as well.
type sourced interface{ Source() (io.Reader, bool) }

// Unwrap is for http.ResponseController.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// heads sets a script's header fields. With its exact length a connection that
// breaks leaves iPXE with an error instead of half a script.
func (w *responseWriter) heads(text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	h.Set("Cache-Control", "no-store")
}

// script sends a script.
func (w *responseWriter) script(status int, text string) {
	w.ours = true
	w.heads(text)
	w.WriteHeader(status)
	if w.req.Method != http.MethodHead {
		// A machine that went away asks again; there is nobody to tell.
		_, _ = io.WriteString(w, text)
	}
}

// nothing ends a name walk: its next name is tried.
func (w *responseWriter) nothing() {
	w.ours = true
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusNotFound)
}
