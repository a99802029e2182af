//go:build race

package socket

import "syscall"

// The race detector learns from the runtime's calls alone that who receives a
// byte comes after who sent it: no call is short for it.
const brief = 0

// receive reads what there is: the socket is non-blocking.
func receive(fd uintptr, p []byte) (int, error) { return syscall.Read(int(fd), p) }
