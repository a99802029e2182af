package inventory

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lunboot/store"
)

// Bounds of a look into the folders for images.
const (
	maxImages     = 200
	maxImageDepth = 4
)

// ImageFiles lists what lies in the folders for images, newest first: at most
// maxImages files, no deeper than maxImageDepth folders. A folder that is missing
// has none.
func (i *Inventory) ImageFiles() ([]store.ImageFile, error) {
	var out []store.ImageFile
	for _, dir := range i.images {
		root, err := os.OpenRoot(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, &store.Error{Kind: store.KindUnavailable, Op: "list images", Subject: dir, Err: err, Msg: "the folder for images cannot be read; mend its owner and mode"}
		}
		err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
			switch {
			case err != nil && name != ".": // one that may not be read hides no other
				return nil
			case err != nil:
				return err
			case e.IsDir() && (strings.Count(name, "/") >= maxImageDepth || name != "." && strings.HasPrefix(e.Name(), ".")):
				return fs.SkipDir
			case !e.Type().IsRegular() || strings.HasPrefix(e.Name(), "."):
				return nil
			}
			st, err := e.Info()
			if err != nil || st.Size() == 0 {
				return nil
			}
			out = append(out, store.ImageFile{Path: filepath.Join(dir, name), Name: name, Size: st.Size(), Changed: st.ModTime()})
			if len(out) >= 4*maxImages {
				return fs.SkipAll
			}
			return nil
		})
		root.Close()
		if err != nil {
			return nil, &store.Error{Kind: store.KindUnavailable, Op: "list images", Subject: dir, Err: err, Msg: "the folder for images cannot be read; mend its owner and mode"}
		}
	}
	slices.SortStableFunc(out, func(a, b store.ImageFile) int { return b.Changed.Compare(a.Changed) })
	return out[:min(len(out), maxImages)], nil
}

// ImageFolders are the folders for images.
func (i *Inventory) ImageFolders() []string { return i.images }
