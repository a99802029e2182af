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
	CauseRemoved        Cause = "removed"        // the machine was taken out of the inventory
	CauseNotDone        Cause = "not-done"       // the machine's BMC did nothing
)
