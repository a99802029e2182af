package pages

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"lunboot/store"
)

// stageTitle names a stage in each tense: waiting, running, done, failed.
var stageTitle = map[store.StageName][4]string{
	store.StageAsk:     {"Ask for an address", "Asking for an address", "Asked for an address", "Could not ask for an address"},
	store.StageAddress: {"Get an address", "Getting an address", "Got an address", "Did not get an address"},
	store.StageLoader:  {"Fetch the loader", "Fetching the loader", "Fetched the loader", "Could not fetch the loader"},
	store.StageScript:  {"Fetch its boot script", "Fetching its boot script", "Fetched its boot script", "Did not get its boot script"},
	store.StageLogin:   {"Connect to its volume", "Connecting to its volume", "Connected to its volume", "Could not connect to its volume"},
	store.StageRead:    {"Read its volume", "Reading its volume", "Read from its volume", "Could not read its volume"},
	store.StageUp:      {"Start the operating system", "Starting the operating system", "Operating system up", "The operating system did not come up"},
}

var stageProtocol = map[store.StageName]string{
	store.StageAsk: "DHCP discover", store.StageAddress: "DHCP ack", store.StageLoader: "TFTP", store.StageScript: "iPXE over HTTP",
	store.StageLogin: "iSCSI login", store.StageRead: "SCSI read", store.StageUp: "a sign of life",
}

func stageWords(n store.StageName, st store.StageState) string {
	t := stageTitle[n]
	switch st {
	case store.StageRunning:
		return t[1]
	case store.StageDone, store.StageSlow:
		return t[2]
	case store.StageFailed:
		return t[3]
	}
	return t[0]
}

func stageIcon(st store.StageState) string {
	switch st {
	case store.StageDone:
		return "circle-check"
	case store.StageSlow:
		return "triangle-alert"
	case store.StageRunning:
		return "loader-circle"
	case store.StageFailed:
		return "circle-x"
	case store.StageSkipped:
		return "skip-forward"
	case store.StageUnsure:
		return "circle-help"
	}
	return "circle-dashed"
}

// stripLabel says in words what the strip shows.
func stripLabel(a store.Attempt) string {
	stages := store.Stages()
	for i, n := range stages {
		if n == a.Stage {
			words := "Reached"
			if a.Outcome == store.OutcomeFailed || a.Outcome == store.OutcomeNotEnrolled {
				words = "Stopped at"
			}
			return fmt.Sprintf("%s step %d of %d: %s", words, i+1, len(stages), strings.ToLower(stageTitle[n][0]))
		}
	}
	return "No step reached yet"
}

func (s *site) functions() template.FuncMap {
	return template.FuncMap{
		"asset":     s.assets.url,
		"icon":      func(name string) string { return s.assets.url("icons.svg") + "#" + name },
		"bytes":     store.Bytes,
		"adminOnly": adminOnly,
		"hardware":  hardware,
		"upper":     upper,
		"ago":       s.ago,
		"instant":   s.instant,
		"clock":     s.clock,
		"span":      span,
		"slashes":   slashes,
		"browser":   browserName,
		"stage":     stageWords,
		"protocol":  func(n store.StageName) string { return stageProtocol[n] },
		"stageIcon": func(st store.StageState) string {
			return stageIcon(st)
		},
		"strip":  stripLabel,
		"cond":   bootCondition,
		"reason": reason,
		"doable": doable,
		"took":   took,
		"confidence": func(c store.Confidence) string {
			return upperFirst(string(c))
		},
		"conditions": func() []condition { return []condition{condFailed, condBooting, condLost, condUp, condSlow, condNever} },
		"jobWords":   jobWords,
		"deed":       deedWords,
		"leaseWords": leaseWords,
		"eventWords": eventWords,
		"eventFacts": eventFacts,
		"percent":    func(v store.Volume) string { return fmt.Sprintf("%d %%", v.Progress) },
		"platform":   func(parts ...string) string { return strings.TrimSpace(strings.Join(parts, " ")) },
		"dict": func(pairs ...any) (map[string]any, error) {
			if len(pairs)%2 != 0 {
				return nil, fmt.Errorf("dict: odd number of arguments")
			}
			m := map[string]any{}
			for i := 0; i < len(pairs); i += 2 {
				key, ok := pairs[i].(string)
				if !ok {
					return nil, fmt.Errorf("dict: %v is not a name", pairs[i])
				}
				m[key] = pairs[i+1]
			}
			return m, nil
		},
	}
}

// instant is clock for pages, with the moment to the second, and in which zone it is,
// behind it. In an attribute it is the words alone.
func (s *site) instant(t time.Time) template.HTML {
	if t.IsZero() {
		return ""
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s">%s</time>`, t.UTC().Format(time.RFC3339), t.Local().Format("2006-01-02 15:04:05 MST"), s.clock(t)))
}

// span is a time without its parts that are nothing: 4h, not 4h0m0s.
func span(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// slashes is a path that a line may end in behind its slashes.
func slashes(path string) template.HTML {
	return template.HTML(strings.ReplaceAll(template.HTMLEscapeString(path), "/", "/<wbr>"))
}

// clock prints when something was, with the day only when it is another one.
func (s *site) clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	now := s.Now().Local()
	t = t.Local()
	y1, m1, d1 := now.Date()
	y2, m2, d2 := t.Date()
	switch {
	case y1 == y2 && m1 == m2 && d1 == d2:
		return "today " + t.Format("15:04:05")
	case now.Sub(t) < 7*24*time.Hour:
		return t.Format("Mon 15:04")
	}
	return t.Format("2006-01-02 15:04")
}

// jobWords is what a job does.
func jobWords(kind string) string {
	switch kind {
	case "volume.import":
		return "Importing"
	case "volume.export":
		return "Exporting"
	case "volume.flatten":
		return "Flattening"
	case "volume.merge":
		return "Merging layers"
	case "volume.promote":
		return "Promoting"
	case "media.add":
		return "Copying"
	case store.JobClones:
		return "A clone for each machine"
	}
	return kind
}
