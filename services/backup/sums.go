package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"lunboot/store"
)

// sumsName is the file below the data folder that keeps the SHA-256 of files of
// volumes which did not change since they were read.
const sumsName = "backup-sums.json"

// known is a file whose SHA-256 is known: as long as the rest is as it was, nobody
// wrote to it. The time of the inode's last change cannot be set back by a program.
type known struct {
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // as Changed: nanoseconds since 1970
	Changed  int64  `json:"changed"`
	Inode    uint64 `json:"inode"`
	SHA256   string `json:"sha256"`
}

func knownOf(st fs.FileInfo) known {
	k := known{Size: st.Size(), Modified: st.ModTime().UnixNano()}
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		k.Changed, k.Inode = s.Ctim.Nano(), s.Ino
	}
	return k
}

// sums are the files of volumes whose SHA-256 is known, by name.
type sums map[string]known

// readSums reads what is kept; what cannot be read is made anew.
func readSums(dir string) sums {
	out := sums{}
	b, err := os.ReadFile(filepath.Join(dir, sumsName))
	if err != nil || json.Unmarshal(b, &out) != nil {
		return sums{}
	}
	return out
}

// write keeps the sums for the next backup. Half of a file is none: it is put in
// place whole.
func (s sums) write(dir string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, scratchPrefix+"sums-") // 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(dir, sumsName))
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// of returns the SHA-256 of a file, from what is kept when it is as it was then.
func (s sums) of(ctx context.Context, path, name string, seen *seen) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	now := knownOf(st)
	if was, ok := s[name]; ok {
		now.SHA256 = was.SHA256
		if now == was {
			seen.done.Add(st.Size())
			return was.SHA256, nil
		}
	}
	if now.SHA256, err = sumOf(ctx, path, seen); err != nil {
		return "", err
	}
	s[name] = now
	return now.SHA256, nil
}

// seen is how far a backup has come with reading.
type seen struct {
	what        atomic.Pointer[string]
	done, total atomic.Int64
}

// Progress says how far the backup that is being prepared has come with reading
// volumes; the zero value when none is.
func (m *Maker) Progress() store.BackupProgress {
	what := m.seen.what.Load()
	if what == nil {
		return store.BackupProgress{}
	}
	return store.BackupProgress{Volume: *what, Done: m.seen.done.Load(), Total: m.seen.total.Load()}
}

func sumOf(ctx context.Context, path string, seen *seen) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	for ctx.Err() == nil {
		n, err := io.CopyN(sum, f, 16<<20)
		seen.done.Add(n)
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(sum.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", ctx.Err()
}
