package store

// MachineLine is one line of a table of machines, as it was read.
type MachineLine struct {
	Line  int          // in the file; the first is 1
	Patch MachinePatch // what its cells say; an empty cell says nothing
	Err   error        // why it cannot be read, nil when it can
}

// Verdict is what becomes of one line of a table.
type Verdict string

// The verdicts.
const (
	VerdictNew     Verdict = "new"     // it makes a machine
	VerdictChanged Verdict = "changed" // it changes one
	VerdictSame    Verdict = "same"    // the machine is so already
	VerdictRefused Verdict = "refused" // nothing becomes of it
)

// LineVerdict says what becomes of one line of a table, and why.
type LineVerdict struct {
	Line    int           `json:"line"`
	Verdict Verdict       `json:"verdict" enum:"new,changed,same,refused"`
	Machine MachineID     `json:"machine,omitempty"` // zero: there is none yet
	Name    string        `json:"name,omitempty"`
	Changes []FieldChange `json:"changes,omitempty"`
	Field   string        `json:"field,omitempty"`  // at fault, where it is refused
	Reason  string        `json:"reason,omitempty"` // why it is refused
}

// MachineImport says what becomes of a table of machines.
type MachineImport struct {
	Lines   []LineVerdict `json:"lines"`
	New     int           `json:"new"`
	Changed int           `json:"changed"`
	Same    int           `json:"same"`
	Refused int           `json:"refused"`
	// Match stands for all verdicts and for the machines as they were looked at.
	Match string `json:"match"`
	Done  bool   `json:"done"` // the good lines are in the inventory
}

// Good is how many lines make or change a machine.
func (i MachineImport) Good() int { return i.New + i.Changed }

// MachineImportSpec is how a table of machines is imported.
type MachineImportSpec struct {
	Lines  []MachineLine
	DryRun bool // only say what would become of each line
	// Match, when not empty, is that of the verdicts that somebody saw: nothing
	// is done when they are others by now.
	Match string
}
