package main

import (
	"encoding/json"
	"net/http"
	"testing"

	"lunboot/web/probe"
)

func TestWhoWatchesFromOutsideNeedsNoLogin(t *testing.T) {
	a := started(t, dataDir(t))
	for _, path := range []string{probe.HealthPath, probe.ReadyPath} {
		resp, err := http.Get("http://" + a.Admin + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, resp.Status)
		}
		if path == probe.HealthPath {
			continue
		}
		var answer probe.Answer
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, p := range answer.Parts {
			names[p.Name] = p.Ready
		}
		for _, name := range []string{"iSCSI", "boot HTTP", "TFTP", "inventory", "volumes"} {
			if !names[name] {
				t.Errorf("%s is not named as ready: %+v", name, answer)
			}
		}
	}
	// The boot network learns nothing of it.
	resp, err := http.Get("http://" + a.Boot + probe.ReadyPath)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		t.Errorf("the boot port answers %s with %s", probe.ReadyPath, resp.Status)
	}
}
