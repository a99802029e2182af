package diagnose

import (
	"strings"
	"testing"

	"lunboot/store"
)

// A rule goes by the cause that an event has, whatever the sentence beside it says; by
// the sentence in journals that are older than causes.
func TestACauseIsReadBeforeTheSentenceBesideIt(t *testing.T) {
	for cause, texts := range told {
		if e := (store.Event{Detail: store.Detail{Cause: cause, Reason: "worded anew"}}); !because(e, cause) {
			t.Errorf("%s is not read", cause)
		}
		for _, text := range texts {
			if e := (store.Event{Detail: store.Detail{Reason: "so and so " + text + " and more"}}); !because(e, cause) {
				t.Errorf("%q is not read as %s", text, cause)
			}
			if e := (store.Event{Detail: store.Detail{Cause: "another", Reason: text}}); because(e, cause) {
				t.Errorf("another cause is read as %s by its sentence", cause)
			}
		}
	}
	if because(store.Event{}, store.CauseSilent) {
		t.Error("an event that says nothing has a cause")
	}

	d := newTape().dora(firmwareUEFI).see(50, store.EventTFTPAbort, store.Detail{File: "snponly.efi", Loader: "snponly.efi", Total: 173792, Cause: store.CauseStopping, Reason: "worded anew"}).first(t, lab12(win11))
	is(t, d, "LB-LOAD-03", "because the appliance was stopped", "", store.Certain)
	d = bios().see(9, store.EventScriptFailed, store.Detail{Profile: "deb", Cause: store.CauseNoProfile, Reason: "worded anew"}).first(t, lab12(win11))
	is(t, d, "LB-SCR-06", "there is no profile “deb”", "", store.Certain)

	// Refused logins are told apart by nothing else.
	for _, c := range []struct {
		status      string
		cause       store.Cause
		asked       string
		code, title string
	}{
		{"0201", store.CauseNoReverse, "", "LB-CHAP-04", "asked the appliance to prove itself"},
		{"0201", store.CauseAuthRequired, "", "LB-CHAP-02", "offered no password that"},
		{"0201", store.CauseWrongSecret, "", "LB-CHAP-01", "gave the wrong password"},
		{"0201", "", "", "LB-TGT-06", "was refused its volume"},
		{"0202", store.CauseOtherMachine, "lab-13", "LB-TGT-07", "logged in as lab-13"},
		{"0202", store.CauseNoInitiator, "", "LB-TGT-03", "an iSCSI name"},
		{"0203", "", "iqn.2000-01.org.example:gone", "LB-TGT-04", "“iqn.2000-01.org.example:gone”, which is not here"},
		{"0300", store.CauseUnopened, "", "LB-VOL-02", "because its storage failed"},
		{"0301", store.CauseNotAnew, "", "LB-VOL-02", "because its storage failed"},
		{"0301", store.CauseWaits, "", "LB-TGT-06", "was refused its volume"},
		{"0301", store.CauseHeld, "", "LB-VOL-09", "because another program on the appliance uses it"},
		{"0301", store.CauseDiscarded, "", "LB-VOL-11", "because what was on it is gone"},
		{"0301", store.CauseFull, "", "LB-VOL-01", "the storage is full"},
	} {
		d := bios().script().see(9, store.EventISCSIRefused, store.Detail{ISID: ipxeID, Status: c.status, Cause: c.cause, Asked: c.asked, Reason: "worded anew"}).first(t, lab12(win11))
		if d.Code != c.code || !strings.Contains(d.Title, c.title) {
			t.Errorf("%s, because of %q, is explained as %s: %s; want %s: %s", c.status, c.cause, d.Code, d.Title, c.code, c.title)
		}
	}
}

// A volume that is to begin anew at the machine's next boot is not one that failed.
func TestAVolumeThatWaitsForItsBootHasNotFailed(t *testing.T) {
	for _, cause := range []store.Cause{store.CauseWaits, ""} {
		d := bios().script().see(9, store.EventISCSIRefused, store.Detail{ISID: ipxeID, Status: "0301", Cause: cause,
			Reason: "the volumes of iqn.2026-11.lunboot:lab-12 cannot be opened now: open volume win11: it is to begin anew first, at the next login of its machine's firmware"}).first(t, lab12(win11))
		if d.Code != "LB-TGT-06" || !strings.Contains(d.Cause, "it is to begin anew first") {
			t.Errorf("because of %q it is explained as %s: %s", cause, d.Code, d.Cause)
		}
	}
}
