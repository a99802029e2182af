//go:build linux

package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"lunboot/cmd/netlab/lab/area"
)

// workbench runs what the host sends over the serial port until the host pulls
// the plug.
func workbench() error {
	port, err := os.OpenFile("/dev/ttyS0", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer port.Close()
	// An echo would mix the command with its output.
	mode, err := unix.IoctlGetTermios(int(port.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	mode.Lflag &^= unix.ECHO | unix.ISIG
	if err := unix.IoctlSetTermios(int(port.Fd()), unix.TCSETS, mode); err != nil {
		return err
	}
	fmt.Printf("\n%s\n", area.MarkReady)
	lines := bufio.NewScanner(port)
	for n := 1; lines.Scan(); n++ {
		script, err := base64.StdEncoding.DecodeString(strings.TrimSpace(lines.Text()))
		if err != nil {
			return fmt.Errorf("command %d came broken: %w", n, err)
		}
		status := 0
		cmd := exec.Command("/bin/busybox", "sh", "-c", string(script))
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		if err := cmd.Run(); err != nil {
			if status = cmd.ProcessState.ExitCode(); cmd.ProcessState == nil {
				return err
			}
		}
		fmt.Printf("\n%s %d %d\n", area.MarkExit, n, status)
	}
	return lines.Err()
}
