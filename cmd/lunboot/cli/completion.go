package cli

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// CompletionCmd prints what makes a shell complete the verbs and flags.
type CompletionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"Shell: ${enum}. For bash: lunboot completion bash > /etc/bash_completion.d/lunboot; for fish: lunboot completion fish > ~/.config/fish/completions/lunboot.fish"`
}

// Run prints the script: the grammar as one table, so that completing asks
// nobody and works without an appliance.
func (cmd *CompletionCmd) Run(c *Context, k *kong.Kong) error {
	if cmd.Shell == "fish" {
		return fish(c, k)
	}
	var known, offers strings.Builder
	var walk func(n *kong.Node, path string)
	walk = func(n *kong.Node, path string) {
		var words []string
		for _, child := range n.Children {
			if child.Hidden {
				continue
			}
			words = append(words, child.Name)
			fmt.Fprintf(&known, "      %q) path=%q ;;\n", path+" "+child.Name, path+" "+child.Name)
		}
		for _, group := range n.AllFlags(true) {
			for _, f := range group {
				words = append(words, "--"+f.Name)
			}
		}
		for _, p := range n.Positional {
			words = append(words, p.EnumSlice()...)
		}
		fmt.Fprintf(&offers, "    %q) words=%q ;;\n", path, strings.Join(words, " "))
		for _, child := range n.Children {
			if !child.Hidden {
				walk(child, path+" "+child.Name)
			}
		}
	}
	walk(k.Model.Node, "")
	head := ""
	if cmd.Shell == "zsh" {
		head = "autoload -U +X bashcompinit && bashcompinit\n"
	}
	_, err := fmt.Fprintf(c.Out, completion, head, known.String(), offers.String())
	return err
}

// completion finds the verb among the words before the cursor, and offers what
// may follow it; where nothing fits the shell offers files.
const completion = `%s_lunboot() {
  local current="${COMP_WORDS[COMP_CWORD]}" path="" words="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$path ${COMP_WORDS[i]}" in
%s    esac
  done
  case "$path" in
%s  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _lunboot lunboot
`

// fish prints the same table for fish, which shows what each word means.
func fish(c *Context, k *kong.Kong) error {
	var known, offers strings.Builder
	var walk func(n *kong.Node, path string)
	walk = func(n *kong.Node, path string) {
		fmt.Fprintf(&offers, "    case %s\n", quoteFish(path))
		offer := func(word, help string) {
			// One line of the offer is word, tab, meaning.
			fmt.Fprintf(&offers, "      printf '%%s\\t%%s\\n' %s %s\n", quoteFish(word), quoteFish(clean(help)))
		}
		for _, child := range n.Children {
			if !child.Hidden {
				fmt.Fprintf(&known, " %s", quoteFish(path+" "+child.Name))
				offer(child.Name, child.Help)
			}
		}
		for _, group := range n.AllFlags(true) {
			for _, f := range group {
				offer("--"+f.Name, f.Help)
			}
		}
		for _, p := range n.Positional {
			for _, word := range p.EnumSlice() {
				offer(word, "")
			}
		}
		for _, child := range n.Children {
			if !child.Hidden {
				walk(child, path+" "+child.Name)
			}
		}
	}
	walk(k.Model.Node, "")
	_, err := fmt.Fprintf(c.Out, fishCompletion, known.String(), offers.String())
	return err
}

// quoteFish writes a word as fish reads it: in single quotes a backslash and a
// single quote alone mean something
// (https://fishshell.com/docs/current/language.html#quotes).
func quoteFish(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}

// fishCompletion finds the verb as completion does. Files are offered beside.
const fishCompletion = `function __lunboot_offers
  set -l path ''
  for word in (commandline -opc)[2..-1]
    if contains -- "$path $word"%s
      set path "$path $word"
    end
  end
  switch $path
%s  end
end
complete -c lunboot -a '(__lunboot_offers)'
`
