package dbfile

// SQLite syncs with fdatasync(2) where it is compiled with HAVE_FDATASYNC, as its
// own configure script does on Linux, and else with fsync(2), as go-sqlite3 has
// it. The difference is the write-ahead log's time of change, which nobody reads
// and which an fsync writes by a commit of the file system's journal: on ext4 that
// is more than half of the time of a lease. fdatasync still writes the size of a
// file that grew, and whatever else is needed to read its bytes back. This
// program's only C is SQLite's, and Go's own Sync does not come by here.

/*
#include <unistd.h>

// Of this program alone, and of no library that libc may load.
__attribute__((visibility("hidden"))) int fsync(int fd) { return fdatasync(fd); }
*/
import "C"
