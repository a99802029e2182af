// Package login is the login phase of an iSCSI session as a pure state machine
// (RFC 7143 §6.3, §13): Machine.Step takes one Login Request and returns the
// Login Response that answers it. It proves who the initiator is (CHAP,
// RFC 1994 and RFC 7143 §12.1.3) and settles the session's parameters.
//
// It knows no socket, no clock and no inventory: what it must ask others comes
// in as functions. Each refusal carries a plain sentence that names both sides
// of the disagreement, so that a person can mend it; a secret is never part of
// one.
package login
