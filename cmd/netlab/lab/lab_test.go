package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab/area"
)

func TestAConsoleIsPlainText(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"carriage returns go", "one\r\ntwo\r\n", "one\ntwo\n"},
		{"colours go", "\x1b[1;37mwhite\x1b[0m text", "white text"},
		{"a cursor that jumps starts a line", "a\x1b[02;01Hb\x1b[1;1Hc", "a\nb\nc"},
		{"but not an empty one", "a\n\x1b[3;1Hb", "a\nb"},
		{"one that stays where it is goes on with it", "\x1b[2;1HGRUB\r\nWe\x1b[3;3Hlcome", "GRUB\nWelcome"},
		{"also at the foot, where lines scroll", "\x1b[25;1Ha\r\nbc\x1b[25;3Hd", "a\nbcd"},
		{"the place of another line is none", "\x1b[2;1Hab\x1b[3;3Hc", "ab\nc"},
		{"a backspace takes back", "abc\b\bX", "aX"},
		{"but not over the line", "a\n\b\bb", "a\nb"},
		{"control characters go", "a\x00\x07b\x7f", "ab"},
		{"a sequence of another kind goes", "a\x1b=b", "ab"},
	} {
		t.Run(c.name, func(t *testing.T) {
			console := newConsole(time.Now())
			for _, b := range []byte(c.raw) { // in the smallest pieces
				if _, err := console.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			if got := console.Text(); got != c.want {
				t.Errorf("%q became %q, want %q", c.raw, got, c.want)
			}
		})
	}
}

func TestWaitingFindsWhatComesLaterAndNothingTwice(t *testing.T) {
	console := newConsole(time.Now())
	go func() {
		for _, piece := range []string{"noise\nLUN", "BOOT-UP x=1\n", "LUNBOOT-UP x=2\n"} {
			time.Sleep(10 * time.Millisecond)
			fmt.Fprint(console, piece)
		}
		console.close()
	}()
	for _, want := range []string{"1", "2"} {
		m, err := console.WaitFor(t.Context(), `^LUNBOOT-UP x=(.)`)
		if err != nil || m.Groups[1] != want {
			t.Fatalf("got %v, %v; want %s", m, err, want)
		}
		if m.At < 10*time.Millisecond {
			t.Errorf("%s came at %v, before it was written", want, m.At)
		}
	}
	if _, err := console.WaitFor(t.Context(), `^LUNBOOT-UP`); err == nil || !strings.Contains(err.Error(), "x=2") {
		t.Errorf("the machine has ended: %v should show its last lines", err)
	}
}

func TestWaitingEndsWithItsContextAndSaysWhy(t *testing.T) {
	console := newConsole(time.Now())
	fmt.Fprint(console, "the last thing it said\n")
	why := errors.New("enough is enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, why)
	defer cancel()
	if _, err := console.WaitFor(ctx, `never`); !errors.Is(err, why) || !strings.Contains(err.Error(), "the last thing it said") {
		t.Errorf("got %v", err)
	}
	if _, err := console.WaitFor(ctx, `(`); err == nil {
		t.Error("a pattern that is none was waited for")
	}
}

func TestFollowingShowsEachLineOnce(t *testing.T) {
	console := newConsole(time.Now())
	var shown []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		console.Follow(t.Context(), func(l Line) { shown = append(shown, l.Text) })
	}()
	for _, piece := range []string{"one\ntw", "o\n\n", "  three"} {
		fmt.Fprint(console, piece)
		time.Sleep(5 * time.Millisecond)
	}
	console.close()
	<-done
	if want := []string{"one", "two", "three"}; !slices.Equal(shown, want) {
		t.Errorf("shown %q, want %q", shown, want)
	}
}

func TestOnlyTheNamesOfDeadRunsAreAbandoned(t *testing.T) {
	own, err := ownName("abc-srv")
	if err != nil {
		t.Fatal(err)
	}
	started, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		own: false,
		fmt.Sprintf("lunlab-%d-%d-abc-srv", os.Getpid(), started+1): true, // another process had this id
		"lunlab-4194999-1-abc-lan":                                  true, // no such process: above the largest id
		"lunlab-x-1-abc-srv":                                        false,
		"lunlab-1-1":                                                false,
		"somebody-elses":                                            false,
		"":                                                          false,
	} {
		if got := abandoned(name); got != want {
			t.Errorf("%q abandoned: %v, want %v", name, got, want)
		}
	}
}

func TestTheEmbeddedBootSectorIsItsSourceAssembled(t *testing.T) {
	need(t, "nasm")
	out := filepath.Join(t.TempDir(), "bootsector.bin")
	if _, err := Run(t.Context(), Command{Path: "nasm", Args: []string{"-f", "bin", "-o", out, "bootsector.asm"}}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, bootSector) {
		t.Error("bootsector.bin is not what nasm makes of bootsector.asm: assemble it again")
	}
}

// need skips a test where a program is missing; not in CI, which has them all.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		missing(t, err.Error())
	}
}

func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func TestABootSectorDiskCarriesItsNonceAndHasNoAnswerYet(t *testing.T) {
	path, nonce := filepath.Join(t.TempDir(), "disk"), area.NewNonce()
	if err := BuildBootSector(path, nonce, area.Hold); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != sectorDiskSize || b[510] != 0x55 || b[511] != 0xaa || string(b[512:545]) != nonce.String()+"H" {
		t.Errorf("%d bytes, signature %x, host's sector %q", len(b), b[510:512], b[512:545])
	}
	if err := CheckBootSector(bytes.NewReader(b), nonce); err == nil {
		t.Error("a fresh disk has the guest's answer")
	}
	copy(b[1024:], "guest wrote "+nonce.String())
	if err := CheckBootSector(bytes.NewReader(b), nonce); err != nil {
		t.Error(err)
	}
}

func TestThePartitionTableNamesBothPartitions(t *testing.T) {
	code := filepath.Join(t.TempDir(), "boot.img")
	if err := os.WriteFile(code, bytes.Repeat([]byte{0x90}, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := mbr(code)
	if err != nil {
		t.Fatal(err)
	}
	if b[0] != 0x90 || b[510] != 0x55 || b[511] != 0xaa {
		t.Error("the boot code or the signature is missing")
	}
	for i, want := range []struct {
		active, kind byte
		start, size  uint32
	}{{0x80, 0xef, area.ESPStart / 512, area.ESPSize / 512}, {0, 0x83, area.RootStart / 512, area.RootSize / 512}} {
		e := b[446+16*i:]
		if e[0] != want.active || e[4] != want.kind || binary.LittleEndian.Uint32(e[8:]) != want.start || binary.LittleEndian.Uint32(e[12:]) != want.size {
			t.Errorf("partition %d is %x", i+1, e[:16])
		}
	}
	if err := os.WriteFile(code, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := mbr(code); err == nil {
		t.Error("half a boot sector was taken")
	}
}

func TestCopyingAnImageKeepsItsHoles(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	f, err := os.Create(src)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("at the end of a large hole")
	if _, err := f.WriteAt(text, 3<<20); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(4<<20), f.Close(), CopyImage(dst, src)); err != nil {
		t.Fatal(err)
	}
	a, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(dst)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("the copy differs")
	}
	var info syscall.Stat_t
	if err := syscall.Stat(dst, &info); err != nil || info.Blocks*512 > 1<<20 {
		t.Errorf("the copy takes %d bytes of the disk, %v", info.Blocks*512, err)
	}
}

func TestAnArchiveIsWhatTheKernelUnpacks(t *testing.T) {
	c := newCPIO()
	c.file("etc/iscsi/one", []byte("first"))
	c.file("etc/iscsi/one", []byte("again"))
	c.file("etc/two", nil)
	c.entry("dev/console", modeChar, 5, 1, nil)
	var names []string
	for b := c.bytes(); ; {
		var size, nameSize int
		if _, err := fmt.Sscanf(string(b[54:62])+" "+string(b[94:102]), "%x %x", &size, &nameSize); err != nil || string(b[:6]) != "070701" {
			t.Fatalf("no header at %q: %v", b[:min(20, len(b))], err)
		}
		name := string(b[110 : 110+nameSize-1])
		if name == "TRAILER!!!" {
			break
		}
		start := (110 + nameSize + 3) &^ 3
		names = append(names, name+"="+string(b[start:start+size]))
		b = b[(start+size+3)&^3:]
	}
	if want := []string{"etc=", "etc/iscsi=", "etc/iscsi/one=first", "etc/two=", "dev/console="}; !slices.Equal(names, want) {
		t.Errorf("the archive holds %q, want %q", names, want)
	}
}

func TestAScreenDumpBecomesAPicture(t *testing.T) {
	picture, err := decodePPM([]byte("P6\n2 1\n255\n\xff\x00\x00\x00\x00\xff"))
	if err != nil {
		t.Fatal(err)
	}
	if r, _, b, _ := picture.At(1, 0).RGBA(); picture.Bounds().Dx() != 2 || r != 0 || b != 0xffff {
		t.Errorf("the second of %v pixels is %v", picture.Bounds(), picture.At(1, 0))
	}
	for _, bad := range []string{"", "P6\n2 1\n255\nxxx", "P5\n2 1\n255\nxxxxxx", "P6\n0 0\n255\n"} {
		if _, err := decodePPM([]byte(bad)); err == nil {
			t.Errorf("%q was decoded", bad)
		}
	}
}

func TestAProcessIsBoundedByItsContextAndSaysWhatItSaid(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, err := Start(ctx, Command{Path: "/bin/sh", Args: []string{"-c", "echo said; exec sleep 60"}})
	if err != nil {
		t.Fatal(err)
	}
	for p.Output() == "" {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if p.Wait() == nil || p.Output() != "said\n" {
		t.Errorf("it ended with %v and had said %q", p.Wait(), p.Output())
	}
	if _, err := Run(t.Context(), Command{Path: "/bin/sh", Args: []string{"-c", "echo oops >&2; exit 3"}}); err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("a failed command's error is %v", err)
	}
	if _, err := Start(t.Context(), Command{Path: "/nowhere"}); err == nil {
		t.Error("a program that is not there was started")
	}
}

func TestStoppingKillsWhatDoesNotListen(t *testing.T) {
	p, err := Start(t.Context(), Command{Path: "/bin/sh", Args: []string{"-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done"}})
	if err != nil {
		t.Fatal(err)
	}
	for p.Output() == "" {
		time.Sleep(time.Millisecond)
	}
	if err := p.Stop(50 * time.Millisecond); err == nil {
		t.Error("a process that ignores SIGTERM stopped by itself")
	}
	select {
	case <-p.Done():
	default:
		t.Error("it still runs")
	}
	if err := p.Stop(time.Second); err != nil {
		t.Errorf("stopping it again: %v", err)
	}
}

func TestMissingPackagesAreOneLine(t *testing.T) {
	if got, want := InstallLine([]Package{{Name: "a"}, {Name: "b"}}), "apt-get install -y --no-install-recommends a b"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
