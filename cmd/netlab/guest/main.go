//go:build linux

// Command guest is the operating system of a lab machine: the kernel runs it
// as /init from the initial RAM disk, and it runs itself again from the root
// file system of the volume. As init it does what a distribution's initramfs
// does for an iSCSI root: load the modules, read the iBFT, bring up the network
// and log in with iscsistart, mount the volume, then hand the session to
// iscsid, which logs in again whenever it breaks. From the root file system it
// proves the volume: see package area for what it reads, writes and prints.
//
// It runs alone in a virtual machine and knows nothing of the appliance.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"lunboot/cmd/netlab/lab/area"
)

func main() {
	if os.Getpid() == 1 {
		// A write to a console whose reader is gone must not end init.
		signal.Ignore(syscall.SIGPIPE)
		if err := boot(); err != nil {
			fmt.Printf("\n%s %v\n", area.MarkFail, err)
		}
		powerOff()
	}
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: guest DISK (as process 1: no argument)")
		os.Exit(2)
	}
	if err := prove(os.Args[1]); err != nil {
		fmt.Printf("\n%s %v\n", area.MarkFail, err)
		os.Exit(1)
	}
}

// powerOff ends the machine. The kernel does not come back from it.
func powerOff() {
	syscall.Sync()
	time.Sleep(50 * time.Millisecond) // the serial port's last bytes
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}
