package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// readPassword reads a line that is a secret from standard input. A terminal is
// asked for it and shows nothing of what is typed.
func (c *Context) readPassword(of string) (string, error) {
	f, terminal := c.In.(*os.File)
	if terminal {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		terminal = err == nil
	}
	line, err := "", error(nil)
	if terminal {
		line, err = c.ask(f, of)
	} else {
		line, err = bufio.NewReader(c.In).ReadString('\n')
	}
	switch {
	case c.Err() != nil:
		return "", c.Err()
	case err != nil && !errors.Is(err, io.EOF):
		return "", fmt.Errorf("read the password of %s: %w", of, err)
	case line == "":
		return "", usage("no password was given on standard input")
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// ask reads a line of a terminal without its echo, which it is given back in any
// case: also when the process is told to end meanwhile.
func (c *Context) ask(f *os.File, of string) (line string, err error) {
	fd := int(f.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", err
	}
	hidden := *was
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ICANON | unix.ISIG // a line at a time, and Ctrl-C ends it
	hidden.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &hidden); err != nil {
		return "", err
	}
	// On the terminal itself: --json and a pipe keep standard output for the answer.
	fmt.Fprintf(f, "Password of %s (it is not shown): ", of)
	defer func() {
		fmt.Fprintln(f)
		err = errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETS, was))
	}()
	if err := c.await(fd); err != nil {
		return "", err
	}
	return bufio.NewReader(f).ReadString('\n')
}

// await returns when a line is there to be read, or when the context ends.
func (c *Context) await(fd int) error {
	for {
		if err := context.Cause(c); err != nil {
			return err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
