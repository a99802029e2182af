package httpboot

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"syscall"
	"time"

	"lunboot/scripts"
	"lunboot/services/boot"
	"lunboot/services/boot/attempt"
	"lunboot/services/boot/circle"
	"lunboot/store"
)

// loader sends a loader to firmware that boots over HTTP (UEFI 2.10 §24.7): it
// asks with HEAD first and needs the exact length. An iPXE asks for a loader to
// run it, so what it is given in place of one is a script that it runs.
func (s *Server) loader(w *responseWriter, r *http.Request) {
	if isAutoexec(r.URL.Path) {
		s.firstStage(w, r)
		return
	}
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
		help := s.help(s.bootAddr(r))
		e.Detail.Reason = inCase("there is no loader "+printable(name), help)
		if r.Method != http.MethodHead {
			s.emit(e)
		}
		why := "There is no loader " + name + " on this appliance."
		switch {
		case isIPXE(r) && besideAnother(name):
			w.script(http.StatusNotFound, scripts.Wrong(s.bootAddr(r), help, why))
		case isIPXE(r):
			w.script(http.StatusOK, scripts.Wrong(s.bootAddr(r), help, why))
		default:
			http.Error(w, why, http.StatusNotFound)
		}
		return
	}
	if e.Detail.IPXE && s.circle.Circling(roadOf(e)) {
		s.cfg.Log.Info("an iPXE fetches the same loader again and again; it is given its script under that name", "addr", e.Addr, "loader", loader)
		s.firstStage(w, r)
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

// roadOf is the way that an event about a loader tells of.
func roadOf(e store.Event) circle.Road {
	return circle.Road{Addr: e.Addr, MAC: e.MAC, Loader: boot.Loader(e.Detail.Loader)}
}

// besideAnother reports whether a name is in the folder of a signed chain. A
// shim looks there for files that it can do without, through the iPXE that
// started it, and wants a plain answer.
func besideAnother(name string) bool {
	dir, rest, found := strings.Cut(name, "/")
	if _, err := store.ParseMAC(dir); err == nil {
		_, _, found = strings.Cut(rest, "/")
	}
	return found && fs.ValidPath(name)
}

// file sends what lies below /files/.
func (s *Server) file(w *responseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, boot.FilesRoot)
	if strings.HasPrefix(name, store.AnswerRoot+"/") {
		s.answers(w, r, name)
		return
	}
	if s.cfg.Media == nil || !fs.ValidPath(name) {
		s.noFile(w, r, name, fs.ErrNotExist)
		return
	}
	f, err := s.cfg.Media.Open(name)
	if err != nil {
		s.noFile(w, r, name, err)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	content, seeks := f.(io.ReadSeeker)
	if err == nil && (!seeks || !st.Mode().IsRegular()) {
		err = fs.ErrNotExist
	}
	if err != nil {
		s.noFile(w, r, name, err)
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
func (s *Server) send(w *responseWriter, r *http.Request, e store.Event, content io.ReadSeeker, modified time.Time) {
	size, err := content.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = content.Seek(0, io.SeekStart)
	}
	if err != nil {
		s.noFile(w, r, e.Detail.File, err)
		return
	}
	begun := s.cfg.Now()
	http.ServeContent(w, r, "", modified, content)
	if r.Method == http.MethodHead || r.Context().Err() != nil {
		return
	}
	if e.Kind == store.EventFileSent && isText(content) {
		e.Detail.Reason = attempt.IsText
	}
	e.Detail.Bytes, e.Detail.Total = w.bytes, size
	e.Detail.Millis = s.cfg.Now().Sub(begun).Milliseconds()
	whole := w.status == http.StatusOK && e.Detail.Bytes == size
	if whole && e.Kind == store.EventLoaderSent && e.Detail.IPXE {
		s.circle.Fetched(roadOf(e))
	}
	if whole || w.status == http.StatusPartialContent && e.Detail.Bytes > 0 {
		s.emit(e)
	}
}

// noFile answers a request for a file that cannot be sent. Kernels and initrds
// are not run where they are fetched: with the status 200 a script would be
// handed to the kernel as its initrd. With an error's status the command fails,
// its || goes on to the report, and the answer to that says what is wrong. A
// file that is itself a script is run at once, so one with the status 200 takes
// its place. An iPXE among the files looks for its own script beside itself; one
// that an operator put there is sent before this is asked.
func (s *Server) noFile(w *responseWriter, r *http.Request, name string, err error) {
	if isAutoexec(name) && errors.Is(err, fs.ErrNotExist) {
		s.firstStage(w, r)
		return
	}
	script := path.Ext(name) == ".ipxe"
	name = strings.TrimPrefix(shown(boot.FilesRoot+name), boot.FilesRoot)
	status, why, told := http.StatusNotFound, "There is no file "+name+" on this appliance.", ""
	var errno syscall.Errno // a path out of the folder has none
	if errors.As(err, &errno) && errno != syscall.ENOENT && errno != syscall.ENOTDIR || store.KindOf(err) == store.KindUnavailable {
		status, why = http.StatusInternalServerError, "The file "+name+" cannot be read on this appliance."
		told = unreadable(err)
		s.cfg.Log.Error("a file could not be sent to a machine", "file", name, "addr", remote(r), "error", err)
	}
	switch {
	case isIPXE(r) && script:
		s.missing(r, "", told)
		w.script(http.StatusOK, s.wrong(r, why))
	case isIPXE(r):
		s.missing(r, name, told)
		w.script(status, s.wrong(r, why))
	default:
		http.Error(w, why, status)
	}
}

// unreadable says why a file that is here cannot be read, without its path.
func unreadable(err error) string {
	var e *store.Error
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return "the appliance cannot read it: " + errno.Error()
	case errors.As(err, &e) && e.Msg != "":
		return e.Msg
	}
	return "the appliance cannot read it"
}

// isText reports whether content begins with text that no iPXE runs as a script: a
// page, a list, a configuration. Nothing that a machine starts does.
func isText(content io.ReadSeeker) bool {
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return false
	}
	head := make([]byte, 256)
	n, err := io.ReadFull(content, head)
	if n == 0 || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || bytes.HasPrefix(head, []byte("#!ipxe")) {
		return false
	}
	return !bytes.ContainsFunc(head[:n], func(r rune) bool {
		return r < 0x20 && r != '\n' && r != '\r' && r != '\t' || r >= 0x7f
	})
}
