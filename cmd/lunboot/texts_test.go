package main

import (
	"bytes"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
)

// told finds the commands of ours in a text: lines of a block, and what stands
// between the marks of code.
var told = regexp.MustCompile("(?m)^(?:sudo )?(?:bin/)?lunboot (?:[^\\\\#\n]|\\\\\n)*|`lunboot [^`]+`|(?s:<code[^>]*>lunboot [^<]+</code>)")

// shellWords are a command's, as a shell takes them apart.
func shellWords(t *testing.T, line string) (out []string) {
	t.Helper()
	line = regexp.MustCompile(`<[^>]*>`).ReplaceAllString(line, "")
	line = strings.NewReplacer("\\\n", " ", "`", "", "…", "x", "$(date +%F)", "x").Replace(html.UnescapeString(line))
	for _, m := range regexp.MustCompile(`'([^']*)'|"([^"]*)"|(\S+)`).FindAllStringSubmatch(line, -1) {
		word := m[1] + m[2] + m[3]
		if m[3] != "" {
			word, _, _ = strings.Cut(word, "|") // one of several
		}
		if strings.HasPrefix(word, ">") || word == "" && m[3] != "" {
			return out
		}
		out = append(out, word)
	}
	return out
}

// A command that a text tells of and that is refused is worse than none.
func TestTheCommandsThatTextsTellOfAreTaken(t *testing.T) {
	texts := map[string]string{}
	for _, pattern := range []string{"../../README.md", "../../deploy/GUIDE.md", "../../deploy/compose.yaml", "../../web/pages/view/*.html"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, f := range files {
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			// What a template fills in is a word.
			text := regexp.MustCompile(`\{\{else\}\}.*?\{\{end\}\}|\{\{(if|with|range|end)[^}]*\}\}`).ReplaceAllString(string(b), "")
			texts[f] = regexp.MustCompile(`\{\{[^}]*\}\}`).ReplaceAllString(text, "x")
		}
	}
	seen := 0
	for where, text := range texts {
		for _, line := range told.FindAllString(text, -1) {
			if strings.HasPrefix(line, "lunboot is ") { // a sentence
				continue
			}
			args := shellWords(t, line)
			for len(args) > 0 && !strings.HasSuffix(args[0], "lunboot") {
				args = args[1:]
			}
			seen++
			if err := taken(t, args[1:]); err != nil {
				t.Errorf("%s tells of %q: %v", where, strings.Join(args, " "), err)
			}
		}
	}
	if seen < 60 {
		t.Errorf("only %d commands are found", seen)
	}
}

// taken reports whether the grammar takes a command; nothing is run.
func taken(t *testing.T, args []string) error {
	t.Helper()
	helped := false
	k, err := kong.New(&grammar{}, kong.Name("lunboot"), kong.PostBuild(nameEnvironment), kong.Writers(&bytes.Buffer{}, &bytes.Buffer{}), kong.Exit(func(int) { helped = true }))
	require.NoError(t, err)
	_, err = k.Parse(args)
	if helped || err != nil && strings.HasPrefix(err.Error(), `expected "<`) { // a verb that is named, without what it takes
		return nil
	}
	return err
}
