// Package manual is what the help says of the appliance besides the codes of
// diagnoses: its command line, what profiles are made of, and where it listens
// and keeps things.
//
// What is defined elsewhere is taken from there and not said again: verbs and
// flags come from the grammar, variables from the generator of scripts, metrics
// from their table.
package manual

import (
	"strings"

	"github.com/alecthomas/kong"
)

// Book is what the appliance gives to the help.
type Book struct {
	Verbs     []Verb
	Variables []Variable
	Metrics   []Metric
}

// Variable is one name that profiles' texts may hold in {{ }}.
type Variable struct {
	Name, Help string
	Example    string // what it is for a made-up machine
}

// Metric is one of those that Prometheus is shown.
type Metric struct {
	Name, Help string
	Labels     []string
}

// Verb is one verb of the command line.
type Verb struct {
	Name  string // its words: "machine add"
	Usage string // with what it takes
	Help  string
	Args  []Argument
	Flags []Flag
}

// Anchor is where the verb stands on its page.
func (v Verb) Anchor() string { return strings.ReplaceAll(v.Name, " ", "-") }

// Noun is the first word of the verb.
func (v Verb) Noun() string {
	noun, _, _ := strings.Cut(v.Name, " ")
	return noun
}

// Argument is what stands behind a verb.
type Argument struct{ Name, Help string }

// Flag is one flag of a verb.
type Flag struct {
	Name  string // with its dashes: "--admin"
	Takes string // "ADDR"; empty for a switch
	Env   string // the variable that does the same
	Help  string
}

// Common is the name of the verb that stands for the flags which all verbs take.
const Common = "every verb"

// Verbs reads the grammar of the command line, serve first; the flags that all
// verbs take are those of a first one that is none.
func Verbs(k *kong.Kong) []Verb {
	out := []Verb{{Name: Common, Usage: "lunboot VERB [flags]", Help: "What every verb takes. Each flag is also an environment variable, which stands beside it.", Flags: flagsOf(k.Model.Flags)}}
	for _, n := range k.Model.Leaves(true) {
		v := Verb{Name: strings.TrimPrefix(n.Path(), "lunboot "), Usage: "lunboot " + strings.TrimPrefix(n.Summary(), "lunboot "), Help: n.Help, Flags: flagsOf(n.Flags)}
		for _, p := range n.Positional {
			v.Args = append(v.Args, Argument{p.Summary(), p.Help})
		}
		// Where a noun and all its verbs take a flag, it stands with the noun.
		for up := n.Parent; up != nil && up.Parent != nil; up = up.Parent {
			v.Flags = append(v.Flags, flagsOf(up.Flags)...)
		}
		out = append(out, v)
	}
	return out
}

func flagsOf(all []*kong.Flag) (out []Flag) {
	for _, f := range all {
		if f.Hidden || f.Name == "help" {
			continue
		}
		one := Flag{Name: "--" + f.Name, Help: f.Help}
		switch {
		case f.Enum != "":
			one.Takes = strings.Join(f.EnumSlice(), "|")
		case !f.IsBool():
			one.Takes = strings.Trim(f.FormatPlaceHolder(), `"`)
		}
		if len(f.Envs) > 0 {
			one.Env = f.Envs[0]
		}
		out = append(out, one)
	}
	return out
}
