package diagnose

import (
	"testing"

	"lunboot/store"
)

// A rule goes by the cause that an event has, whatever the sentence beside it says; by
// the sentence in journals that are older than causes.
func TestACauseIsReadBeforeTheSentenceBesideIt(t *testing.T) {
	for cause, text := range told {
		if e := (store.Event{Detail: store.Detail{Cause: cause, Reason: "worded anew"}}); !because(e, cause) {
			t.Errorf("%s is not read", cause)
		}
		if e := (store.Event{Detail: store.Detail{Reason: "so and so " + text + " and more"}}); !because(e, cause) {
			t.Errorf("%q is not read as %s", text, cause)
		}
		if e := (store.Event{Detail: store.Detail{Cause: "another", Reason: text}}); because(e, cause) {
			t.Errorf("another cause is read as %s by its sentence", cause)
		}
	}
	if because(store.Event{}, store.CauseSilent) {
		t.Error("an event that says nothing has a cause")
	}

	d := newTape().dora(firmwareUEFI).see(50, store.EventTFTPAbort, store.Detail{File: "snponly.efi", Loader: "snponly.efi", Total: 173792, Cause: store.CauseStopping, Reason: "worded anew"}).first(t, lab12(win11))
	is(t, d, "LB-LOAD-03", "because the appliance was stopped", "", store.Certain)
	d = bios().see(9, store.EventScriptFailed, store.Detail{Profile: "deb", Cause: store.CauseNoProfile, Reason: "worded anew"}).first(t, lab12(win11))
	is(t, d, "LB-SCR-06", "there is no profile “deb”", "", store.Certain)
}
