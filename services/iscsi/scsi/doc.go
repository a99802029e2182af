// Package scsi is the device server behind the iSCSI target: it takes command
// descriptor blocks that arrived over one I_T nexus and answers them from
// volumes, as SAM-5, SPC-4 and SBC-3 demand of a direct access block device.
//
// It knows no PDU, no socket, no login and no inventory. A session owns a
// Nexus, tells it by SetMap which units exist for its initiator, and hands it
// Commands; tasks, their order, their abortion and their goroutines are the
// session's.
//
// A LUN that is not mapped does not exist, LUN 0 included: INQUIRY says so with
// byte 0 = 7Fh, REPORT LUNS gives the true list, REQUEST SENSE returns
// 05h/25h/00h as data and every other command ends in CHECK CONDITION with that
// sense. There is no capacity and no GOOD status to be had from it, because a
// boot program that asks for the wrong LUN must learn it from its first
// command and not from a made-up disk.
//
// The one table of commands (table.go) is what is executed and what REPORT
// SUPPORTED OPERATION CODES prints. What is not in the table is refused.
//
// Durability: the write cache is on by default (WCE=1), GOOD for a WRITE means
// that later READs see the data, and GOOD for SYNCHRONIZE CACHE, for a command
// with FUA=1, for WRITE AND VERIFY and for every write while WCE=0 is sent only
// after the volume's Sync returned nil. A failed volume operation is never GOOD.
package scsi
