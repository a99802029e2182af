package main

import (
	"fmt"

	"github.com/alecthomas/kong"

	"lunboot/scripts"
	"lunboot/web/metrics"
	"lunboot/web/pages/manual"
)

// manualBook gathers for the help what is described where it is defined: verbs
// and flags in the grammar, variables with the scripts, metrics in their table.
func manualBook() (manual.Book, error) {
	k, err := kong.New(&grammar{}, kong.Name("lunboot"), kong.PostBuild(nameEnvironment))
	if err != nil {
		return manual.Book{}, fmt.Errorf("read the grammar: %w", err)
	}
	b := manual.Book{Verbs: manual.Verbs(k)}
	for _, v := range scripts.Variables() {
		b.Variables = append(b.Variables, manual.Variable(v))
	}
	for _, m := range metrics.All() {
		b.Metrics = append(b.Metrics, manual.Metric{Name: m.Name, Help: m.Help, Labels: m.Labels})
	}
	return b, nil
}
