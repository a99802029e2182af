package metrics

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/store"
	"lunboot/web/auth"
)

// sample has a value of everything.
func sample(context.Context) []Value {
	var out []Value
	for _, m := range Table() {
		out = append(out, Value{m, m.Labels, 7}) // labels named as themselves
	}
	return out
}

func exporter(t *testing.T, read func(context.Context) []Value) *Exporter {
	t.Helper()
	x, err := New(Config{Read: read, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return x
}

func scrape(t *testing.T, x http.Handler, scope store.Scope) (int, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, Path, nil)
	if scope != "" {
		r = r.WithContext(auth.With(r.Context(), auth.Identity{Actor: "tester", Scope: scope}))
	}
	w := httptest.NewRecorder()
	x.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	require.NoError(t, err)
	return w.Code, string(body)
}

func parse(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.UTF8Validation)
	all, err := p.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err)
	return all
}

var began = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func ended(o store.Outcome, stage store.StageName, code string) store.Attempt {
	a := store.Attempt{ID: 1, Outcome: o, Stage: stage, Started: began, Firmware: "BIOS", Name: "lab-12", Stages: []store.Stage{{Name: store.StageUp, At: began.Add(21 * time.Second)}}}
	if code != "" {
		a.Diagnoses = []store.Diagnosis{{Code: code}}
	}
	return a
}

func TestAScrapeIsReadByPrometheusAndFollowsItsConventions(t *testing.T) {
	x := exporter(t, sample)
	x.Ended(ended(store.OutcomeFailed, store.StageRead, "LB-LUN-01"))
	x.Ended(ended(store.OutcomeUp, store.StageUp, ""))
	x.Ended(ended(store.OutcomeUpUnconfirmed, store.StageRead, ""))
	status, text := scrape(t, x, store.ScopeRead)
	require.Equal(t, http.StatusOK, status)
	all := parse(t, text)
	for _, m := range Table() {
		f := all[m.Name]
		require.NotNil(t, f, m.Name)
		assert.NotEmpty(t, f.GetHelp(), m.Name)
		assert.Equal(t, m.Counter, f.GetType() == dto.MetricType_COUNTER, m.Name)
	}
	assert.Contains(t, text, `lunboot_boot_attempts_total{code="LB-LUN-01",outcome="failed",stage="read"} 1`)
	assert.Contains(t, text, `lunboot_boot_attempts_total{code="none",outcome="up",stage="up"} 1`)
	h := all["lunboot_boot_duration_seconds"].GetMetric()
	require.Len(t, h, 1, "only a boot that came up has a time")
	assert.Equal(t, 21.0, h[0].GetHistogram().GetSampleSum())
	assert.NotNil(t, all["go_goroutines"])
	assert.NotNil(t, all["process_resident_memory_bytes"])
	assert.NotContains(t, text, "lab-12", "no machine is a label")

	problems, err := promlint.New(strings.NewReader(text)).Lint()
	require.NoError(t, err)
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "lunboot_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	more, err := testutil.GatherAndLint(x.registry)
	require.NoError(t, err)
	for _, p := range more {
		if strings.HasPrefix(p.Metric, "lunboot_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestOnlyWhoMayReadIsAnswered(t *testing.T) {
	x := exporter(t, sample)
	status, text := scrape(t, x, "")
	assert.Equal(t, http.StatusUnauthorized, status)
	assert.Contains(t, text, "lunboot token create prometheus --scope read")
	assert.NotContains(t, text, "lunboot_machines")
	for _, s := range []store.Scope{store.ScopeRead, store.ScopeOperate, store.ScopeAdmin} {
		status, _ = scrape(t, x, s)
		assert.Equal(t, http.StatusOK, status, s)
	}
	status, _ = scrape(t, x, "nonsense")
	assert.Equal(t, http.StatusForbidden, status)
}

func TestACounterDoesNotFall(t *testing.T) {
	at := 0
	x := exporter(t, func(context.Context) []Value {
		at++
		return []Value{{ReadBytes, nil, []float64{10, 4, 12}[at-1]}, {Machines, nil, []float64{10, 4, 12}[at-1]}}
	})
	for _, want := range []struct{ counter, gauge float64 }{{10, 10}, {10, 4}, {12, 12}} {
		_, text := scrape(t, x, store.ScopeRead)
		all := parse(t, text)
		assert.Equal(t, want.counter, all[ReadBytes.Name].GetMetric()[0].GetCounter().GetValue())
		assert.Equal(t, want.gauge, all[Machines.Name].GetMetric()[0].GetGauge().GetValue())
	}
}

func TestWhatCannotBeReadIsLeftOutAndTheCodesAreBounded(t *testing.T) {
	x := exporter(t, func(context.Context) []Value { return []Value{{Volumes, nil, 1}, {Machines, nil, 3}} })
	for i := range 3 * maxCodes {
		x.Ended(ended(store.OutcomeFailed, store.StageRead, strings.Repeat("x", i+1)))
	}
	status, text := scrape(t, x, store.ScopeRead)
	assert.Equal(t, http.StatusOK, status)
	all := parse(t, text)
	assert.Nil(t, all[Volumes.Name], "a value without its labels")
	assert.NotNil(t, all[Machines.Name])
	assert.Len(t, all["lunboot_boot_attempts_total"].GetMetric(), maxCodes+1)
}
