package rounds

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// clockTick is the unit of /proc's CPU times: 1/100 s on every Linux (proc(5)).
const clockTick = 10 * time.Millisecond

// CPUTime is the CPU time that a process has used, its threads together. What
// its children used is not in it.
func CPUTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseCPU(string(b))
}

// parseCPU reads utime and stime, fields 14 and 15 of proc_pid_stat(5). The
// name, field 2, may hold spaces and parentheses.
func parseCPU(stat string) (time.Duration, error) {
	rest := stat[strings.LastIndexByte(stat, ')')+1:]
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("a process's stat of %d fields", len(fields))
	}
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0, fmt.Errorf("a process's CPU times: %w", err)
	}
	return time.Duration(user+system) * clockTick, nil
}
