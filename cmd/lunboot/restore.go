package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"lunboot/cmd/lunboot/cli"
	"lunboot/services/backup"
	"lunboot/store"
	"lunboot/store/archive"
	"lunboot/store/sqlite"
)

// restoreCmd is 'lunboot restore'.
type restoreCmd struct {
	File string `arg:"" help:"Backup to put back."`
}

// Run restores a backup into an empty data folder. Until everything in it was
// checked, nothing is in its place.
func (r *restoreCmd) Run(w *world, c *cli.Context) (err error) {
	dir := w.grammar.Data
	in, err := os.Open(r.File)
	if err != nil {
		return fmt.Errorf("open the backup: %w", err)
	}
	defer in.Close()
	var have sqlite.Contents
	m, err := backup.Restore(w.ctx, in, dir, func(stage string) (err error) {
		have, err = sqlite.Inspect(w.ctx, stage)
		return err
	})
	if err != nil {
		return err
	}
	report := restored{Manifest: m, Contents: have}
	for _, v := range m.Volumes {
		if !v.Included {
			report.Missing = append(report.Missing, v)
		}
	}
	if c.JSON {
		return c.Show(report)
	}
	fmt.Fprintf(w.out, "restored %s of %s, made by lunboot %s: %d machines, %d volumes, %d leases\n", filepath.Base(r.File), m.Created.Local().Format("2006-01-02 15:04:05"), m.Version, have.Machines, have.Volumes, have.Leases)
	if len(report.Missing) > 0 {
		fmt.Fprintf(w.out, "the backup is without the bytes of these; put each file back before its machines boot:\n")
	}
	for _, v := range report.Missing {
		fmt.Fprintf(w.out, "  %s  %s", filepath.Join(dir, filepath.FromSlash(v.Name)), store.Bytes(v.Size))
		if v.SHA256 != "" {
			fmt.Fprintf(w.out, "  sha256 %s", v.SHA256)
		}
		if v.LeftOut != "" {
			fmt.Fprintf(w.out, "  (left out: %s)", v.LeftOut)
		}
		fmt.Fprintln(w.out)
	}
	for _, v := range m.Volumes {
		if v.Running && !strings.HasSuffix(v.Name, ".map") {
			fmt.Fprintf(w.out, "volume %s was running when it was copied: its machine finds it as after a power cut\n", v.Volume)
		}
	}
	return nil
}

// restored is what a restore tells scripts.
type restored struct {
	Manifest archive.Manifest `json:"manifest"`
	Contents sqlite.Contents  `json:"contents"`
	Missing  []archive.Volume `json:"missing"`
}
