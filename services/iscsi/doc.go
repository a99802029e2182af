// Package iscsi is the target: it accepts connections, lets initiators log in,
// and keeps the live sessions (RFC 7143). There is one target name; what an
// initiator finds behind it depends on who it is, and a LUN that is not mapped
// for it does not exist.
//
// Whoever connects, what it can take is bounded: connections that have not
// logged in (door), discovery sessions, sessions of one initiator and of all
// (Config.MaxSessions), and the memory of them all: 512 MiB and 2 MiB for
// each, of which 1 MiB is a session's own whatever others do (package session
// says how). An initiator that takes nothing is given up by TCP within a minute
// or so: TCP_USER_TIMEOUT is looked at when a probe is due (tcp(7)).
//
// It may not know how machines and volumes are stored: it asks a Catalog, and
// looks again whenever the Catalog says that something changed. What it states
// about boots it emits as events; nothing is commanded by them.
package iscsi
