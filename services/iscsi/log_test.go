package iscsi_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"lunboot/services/iscsi"
	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// lines is a log that is read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) with(words ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			n++
		}
	}
	return n
}

// The log has a line for each session that moved data or was cut off. One that
// looked around and left is told by its events alone: a storm of logins would
// write a line each.
func TestTheLogTellsOfSessionsThatDidSomething(t *testing.T) {
	log := &lines{}
	b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
	startWith(t, b, iscsi.Config{Log: slog.New(slog.NewTextHandler(log, nil))})
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	ended := 0
	session := func(act func(*Initiator)) (id string) {
		i := b.login(t, alice, Linux(1))
		i.Must(t, Ready(0))
		act(i)
		ended++
		return b.journal.wait(t, store.EventISCSIClosed, ended)[ended-1].Detail.Session
	}
	leave := func(i *Initiator) {
		if err := i.Send(&pdu.LogoutRequest{Immediate: true, InitiatorTaskTag: i.Tag(), CID: 1, CmdSN: i.CmdSN}, nil); err != nil {
			t.Fatal(err)
		}
		i.Closed(t)
	}
	for name, act := range map[string]func(*Initiator){
		"reads":      func(i *Initiator) { i.Must(t, Read10(0, 0, 1)); leave(i) },
		"writes":     func(i *Initiator) { i.Must(t, Write10(0, 0, make([]byte, 512))); leave(i) },
		"is cut off": func(i *Initiator) { _ = i.Conn.Close() },
	} {
		id := session(act)
		eventually(t, func() bool { return log.with("session ended", id) == 1 }, "%s: a line in the log", name)
	}
	id := session(leave)
	b.stop() // from here on nothing is added
	if log.with(id) != 0 {
		t.Errorf("the log tells of a session that looked around and left:\n%s", log.b.String())
	}
}
