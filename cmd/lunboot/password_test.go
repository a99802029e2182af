package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal: what somebody sees and types, and the side of the
// program.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { program.Close() })
	return person, program
}

func echoes(t *testing.T, program *os.File) bool {
	t.Helper()
	mode, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	require.NoError(t, err)
	return mode.Lflag&unix.ECHO != 0
}

// reads returns what the person sees until a word comes.
func reads(t *testing.T, person *os.File, until string) string {
	t.Helper()
	var seen strings.Builder
	b := make([]byte, 4096)
	for !strings.Contains(seen.String(), until) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(person.Fd()), Events: unix.POLLIN}}, 10_000)
		if err == unix.EINTR {
			continue
		}
		require.NoError(t, err)
		require.NotZero(t, n, "the terminal shows only %q", seen.String())
		n, err = person.Read(b)
		require.NoError(t, err)
		seen.Write(b[:n])
	}
	return seen.String()
}

// A terminal shows nothing of a password that is typed, and echoes again after it.
func TestAPasswordIsNotShownWhileItIsTyped(t *testing.T) {
	a := started(t, dataDir(t))
	person, program := terminal(t)
	for _, args := range [][]string{
		{"password"},
		{"user", "add", "erika", "--role", "viewer"},
		{"setting", "set", "webhook-secret", "-"},
	} {
		var out, errs bytes.Buffer
		code := make(chan int, 1)
		go func() {
			code <- run(context.Background(), nil, append([]string{"--data", a.dir, "--json"}, args...), program, &out, &errs)
		}()
		reads(t, person, "not shown")
		require.False(t, echoes(t, program), "%v echoes", args)
		_, err := io.WriteString(person, "correct horse battery\n")
		require.NoError(t, err)
		require.Equal(t, exitDone, <-code, errs.String())
		seen := reads(t, person, "\n")
		require.NotContains(t, seen+out.String(), "horse", "%v shows the password", args)
		require.True(t, echoes(t, program), "%v leaves the terminal without echo", args)
	}
	require.Regexp(t, `(?m)^webhook-secret +\(set\)`, a.must(t, "setting", "list"))
}

// Whoever thinks better of it leaves with Ctrl-C, and their terminal echoes.
func TestAQuestionForAPasswordCanBeLeft(t *testing.T) {
	a := started(t, dataDir(t))
	person, program := terminal(t)
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, nil, []string{"--data", a.dir, "password"}, program, io.Discard, io.Discard)
	}()
	reads(t, person, "not shown")
	cancel()
	select {
	case got := <-code:
		require.Equal(t, exitFailed, got)
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on asking")
	}
	require.True(t, echoes(t, program), "the terminal is left without echo")
}
