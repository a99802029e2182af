package lab_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

// fioJobs write all over LUN 7 at once and verify what they wrote: small blocks
// in passes over the whole of their part, each verified before the next; blocks
// of every size in any order, verified soon after; long runs. Each block carries
// its place and its turn, so that one that got lost is found like one that was
// damaged. FLUSH goes along.
const fioJobs = `[global]
filename=%s
ioengine=libaio
direct=1
time_based
runtime=%d
verify=crc32c
verify_fatal=1
randrepeat=0
[passes]
rw=randwrite
bs=4k
iodepth=16
offset=32m
size=1m
fsync=64
[sizes]
rw=randwrite
bsrange=512-128k
blockalign=512
iodepth=8
offset=64m
size=64m
verify_backlog=64
fsync=64
[runs]
rw=write
bs=1m
iodepth=4
offset=128m
size=128m
verify_backlog=16
`

// The first 32 MiB are written once, before, and read at the very end.
const fioBase = "fio --name=base --filename=%s --ioengine=libaio --direct=1 --rw=write --bs=64k --iodepth=8 --size=32m --verify=crc32c --end_fsync=1 "

// fioJob is what fio says of a job, in its terse version 3.
type fioJob struct {
	name            string
	failed          int
	readKB, wroteKB int64
	slowest         time.Duration // of all writes
}

func readFio(t *testing.T, out string) (jobs []fioJob) {
	t.Helper()
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(line), ";")
		if len(f) < 60 || f[0] != "3" {
			continue
		}
		number := func(field int) int64 {
			n, err := strconv.ParseFloat(f[field-1], 64)
			if err != nil {
				t.Errorf("fio's field %d is %q", field, f[field-1])
			}
			return int64(n)
		}
		jobs = append(jobs, fioJob{f[2], int(number(5)), number(6), number(47), time.Duration(number(80)) * time.Microsecond})
	}
	return jobs
}

// Linux works on a disk with digests on while the appliance is restarted under
// it, in order and by a kill: it logs in again by itself, no program sees an
// error, and every block holds what was written last, for five minutes. That what was
// flushed outlives a kill is seen in each run, by a machine that writes records.
func TestLinuxsDataIsWholeWhenTheApplianceIsRestartedUnderLoad(t *testing.T) {
	soaking(t)
	const run = 5 * time.Minute
	b := start(t, 12*time.Minute)
	base := fmt.Sprintf(fioBase, disk(7))
	// filled is a machine whose disk has been written once. An emulated card can
	// stand still on a busy processor, both ways and for good, before anything is
	// done to the appliance: that is another machine's turn, once.
	filled := func(name string, n byte) (*initiator, bool) {
		i := b.initiator(name, n, []string{"usr/bin/fio"}, "--auth", "none")
		i.volume(7, "256M")
		i.run(discover)
		i.set("node.conn[0].iscsi.HeaderDigest=CRC32C", "node.conn[0].iscsi.DataDigest=CRC32C")
		i.run("iscsiadm -m node --login")
		i.waitDisk(7)
		said, status, err := i.w.Do(b.ctx, base+"--do_verify=0")
		if err != nil || status != 0 {
			t.Logf("%s could not fill its disk: %v\n%s", name, err, said)
		}
		return i, err == nil && status == 0
	}
	i, ok := filled("load", 92)
	if !ok {
		if i, ok = filled("load2", 93); !ok {
			t.Fatal("two machines in a row could not fill their disks")
		}
	}
	i.run("cat >/tmp/jobs <<END\n" + fmt.Sprintf(fioJobs, disk(7), int(run.Seconds())) + "END\n" +
		"(fio --output-format=terse --terse-version=3 --output=/tmp/result /tmp/jobs >/tmp/said 2>&1; echo $? >/tmp/status) &")
	began := time.Now()
	for n, end := range []struct {
		how string
		do  func() error
	}{
		{"SIGTERM", func() error { return b.appliance.Stop(30 * time.Second) }},
		{"kill -9", func() error { b.appliance.Kill(); return nil }},
	} {
		time.Sleep(time.Until(began.Add(run * time.Duration(n+1) / 4)))
		b.must(i.waitIO())
		asked := time.Now()
		b.must(end.do())
		ended := time.Now()
		b.must(b.appliance.Start(b.ctx))
		back := time.Now()
		b.must(i.waitIO())
		t.Logf("%s after %.0f s: it ended in %.1f s and was back in %.1f s; Linux went on %.1f s later", end.how, asked.Sub(began).Seconds(), ended.Sub(asked).Seconds(), back.Sub(ended).Seconds(), time.Since(back).Seconds())
	}
	// The orderly end asked Linux to log out, and it did.
	if log := b.appliance.Log(); !regexp.MustCompile(regexp.QuoteMeta(string(i.iqn)) + ` .* written=[1-9].* reason="the initiator logged out"`).MatchString(log) {
		t.Errorf("Linux did not log out at the end of the appliance:\n%s", log)
	}
	i.run("while ! [ -e /tmp/status ]; do sleep 0.2; done")
	said := i.run("cat /tmp/said /tmp/result; cat /tmp/status")
	if !strings.HasSuffix(said, "\n0") || strings.Contains(said, "verify:") {
		t.Errorf("fio says:\n%s", said)
	}
	jobs := readFio(t, said)
	if len(jobs) != 3 {
		t.Errorf("fio tells of %d jobs:\n%s", len(jobs), said)
	}
	var read int64
	for _, j := range jobs {
		t.Logf("%s: %d MiB written, %d MiB read and verified, the slowest write %.1f s", j.name, j.wroteKB>>10, j.readKB>>10, j.slowest.Seconds())
		if j.failed != 0 || j.wroteKB == 0 {
			t.Errorf("fio's job %+v", j)
		}
		read += j.readKB
	}
	if read == 0 { // a busy host may leave one of them no time for it
		t.Error("nothing was verified")
	}
	i.run(base + "--verify_only")
	if said := i.run("dmesg"); strings.Contains(said, "I/O error") || strings.Contains(said, "offline") {
		t.Errorf("the kernel says:\n%s", said)
	}
	said = i.run("iscsiadm -m session -P3")
	for _, want := range []string{"LOGGED IN", "HeaderDigest: CRC32C", "DataDigest: CRC32C"} {
		if !strings.Contains(said, want) {
			t.Errorf("the session lacks %q:\n%s", want, said)
		}
	}
	i.run("iscsiadm -m node --logout")
}

// waitIO waits until the machine has moved bytes over a session that it has
// now.
func (i *initiator) waitIO() error {
	var before int64 = -1
	for {
		var list struct{ Items []store.Session }
		if err := i.appliance.JSON(i.ctx, &list, "session", "list"); err != nil {
			return err
		}
		for _, s := range list.Items {
			if s.Initiator != i.iqn {
				continue
			}
			if now := s.Read + s.Written; before >= 0 && now > before {
				return nil
			} else {
				before = now
			}
		}
		select {
		case <-i.ctx.Done():
			return fmt.Errorf("%s moves no bytes: %w", i.name, i.ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
