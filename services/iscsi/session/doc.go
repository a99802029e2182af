// Package session is one iSCSI connection from its first byte to its last: the
// framing of PDUs, the exchange of login PDUs, and the full feature phase with
// its tasks, data transfers and serial numbers (RFC 7143 §4, §11).
// ErrorRecoveryLevel is 0 and a session has one connection, so both are one
// Session here.
//
// One goroutine reads. What it can answer without waiting it executes itself
// and appends the answer to one output buffer, which is written when the input
// buffer has nothing left: a burst of commands costs one read and one write. A
// command that may wait for a disk runs on a goroutine of its own, so that the
// reader goes on; the CmdSN window bounds how many there are and how much
// memory they hold.
//
// It decides nothing about who may log in and what a machine may see, and
// nothing about SCSI beyond the direction and length of a command's data.
package session
