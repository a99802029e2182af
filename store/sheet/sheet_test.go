package sheet_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"lunboot/store"
	"lunboot/store/sheet"
)

func mac(t *testing.T, s string) store.MAC {
	t.Helper()
	m, err := store.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func read(t *testing.T, text string) []store.MachineLine {
	t.Helper()
	lines, err := sheet.Read(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return lines
}

func TestATableIsReadInEverySpelling(t *testing.T) {
	for what, text := range map[string]string{
		"commas":                "name,macs,tags\nlab-01,00:07:e9:0f:ea:f5,\"a b,c\"\n",
		"semicolons":            "name;macs;tags\r\nlab-01;00-07-E9-0F-EA-F5;a b,c\r\n",
		"tabs":                  "name\tmacs\ttags\nlab-01\t0007.e90f.eaf5\ta b, c\n",
		"a byte order mark":     "\ufeffName,MACs,Tags\n LAB-01 ,0007e90feaf5,\"a b,c\"",
		"what Excel says":       "sep=;\r\nname;mac;tag\r\nlab-01;00:07:e9:0f:ea:f5;\"a b,c\"\r\n",
		"empty lines":           "\n\nname,macs,tags,,\n,,,,\nlab-01,00:07:e9:0f:ea:f5,\"a b,c\",,\n\n",
		"quoted heads":          "\"name\";\"macs\";\"tags\"\n\"lab-01\";\"00:07:e9:0f:ea:f5\";\"a b,c\"",
		"columns without use":   "last_seen,name,firmware,macs,tags\n2026-11-22T14:02:08Z,lab-01,UEFI,00:07:e9:0f:ea:f5,\"a b,c\"",
		"a separator in a cell": "name,macs,tags,notes\nlab-01,00:07:e9:0f:ea:f5,\"a b,c\",\n",
	} {
		lines := read(t, text)
		if len(lines) != 1 || lines[0].Err != nil {
			t.Errorf("%s: %+v", what, lines)
			continue
		}
		p := lines[0].Patch
		if *p.Name != "lab-01" || !reflect.DeepEqual(*p.MACs, []store.MAC{mac(t, "00:07:e9:0f:ea:f5")}) || !reflect.DeepEqual(*p.Tags, []string{"a b", "c"}) || p.Notes != nil || p.Profile != nil {
			t.Errorf("%s: %+v", what, p)
		}
	}
}

func TestEveryFieldOfATableIsTaken(t *testing.T) {
	l := read(t, `name,macs,uuid,serial,asset_tag,address,profile,tags,notes,initiator,auth,loader,quirks
lab-01,00:07:e9:0f:ea:f5 / 00:07:e9:0f:ea:f6,4c4c4544-0034-4810-8051-b4c04f564a32,S1,A-7,10.77.0.9,local,x,"two
lines",iqn.2026-11.lab:One,CHAP,auto,no-option-43
lab-02,"00:07:e9:0f:ea:f5; 00:07:e9:0f:ea:f6",,,,,,,'=1+1,,,,
-,,,,,,,,,,,,
,,-,-,-,-,,-,-,,,-,-
`)
	if len(l) != 4 || l[0].Err == nil || l[1].Err != nil || l[2].Err == nil || l[3].Err != nil {
		t.Fatalf("%+v", l)
	}
	if store.KindOf(l[0].Err) != store.KindInvalid || !strings.Contains(l[0].Err.Error(), `"/" is not a MAC`) || l[0].Line != 2 {
		t.Errorf("line %d: %v", l[0].Line, l[0].Err)
	}
	if l[1].Line != 4 || len(*l[1].Patch.MACs) != 2 || *l[1].Patch.Notes != "=1+1" {
		t.Errorf("line %d: %+v", l[1].Line, l[1].Patch)
	}
	if p := l[3].Patch; p.Name != nil || p.MACs != nil || *p.UUID != (store.UUID{}) || *p.Serial != "" || *p.AssetTag != "" || p.Address.IsValid() || p.Profile != nil || len(*p.Tags) != 0 || *p.Notes != "" || *p.Loader != "" || len(*p.Quirks) != 0 {
		t.Errorf("it is emptied as %+v", p)
	}
	all := read(t, "name,macs,uuid,serial,asset_tag,address,profile,initiator,auth,loader,quirks\nlab-01,00:07:e9:0f:ea:f5,{4c4c45440034-4810-8051-b4c04f564a32},,,,,,,,\nlab-01,00:07:e9:0f:ea:f5,4c4c4544-0034-4810-8051-b4c04f564a32,S1,A-7,10.77.0.9,local,iqn.2026-11.lab:One,CHAP,ipxe.efi,no-option-43 no-proxy-offer")
	if all[0].Err == nil {
		t.Error("half a UUID is taken")
	}
	if p := all[1].Patch; *p.UUID == (store.UUID{}) || *p.Serial != "S1" || *p.AssetTag != "A-7" || *p.Address != netip.MustParseAddr("10.77.0.9") || *p.Profile != "local" || *p.Initiator != "iqn.2026-11.lab:one" || *p.Auth != store.AuthCHAP || *p.Loader != "ipxe.efi" || len(*p.Quirks) != 2 {
		t.Errorf("%v: %+v", all[1].Err, p)
	}
}

func TestALineThatIsWrongIsNamedWithItsField(t *testing.T) {
	for cell, field := range map[string]string{
		"name\nlab 01":             "name",
		"name\n-":                  "name",
		"name,macs\na,00:07":       "macs",
		"name,address\na,::1":      "address",
		"name,uuid\na,1":           "uuid",
		"name,initiator\na,disk":   "initiator",
		"name,auth\na,password":    "auth",
		"name,quirks\na,no-lunch":  "quirks",
		"name,profile\na,-":        "profile",
		"name,macs\na,,more,cells": "file",
	} {
		l := read(t, cell)
		e, ok := l[0].Err.(*store.Error)
		if !ok || e.Field != field || e.Kind != store.KindInvalid || l[0].Line != 2 {
			t.Errorf("%q: %+v", cell, l[0].Err)
		}
	}
}

func TestWhatIsNoTableOfMachinesIsRefusedWhole(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "is empty",
		"\n,,\n":                               "is empty",
		"name,colour\na,red":                   `no column "colour"`,
		"name,name\n":                          "there twice",
		"name,MAC,macs\n":                      "there twice",
		"profile,tags\n":                       "which machine",
		"name,chap_secret\na,x":                "secrets",
		"name,notes\na,\"never ends":           "line 2: a quotation mark",
		"sep=;\nname;notes\na;x\nb;y\"z":       "line 4: a quotation mark",
		"n\x00a\x00m\x00e\x00":                 "UTF-8",
		"\xff\xfen\x00a\x00":                   "UTF-8",
		"name\nm\xfcller":                      "UTF-8",
		"name\n" + strings.Repeat("a\n", 5001): "more than 5000 lines",
		strings.Repeat("x", sheet.MaxBytes+1):  "larger than 2 MiB",
	} {
		_, err := sheet.Read(strings.NewReader(text))
		if store.KindOf(err) != store.KindInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

// machine is any machine that the inventory can hold.
func machine(t *rapid.T) store.Machine {
	word := rapid.StringMatching(`[=+@'\-a-z0-9;,"\t ]{0,12}`)
	trimmed := rapid.Map(word, strings.TrimSpace)
	m := store.Machine{
		Name: rapid.StringMatching(`[a-z][a-z0-9-]{0,10}[a-z0-9]`).Draw(t, "name"), Serial: trimmed.Draw(t, "serial"), AssetTag: trimmed.Draw(t, "asset tag"),
		Profile: "san", Initiator: "iqn.2026-11.lab:x", Auth: store.AuthMutual, Notes: rapid.StringMatching(`[^\r\x00]{0,40}`).Draw(t, "notes"),
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "MACs") {
		m.MACs = append(m.MACs, store.MAC{2, 0, 0, 0, byte(i), rapid.Byte().Draw(t, "byte")})
	}
	for range rapid.IntRange(0, 3).Draw(t, "tags") {
		if tag := rapid.StringMatching(`[=+@'\-]?[a-z;" ]*[a-z]`).Draw(t, "tag"); strings.TrimSpace(tag) == tag {
			m.Tags = append(m.Tags, tag+fmt.Sprint(len(m.Tags)))
		}
	}
	return m
}

func TestWhatIsWrittenIsReadAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := machine(t)
		var b bytes.Buffer
		w, err := sheet.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		m.CHAP, m.Reverse = store.Credential{User: "u", Secret: "a-secret-of-it"}, store.Credential{User: "v", Secret: "another-secret"}
		if err := w.Write(sheet.Row{Machine: m, Volume: "win11", LastBoot: "up", LastSeen: time.Unix(0, 0).UTC().Format(time.RFC3339)}); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "secret") {
			t.Fatalf("a secret leaves:\n%s", b.String())
		}
		lines, err := sheet.Read(&b)
		if err != nil || len(lines) != 1 || lines[0].Err != nil {
			t.Fatalf("%v %+v", err, lines)
		}
		p := lines[0].Patch
		or := func(s *string) string {
			if s == nil {
				return ""
			}
			return *s
		}
		if *p.Name != m.Name || !reflect.DeepEqual(*p.MACs, m.MACs) || or(p.Serial) != m.Serial || or(p.AssetTag) != m.AssetTag || *p.Auth != m.Auth {
			t.Errorf("%+v came back as %+v", m, p)
		}
		if strings.TrimSpace(m.Notes) != "" && or(p.Notes) != m.Notes {
			t.Errorf("the notes %q came back as %q", m.Notes, or(p.Notes))
		}
		if len(m.Tags) > 0 && !reflect.DeepEqual(*p.Tags, m.Tags) {
			t.Errorf("the tags %q came back as %q", m.Tags, *p.Tags)
		}
	})
}

// What a machine says of itself is no formula in any country's table program, and
// comes back as it was.
func TestNoCellIsCalculated(t *testing.T) {
	for _, note := range []string{"=1+1", "'=1", "''", "-", "x;=HYPERLINK(1)", "a\n=1\n@b", "\t\t=", ";';'=;", "plain; text - with = signs", "+49 30"} {
		m := store.Machine{Name: "lab-01", MACs: []store.MAC{mac(t, "00:07:e9:0f:ea:f5")}, Notes: note}
		var out bytes.Buffer
		w, err := sheet.NewWriter(&out)
		if err == nil {
			err = w.Write(sheet.Row{Machine: m})
		}
		if err = errors.Join(err, w.Flush()); err != nil {
			t.Fatal(err)
		}
		for _, cell := range strings.FieldsFunc(out.String(), func(r rune) bool { return strings.ContainsRune(",;\t\r\n\"", r) }) {
			if strings.ContainsAny(cell[:1], "=+@") {
				t.Errorf("%q begins a cell with %q: %s", note, cell, out.String())
			}
		}
		back := read(t, out.String())
		if len(back) != 1 || back[0].Err != nil || back[0].Patch.Notes == nil || *back[0].Patch.Notes != note {
			t.Errorf("%q comes back as %+v", note, back)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("name,macs,tags\nlab-01,00:07:e9:0f:ea:f5,\"a,b\"\n"))
	f.Add([]byte("sep=;\r\nname;notes\r\nx;\"a\r\nb\"\r\n"))
	f.Add([]byte("\xef\xbb\xbfname\taddress\nlab\t10.0.0.1\n\n,,\n"))
	f.Add([]byte("uuid,quirks,auth,loader\n-,-,none,'-\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		lines, err := sheet.Read(bytes.NewReader(b))
		if err != nil {
			if store.KindOf(err) != store.KindInvalid {
				t.Fatalf("%v is no refusal", err)
			}
			return
		}
		last := 1
		for _, l := range lines {
			if l.Line <= last {
				t.Fatalf("line %d comes after line %d", l.Line, last)
			}
			last = l.Line
			if l.Err == nil && l.Patch.MACs != nil {
				for _, m := range *l.Patch.MACs {
					if m.IsZero() || m[0]&1 != 0 {
						t.Fatalf("no machine has the MAC %s", m)
					}
				}
			}
			if l.Err != nil && store.KindOf(l.Err) != store.KindInvalid {
				t.Fatalf("%v is no refusal", l.Err)
			}
		}
		if len(lines) > sheet.MaxLines {
			t.Fatalf("%d lines", len(lines))
		}
	})
}
