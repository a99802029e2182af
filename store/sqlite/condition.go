package sqlite

import (
	"fmt"
	"strings"
	"time"

	"lunboot/store/sqlite/dbfile"
)

// conditions are what a row must meet, all of them. What people typed is compared
// as text: no character of it is a wild card.
type conditions struct {
	all  []string
	args []any
}

func (c *conditions) add(cond string, args ...any) {
	c.all, c.args = append(c.all, cond), append(c.args, args...)
}

// like asks for a part of a text, in either case.
func (c *conditions) like(column, part string) {
	c.add("("+column+") LIKE ? ESCAPE '\\'", "%"+literal(part)+"%")
}

// span asks for a time from since on and before until; a zero one is no bound.
func (c *conditions) span(column string, since, until time.Time) {
	if !since.IsZero() {
		c.add(column+" >= ?", dbfile.Nanos(since))
	}
	if !until.IsZero() {
		c.add(column+" < ?", dbfile.Nanos(until))
	}
}

func (c *conditions) none() bool { return len(c.all) == 0 }

// where is the clause, empty when there is no condition.
func (c *conditions) where() string {
	if c.none() {
		return ""
	}
	return " WHERE " + strings.Join(c.all, " AND ")
}

// literal takes the meaning from LIKE's wild cards.
func literal(s string) string {
	return strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(s)
}

// ranked orders a column by the places of its values in a list.
func ranked[S ~string](column string, values []S) string {
	var b strings.Builder
	b.WriteString("CASE " + column)
	for i, v := range values {
		fmt.Fprintf(&b, " WHEN '%s' THEN %d", v, i) // a constant of ours
	}
	return b.String() + " ELSE " + fmt.Sprint(len(values)) + " END"
}
