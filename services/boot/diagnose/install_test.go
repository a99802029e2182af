package diagnose

import (
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

func TestAMachineThatIsInstalledAgainAndAgain(t *testing.T) {
	script := func(profile string) *tape {
		return bios().see(9, store.EventScriptSent, store.Detail{Profile: profile, MatchedBy: "mac", Script: "kernel"})
	}
	ran := func(profile string) *tape {
		return script(profile).see(900, store.EventFileSent, store.Detail{File: "vmlinuz", Bytes: 9e6})
	}
	ended := func(p *tape) store.Attempt {
		p.s.Ended(p.at.Add(time.Minute))
		return p.s.Snapshot()
	}
	up := ran("deb").see(9e4, store.EventDHCPDiscover, linux).s.Snapshot() // its system asks for an address, and is gone
	crashed := ended(ran("deb"))
	done := ran("deb").see(9e4, store.EventInstalled, store.Detail{}).s.Snapshot()
	owned := done
	owned.Owned = true
	other := ran("win").see(9e4, store.EventDHCPDiscover, linux).s.Snapshot()
	rescue := ran("rescue").see(9e4, store.EventDHCPDiscover, linux).s.Snapshot()
	unfetched := ended(script("deb"))
	asked := bios().s.Snapshot()
	onVolume := script("deb").logged(ipxeID, "s1").read(ipxeID, "s1", 18e6)
	onVolume.s.Ended(onVolume.at.Add(time.Minute))
	if up.Outcome != store.OutcomeUp || done.Outcome != store.OutcomeUp || crashed.Outcome != store.OutcomeFailed {
		t.Fatalf("%s, %s, %s", up.Outcome, done.Outcome, crashed.Outcome)
	}
	for name, c := range map[string]struct {
		earlier    []store.Attempt
		once       string
		profile    string
		unmapped   bool
		confidence store.Confidence
		fix        string // the first button
		says       string // in the title, the cause or a fix
	}{
		"without a word":               {earlier(20, up, up), "", "deb", false, store.VeryLikely, "use-profile-san", "3 times"},
		"for one boot":                 {earlier(20, up, up), "deb", "san", false, store.VeryLikely, "clear-once", "boot by profile san"},
		"though it said that it is":    {earlier(20, done, done), "", "deb", false, store.Certain, "use-profile-san", "for every boot"},
		"it crashes near the end":      {earlier(20, crashed, up, crashed), "", "deb", false, store.VeryLikely, "use-profile-san", "4 times"},
		"by two installers":            {earlier(20, up, other), "", "deb", false, store.VeryLikely, "use-profile-san", "3 times"},
		"onto a volume":                {earlier(20, onVolume.s.Snapshot(), up), "", "deb", false, store.VeryLikely, "use-profile-san", "3 times"},
		"onto its own disk":            {earlier(20, up, up), "", "deb", true, store.VeryLikely, "", "--profile local"},
		"with a boot without a script": {earlier(20, up, asked, up), "", "deb", false, store.VeryLikely, "use-profile-san", "3 times"},
		"each for one boot, and done":  {earlier(20, done, done), "", "san", false, "", "", ""},
		"done, then not any more":      {earlier(20, up, up, done), "", "san", false, store.VeryLikely, "", "3 times"},
		"chosen anew since it was":     {earlier(20, owned, owned), "deb", "san", false, "", "", ""},
		"done, in nobody's name":       {earlier(20, done, done), "deb", "san", false, store.Certain, "clear-once", "trusted-subnets"},
		"once is no loop":              {earlier(20, up), "", "deb", false, "", "", ""},
		"a day apart":                  {earlier(600, up, up), "", "deb", false, "", "", ""},
		"too fast to install anything": {earlier(1, up, up), "", "deb", false, "", "", ""},
		"its kernel never came":        {earlier(20, unfetched, unfetched), "", "deb", false, "", "", ""},
		"another profile in between":   {earlier(20, up, rescue, up), "", "deb", false, "", "", ""},
	} {
		facts := lab12(win11)
		facts.Earlier, facts.Once, facts.Profile, facts.Installers = c.earlier, c.once, c.profile, []string{"deb", "win"}
		if c.unmapped {
			facts.Mappings = nil
		}
		p := script("deb")
		got := Explain(p.s.Snapshot(), p.events, facts, p.at)
		if c.confidence == "" {
			for _, d := range got {
				if d.Code == "LB-BOOT-05" {
					t.Errorf("%s: %+v", name, d)
				}
			}
			continue
		}
		if len(got) != 1 || got[0].Code != "LB-BOOT-05" || !got[0].Aside || got[0].Confidence != c.confidence || got[0].Fixes[0].Action != c.fix {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		text := got[0].Title + got[0].Cause
		for _, f := range got[0].Fixes {
			text += f.Label
		}
		if !strings.Contains(text, c.says) || len(got[0].Evidence) == 0 {
			t.Errorf("%s: %q is not in %s; evidence %q", name, c.says, text, got[0].Evidence)
		}
		checkWording(t, got[0])
	}
	// What it is given now is no installer: it was taken back.
	p := script("rescue")
	if Installing(p.s.Snapshot(), earlier(20, up, up), []string{"deb"}) != nil {
		t.Error("a machine that is given something else is in no loop")
	}
}

// A volume that is to be installed onto is empty, and that explains nothing.
func TestAnEmptyVolumeDoesNotExplainAnInstallerThatFellSilent(t *testing.T) {
	for profile, want := range map[string]bool{"deb": false, "san": true} {
		facts := lab12(holding(store.Preflight{Blank: true, Summary: "empty"}))
		facts.Installers = []string{"deb"}
		p := bios().see(9, store.EventScriptSent, store.Detail{Profile: profile, MatchedBy: "mac", Script: "kernel"}).logged(ipxeID, "s1").read(ipxeID, "s1", 2560).quiet()
		empty := false
		got := Explain(p.s.Snapshot(), p.events, facts, p.at)
		for _, d := range got {
			empty = empty || d.Code == "LB-VOL-05"
		}
		if empty != want {
			t.Errorf("profile %s is explained as %+v", profile, got)
		}
	}
}

func TestTimesAreSaidAsPeopleDo(t *testing.T) {
	for d, want := range map[time.Duration]string{130 * time.Second: "2 minutes", 90 * time.Minute: "90 minutes", 150 * time.Minute: "3 hours"} {
		if got := minutes(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
