// Package iscsi is the target: it accepts connections, lets initiators log in,
// and keeps the live sessions (RFC 7143). There is one target name; what an
// initiator finds behind it depends on who it is, and a LUN that is not mapped
// for it does not exist.
//
// It may not know how machines and volumes are stored: it asks a Catalog, and
// looks again whenever the Catalog says that something changed. What it states
// about boots it emits as events; nothing is commanded by them.
package iscsi
