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
	require.NoError(t, err)
	if asked.JSON200 == nil || len(*asked.JSON200.Items) != 1 {
		t.Fatalf("who asked: %s", asked.Body)
	}
	mac, key := (*asked.JSON200.Items)[0].Mac, "enrol-1"
	made, err := c.EnrollMachineWithResponse(ctx, mac, &EnrollMachineParams{IdempotencyKey: &key}, EnrollMachineRequest{})
	require.NoError(t, err)
	if made.JSON201 == nil || made.JSON201.Name != "lab-07" {
		t.Fatalf("enrolling: %s", made.Body)
	}
	again, err := c.EnrollMachineWithResponse(ctx, mac, &EnrollMachineParams{IdempotencyKey: &key}, EnrollMachineRequest{})
	require.NoError(t, err)
	if again.JSON201 == nil || again.JSON201.Id != made.JSON201.Id || again.HTTPResponse.Header.Get("Idempotency-Replayed") != "true" {
		t.Fatalf("enrolling once more: %s", again.Body)
	}

	// A volume, which is frozen, and cloned, and the clone is mapped.
	size := int64(64 << 20)
	v, err := c.CreateVolumeWithResponse(ctx, nil, VolumeInput{Name: "debian", Size: &size})
	require.NoError(t, err)
	if v.JSON201 == nil {
		t.Fatalf("a volume: %s", v.Body)
	}
	seen := v.HTTPResponse.Header.Get("ETag")
	frozen, err := c.FreezeVolumeWithResponse(ctx, "debian", &FreezeVolumeParams{IfMatch: &seen}, NoteBody{})
	require.NoError(t, err)
	if frozen.JSON200 == nil || !frozen.JSON200.Golden {
		t.Fatalf("freezing it: %s", frozen.Body)
	}
	name, reset := "lab-07-os", true
	cloned, err := c.CloneVolumeWithResponse(ctx, "debian", nil, CloneVolumeRequest{Name: &name, ResetAtBoot: &reset})
	require.NoError(t, err)
	if cloned.JSON201 == nil || cloned.JSON201.Volume.Kind != "clone" {
		t.Fatalf("a clone: %s", cloned.Body)
	}
	mp, err := c.AddMappingWithResponse(ctx, nil, AddMappingRequest{Machine: "lab-07", Volume: name})
	require.NoError(t, err)
	if mp.JSON201 == nil || !mp.JSON201.Boot {
		t.Fatalf("its mapping: %s", mp.Body)
	}
	volumes, err := c.ListVolumesWithResponse(ctx, nil)
	require.NoError(t, err)
	if volumes.JSON200 == nil || len(*volumes.JSON200.Items) != 2 {
		t.Fatalf("the volumes: %s", volumes.Body)
	}
	shown, err := c.ShowMachineWithResponse(ctx, mac, nil)
	require.NoError(t, err)
	if shown.JSON200 == nil || len(*shown.JSON200.Mappings) != 1 || (*shown.JSON200.Mappings)[0].VolumeName != name {
		t.Fatalf("the machine: %s", shown.Body)
	}

	// Of two who saw the same state one changes it.
	notes, was := "from a script", made.HTTPResponse.Header.Get("ETag")
	set, err := c.SetMachineWithResponse(ctx, "lab-07", &SetMachineParams{IfMatch: &was}, MachineInput{Notes: &notes})
	require.NoError(t, err)
	if set.JSON200 == nil || set.JSON200.Revision != made.JSON201.Revision+1 {
		t.Fatalf("a note: %s", set.Body)
	}
	late, err := c.SetMachineWithResponse(ctx, "lab-07", &SetMachineParams{IfMatch: &was}, MachineInput{Notes: &notes})
	require.NoError(t, err)
	if late.StatusCode() != http.StatusPreconditionFailed {
		t.Errorf("a change that comes too late: %s", late.Body)
	}

	// The script that it would be given, what it is given, and what is told of that.
	script, err := c.PreviewScriptWithResponse(ctx, "lab-07", nil)
	require.NoError(t, err)
	if script.JSON200 == nil || !strings.Contains(script.JSON200.Text, "sanboot") || !strings.Contains(script.JSON200.Text, ":0:"+a.Target) {
		t.Fatalf("its script: %s", script.Body)
	}
	if got := asks(); !strings.Contains(got, ":0:"+a.Target) {
		t.Fatalf("it is given\n%s", got)
	}
	machine := "lab-07"
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		attempts, err := c.ListAttemptsWithResponse(ctx, &ListAttemptsParams{Machine: &machine})
		require.NoError(t, err)
		if attempts.JSON200 == nil {
			t.Fatalf("its attempts: %s", attempts.Body)
		}
		if all := *attempts.JSON200.Items; len(all) > 0 && slices.ContainsFunc(*all[0].Stages, func(s Stage) bool { return s.Name == "script" && s.State == "done" }) {
			one, err := c.ShowAttemptWithResponse(ctx, all[0].Id)
			require.NoError(t, err)
			if one.JSON200 == nil || one.JSON200.Outcome != all[0].Outcome {
				t.Errorf("the attempt by its number: %s", one.Body)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no attempt tells of the script: %s", attempts.Body)
		}
	}
	refused, err := c.RemoveMachineWithResponse(ctx, "lab-08", nil)
	require.NoError(t, err)
	if refused.ApplicationproblemJSONDefault == nil || refused.StatusCode() != http.StatusNotFound {
		t.Errorf("a machine that is none: %s", refused.Body)
	}
}
