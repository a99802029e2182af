package pages

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lunboot/store"
)

// writers are the functions that write the audit log, with the place of the action
// among what they are given. Those that hand it on are among them, so that each action
// stands somewhere as a text.
var writers = map[string]int{"audit": 1, "auditDiff": 1, "act": 3, "Record": 2, "ReplaceTop": 2, "replace": 2}

// written are all actions that the code base writes into the audit log.
func written(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	files := token.NewFileSet()
	look := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			variables := map[string][]ast.Expr{}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				if a, ok := n.(*ast.AssignStmt); ok && len(a.Lhs) == len(a.Rhs) {
					for i, left := range a.Lhs {
						if id, ok := left.(*ast.Ident); ok {
							variables[id.Name] = append(variables[id.Name], a.Rhs[i])
						}
					}
				}
				return true
			})
			take := func(e ast.Expr) bool {
				lit, ok := e.(*ast.BasicLit)
				if !ok {
					return false
				}
				action, err := strconv.Unquote(lit.Value)
				must(t, err)
				out[action] = files.Position(lit.Pos()).String()
				return true
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				at, ok := writers[sel.Sel.Name]
				if !ok || len(call.Args) <= at+1 || at > 1 && !hasContext(call.Args[0]) { // another thing of that name
					return true
				}
				action := call.Args[at]
				id, named := action.(*ast.Ident)
				_, handsOn := writers[fn.Name.Name]
				switch {
				case take(action):
				case named && len(variables[id.Name]) > 0 && !slices.ContainsFunc(variables[id.Name], func(e ast.Expr) bool { return !take(e) }):
				case named && handsOn:
				default:
					t.Errorf("%s: which action is written is not seen here", files.Position(call.Pos()))
				}
				return true
			})
		}
		return nil
	}
	for _, room := range []string{"store/sqlite", "services", "web", "cmd/lunboot"} {
		must(t, filepath.WalkDir(filepath.Join("..", "..", room), look))
	}
	return out
}

// hasContext reports whether an argument is a context, or made of one.
func hasContext(e ast.Expr) (found bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		found = found || ok && strings.EqualFold(id.Name, "ctx")
		return true
	})
	return found
}

// Whoever reads the audit log reads words: nothing is written that has none, and no
// words are kept for what nothing writes.
func TestEveryActionOfTheAuditLogHasWords(t *testing.T) {
	all := written(t)
	for _, known := range append(store.PassingActs(), "machine.create", "volume.rollback", "volume.reset", "machine.unignore", "oidc.delete", "version.note") {
		if all[known] == "" {
			t.Errorf("%s is not found in the code", known)
		}
	}
	named := map[string]bool{}
	for _, d := range deeds() {
		if named[d.Action] || d.Words == "" || all[d.Action] == "" {
			t.Errorf("%s has the words %q: twice, none, or for what nothing writes", d.Action, d.Words)
		}
		named[d.Action] = true
	}
	nouns := map[string]bool{}
	for action, where := range all {
		if !named[action] {
			t.Errorf("%s: %s has no words", where, action)
		}
		noun, _, _ := strings.Cut(action, ".")
		nouns[noun] = true
		if !slices.ContainsFunc(deedNouns(), func(d deed) bool { return d.Action == noun }) {
			t.Errorf("%s: nothing filters by %s", where, noun)
		}
	}
	for _, d := range deedNouns() {
		if !nouns[d.Action] {
			t.Errorf("the filter offers %s, and nothing writes of them", d.Action)
		}
	}
	if got := deedWords("shelf.tidy"); got != "Shelf tidy" {
		t.Errorf("what another version wrote is told as %q", got)
	}
}
