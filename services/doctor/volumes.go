package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"lunboot/store"
)

// maxFiles is how many files a check names one by one.
const maxFiles = 10

// VolumeFiles says which of the volumes that were looked at have files that cannot be
// used: their machines will not boot. dir is the folder of the volumes.
func VolumeFiles(dir string, looked int, troubles []store.FileTrouble, err error) []Check {
	const name = "files of volumes"
	if err != nil || len(troubles) == 0 {
		return []Check{{Name: name, Run: func(context.Context) (string, error) {
			return fmt.Sprintf("those of %d volumes are there", looked), err
		}}}
	}
	var out []Check
	for _, t := range troubles[:min(len(troubles), maxFiles)] {
		out = append(out, Check{Name: "volume " + t.Volume, Run: func(context.Context) (string, error) { return "", fileFault(dir, t) }})
	}
	if more := len(troubles) - len(out); more > 0 {
		out = append(out, Check{Name: name, Run: func(context.Context) (string, error) {
			return "", fault("lunboot doctor", "%d more volumes have files that cannot be used. Mend these first, and look again", more)
		}})
	}
	return out
}

func fileFault(dir string, t store.FileTrouble) error {
	path := t.File
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, t.File)
	}
	switch kind := store.KindOf(t.Err); {
	case kind == store.KindNotFound && t.Open:
		return fault("lunboot volume export "+t.Volume+" FILE", "its file %s was removed, and lunboot, which still holds it open, is the last that can read it. Save what is in it before lunboot ends", path)
	case kind == store.KindNotFound && filepath.IsAbs(t.File):
		return fault("lsblk", "its device %s is missing. Attach it again; 'lunboot volume remove %s' gives the volume up. What devices there are says", path, t.Volume)
	case kind == store.KindNotFound: // of a path that is not there findmnt says nothing
		return fault("findmnt --target "+shell(filepath.Dir(path)), "its file %s is missing. Mount the file system that holds it, or put the file back from a copy; 'lunboot volume remove %s' gives the volume up. What is mounted there says", path, t.Volume)
	case errors.Is(t.Err, io.ErrUnexpectedEOF), errors.Is(t.Err, io.EOF):
		if t.Size == 0 || filepath.IsAbs(t.File) {
			return fault("ls -l "+shell(path), "its file %s was cut: it ends before the volume does. Put it back from a copy. Its length says", path)
		}
		return fault(fmt.Sprintf("truncate --size %d %s", t.Size, shell(path)), "its file %s was cut: it should have %d bytes. Put it back from a copy; when there is none, make it as long as it was, with zeros for what is gone, and save what is left", path, t.Size)
	case kind == store.KindDenied:
		return fault("chown --reference "+shell(filepath.Dir(path))+" "+shell(path)+" && chmod u+r "+shell(path), "the appliance may not read its file %s. Give it to the appliance", path)
	default:
		return fault("dmesg | tail -n 30", "its file %s cannot be read: %v. The kernel's log says why", path, t.Err)
	}
}

// StrayFiles lists files in the volumes' folder that belong to none. Nothing but their
// operator's hand removes them: whose they are is not known.
func StrayFiles(dir string, found []store.StrayFile, err error, now time.Time) Check {
	total := int64(0)
	for _, f := range found {
		total += f.Size
	}
	c := Check{Name: "stray files", Run: func(context.Context) (string, error) {
		switch {
		case err != nil:
			return "", unknown("ls -la "+shell(dir), "what lies in the volumes' folder cannot be compared with the volumes: %v. Look yourself", err)
		case len(found) > 0:
			return "", advice("ls -l "+shell(dir), "%s in %s, with %s, belong to no volume: they were put there, or are of an inventory that another was restored over. Nothing removes them but you", files(len(found)), dir, store.Bytes(total))
		}
		return "none in " + dir, nil
	}}
	for _, f := range found[:min(len(found), maxFiles)] {
		c.Then = append(c.Then, Check{Name: fmt.Sprintf("%q", f.Name), Run: func(context.Context) (string, error) {
			path := shell(filepath.Join(dir, f.Name))
			return "", advice("rm -i "+path, "%s, changed last %s, %s. 'lunboot volume import NAME FILE' makes a volume of an image; what nobody misses can go", store.Bytes(f.Size), age(now.Sub(f.Changed)), f.Changed.UTC().Format("2006-01-02 15:04 UTC"))
		}})
	}
	return c
}

func files(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}

// age says roughly how long ago something was.
func age(d time.Duration) string {
	switch {
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", max(d, 0)/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	}
	return fmt.Sprintf("%d days ago", d/(24*time.Hour))
}

// shell writes a path as one word of a shell's line.
func shell(path string) string {
	plain := strings.IndexFunc(path, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+,:@", r))
	}) < 0
	if plain {
		return path
	}
	if strings.ContainsFunc(path, unicode.IsControl) { // which a terminal would obey
		var b strings.Builder
		for _, c := range []byte(path) {
			switch {
			case c < ' ' || c >= 0x7F:
				fmt.Fprintf(&b, `\x%02x`, c)
			case c == '\'' || c == '\\':
				b.WriteString(`\` + string(rune(c)))
			default:
				b.WriteByte(c)
			}
		}
		return "$'" + b.String() + "'"
	}
	return store.ShellQuote(path)
}
