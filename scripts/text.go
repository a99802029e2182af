package scripts

import (
	"slices"
	"strconv"
	"strings"

	"lunboot/store"
)

const magic = "#!ipxe"

// mark begins every label and setting of ours in a script that also holds an
// operator's text. Text that holds it gets a longer one.
const mark = "lunboot_"

// stepEnd is the step that a custom script speaks of when its text has ended.
const stepEnd = "end"

// custom makes a script from the operator's own text. Text that begins with
// #!ipxe is a whole script and sets its names itself; other text is taken for
// the lines that boot, and the initiator's name and passwords are set before
// them. A line that fails would end iPXE's script without a word; here it goes
// to the report.
func custom(p store.Profile, f Facts) (string, error) {
	text := strings.ReplaceAll(p.Text, "\r\n", "\n")
	if strings.TrimSpace(text) == "" {
		return "", store.Invalid("text", "a custom profile needs its script's text")
	}
	out, err := expand("text", text, f)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	whole := strings.TrimSpace(lines[0]) == magic
	for i, l := range lines {
		if strings.TrimSpace(l) == magic && i > 0 {
			return "", store.Invalid("text", "line %d is %s, which must be the first line or be left out", i+1, magic)
		}
	}
	in := fillFrom(f)
	in.Profile, in.Login, in.Mark = Word(p.Name), !whole, mark
	for strings.Contains(out, in.Mark) {
		in.Mark += "_"
	}
	if whole {
		lines[0] = ""
	}
	in.Text, in.Lines = watched(lines, in.Mark)
	in.Text = strings.Trim(in.Text, "\n")
	in.Report = f.report("line-${" + in.Mark + "line}")
	in.Report.Mark = in.Mark
	// The URL escapes what iPXE must expand.
	in.Report.URL = strings.Replace(in.Report.URL, "step=line-%24%7B"+in.Mark+"line%7D", "step=line-${"+in.Mark+"line}", 1)
	// What errno holds then is of a failure that the text took care of.
	in.End, _, _ = strings.Cut(f.report(stepEnd).URL, "&code=")
	return execute("custom.tmpl", in)
}

// watched sends each line that fails to a label of its own, and returns the
// labels' numbers: those of the operator's lines. The rules are iPXE's
// (src/image/script.c, src/core/exec.c): a line fails when its last command did,
// unless a "||" took care of it; a backslash at its end joins the next one to
// it; a word that begins with # ends it.
func watched(lines []string, mark string) (text string, numbers []string) {
	var b strings.Builder
	for i := 0; i < len(lines); i++ {
		first := i
		line := lines[i]
		for strings.HasSuffix(line, `\`) && i+1 < len(lines) {
			b.WriteString(line + "\n")
			i++
			line = lines[i]
		}
		whole := strings.Join(lines[first:i+1], "\n")
		if !canFail(whole) {
			b.WriteString(line + "\n")
			continue
		}
		n := strconv.Itoa(first + 1)
		numbers = append(numbers, n)
		command, comment := strings.TrimRight(strings.TrimSuffix(line, `\`), " \t\r"), ""
		if at := commentAt(command); at >= 0 {
			command, comment = strings.TrimRight(command[:at], " \t"), " "+command[at:]
		}
		b.WriteString(command + " || goto " + mark + n + comment + "\n")
	}
	return b.String(), numbers
}

// canFail reports whether a line, with those that are joined to it, holds a
// command whose failure would end the script.
func canFail(line string) bool {
	words := strings.Fields(strings.ReplaceAll(line, "\\\n", ""))
	if at := slices.IndexFunc(words, func(w string) bool { return w[0] == '#' }); at >= 0 {
		words = words[:at]
	}
	if len(words) > 0 && words[0][0] == ':' {
		words = words[1:]
	}
	if len(words) == 0 || words[len(words)-1] == "||" {
		return false
	}
	// The last command, behind ; || and &&: an exit, or a way on, is no failure.
	return !slices.Contains([]string{"exit", "echo", "shell", "reboot", "poweroff"}, words[0]) || slices.ContainsFunc(words, func(w string) bool { return w == "||" || w == "&&" || w == ";" })
}

// commentAt returns where a line's comment begins, or -1.
func commentAt(line string) int {
	for i := range len(line) {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return i
		}
	}
	return -1
}
