package diagnose

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/store"
)

// replay is one boot of testdata/replays: its first line says what it is, each
// other line is an event as the journal keeps it.
type replay struct {
	From  string    `json:"from"` // a machine of the lab, or what its events are composed of and why
	Code  string    `json:"code"` // of its first diagnosis, or of one beside a boot that went well
	Title string    `json:"title"`
	Asked time.Time `json:"asked"` // when it is explained: silence until then is a failure
	Facts Facts     `json:"facts"`

	events []store.Event
}

func replays(t *testing.T) map[string]replay {
	t.Helper()
	files, err := filepath.Glob("testdata/replays/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no replays: %v", err)
	}
	out := map[string]replay{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Buffer(nil, 1<<20)
		var r replay
		for n := 0; lines.Scan(); n++ {
			if n == 0 {
				err = json.Unmarshal(lines.Bytes(), &r)
			} else {
				var e store.Event
				err = json.Unmarshal(lines.Bytes(), &e)
				r.events = append(r.events, e)
			}
			if err != nil {
				t.Fatalf("%s, line %d: %v", f, n+1, err)
			}
		}
		if lines.Err() != nil || r.From == "" || len(r.events) == 0 {
			t.Fatalf("%s: %v, from %q, %d events", f, lines.Err(), r.From, len(r.events))
		}
		out[strings.TrimSuffix(filepath.Base(f), ".jsonl")] = r
	}
	return out
}

// explain folds the events as the runner does: one attempt ends where the next
// begins, and it is the first that is explained.
func (r replay) explain(t *testing.T) ([]store.Diagnosis, *attempt.State) {
	t.Helper()
	var s *attempt.State
	var mine []store.Event
	for _, e := range r.events {
		if attempt.Begins(s, e) {
			if s != nil {
				s.StartsOver(e)
				s.Ended(e.At)
				break
			}
			s = attempt.New(1, "key", e.At)
		}
		if s == nil {
			t.Fatalf("the first event, %s, begins no boot", e.Kind)
		}
		s.Fold(e)
		mine = append(mine, e)
	}
	s.Expire(r.Asked, r.Facts.Usual)
	if h, l, ok := s.Tried(); ok {
		r.Facts.Loader = &Loader{Hardware: h, Loader: l}
	}
	return Explain(s.Snapshot(), mine, r.Facts, r.Asked), s
}

// Each boot that failed in the lab, and those that no machine of the lab can
// show, are called by the same name whenever they are told again.
func TestBootsThatFailedAreExplainedFromTheirEventsAlone(t *testing.T) {
	for name, r := range replays(t) {
		t.Run(name, func(t *testing.T) {
			got, s := r.explain(t)
			i := slices.IndexFunc(got, func(d store.Diagnosis) bool { return d.Code == r.Code })
			if i < 0 || i > 0 && !got[i].Aside {
				t.Fatalf("it is explained as %+v\n%+v", got, s.Attempt)
			}
			if got[i].Title != r.Title {
				t.Errorf("the title is\n%s\nwant\n%s", got[i].Title, r.Title)
			}
			for _, d := range got {
				checkWording(t, d)
			}
		})
	}
}

// The fifteen pains of booting over a network, most met first, each with the
// codes that name it and the boots that show it.
func TestTheFifteenPainsHaveANameEach(t *testing.T) {
	all := replays(t)
	for i, pain := range []struct {
		what    string
		replays []string
	}{
		{"nothing is heard back: VLAN, relay, port", []string{"one-way-port", "unknown-relay"}},
		{"a second DHCP server, or a router that names the boot file", []string{"foreign-file"}},
		{"proxy DHCP, option 43, option 60, port 4011", []string{"option-43-firmware", "proxy-word-not-heeded"}},
		{"TFTP times out: the way back is blocked", []string{"tftp-answers-lost", "tftp-dropped"}},
		{"packets too large: block size, MTU", []string{"card-swallows-blksize", "lost-scripts", "lost-reads"}},
		{"a loader of the wrong architecture", []string{"other-architecture", "no-loader-for-it"}},
		{"the loader runs, then silence", []string{"loader-silent", "own-loader"}},
		{"the link does not forward yet: spanning tree", []string{"spanning-tree"}},
		{"iPXE chains itself for ever", []string{"ipxe-gets-ipxe"}},
		{"Secure Boot refuses the loader", []string{"secure-boot"}},
		{"the script cannot be fetched", []string{"boot-port-dropped", "boot-port-refused", "nothing-there", "missing-kernel"}},
		{"UEFI HTTP boot's oddities", []string{"http-boot-silent"}},
		{"the login is refused", []string{"wrong-secret", "no-secret", "other-name", "other-target", "iscsi-refused"}},
		{"the wrong LUN, none, or one that does not boot", []string{"no-lun", "decimal-lun", "nothing-mapped", "empty", "too-small", "large-blocks", "other-firmware"}},
		{"the operating system loses its disk at hand-off", []string{"windows-hand-off", "linux-hand-off", "os-finds-no-volume"}},
	} {
		if len(pain.replays) == 0 {
			t.Errorf("pain %d, %s, has no boot that shows it", i+1, pain.what)
		}
		var codes []string
		for _, name := range pain.replays {
			r, ok := all[name]
			if !ok {
				t.Errorf("pain %d, %s: there is no boot %q", i+1, pain.what, name)
				continue
			}
			got, _ := r.explain(t)
			if !slices.ContainsFunc(got, func(d store.Diagnosis) bool { return d.Code == r.Code }) {
				t.Errorf("pain %d, %s: %s is explained as %+v", i+1, pain.what, name, got)
			}
			if _, ok := Find(r.Code); !ok {
				t.Errorf("pain %d, %s: %s is not in the help", i+1, pain.what, r.Code)
			}
			codes = append(codes, r.Code)
		}
		t.Logf("%2d. %s: %s", i+1, pain.what, strings.Join(codes, ", "))
	}
}
