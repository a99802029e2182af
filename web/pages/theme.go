package pages

import "net/http"

// themeOf is the theme that somebody chose in this browser: the page comes in it, so
// that nothing is painted in the other one first. A script keeps the choice.
func themeOf(r *http.Request) string {
	if c, err := r.Cookie("lunboot_theme"); err == nil && (c.Value == "light" || c.Value == "dark") {
		return c.Value
	}
	return ""
}
