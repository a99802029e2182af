package pages

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"lunboot/store"
	"lunboot/store/sheet"
)

// maxVerdicts bounds the lines that the page of a table lists; refused ones come
// first.
const maxVerdicts = 200

// importView is the page of a table to import.
type importView struct {
	Text    string // the table
	Taken   []string
	Told    []string
	Result  *store.MachineImport
	Lines   []store.LineVerdict // of the result, those that are shown
	Hidden  int
	Largest string
}

// Good words what the button does.
func (v importView) Good() string {
	r := v.Result
	switch {
	case r.New > 0 && r.Changed > 0:
		return "Add " + count(r.New) + " and change " + count(r.Changed)
	case r.New > 0:
		return "Add " + count(r.New)
	}
	return "Change " + count(r.Changed)
}

func (s *site) importTable(w http.ResponseWriter, r *http.Request) {
	s.showImport(w, r, http.StatusOK, page{}, importView{})
}

func (s *site) showImport(w http.ResponseWriter, r *http.Request, status int, p page, v importView) {
	v.Taken, v.Told = sheet.Columns()
	v.Largest = store.Bytes(sheet.MaxBytes)
	if v.Result != nil {
		for _, verdict := range []store.Verdict{store.VerdictRefused, store.VerdictChanged, store.VerdictNew, store.VerdictSame} {
			for _, l := range v.Result.Lines {
				if l.Verdict == verdict && len(v.Lines) < maxVerdicts {
					v.Lines = append(v.Lines, l)
				}
			}
		}
		v.Hidden = len(v.Result.Lines) - len(v.Lines)
	}
	p.Title, p.Nav, p.Data = "Import machines", "machines", v
	s.render(w, r, status, "import", p)
}

// importTablePost judges a table, or imports one that was judged.
func (s *site) importTablePost(w http.ResponseWriter, r *http.Request) {
	var v importView
	text, err := tableOf(w, r)
	if err != nil {
		status, problem := told(r, err)
		s.showImport(w, r, status, page{Error: problem}, v)
		return
	}
	v.Text = text
	lines, err := sheet.Read(strings.NewReader(text))
	if err != nil {
		status, problem := told(r, err)
		s.showImport(w, r, status, page{Error: problem}, v)
		return
	}
	match := r.PostFormValue("match")
	out, err := s.Machines.ImportMachines(r.Context(), by(r), store.MachineImportSpec{Lines: lines, Match: match, DryRun: r.PostFormValue("act") != "import"})
	if err != nil {
		status, problem := told(r, err)
		if store.KindOf(err) == store.KindConflict && len(out.Lines) > 0 { // what it would do now
			v.Result = &out
		}
		s.showImport(w, r, status, page{Error: problem}, v)
		return
	}
	v.Result = &out
	p := page{}
	if out.Done {
		p.Said = importedWords(out)
		v.Text = ""
	}
	s.showImport(w, r, http.StatusOK, p, v)
}

func importedWords(out store.MachineImport) string {
	words := "Imported: " + count(out.New) + " added, " + count(out.Changed) + " changed."
	if out.Refused > 0 {
		words += " The refused lines are below; mend them in the table and import it again."
	}
	return words
}

// tableOf takes the table of a form: a file, or what was pasted.
func tableOf(w http.ResponseWriter, r *http.Request) (string, error) {
	// Line ends of a form are two bytes, and its other fields are short.
	r.Body = http.MaxBytesReader(w, r.Body, 2*sheet.MaxBytes+maxForm)
	if err := r.ParseMultipartForm(sheet.MaxBytes); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		if e := (*http.MaxBytesError)(nil); errors.As(err, &e) {
			return "", store.Invalid("file", "the table is larger than %s; import it in parts", store.Bytes(sheet.MaxBytes))
		}
		return "", store.Invalid("file", "the form cannot be read: %v", err)
	}
	if r.MultipartForm != nil {
		defer r.MultipartForm.RemoveAll()
	}
	if f, _, err := r.FormFile("file"); err == nil {
		defer f.Close()
		var b bytes.Buffer
		if _, err := io.Copy(&b, io.LimitReader(f, sheet.MaxBytes+1)); err != nil {
			return "", store.Invalid("file", "the file did not arrive whole: %v", err)
		}
		if b.Len() > 0 {
			return b.String(), nil
		}
	}
	if text := r.PostFormValue("table"); strings.TrimSpace(text) != "" {
		return text, nil
	}
	return "", store.Invalid("file", "choose a file, or paste a table")
}

// sheetRows are the machines of a list, as rows of their table.
func (s *site) sheetRows(ctx context.Context, l listQuery) ([]sheet.Row, error) {
	all, _, _, err := s.find(ctx, l)
	if err != nil {
		return nil, err
	}
	names, err := s.volumeNames(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]sheet.Row, len(all))
	for i, m := range all {
		rows[i] = sheet.Row{Machine: m.Machine, Volume: names[m.ID], LastBoot: string(m.State)}
		if !m.Seen.IsZero() {
			rows[i].LastSeen = m.Seen.UTC().Format(time.RFC3339)
		}
	}
	return rows, nil
}

// export sends the machines of the list as a table file.
func (s *site) export(w http.ResponseWriter, r *http.Request) {
	rows, err := s.sheetRows(r.Context(), readListQuery(r.URL.Query()))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="machines-`+s.Now().UTC().Format("2006-01-02")+`.csv"`)
	out, err := sheet.NewWriter(w)
	for _, row := range rows {
		if err == nil {
			err = out.Write(row)
		}
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		s.Log.Warn("an export broke off", "error", err)
	}
}
