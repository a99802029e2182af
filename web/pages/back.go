package pages

import (
	"net/http"
	"net/url"
	"strings"
)

// listCookie keeps the list that somebody looked at last, as it was searched,
// sorted and paged, so that a thing's page leads back to it, whatever was done on
// that page meanwhile. It ends with the browser.
const (
	listCookie = "lunboot_list"
	// maxListCookie bounds it: browsers keep 4 KiB of each (RFC 6265 §6.1), and a
	// search of that length is nobody's.
	maxListCookie = 2000
)

// listNames are the lists that lead to things, by their paths.
var listNames = map[string]string{
	"/machines": "Machines", "/unknown": "New machines", "/volumes": "Volumes", "/mappings": "LUN mappings", "/profiles": "Profiles", "/media": "Media", "/loaders": "Loaders",
	"/activity": "Attempts", "/events": "Events", "/sessions": "Sessions", "/leases": "Leases", "/jobs": "Jobs", "/subnets": "Subnets", "/people": "People", "/tokens": "Tokens",
}

// back is the list that somebody came from.
type back struct{ path, query string }

// listAt reads a list's own URL; the zero back when it is none of ours.
func listAt(text string) back {
	path, query, _ := strings.Cut(text, "?")
	values, err := url.ParseQuery(query)
	if err != nil || listNames[path] == "" || len(text) > maxListCookie {
		return back{}
	}
	return back{path, values.Encode()} // as we write it, whoever wrote the cookie
}

// cameFrom is the list that a browser looked at last.
func cameFrom(r *http.Request) back {
	c, err := r.Cookie(listCookie)
	if err != nil {
		return back{}
	}
	return listAt(c.Value)
}

// URL is the list's, as it was looked at; empty for none.
func (b back) URL() string { return strings.TrimSuffix(b.path+"?"+b.query, "?") }

// To is a list: as it was looked at when it was the last one, else from its
// beginning.
func (b back) To(path string) string {
	if b.path == path {
		return b.URL()
	}
	return path
}

// Other is the name of the list that somebody came from when it is not this one,
// empty when it is, or when there is none.
func (b back) Other(path string) string {
	if b.path == path {
		return ""
	}
	return listNames[b.path]
}

// keepList remembers a list that is shown. What a page fetches by itself is no
// look of anybody's.
func keepList(w http.ResponseWriter, r *http.Request, list string) {
	if list == "" || r.Header.Get("HX-Request") != "" || len(list) > maxListCookie {
		return
	}
	http.SetCookie(w, &http.Cookie{Name: listCookie, Value: list, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: r.TLS != nil})
}

// toList goes back to a list after an act on a thing of it.
func toList(w http.ResponseWriter, r *http.Request, path string) {
	http.Redirect(w, r, cameFrom(r).To(path), http.StatusSeeOther)
}

// moved leads from a page's former path to the one that it has now, with what was
// asked of it: people keep links.
func moved(from, to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		u := url.URL{Path: to + strings.TrimPrefix(r.URL.Path, from), RawQuery: r.URL.RawQuery}
		http.Redirect(w, r, u.String(), http.StatusMovedPermanently)
	}
}
