// Package session is one iSCSI connection from its first byte to its last: the
// framing of PDUs, the exchange of login PDUs, and the full feature phase with
// its tasks, data transfers and serial numbers (RFC 7143 §4, §11).
// ErrorRecoveryLevel is 0 and a session has one connection, so both are one
// Session here; a connection that takes another one's place is a Session that
// inherits from it.
//
// One goroutine reads. What it can answer without waiting, as a rule, it executes itself
// and appends the answer to one output buffer, which is written when the input
// buffer has nothing left: a burst of commands costs one read and one write. A
// command that may wait for a disk runs on a goroutine of its own, so that the
// reader goes on; the CmdSN window bounds how many there are and how much
// memory they hold. So does, from then on, one that has kept the reader for tens of
// milliseconds: another goroutine reads in its place (relief.go); and so does the flush of
// a WRITE whose unit lost its write cache while the data came. Of all sessions
// together no unit has more than scsi.MaxAtDisk of those at its disk, and each has room
// for a few of them whatever the others do; the rest waits without having begun.
//
// ORDERED orders a command among those of its own session on the same unit, and not
// among those of other sessions, though all are in one task set (SAM-5 §8.6, TST=000b
// in SPC-4 §7.5): what it promises an initiator it promises of what that one sent
// itself, in the order in which it sent it. Two initiators know no order of their
// commands but by the answers that they wait for, and a command that was answered
// comes before every one that is sent later, whatever its attribute. To hold all
// sessions of a unit at each ORDERED command of one would cost every command a count
// that all share. The attribute ACA is refused, since there is no ACA.
//
// Memory is bounded over all sessions, not only for each (package memory): the data of
// commands has 1 MiB for each session and 512 MiB for all together, of which the
// sessions of one initiator may have a quarter. What a command needs beyond the
// session's own is waited for, and goes first to the initiator that has least;
// data that comes unasked and finds no place is refused with TASK SET FULL. What
// was sent behind a request that was rejected waits for its turn in that memory,
// too. A session that keeps such memory for 10 s because its initiator does not take
// or send the data is ended, but only when others wait for it. What a session
// has beside data, its buffers for input and output, two pieces of a large
// WRITE, headers, texts, tasks and their goroutines, is below 1 MiB; while it waits for
// its initiator it holds none of the buffers. With n
// sessions that is 512 MiB + n × 2 MiB at the very worst; the kernel's socket buffers (tcp_mem,
// tcp(7)) come on top, and so does what the collector has not collected yet.
//
// Task management that ends many tasks is answered when none of them can change a
// volume any more. TaskReporting is RFC3720, of which one rule is not kept (RFC 7143
// §4.2.3.3): the answer does not wait for what R2Ts have asked for. On one
// connection that comes before whatever the initiator sends once it has the
// answer, and is dropped.
//
// It decides nothing about who may log in and what a machine may see, and
// nothing about SCSI beyond the direction and length of a command's data.
package session
