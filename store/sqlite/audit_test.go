package sqlite

import (
	"fmt"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// BenchmarkAuditLog is a page of the changes of a year, forty a working day and a
// hall that was enrolled: it is to be there in 50 ms.
func BenchmarkAuditLog(b *testing.B) {
	db, err := Open(b.Context(), b.TempDir(), time.Now)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	const n = 20_000
	err = db.file.Write(b.Context(), func(t *dbfile.Tx) error {
		for i := range n {
			_, err := t.Insert("INSERT INTO audit (at, actor, action, subject, detail, changes) VALUES (?, ?, ?, ?, ?, ?)", i, []string{"anna", "ben", "token ci"}[i%3], []string{"machine.update", "volume.create", "mapping.create", "setting.put"}[i%4],
				fmt.Sprintf("lab-%04d", i%2000), "profile san → local; tags room 3 → room 4", `[{"field":"profile","before":"san","after":"local"},{"field":"tags","before":"room 3","after":"room 4"}]`)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, text := range []string{"", "lab-1234", "who:anna what:machine", "nobody"} {
		for _, by := range []string{"", "subject", "what", "-who"} {
			b.Run(text+"|"+by, func(b *testing.B) {
				f, err := store.ParseAuditSearch(text, time.Now())
				if err != nil {
					b.Fatal(err)
				}
				f.Sort, f.Limit = by, 50
				for b.Loop() {
					if _, _, err := db.AuditLog(b.Context(), f); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
