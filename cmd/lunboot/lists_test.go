package main

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"lunboot/services/iscsi/iscsitest"
)

// Who is logged in is listed with the machine's name, and a session that somebody
// drops ends: on record is whose it was.
func TestASessionIsListedWithItsMachineAndDropped(t *testing.T) {
	const name = "iqn.2026-11.lab:lab1"
	a := started(t, dataDir(t))
	a.must(t, "volume", "create", "v1", "--size", "8M")
	a.must(t, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5", "--auth", "none", "--iqn", name)
	a.must(t, "mapping", "add", "lab1", "v1", "--lun", "1")
	i := iscsitest.Login(t, netip.MustParseAddrPort(a.Portal), iscsitest.Options{Name: name, Target: a.Target, ISID: iscsitest.Linux(1)})
	out := a.must(t, "session", "list", "machine:lab1 by:os")
	row := regexp.MustCompile(`(?m)^(\S+) +lab1 +` + regexp.QuoteMeta(name) + ` +OS `).FindStringSubmatch(out)
	if row == nil {
		t.Fatalf("it lists\n%s", out)
	}
	if out := a.must(t, "session", "list", "by:ipxe"); strings.Contains(out, name) {
		t.Errorf("it is no iPXE:\n%s", out)
	}
	a.must(t, "session", "drop", row[1])
	if _, err := i.Do(iscsitest.Command{LUN: iscsitest.LUN(1), CDB: make([]byte, 6)}); err == nil {
		t.Error("a session that was dropped answers")
	}
	if out := a.must(t, "session", "list"); strings.Contains(out, name) {
		t.Errorf("it still lists\n%s", out)
	}
	if out := a.must(t, "audit", "--search", "what:session "+name); !strings.Contains(out, "session.drop") {
		t.Errorf("on record is\n%s", out)
	}
}
