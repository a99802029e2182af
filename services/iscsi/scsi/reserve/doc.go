// Package reserve is the reservations of one logical unit: the persistent ones
// of SPC-4 §5.13 with all types, and the older RESERVE and RELEASE of SPC-2 as
// far as the two meet. It decides, as pure functions of a State, what PERSISTENT
// RESERVE OUT changes, who must be told of it, what PERSISTENT RESERVE IN
// returns, and who may run which command.
//
// It knows no session and keeps nothing: a State is a value, and who holds it
// makes it durable.
package reserve
