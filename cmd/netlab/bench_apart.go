package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// apart is a machine's processors, divided between the servers that are measured
// and the clients that load them. In a lab the clients are other computers: here
// they would take from a server whatever processor it leaves free for a moment,
// and the more of them it can use the more it would lose.
type apart struct {
	servers string // a list for taskset(1); empty: there is only one processor, for all
	clients int
}

// divide gives the first processor to the clients and all others to the servers.
func divide() (apart, error) {
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return apart{}, os.NewSyscallError("sched_getaffinity", err)
	}
	a := apart{clients: -1}
	var servers []string
	for k := range len(may) * 64 {
		switch {
		case !may.IsSet(k):
		case a.clients < 0:
			a.clients = k
		default:
			servers = append(servers, strconv.Itoa(k))
		}
	}
	a.servers = strings.Join(servers, ",")
	return a, nil
}

// hold keeps a server on the servers' processors.
func (a apart) hold(r *rival) {
	if a.servers != "" {
		r.command.Args = append([]string{"-c", a.servers, r.command.Path}, r.command.Args...)
		r.command.Path = "taskset"
	}
}

// load runs f, which is a server's clients on one thread, in the server's network
// and on the clients' processor.
func (a apart) load(r *rival, f func() error) error {
	return r.ns.Do(func() error {
		if a.servers != "" {
			var set unix.CPUSet
			set.Set(a.clients)
			if err := unix.SchedSetaffinity(0, &set); err != nil { // of this thread, which ends with f
				return fmt.Errorf("keeping the clients on processor %d: %w", a.clients, os.NewSyscallError("sched_setaffinity", err))
			}
		}
		return f()
	})
}
