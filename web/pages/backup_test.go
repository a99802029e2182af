package pages

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"lunboot/store"
)

// copied is a backup that says what was asked for.
type copied struct{ spec store.BackupSpec }

func (copied) Name() string { return "lunboot-2026-11-22.tar.gz" }
func (copied) Close() error { return nil }
func (c copied) Send(_ context.Context, w io.Writer) error {
	what := "inventory"
	if c.spec.Journal {
		what += " journal"
	}
	if c.spec.Volumes {
		what += " volumes"
	}
	_, err := io.WriteString(w, what)
	return err
}

func (l *lab) Prepare(_ context.Context, _ store.Actor, spec store.BackupSpec) (store.Backup, error) {
	return copied{spec}, l.refuse
}

func TestABackupIsAButtonOfTheSettings(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/settings")
	has(t, body, `action="/settings/backup"`, "Download a backup", "lunboot restore FILE")
	if code, body := post("/settings/backup", "journal", "on"); code != http.StatusOK || body != "inventory journal" {
		t.Errorf("the download is %d %q", code, body)
	}
	l.refuse = store.InUse("another backup is being made; wait for its end")
	if code, body := post("/settings/backup"); code != http.StatusConflict {
		t.Errorf("a second one is %d", code)
	} else {
		has(t, body, "Another backup is being made")
	}
}

// Whoever makes a backup is told before what is in it.
func TestWhatIsSecretInABackupIsSaid(t *testing.T) {
	get, _ := full().enter(t)
	_, body := get("/settings")
	has(t, body, "It holds secrets that can be read", "CHAP secrets", "passwords of BMCs", "client secret of the single sign-on", `href="/help#backups"`, "mode 0600")
	for _, q := range []string{"", "?q=secret", "?q=backup", "?q=chap"} {
		_, body := get("/help" + q)
		has(t, body, `id="backups"`, "the client secret of the single sign-on", "have the mode 0600")
	}
	if _, body := get("/help?q=axolotl"); strings.Contains(body, `id="backups"`) {
		t.Error("it is shown to whoever looks for something else")
	}
}
