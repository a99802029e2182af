package cli

import (
	"fmt"
	"net/url"
	"time"

	"lunboot/store"
)

// UserCmd is the noun user.
type UserCmd struct {
	List     UserListCmd   `cmd:"" help:"List the people who may log in."`
	Add      UserAddCmd    `cmd:"" help:"Add a person; the password comes from standard input."`
	Set      UserSetCmd    `cmd:"" help:"Change what a person may do, or whether they may log in."`
	Remove   UserRemoveCmd `cmd:"" help:"Remove a person and end their logins."`
	Password PasswordCmd   `cmd:"" help:"Set a person's password from standard input, which ends their logins."`
	Logins   UserLoginsCmd `cmd:"" help:"List who is logged in on the web pages."`
	Logout   UserLogoutCmd `cmd:"" help:"End a login of the web pages."`
}

// UserListCmd lists users.
type UserListCmd struct{ listFlags }

// Run lists users.
func (l *UserListCmd) Run(c *Context) error {
	var out list[store.User]
	if err := c.Client.Do(c, "GET", "/users"+l.query(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, u := range out.Items {
			how := "password"
			if u.Federated() {
				how = u.KnownAs + " of " + u.Issuer
			}
			if u.Disabled {
				how += ", shut out"
			}
			if u.Refused {
				how += ", no role there any more"
			}
			rows = append(rows, []string{u.Name, string(u.Role), how, when(u.LastLogin), when(u.Created)})
		}
		c.table("NAME ROLE BY LOGIN ADDED", rows)
	})
}

// UserAddCmd adds a user.
type UserAddCmd struct {
	Name string `arg:"" help:"Login name: lower-case letters, digits, dots and hyphens."`
	Role string `enum:"viewer,operator,admin" default:"operator" help:"What they may do: ${enum}."`
}

// Run adds a user.
func (u *UserAddCmd) Run(c *Context) error {
	password, err := c.readPassword(u.Name)
	if err != nil {
		return err
	}
	var out store.User
	if err := c.Client.Do(c, "POST", "/users", map[string]string{"name": u.Name, "role": u.Role, "password": password}, &out); err != nil {
		return err
	}
	return c.show(out, func() { c.say("added %s, %s", out.Name, out.Role) })
}

// UserSetCmd changes a user.
type UserSetCmd struct {
	Name     string  `arg:"" help:"Login name."`
	Role     *string `enum:"viewer,operator,admin" help:"What they may do: ${enum}; not of those who sign in through the provider, which says it."`
	Disabled *bool   `negatable:"" help:"Shut them out: they may not log in, their logins end, and their tokens are refused until they are let in again."`
	ifSeen
}

// Run changes a user.
func (u *UserSetCmd) Run(c *Context) error {
	in := map[string]any{}
	if u.Role != nil {
		in["role"] = *u.Role
	}
	if u.Disabled != nil {
		in["disabled"] = *u.Disabled
	}
	if len(in) == 0 {
		return usage("nothing to change: say --role or --disabled")
	}
	var out store.User
	if err := c.change("PATCH", "/users/"+esc(u.Name), "", u.tag(), in, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		c.say("%s is %s%s", out.Name, out.Role, map[bool]string{true: ", shut out"}[out.Disabled])
	})
}

// UserRemoveCmd removes a user.
type UserRemoveCmd struct {
	Name string `arg:"" help:"Login name."`
	ifSeen
}

// Run removes a user.
func (u *UserRemoveCmd) Run(c *Context) error {
	if err := c.change("DELETE", "/users/"+esc(u.Name), "", u.tag(), nil, nil); err != nil {
		return err
	}
	c.say("removed %s", u.Name)
	return nil
}

// UserLoginsCmd lists the sessions of the pages.
type UserLoginsCmd struct {
	User string `help:"Only this person's."`
}

// Run lists them.
func (u *UserLoginsCmd) Run(c *Context) error {
	var out list[store.Login]
	if err := c.Client.Do(c, "GET", "/logins?user="+url.QueryEscape(u.User), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, l := range out.Items {
			rows = append(rows, []string{l.ID, l.User, l.From, when(l.Began), when(l.Used), l.Agent})
		}
		c.table("ID USER FROM BEGAN USED BROWSER", rows)
	})
}

// UserLogoutCmd ends a session of the pages.
type UserLogoutCmd struct {
	Login string `arg:"" help:"Id, as 'lunboot user logins' shows it."`
}

// Run ends it.
func (u *UserLogoutCmd) Run(c *Context) error {
	if err := c.Client.Do(c, "DELETE", "/logins/"+esc(u.Login), nil, nil); err != nil {
		return err
	}
	c.say("ended login %s", u.Login)
	return nil
}

// AuditCmd lists changes.
type AuditCmd struct {
	Actor   string        `help:"Only what this one changed."`
	Noun    string        `help:"Only changes of this kind of thing: machine, volume, mapping, profile, user."`
	Subject string        `help:"Only changes of what has this name."`
	Search  string        `help:"Words, each part of any of the texts, and qualifiers, such as 'who:anna what:machine since:2d', all of which must fit; quotation marks keep words together."`
	Sort    string        `help:"Column to sort by: at (newest first, as without), who, what or subject; with a hyphen before it the other way, as in --sort=-at." placeholder:"COLUMN"`
	Since   time.Duration `placeholder:"2h" help:"Only what is younger."`
	Limit   int           `default:"100" help:"How many at most."`
}

// Run lists changes.
func (a *AuditCmd) Run(c *Context) error {
	q := url.Values{"actor": {a.Actor}, "noun": {a.Noun}, "subject": {a.Subject}, "search": {a.Search}, "sort": {a.Sort}, "limit": {fmt.Sprint(a.Limit)}}
	if a.Since > 0 {
		q.Set("since", time.Now().Add(-a.Since).UTC().Format(time.RFC3339))
	}
	var out list[store.Audit]
	if err := c.Client.Do(c, "GET", "/audit?"+q.Encode(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, e := range out.Items {
			rows = append(rows, []string{when(e.At), string(e.Actor), e.Action, e.Subject, e.Detail})
		}
		c.table("AT WHO WHAT SUBJECT CHANGE", rows)
	})
}
