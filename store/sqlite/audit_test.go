package sqlite

import (
	"fmt"
	"slices"
	"strings"
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

// last is the newest change of a noun.
func last(t *testing.T, db *DB, noun string) store.Audit {
	t.Helper()
	rows, _, err := db.AuditLog(t.Context(), store.AuditFilter{Noun: noun, Page: store.Page{Limit: 1}})
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	return rows[0]
}

func field(a store.Audit, name string) (c store.FieldChange) {
	for _, f := range a.Changes {
		if f.Field == name {
			c = f
		}
	}
	return c
}

// What somebody wrote over can be read again, and passwords in it cannot.
func TestATextIsOnRecordAsItWasAndIs(t *testing.T) {
	db, ctx := openTestDB(t), t.Context()
	m, err := db.CreateMachine(ctx, "ada", store.Machine{Name: "m1", MACs: []store.MAC{{2, 0, 0, 0, 0, 1}}, Initiator: "iqn.2026-11.lab:m1", Auth: store.AuthNone, Profile: "san", Notes: "rack 3\nshelf 7\nspare"})
	if err != nil {
		t.Fatal(err)
	}
	m.Notes = "rack 3\nshelf 9\nspare"
	if m, err = db.UpdateMachine(ctx, "ada", m); err != nil {
		t.Fatal(err)
	}
	if c := field(last(t, db, "machine"), "notes"); c.Before != "shelf 7" || c.After != "shelf 9" {
		t.Errorf("the notes are on record as %q", c)
	}
	for text, want := range map[string]string{
		"#!ipxe\nset password hunter2\nboot":                                                           "#!ipxe\n…\nboot",
		"d-i passwd/root-password password hunter2":                                                    "…",
		"console=ttyS0 luks.key=hunter2 root=/dev/sda":                                                 "…",
		"url=http://ada:hunter2@10.0.0.1/preseed quiet":                                                "url=http://ada:…@10.0.0.1/preseed quiet",
		"rootpw --iscrypted $6$hunter2":                                                                "…",
		"PASSWORD=\"a hunter2\"\nreboot":                                                               "…\nreboot",
		"PASSWORD=\"a\nhunter2\"\nreboot":                                                              "…\n…\n…",
		"users:\n  password: >\n    hunter2\n  name: ada":                                              "users:\n…\n…\n  name: ada",
		"chpasswd <<EOF\nroot:hunter2\nEOF":                                                            "…\n…\n…",
		"join --secret \\\n--with \\\nhunter2\nreboot":                                                 "…\n…\n…\nreboot",
		"<AdministratorPassword><Value>hunter2026!</Value></AdministratorPassword>":                    "(73 bytes)",
		"<a>\n<AdministratorPassword>\n<Value>\nhunter2026!\n</Value>\n</AdministratorPassword>\n</a>": "(86 bytes)",
		`{"password":"hunter22"}`:                                                                      "(23 bytes)",
		"{\n\"password\":\n\"hunter22\"\n}":                                                            "(26 bytes)",
		"keyboard us":                                                                                  "keyboard us",
		strings.Repeat("0123456789abcde\n", 1024) + "hunter":                                           "",
	} {
		_, got := excerpts("text", "", text)
		if strings.Contains(got, "hunter") || want != "" && got != want || len(got) > maxExcerpt+100 {
			t.Errorf("%.60q is repeated as %.200q", text, got)
		}
		// The line that names the secret may be the same on both sides.
		if was, is := excerpts("text", strings.ReplaceAll(text, "hunter", "winter"), text); strings.Contains(was+is, "hunter2") || strings.Contains(was+is, "winter2") {
			t.Errorf("a change to %.60q is repeated as %.200q and %.200q", text, was, is)
		}
	}
	if was, is := excerpts("password", "winter", "hunter"); was != "(6 bytes)" || is != "(6 bytes)" {
		t.Errorf("a field that is a password is repeated as %q and %q", was, is)
	}
	p := store.Profile{Name: "p1", Kind: store.ProfileCustom, Text: "#!ipxe\necho one\n", Fields: map[string]string{"cmdline": "quiet"}}
	if p, err = db.PutProfile(ctx, "ada", p); err != nil {
		t.Fatal(err)
	}
	p.Text, p.Fields = "#!ipxe\necho two\n", map[string]string{"cmdline": "quiet splash"}
	if _, err = db.PutProfile(ctx, "ada", p); err != nil {
		t.Fatal(err)
	}
	row := last(t, db, "profile")
	if text, cmdline := field(row, "text"), field(row, "cmdline"); text.Before != "echo one" || text.After != "echo two" || cmdline.Before != "quiet" || cmdline.After != "quiet splash" {
		t.Errorf("the profile's change is on record as %+v", row.Changes)
	}
}

// What was removed can be made again from what is on record.
func TestARemovalIsOnRecordWithAllThatThereWas(t *testing.T) {
	db, ctx := openTestDB(t), t.Context()
	m, err := db.CreateMachine(ctx, "ada", store.Machine{Name: "m1", MACs: []store.MAC{{2, 0, 0, 0, 0, 1}}, Initiator: "iqn.2026-11.lab:m1", Auth: store.AuthCHAP, Profile: "san", CHAP: store.Credential{User: "m1", Secret: "hunter2hunter2"}, Notes: "rack 3", Tags: []string{"lab"}, Serial: "S1"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := db.CreateVolume(ctx, "ada", store.Volume{Name: "v1", Kind: store.VolumeRaw, Path: "v1.raw", Size: 1 << 20, BlockSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.CreateMapping(ctx, "ada", store.Mapping{Machine: m.ID, Volume: v.ID, LUN: 3}); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteMachine(ctx, "ada", m.ID); err != nil {
		t.Fatal(err)
	}
	row := last(t, db, "machine")
	for name, want := range map[string]string{"name": "m1", "MACs": "02:00:00:00:00:01", "initiator": "iqn.2026-11.lab:m1", "CHAP user": "m1", "CHAP secret": "(set)", "notes": "rack 3", "tags": "lab", "serial": "S1", "mapping": "LUN 3 was v1"} {
		if c := field(row, name); c.Before != want || c.After != "" {
			t.Errorf("%s is on record as %+v, want %q", name, c, want)
		}
	}
	if _, err := db.PutProfile(ctx, "ada", store.Profile{Name: "p1", Kind: store.ProfileCustom, Text: "#!ipxe\necho one\n"}); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteProfile(ctx, "ada", "p1"); err != nil {
		t.Fatal(err)
	}
	if c := field(last(t, db, "profile"), "text"); c.Before != "#!ipxe\necho one" {
		t.Errorf("the profile's text is on record as %q", c.Before)
	}
	if err := db.DeleteVolume(ctx, "ada", v.ID); err != nil {
		t.Fatal(err)
	}
	if c := field(last(t, db, "volume"), "size"); c.Before != "1 MiB" {
		t.Errorf("the volume's size is on record as %+v", c)
	}
}

// Nobody made a volume ready: that it became so is in no list, and counts as the
// change that it is.
func TestThatAVolumeBecameReadyIsNoChangeOfSomebody(t *testing.T) {
	db, ctx := openTestDB(t), t.Context()
	v, err := db.CreateVolume(ctx, "ada", store.Volume{Name: "v1", Kind: store.VolumeRaw, Path: "v1.raw", Size: 1 << 20, BlockSize: 512, State: store.VolumeCreating})
	if err != nil {
		t.Fatal(err)
	}
	v.State = store.VolumeReady
	if _, err := db.UpdateVolume(ctx, store.ActorSystem, v); err != nil {
		t.Fatal(err)
	}
	if err := db.Record(ctx, "ada", "machine.wake", "m1", ""); err != nil {
		t.Fatal(err)
	}
	actions := func(f store.AuditFilter) (out []string) {
		rows, total, err := db.AuditLog(ctx, f)
		if err != nil || total != len(rows) {
			t.Fatal(rows, total, err)
		}
		for _, a := range rows {
			out = append(out, a.Action)
		}
		return out
	}
	if got := actions(store.AuditFilter{}); !slices.Equal(got, []string{"machine.wake", "volume.create"}) {
		t.Errorf("listed are %q", got)
	}
	if got := actions(store.AuditFilter{Moved: true}); !slices.Equal(got, []string{"volume.update", "volume.create"}) {
		t.Errorf("what moved a revision is %q", got)
	}
}
