package store

// Cause is what lies behind an event, from a closed list: rules switch on it. The
// event's Reason says the same to people, and more. It is empty where nobody asks.
type Cause string

// The causes.
const (
	CauseGaveUp         Cause = "gave-up"        // the machine ended the transfer itself
	CauseUnacknowledged Cause = "unacknowledged" // none of our answers was acknowledged
	CauseStopping       Cause = "stopping"       // the appliance stopped
	CauseSilent         Cause = "silent"         // it answers no more, and did not say farewell
	CauseNoProfile      Cause = "no-profile"     // the machine's profile does not exist
	CauseProfile        Cause = "profile"        // the machine's profile makes no script
	CauseAppliance      Cause = "appliance"      // the appliance could not do what it was asked for
	CauseNoInitiator    Cause = "no-initiator"   // no machine has the iSCSI name
	CauseOtherMachine   Cause = "other-machine"  // the iSCSI name is another machine's, which is Asked
	CauseAuthRequired   Cause = "auth-required"  // less proof was offered than is set for the machine
	CauseNoReverse      Cause = "no-reverse"     // the appliance was to prove itself, and no secret is set for that
	CauseWrongSecret    Cause = "wrong-secret"   // another CHAP user name or secret than what is set for the machine
	CauseUnopened       Cause = "unopened"       // a volume cannot be opened
	CauseNotAnew        Cause = "not-anew"       // a volume cannot begin anew
	CauseWaits          Cause = "waits"          // a volume is not to be used before something else is done
	CauseHeld           Cause = "held"           // another program of the appliance's machine has the device
	CauseDiscarded      Cause = "discarded"      // not all that was written to a volatile volume is on the disk
	CauseStorage        Cause = "storage"        // the appliance's storage does not answer
	CauseFull           Cause = "full"           // there is no room for what is to be written
	CauseRemoved        Cause = "removed"        // the machine was taken out of the inventory
	CauseNotDone        Cause = "not-done"       // the machine's BMC did nothing
)
