package cli

import (
	"errors"
	"io"
	"net/http"
	"strconv"
)

// ifSeen is the flag of verbs that change what has a revision.
type ifSeen struct {
	Revision int64 `name:"if-revision" placeholder:"N" help:"Only while it has this revision, as --json shows it: what somebody changed since then stays as it is."`
}

// tag is the ETag of a noun that somebody saw; empty when --if-revision was not
// given.
func (s ifSeen) tag() string {
	if s.Revision == 0 {
		return ""
	}
	return `"` + strconv.FormatInt(s.Revision, 10) + `"`
}

// look returns the ETag of a noun as it is now.
func (c *Context) look(noun string) (string, error) {
	resp, err := c.Client.send(c, http.MethodGet, noun, nil, "", nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", err
	}
	return resp.Header.Get("ETag"), nil
}

// change does something to a noun, or to a part of it below its path, unless
// somebody changed the noun since seen, its ETag. Without one it is looked at
// first: two people who do something to it at a time do not both succeed.
func (c *Context) change(method, noun, part, seen string, in, out any) error {
	if seen == "" {
		var err error
		if seen, err = c.look(noun); err != nil {
			return err
		}
	}
	return c.Client.do(c, method, noun+part, ifMatch(seen), in, out)
}

// ifMatch is the condition that a noun is as it was seen; none for an empty tag.
func ifMatch(tag string) http.Header {
	if tag == "" {
		return nil
	}
	return http.Header{"If-Match": {tag}}
}

// asSeen is the condition that a noun is as a look at it found it: the tag that
// was seen or, where there was none, that there still is none. Two people who make
// one thing at a time do not both succeed.
func (c *Context) asSeen(noun string) (http.Header, error) {
	seen, err := c.look(noun)
	if missing(err) {
		return http.Header{"If-None-Match": {"*"}}, nil
	}
	return ifMatch(seen), err
}

// missing says that there is no noun of the name.
func missing(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.Status == http.StatusNotFound
}
