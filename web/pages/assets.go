package pages

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"

	"github.com/go-chi/chi/v5"
)

//go:embed asset
var assetFS embed.FS

type asset struct {
	plain, zipped []byte
	kind          string
}

// assets serves the embedded files under a name that changes with their bytes,
// so that a browser may keep them for good.
type assets struct {
	hash  string
	files map[string]asset
}

func loadAssets() (*assets, error) {
	entries, err := assetFS.ReadDir("asset")
	if err != nil {
		return nil, err
	}
	a := &assets{files: map[string]asset{}}
	sum := sha256.New()
	for _, e := range entries {
		b, err := assetFS.ReadFile("asset/" + e.Name())
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(sum, "%s %d\n", e.Name(), len(b))
		sum.Write(b)
		kind := mime.TypeByExtension(path.Ext(e.Name()))
		switch path.Ext(e.Name()) { // a bare machine has no mime.types
		case ".woff2":
			kind = "font/woff2"
		case ".svg":
			kind = "image/svg+xml"
		case ".js":
			kind = "text/javascript; charset=utf-8"
		case ".css":
			kind = "text/css; charset=utf-8"
		case ".md", ".txt":
			kind = "text/plain; charset=utf-8"
		}
		f := asset{plain: b, kind: kind}
		if !strings.HasPrefix(kind, "font/") {
			var z bytes.Buffer
			w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
			if err != nil {
				return nil, err
			}
			w.Write(b)
			if err := w.Close(); err != nil {
				return nil, err
			}
			f.zipped = z.Bytes()
		}
		a.files[e.Name()] = f
	}
	a.hash = hex.EncodeToString(sum.Sum(nil))[:12]
	return a, nil
}

// url is the address of an asset; name is one of the embedded files.
func (a *assets) url(name string) string { return "/static/" + a.hash + "/" + name }

func (a *assets) serve(w http.ResponseWriter, r *http.Request) {
	f, ok := a.files[chi.URLParam(r, "name")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
	if chi.URLParam(r, "hash") == a.hash {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	b := f.plain
	if f.zipped != nil && takesGzip(r) {
		h.Set("Content-Encoding", "gzip")
		b = f.zipped
	}
	h.Set("Content-Length", fmt.Sprint(len(b)))
	w.Write(b)
}

func takesGzip(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")
}

var zippers = sync.Pool{New: func() any { return gzip.NewWriter(io.Discard) }}

// writeSmall answers with a page, compressed where the browser takes that.
func writeSmall(w http.ResponseWriter, r *http.Request, status int, text []byte) {
	h := w.Header()
	h.Add("Vary", "Accept-Encoding")
	if !takesGzip(r) {
		w.WriteHeader(status)
		w.Write(text)
		return
	}
	h.Set("Content-Encoding", "gzip")
	w.WriteHeader(status)
	z := zippers.Get().(*gzip.Writer)
	defer zippers.Put(z)
	z.Reset(w)
	z.Write(text)
	z.Close()
}
