package main

import (
	"log/slog"
	"syscall"

	"lunboot/services/iscsi"
)

// Open files: a session has its connection, and may be the only one that has its
// volume open. The rest is for connections that log in or look around, which
// the target bounds, and for everything else.
const (
	filesOfASession = 2
	filesOfTheRest  = 600
	fewestSessions  = 16
)

// sessionsWithin says how many sessions fit into a limit of open files.
func sessionsWithin(files uint64) int {
	n := (int(min(files, 1<<20)) - filesOfTheRest) / filesOfASession
	return min(max(n, fewestSessions), iscsi.DefaultMaxSessions)
}

// maxSessions is how many sessions there may be, so that machines which log in
// do not take the files that those at work, the inventory and the pages need.
// The runtime has raised the limit as far as it may (getrlimit(2)).
func maxSessions(log *slog.Logger) int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		log.Warn("the limit of open files is unknown", "error", err)
		return iscsi.DefaultMaxSessions
	}
	n := sessionsWithin(l.Cur)
	if n < iscsi.DefaultMaxSessions {
		log.Warn("the limit of open files is low, so there may be fewer iSCSI sessions; raise it with LimitNOFILE= or ulimit -n", "limit", l.Cur, "sessions", n, "of", iscsi.DefaultMaxSessions)
	}
	return n
}
