package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"lunboot/store"
)

func TestTheLogNamesMachineAndAttemptOfABoot(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	began := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	at := store.Attempt{ID: 12, Name: "lab-01", Started: began, Updated: began.Add(21 * time.Second), Outcome: store.OutcomeFailed, Stage: store.StageUp,
		Diagnoses: []store.Diagnosis{{Code: "LB-LUN-01", Title: "It asked for LUN 0; this machine's volume is LUN 2"}}}
	logEnd(log, at)
	var line struct {
		Level, Machine, Code, Outcome, Title string
		Attempt                              int64
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err, out.String())
	}
	if line.Level != "WARN" || line.Machine != "lab-01" || line.Attempt != 12 || line.Code != "LB-LUN-01" || line.Outcome != "failed" || line.Title == "" {
		t.Errorf("logged: %s", out.String())
	}

	out.Reset()
	at.Outcome = store.OutcomeNotEnrolled
	logEnd(log, at)
	if s := out.String(); !bytes.Contains(out.Bytes(), []byte(`"level":"INFO"`)) || !bytes.Contains(out.Bytes(), []byte("that was not enrolled ended")) {
		t.Errorf("logged: %s", s)
	}

	out.Reset()
	at.Outcome, at.Diagnoses = store.OutcomeUp, nil
	logEnd(log, at)
	if s := out.String(); !bytes.Contains(out.Bytes(), []byte(`"level":"INFO"`)) || bytes.Contains(out.Bytes(), []byte("code")) {
		t.Errorf("logged: %s", s)
	}
}
