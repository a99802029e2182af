package iscsi_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

// failedTests reads the summary of iscsi-test-cu.
var failedTests = regexp.MustCompile(`(?m)^\s+tests\s+\d+\s+\d+\s+\d+\s+(\d+)`)

// libiscsi's conformance suite, one process for each suite of it: a test that
// crashes the tool must not hide the others.
func TestPeerConformance(t *testing.T) {
	need(t, "iscsi-test-cu")
	// The transport's own suites, and those of SCSI that move data through it.
	suites := []string{
		"iSCSIcmdsn", "iSCSIdatasn", "iSCSIResiduals", "iSCSITMF",
		"Read6", "Read10", "Read12", "Read16", "Write10", "Write12", "Write16", "Inquiry", "TestUnitReady", "ReadCapacity10", "ReadCapacity16",
	}
	if s := os.Getenv("LUNBOOT_TEST_SUITES"); s != "" {
		suites = strings.Fields(s)
	}
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			b := start(t)
			disks := map[store.LUN]disk{1: {id: 1, volume: newMemory(100 << 20)}}
			b.enroll(alice, disks)
			b.enroll(bob, disks)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, "iscsi-test-cu", "-d", "-n", "-i", string(alice), "-I", string(bob), "-t", "ALL."+suite, b.url(1)).CombinedOutput()
			m := failedTests.FindSubmatch(out)
			if err != nil || m == nil || string(m[1]) != "0" {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
