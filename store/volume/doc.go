// Package volume holds the bytes that machines see as disks, and is the only
// room that opens them.
//
// A Pool owns a folder. It locks the folder against a second appliance, keeps
// one open file for each volume however many sessions use it, and hands out
// counted Handles. A Handle reads, writes, unmaps and flushes with bounds
// checked; it knows neither SCSI nor SQL, and a path that a request named never
// reaches the file system: a volume's file is a plain name inside the folder.
//
// The promise of durability in one sentence: after Sync returned nil, every
// write that had returned before Sync was called survives a power cut. An error
// of the flush is final. Linux reports a failed write-back once for each open
// file and marks the lost pages clean (fsync(2), NOTES), so the next flush would
// succeed without the data; the volume therefore turns read-only until the pool
// is opened again, and no later Sync returns nil. Flushes of one volume never
// overlap, for the same reason: of two, only one would be told.
//
// A View is what a volume held at one moment, to be copied while machines write to
// it. It is never in their way: what it cannot save costs the copy and not the
// machine.
package volume
