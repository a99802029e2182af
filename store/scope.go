package store

// Scope says what a person, a token or a socket's peer may do. Each scope holds
// those before it.
type Scope string

// The scopes, in rising power.
const (
	ScopeRead    Scope = "read"    // look at everything that is not secret
	ScopeOperate Scope = "operate" // enroll, map, boot: the daily work
	ScopeAdmin   Scope = "admin"   // users, tokens and settings too
)

// ParseScope reads a scope's name.
func ParseScope(s string) (Scope, error) {
	switch c := Scope(s); c {
	case ScopeRead, ScopeOperate, ScopeAdmin:
		return c, nil
	}
	return "", Invalid("scope", "%q is not a scope; choose read, operate or admin", s)
}

// Allows reports whether s may do what need asks for. The empty scope may do
// nothing.
func (s Scope) Allows(need Scope) bool {
	rank := map[Scope]int{ScopeRead: 1, ScopeOperate: 2, ScopeAdmin: 3}
	return rank[need] > 0 && rank[s] >= rank[need]
}
