package cli

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// UsageError is a wrong use of a verb: exit code 2.
type UsageError struct{ msg string }

// Error returns what is wrong.
func (e *UsageError) Error() string { return e.msg }

func usage(msg string) error { return &UsageError{msg} }

// IsUsage reports whether err is a wrong use.
func IsUsage(err error) bool {
	var u *UsageError
	return errors.As(err, &u)
}

// TokenCmd is the noun token.
type TokenCmd struct {
	Create TokenCreateCmd `cmd:"" help:"Make a token; it is shown once."`
	List   TokenListCmd   `cmd:"" help:"List tokens."`
	Remove TokenRemoveCmd `cmd:"" help:"Remove a token."`
}

// token is a token as the API shows it.
type token struct {
	ID       int64     `json:"id"`
	Name     string    `json:"name"`
	Scope    string    `json:"scope"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	LastUsed time.Time `json:"last_used"`
	Owner    string    `json:"owner"`
	Limit    string    `json:"limit"`
	Secret   string    `json:"token,omitempty"`
}

// TokenCreateCmd makes a token.
type TokenCreateCmd struct {
	Name  string `arg:"" help:"What it is for."`
	Scope string `enum:"read,operate,admin" default:"read" help:"What it may do: ${enum}."`
	Days  int    `default:"90" help:"Days until it expires, 1 to 366."`
}

// Run makes a token.
func (t *TokenCreateCmd) Run(c *Context) error {
	var out token
	if err := c.Client.Do(c, "POST", "/tokens", map[string]any{"name": t.Name, "scope": t.Scope, "days": t.Days}, &out); err != nil {
		return err
	}
	return c.show(out, func() { fmt.Fprintln(c.Out, out.Secret) })
}

// TokenListCmd lists tokens.
type TokenListCmd struct{ listFlags }

// Run lists tokens.
func (l *TokenListCmd) Run(c *Context) error {
	var out list[token]
	if err := c.Client.Do(c, "GET", "/tokens"+l.query(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, t := range out.Items {
			rows = append(rows, []string{strconv.FormatInt(t.ID, 10), t.Name, t.Scope, t.Owner, when(t.Expires), when(t.LastUsed), t.Limit})
		}
		c.table("ID NAME SCOPE OWNER EXPIRES USED LIMIT", rows)
	})
}

// TokenRemoveCmd removes a token.
type TokenRemoveCmd struct {
	Token int64 `arg:"" help:"Id."`
}

// Run removes a token.
func (t *TokenRemoveCmd) Run(c *Context) error {
	if err := c.Client.Do(c, "DELETE", "/tokens/"+strconv.FormatInt(t.Token, 10), nil, nil); err != nil {
		return err
	}
	c.say("removed token %d", t.Token)
	return nil
}

// PasswordCmd sets the password of the web pages.
type PasswordCmd struct {
	User string `arg:"" default:"admin" help:"User name."`
}

// Run reads the password from standard input and sets it.
func (p *PasswordCmd) Run(c *Context) error {
	noun := "/users/" + esc(p.User)
	seen, err := c.asSeen(noun) // before somebody takes their time to type
	if err != nil {
		return err
	}
	password, err := c.readPassword(p.User)
	if err != nil {
		return err
	}
	// The first password makes the first user, whom nobody has seen before.
	if err := c.Client.do(c, "PUT", noun+"/password", seen, map[string]string{"password": password}, nil); err != nil {
		return err
	}
	c.say("the password of %s is set; its sessions were ended", p.User)
	return nil
}
