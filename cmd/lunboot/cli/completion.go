package cli

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// CompletionCmd prints what makes a shell complete the verbs and flags.
type CompletionCmd struct {
	Shell string `arg:"" enum:"bash,zsh" help:"Shell: ${enum}. For bash: lunboot completion bash > /etc/bash_completion.d/lunboot"`
}

// Run prints the script: the grammar as one table, so that completing asks
// nobody and works without an appliance.
func (cmd *CompletionCmd) Run(c *Context, k *kong.Kong) error {
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
