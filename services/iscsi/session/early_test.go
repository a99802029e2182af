package session

import (
	"net"
	"testing"
	"time"

	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/scsi"
)

// Before the login is answered, the connection belongs to the login: nothing of
// the session may come between its answers (RFC 7143 §6.3).
func TestNothingIsSentBeforeTheLoginIsAnswered(t *testing.T) {
	server, client := net.Pipe()
	defer client.Close()
	shared := NewShared()
	s := New(NewConn(server, shared), scsi.NewNexus(scsi.NexusConfig{}), Config{Result: login.Result{Params: login.Defaults()}, Shared: shared})
	defer s.Abandon()
	said := make(chan struct{})
	go func() {
		defer close(said)
		_ = client.SetReadDeadline(time.Now().Add(2 * time.Second))
		if n, _ := client.Read(make([]byte, 48)); n > 0 {
			t.Errorf("%d bytes came", n)
		}
	}()
	s.Ping()
	s.AskToLogOut(time.Second)
	_ = client.Close()
	<-said
}
