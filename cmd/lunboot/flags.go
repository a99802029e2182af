package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"lunboot/web/pages"
)

// serveFlags are the flags that an appliance is started with, for the help: they
// are described once, in the grammar.
func serveFlags() ([]pages.Flag, error) {
	k, err := kong.New(&grammar{}, kong.Name("lunboot"), kong.PostBuild(nameEnvironment))
	if err != nil {
		return nil, fmt.Errorf("read the grammar: %w", err)
	}
	var out []pages.Flag
	for _, verb := range k.Model.Children {
		if verb.Name != "serve" {
			continue
		}
		for _, f := range append(verb.Flags, k.Model.Flags...) {
			if f.Hidden || len(f.Envs) == 0 || f.Name == "server" || f.Name == "token" || f.Name == "fingerprint" || f.Name == "json" {
				continue // what other verbs are told
			}
			name := "--" + f.Name
			if !f.IsBool() {
				name += " " + strings.Trim(f.FormatPlaceHolder(), `"`)
			}
			out = append(out, pages.Flag{Name: name, Env: f.Envs[0], Help: f.Help})
		}
	}
	return out, nil
}
