// Package services holds what every service of the appliance has in common:
// the shape of a Service, the Supervisor that runs them, and Guard, which keeps
// a panic inside the packet or session that caused it.
package services

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// Service is one listener of the appliance.
//
// Listen binds what the service needs and returns at once; an error names what
// could not be had and the way out. Serve works until ctx ends and returns nil
// then; any other return is a failure of the running service. After Serve
// returned, Listen may be called again.
type Service interface {
	String() string
	Listen() error
	Serve(ctx context.Context) error
}

// Guard runs fn and turns a panic into an error and a log line, so that one
// packet or session ends and no other machine's volume does.
func Guard(log *slog.Logger, what string, fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: internal fault: %v", what, r)
			log.Error("recovered from a panic", "in", what, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	return fn()
}
