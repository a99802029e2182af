//go:build !race

package socket

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const brief = 64 << 10

// receive reads what there is.
func receive(fd uintptr, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
