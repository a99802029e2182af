package pages

import (
	"context"
	"net/http"
	"strings"

	"lunboot/store"
	"lunboot/web/pages/manual"
)

// guideKind is one kind of profile in the guide.
type guideKind struct {
	Kind       store.ProfileKind
	What, Text string
	Fields     []profileField
}

type guideView struct {
	Kinds     []guideKind
	Variables []manual.Variable
	Examples  []manual.Example
}

// profileKinds are the kinds in the order in which they are offered.
func profileKinds() []store.ProfileKind {
	return []store.ProfileKind{store.ProfileInstall, store.ProfileKernel, store.ProfileWimboot, store.ProfileMenu, store.ProfileLocal, store.ProfileSAN, store.ProfileCustom}
}

// helpProfiles is the guide of profiles: what the form of one has, and what may
// stand in it.
func (s *site) helpProfiles(w http.ResponseWriter, r *http.Request) {
	v := guideView{Variables: s.Manual.Variables, Examples: manual.Examples()}
	for _, k := range profileKinds() {
		v.Kinds = append(v.Kinds, guideKind{k, profileWords[k], profileTexts[k], profileFields[k]})
	}
	s.render(w, r, http.StatusOK, "help-profiles", page{Title: "Profiles", Nav: "help", Data: v})
}

// commandGroup is the verbs of one noun.
type commandGroup struct {
	Noun  string
	Verbs []manual.Verb
}

// helpCommands is the command line: every verb with its flags, from the grammar.
func (s *site) helpCommands(w http.ResponseWriter, r *http.Request) {
	var groups []commandGroup
	for _, v := range s.Manual.Verbs {
		noun := v.Noun()
		if v.Name == manual.Common {
			noun = v.Name
		}
		if n := len(groups); n == 0 || groups[n-1].Noun != noun {
			groups = append(groups, commandGroup{Noun: noun})
		}
		last := &groups[len(groups)-1]
		last.Verbs = append(last.Verbs, v)
	}
	s.render(w, r, http.StatusOK, "help-commands", page{Title: "Command line", Nav: "help", Data: groups})
}

type placesView struct {
	Settings []store.Setting
	Ports    []manual.Port
	Files    []manual.File
	Metrics  []manual.Metric
}

// helpAppliance is where the appliance listens and keeps things, what can be
// chosen of it, and what it shows to Prometheus.
func (s *site) helpAppliance(w http.ResponseWriter, r *http.Request) {
	chosen, err := store.Settings(r.Context(), s.Settings)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.render(w, r, http.StatusOK, "help-appliance", page{Title: "Settings, ports, files and metrics", Nav: "help",
		Data: placesView{chosen, manual.Ports(), manual.Files(), s.Manual.Metrics}})
}

// lookUp finds what a search means on the help's other pages.
func (s *site) lookUp(ctx context.Context, q string) (out []helpFound, err error) {
	add := func(name string, hits []helpHit) {
		var found []helpHit
		for _, h := range hits {
			if allWords(name+" "+h.Name+" "+h.Help+" "+h.more, q) {
				found = append(found, h)
			}
		}
		if len(found) > 0 {
			out = append(out, helpFound{name, found})
		}
	}
	var verbs, flags, variables, examples, kinds, settings, ports, files, shown []helpHit
	for _, v := range s.Manual.Verbs {
		at := "/help/commands#" + v.Anchor()
		if v.Name != manual.Common {
			verbs = append(verbs, helpHit{"lunboot " + v.Name, v.Help, at, ""})
		}
		for _, f := range v.Flags {
			flags = append(flags, helpHit{v.Name + " " + f.Name, f.Help, at + f.Name, f.Env})
		}
	}
	for _, v := range s.Manual.Variables {
		variables = append(variables, helpHit{"{{" + v.Name + "}}", v.Help, "/help/profiles#v-" + v.Name, ""})
	}
	for _, k := range profileKinds() {
		about := profileTexts[k]
		for _, f := range profileFields[k] {
			about += " " + f.Name + " " + f.Label
		}
		kinds = append(kinds, helpHit{string(k), profileWords[k], "/help/profiles#k-" + string(k), about})
	}
	for _, e := range manual.Examples() {
		examples = append(examples, helpHit{e.Title, e.Help, "/help/profiles#e-" + e.Key, e.Text})
	}
	chosen, err := store.Settings(ctx, s.Settings)
	if err != nil {
		return nil, err
	}
	for _, c := range chosen {
		settings = append(settings, helpHit{string(c.Key), c.Help, "/help/appliance#s-" + string(c.Key), ""})
	}
	for _, p := range manual.Ports() {
		ports = append(ports, helpHit{p.Port, p.Help, "/help/appliance#ports", strings.Join(p.Flags, " ")})
	}
	for _, f := range manual.Files() {
		files = append(files, helpHit{f.Name, f.Help, "/help/appliance#files", ""})
	}
	for _, m := range s.Manual.Metrics {
		shown = append(shown, helpHit{m.Name, m.Help, "/help/appliance#" + m.Name, ""})
	}
	add("Verbs", verbs)
	add("Flags", flags)
	add("Kinds of profiles", kinds)
	add("Variables", variables)
	add("Examples of profiles", examples)
	add("Settings", settings)
	add("Ports", ports)
	add("Files", files)
	add("Metrics", shown)
	return out, nil
}
