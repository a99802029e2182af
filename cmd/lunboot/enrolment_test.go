package main

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A client that was generated from the description knows nothing but it. It takes
// a machine from its first request for a boot, over a golden volume and a clone of
// it, to the script that boots the clone and the attempt that tells of it.
func TestAGeneratedClientDrivesAnEnrolment(t *testing.T) {
	a := started(t, dataDir(t), "--script-guard", "off")
	ctx := t.Context()
	asks := func() string {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.Boot+"/boot.ipxe?mac=00:0c:29:00:00:07&hostname=lab-07&platform=efi&buildarch=x86_64", nil)
		require.NoError(t, err)
		request.Header.Set("User-Agent", "iPXE/1.21.1")
		answer, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return string(text)
	}
	asks()
	secret := strings.TrimSpace(a.must(t, "token", "create", "generated", "--scope", "operate"))
	c, err := NewClientWithResponses("http://"+a.Admin, WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+secret)
		return nil
	}))
	require.NoError(t, err)

	// It asked, and is enrolled. The answer was lost: the same again, and the same
	// machine.
	asked, err := c.ListUnknownMachinesWithResponse(ctx, nil)
	if err != nil || asked.JSON200 == nil || len(*asked.JSON200.Items) != 1 {
		t.Fatalf("who asked: %v %s", err, asked.Body)
	}
	mac, key := (*asked.JSON200.Items)[0].Mac, "enrol-1"
	made, err := c.EnrollMachineWithResponse(ctx, mac, &EnrollMachineParams{IdempotencyKey: &key}, EnrollMachineRequest{})
	if err != nil || made.JSON201 == nil || made.JSON201.Name != "lab-07" {
		t.Fatalf("enrolling: %v %s", err, made.Body)
	}
	again, err := c.EnrollMachineWithResponse(ctx, mac, &EnrollMachineParams{IdempotencyKey: &key}, EnrollMachineRequest{})
	if err != nil || again.JSON201 == nil || again.JSON201.Id != made.JSON201.Id || again.HTTPResponse.Header.Get("Idempotency-Replayed") != "true" {
		t.Fatalf("enrolling once more: %v %s", err, again.Body)
	}

	// A volume, which is frozen, and cloned, and the clone is mapped.
	size := int64(64 << 20)
	v, err := c.CreateVolumeWithResponse(ctx, nil, VolumeInput{Name: "debian", Size: &size})
	if err != nil || v.JSON201 == nil {
		t.Fatalf("a volume: %v %s", err, v.Body)
	}
	seen := v.HTTPResponse.Header.Get("ETag")
	frozen, err := c.FreezeVolumeWithResponse(ctx, "debian", &FreezeVolumeParams{IfMatch: &seen}, NoteBody{})
	if err != nil || frozen.JSON200 == nil || !frozen.JSON200.Golden {
		t.Fatalf("freezing it: %v %s", err, frozen.Body)
	}
	name, reset := "lab-07-os", true
	cloned, err := c.CloneVolumeWithResponse(ctx, "debian", nil, CloneVolumeRequest{Name: &name, ResetAtBoot: &reset})
	if err != nil || cloned.JSON201 == nil || cloned.JSON201.Volume.Kind != "clone" {
		t.Fatalf("a clone: %v %s", err, cloned.Body)
	}
	mp, err := c.AddMappingWithResponse(ctx, nil, AddMappingRequest{Machine: "lab-07", Volume: name})
	if err != nil || mp.JSON201 == nil || !mp.JSON201.Boot {
		t.Fatalf("its mapping: %v %s", err, mp.Body)
	}
	volumes, err := c.ListVolumesWithResponse(ctx, nil)
	if err != nil || volumes.JSON200 == nil || len(*volumes.JSON200.Items) != 2 {
		t.Fatalf("the volumes: %v %s", err, volumes.Body)
	}
	shown, err := c.ShowMachineWithResponse(ctx, mac, nil)
	if err != nil || shown.JSON200 == nil || len(*shown.JSON200.Mappings) != 1 || (*shown.JSON200.Mappings)[0].VolumeName != name {
		t.Fatalf("the machine: %v %s", err, shown.Body)
	}

	// Of two who saw the same state one changes it.
	notes, was := "from a script", made.HTTPResponse.Header.Get("ETag")
	set, err := c.SetMachineWithResponse(ctx, "lab-07", &SetMachineParams{IfMatch: &was}, MachineInput{Notes: &notes})
	if err != nil || set.JSON200 == nil || set.JSON200.Revision != made.JSON201.Revision+1 {
		t.Fatalf("a note: %v %s", err, set.Body)
	}
	if late, err := c.SetMachineWithResponse(ctx, "lab-07", &SetMachineParams{IfMatch: &was}, MachineInput{Notes: &notes}); err != nil || late.StatusCode() != http.StatusPreconditionFailed {
		t.Errorf("a change that comes too late: %v %s", err, late.Body)
	}

	// The script that it would be given, what it is given, and what is told of that.
	script, err := c.PreviewScriptWithResponse(ctx, "lab-07", nil)
	if err != nil || script.JSON200 == nil || !strings.Contains(script.JSON200.Text, "sanboot") || !strings.Contains(script.JSON200.Text, ":0:"+a.Target) {
		t.Fatalf("its script: %v %s", err, script.Body)
	}
	if got := asks(); !strings.Contains(got, ":0:"+a.Target) {
		t.Fatalf("it is given\n%s", got)
	}
	machine := "lab-07"
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		attempts, err := c.ListAttemptsWithResponse(ctx, &ListAttemptsParams{Machine: &machine})
		if err != nil || attempts.JSON200 == nil {
			t.Fatalf("its attempts: %v %s", err, attempts.Body)
		}
		if all := *attempts.JSON200.Items; len(all) > 0 && slices.ContainsFunc(*all[0].Stages, func(s Stage) bool { return s.Name == "script" && s.State == "done" }) {
			one, err := c.ShowAttemptWithResponse(ctx, all[0].Id)
			if err != nil || one.JSON200 == nil || one.JSON200.Outcome != all[0].Outcome {
				t.Errorf("the attempt by its number: %v %s", err, one.Body)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no attempt tells of the script: %s", attempts.Body)
		}
	}
	if refused, err := c.RemoveMachineWithResponse(ctx, "lab-08", nil); err != nil || refused.ApplicationproblemJSONDefault == nil || refused.StatusCode() != http.StatusNotFound {
		t.Errorf("a machine that is none: %v %s", err, refused.Body)
	}
}
