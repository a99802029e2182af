package store

import (
	"slices"
	"time"
)

// Role is what a person is here for. Each role holds the ones before it.
type Role string

// The roles, in rising power.
const (
	RoleViewer   Role = "viewer"   // looks
	RoleOperator Role = "operator" // enrolls, maps, boots
	RoleAdmin    Role = "admin"    // decides about people, networks and settings too
)

// Roles returns every role, in rising power.
func Roles() []Role { return []Role{RoleViewer, RoleOperator, RoleAdmin} }

// ParseRole reads a role's name.
func ParseRole(s string) (Role, error) {
	if r := Role(s); slices.Contains(Roles(), r) {
		return r, nil
	}
	return "", Invalid("role", "%q is not a role; choose viewer, operator or admin", s)
}

// Scope is what a role may do; empty for none.
func (r Role) Scope() Scope {
	return map[Role]Scope{RoleViewer: ScopeRead, RoleOperator: ScopeOperate, RoleAdmin: ScopeAdmin}[r]
}

// Does says what a person with the role may do.
func (r Role) Does() string {
	switch r {
	case RoleViewer:
		return "looks at everything that is no secret, and changes nothing"
	case RoleOperator:
		return "enrolls machines, makes and maps volumes, mends boots"
	case RoleAdmin:
		return "everything, also people, tokens, networks, settings and backups"
	}
	return ""
}

// User is a person who may log in: by a password, which is kept as a hash alone,
// or through an OpenID Connect provider, which knows them by Issuer and Subject.
type User struct {
	Name      string    `json:"name"`
	Role      Role      `json:"role"`
	Revision  int64     `json:"revision"`
	Hash      string    `json:"-"`        // empty: they have no password
	Issuer    string    `json:"issuer"`   // the provider; empty: they have a password
	Subject   string    `json:"subject"`  // what the provider knows them by, for ever
	KnownAs   string    `json:"known_as"` // what the provider called them last
	Disabled  bool      `json:"disabled"` // they are shut out
	Refused   bool      `json:"refused"`  // the provider's last word gave them no role; they come in again once it gives one
	Created   time.Time `json:"created"`
	Updated   time.Time `json:"updated"`
	LastLogin time.Time `json:"last_login"` // the zero time: never
}

// Validate checks the user's own fields.
func (u *User) Validate() error {
	errs := []error{ValidateName("name", u.Name)}
	if slices.Contains([]Actor{ActorSystem, ActorFlag, ActorAutoEnroll}, Actor(u.Name)) {
		errs = append(errs, Invalid("name", "%q is what the appliance calls itself in the list of changes; choose another name", u.Name))
	}
	if _, err := ParseRole(string(u.Role)); err != nil {
		errs = append(errs, err)
	}
	switch {
	case u.Federated() && (u.Issuer == "" || u.Hash != ""):
		errs = append(errs, Invalid("password", "%s signs in through the OpenID Connect provider and has no password here", u.Name))
	case !u.Federated() && u.Hash == "":
		errs = append(errs, Invalid("password", "a user needs a password"))
	case !u.Federated() && u.Refused:
		errs = append(errs, Invalid("refused", "%s has a password, and no provider refuses them", u.Name))
	}
	return joinFields(append(errs, validateLine("known_as", u.KnownAs, maxOIDCText))...)
}

// Federated reports a person who signs in through the provider.
func (u User) Federated() bool { return u.Subject != "" }

// UserPatch is what is to change of a user; nil: nothing.
type UserPatch struct {
	Revision int64 // when it is not zero, the user has to have it
	Role     *Role
	Disabled *bool
}

// WebSession is a session of the pages as it is kept: its data are for the one
// who wrote them.
type WebSession struct {
	Token   string // a hash of the cookie
	Data    []byte
	Expires time.Time // when it ends unless it is used before
}

// Login is one session of the pages, as people see it.
type Login struct {
	ID      string    `json:"id"`
	User    string    `json:"user"`
	From    string    `json:"from"`    // the address that it began at
	Agent   string    `json:"agent"`   // what the browser said of itself
	Began   time.Time `json:"began"`   // when they logged in
	Used    time.Time `json:"used"`    // the last request of a page
	Expires time.Time `json:"expires"` // when it ends unless it is used before
	Current bool      `json:"current"` // the one that asks
}
