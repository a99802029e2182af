package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the appliance refuses is an error in its own words; what it does is none.
func TestTheSocketSpeaksToTheAPI(t *testing.T) {
	dir, err := os.MkdirTemp("", "netlab-socket-") // short: it holds a unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "lunboot.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+r.URL.Path+" "+string(body))
		if r.Method == http.MethodDelete {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
			io.WriteString(w, `{"detail":"machine lab is logged in"}`)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	s := newSocket(dir)
	if err := s.do(t.Context(), http.MethodPost, "/machines", map[string]any{"name": "lab"}); err != nil {
		t.Error(err)
	}
	if err := s.do(t.Context(), http.MethodDelete, "/volumes/lab", nil); err == nil || !strings.Contains(err.Error(), "409") || !strings.Contains(err.Error(), "machine lab is logged in") || !strings.Contains(err.Error(), "DELETE /volumes/lab") {
		t.Errorf("a refusal: %v", err)
	}
	if err := s.do(t.Context(), http.MethodPost, "/machines", func() {}); err == nil {
		t.Error("what is no JSON is sent")
	}
	s.CloseIdleConnections()
	if err := server.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if want := []string{`POST /api/v1/machines {"name":"lab"}`, "DELETE /api/v1/volumes/lab null"}; strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("it was asked %q", got)
	}
	if err := s.do(t.Context(), http.MethodPost, "/machines", nil); err == nil {
		t.Error("nobody answers, and that is no error")
	}
}

// A room is as large as it can be told apart by, and its copies must fit.
func TestARoomHasABound(t *testing.T) {
	for _, machines := range [][]int{{0}, {16, -1}, {16, 1001}} {
		err := (&benchCmd{What: []string{"storm"}, Machines: machines}).Run(&world{ctx: t.Context(), out: os.Stdout, err: os.Stderr})
		if err == nil || !strings.Contains(err.Error(), "1 to 1000") {
			t.Errorf("%v: %v", machines, err)
		}
	}
	s := &storm{dir: t.TempDir(), most: 1 << 40}
	s.image = filepath.Join(s.dir, "image")
	if err := os.WriteFile(s.image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := os.Open(s.image); err != nil || errors.Join(f.Sync(), f.Close()) != nil { // it takes room now
		t.Fatal(err)
	}
	if err := s.layCopies(t.Context()); err == nil || !strings.Contains(err.Error(), "--machines") {
		t.Errorf("copies that have no room: %v", err)
	}
}
