package api_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"lunboot/store"
)

// A client that was generated from the description knows nothing but it. It
// takes a machine from its first request for a boot to the script that boots it.
func TestAGeneratedClientDrivesAnEnrolment(t *testing.T) {
	h := open(t)
	ctx := t.Context()
	if err := h.db.SeeUnknown(ctx, store.UnknownMachine{MAC: store.MAC{0, 0x0c, 0x29, 0, 0, 7}, Hostname: "lab-07", Firmware: "UEFI", Arch: "x86-64"}); err != nil {
		t.Fatal(err)
	}
	_, secret, err := h.auth.CreateToken(ctx, "tester", "generated", store.ScopeOperate, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClientWithResponses(h.URL, WithHTTPClient(h.Client()), WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+secret)
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	asked, err := c.ListUnknownMachinesWithResponse(ctx, nil)
	if err != nil || asked.JSON200 == nil || len(*asked.JSON200.Items) != 1 {
		t.Fatalf("who asked: %v %s", err, asked.Body)
	}
	mac, key := (*asked.JSON200.Items)[0].Mac, "enrol-1"
	made, err := c.EnrollMachineWithResponse(ctx, mac, &EnrollMachineParams{IdempotencyKey: &key}, EnrollMachineRequest{})
	if err != nil || made.JSON201 == nil || made.JSON201.Name != "lab-07" {
		t.Fatalf("enrolling: %v %s", err, made.Body)
	}
	// The answer was lost: the same again, and the same machine.
	again, err := c.EnrollMachineWithResponse(ctx, mac, &EnrollMachineParams{IdempotencyKey: &key}, EnrollMachineRequest{})
	if err != nil || again.JSON201 == nil || again.JSON201.Id != made.JSON201.Id || again.HTTPResponse.Header.Get("Idempotency-Replayed") != "true" {
		t.Fatalf("enrolling once more: %v %s", err, again.Body)
	}
	size := int64(64 << 20)
	v, err := c.CreateVolumeWithResponse(ctx, nil, VolumeInput{Name: "lab-07-os", Size: &size})
	if err != nil || v.JSON201 == nil {
		t.Fatalf("a volume: %v %s", err, v.Body)
	}
	mp, err := c.AddMappingWithResponse(ctx, nil, AddMappingRequest{Machine: "lab-07", Volume: v.JSON201.Name})
	if err != nil || mp.JSON201 == nil || !mp.JSON201.Boot {
		t.Fatalf("its mapping: %v %s", err, mp.Body)
	}
	notes, seen := "from a script", made.HTTPResponse.Header.Get("ETag")
	set, err := c.SetMachineWithResponse(ctx, "lab-07", &SetMachineParams{IfMatch: &seen}, MachineInput{Notes: &notes})
	if err != nil || set.JSON200 == nil || set.JSON200.Revision != made.JSON201.Revision+1 {
		t.Fatalf("a note: %v %s", err, set.Body)
	}
	if late, err := c.SetMachineWithResponse(ctx, "lab-07", &SetMachineParams{IfMatch: &seen}, MachineInput{Notes: &notes}); err != nil || late.StatusCode() != http.StatusPreconditionFailed {
		t.Errorf("a change that comes too late: %v %s", err, late.Body)
	}
	shown, err := c.ShowMachineWithResponse(ctx, mac, nil)
	if err != nil || shown.JSON200 == nil || len(*shown.JSON200.Mappings) != 1 || (*shown.JSON200.Mappings)[0].VolumeName != "lab-07-os" {
		t.Fatalf("the machine: %v %s", err, shown.Body)
	}
	script, err := c.PreviewScriptWithResponse(ctx, "lab-07", nil)
	if err != nil || script.JSON200 == nil || !strings.HasPrefix(script.JSON200.Text, "#!ipxe") {
		t.Fatalf("its script: %v %s", err, script.Body)
	}
	if refused, err := c.RemoveMachineWithResponse(ctx, "lab-08", nil); err != nil || refused.ApplicationproblemJSONDefault == nil || refused.StatusCode() != http.StatusNotFound {
		t.Errorf("a machine that is none: %v %s", err, refused.Body)
	}
}
