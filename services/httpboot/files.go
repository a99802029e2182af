package httpboot

import (
	"bytes"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/go-chi/chi/v5/middleware"

	"lunboot/scripts"
	"lunboot/services/boot"
	"lunboot/store"
)

// loader sends a loader to firmware that boots over HTTP (UEFI 2.10 §24.7): it
// asks with HEAD first and needs the exact length.
func (s *Server) loader(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, boot.LoaderRoot)
	e := store.Event{Addr: remote(r), Detail: store.Detail{URL: boundedURL(r.URL), File: printable(name), IPXE: isIPXE(r)}}
	mac, loader, err := boot.ParseLoaderPath(name)
	var data []byte
	ok := false
	if err == nil {
		e.MAC, e.Detail.Loader = mac, string(loader)
		data, ok = s.cfg.Files.Open(loader)
	}
	if !ok {
		e.Kind = store.EventLoaderMissing
		e.Detail.Reason = "there is no loader " + printable(name)
		if r.Method != http.MethodHead {
			s.emit(e)
		}
		s.noFile(w, r, "There is no loader "+name+" on this appliance.")
		return
	}
	if strings.HasSuffix(string(loader), ".efi") {
		w.Header().Set("Content-Type", "application/efi")
	} else {
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	e.Kind = store.EventLoaderSent
	s.send(w, r, e, bytes.NewReader(data), time.Time{})
}

// file sends what lies below /files/.
func (s *Server) file(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, boot.FilesRoot)
	if s.cfg.Media == nil || !fs.ValidPath(name) {
		s.noFile(w, r, "There is no file "+name+" on this appliance.")
		return
	}
	f, err := s.cfg.Media.Open(name)
	if err != nil {
		s.noFile(w, r, "There is no file "+name+" on this appliance.")
		return
	}
	defer f.Close()
	st, err := f.Stat()
	content, seeks := f.(io.ReadSeeker)
	if err != nil || !seeks || !st.Mode().IsRegular() {
		s.noFile(w, r, "There is no file "+name+" on this appliance.")
		return
	}
	if path.Ext(name) == ".efi" {
		w.Header().Set("Content-Type", "application/efi")
	} else {
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	e := store.Event{Kind: store.EventFileSent, Addr: remote(r), Detail: store.Detail{URL: boundedURL(r.URL), File: printable(name), IPXE: isIPXE(r)}}
	s.send(w, r, e, content, st.ModTime())
}

// send writes content with Range support, and emits e when the asker got its
// last byte.
func (s *Server) send(w http.ResponseWriter, r *http.Request, e store.Event, content io.ReadSeeker, modified time.Time) {
	size, err := content.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = content.Seek(0, io.SeekStart)
	}
	if err != nil {
		s.noFile(w, r, "The file cannot be read.")
		return
	}
	begun := s.cfg.Now()
	// chi's wrapper counts and still hands files to the kernel (sendfile).
	ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
	http.ServeContent(ww, r, "", modified, content)
	if r.Method == http.MethodHead || r.Context().Err() != nil {
		return
	}
	e.Detail.Bytes, e.Detail.Total = int64(ww.BytesWritten()), size
	e.Detail.Millis = s.cfg.Now().Sub(begun).Milliseconds()
	whole := ww.Status() == http.StatusOK && e.Detail.Bytes == size
	if whole || ww.Status() == http.StatusPartialContent && e.Detail.Bytes > 0 {
		s.emit(e)
	}
}

// noFile is a plain 404 for commands that fetch files, whose || moves on; an
// iPXE finds words in it when it shows the body.
func (s *Server) noFile(w http.ResponseWriter, r *http.Request, why string) {
	writeScript(w, r, http.StatusNotFound, scripts.Wrong(s.bootAddr(r), why))
}
