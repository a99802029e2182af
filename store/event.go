package store

import (
	"net/netip"
	"time"
)

// EventKind is one fact that a service can state about a boot.
type EventKind string

// The closed list of event kinds, in boot order. Each names who emits it and
// what it proves.
const (
	// services/dhcp. Addr is the address offered or given; Detail carries
	// Interface, Arch, Firmware, Class, UserClass, Loader, Hostname, Secs and,
	// behind a relay or a switch that says so, Relay and Port.
	EventDHCPDiscover  EventKind = "dhcp.discover"   // the machine asked for an address
	EventDHCPOffer     EventKind = "dhcp.offer"      // we offered Addr
	EventDHCPRequest   EventKind = "dhcp.request"    // it asked for Addr; Detail.Server names the server it chose
	EventDHCPAck       EventKind = "dhcp.ack"        // the lease is on disk and the ACK left
	EventDHCPNak       EventKind = "dhcp.nak"        // we refused Addr; Detail.Reason
	EventDHCPDecline   EventKind = "dhcp.decline"    // it found Addr in use
	EventDHCPConflict  EventKind = "dhcp.conflict"   // we asked the wire for the Addr that it declined, or that is reserved for it: the MAC Detail.Server answers, or nobody
	EventDHCPRelease   EventKind = "dhcp.release"    // it gave Addr back
	EventDHCPNoAddress EventKind = "dhcp.no-address" // the range is used up
	EventDHCPNoLoader  EventKind = "dhcp.no-loader"  // no loader for this architecture
	EventDHCPNoISCSI   EventKind = "dhcp.no-iscsi"   // its volume needs iSCSI, and Detail.Loader, or its own iPXE when that is empty, has none
	EventDHCPOtherPick EventKind = "dhcp.other-pick" // its REQUEST was for another server (Detail.Server), for Addr
	EventDHCPNoSubnet  EventKind = "dhcp.no-subnet"  // it asked through Detail.Relay, from a subnet that is not known here; Detail.Reason
	// In proxy mode, where another server gives the address (Detail.Proxy).
	EventDHCPProxyOffer EventKind = "dhcp.proxy-offer" // we offered what to boot: Detail.Loader or URL
	EventDHCPBootServer EventKind = "dhcp.boot-server" // it asked our boot server from Addr, and was told what to boot

	// services/ra. Detail carries Interface.
	EventRASent EventKind = "ra.sent" // we told the machine that there is no IPv6 router to wait for

	// services/tftp. Detail carries File, Bytes, Total, Ms, Blksize.
	EventTFTPProbe    EventKind = "tftp.probe"    // asked for the size only, and hung up: normal
	EventTFTPStart    EventKind = "tftp.start"    // a transfer began
	EventTFTPProgress EventKind = "tftp.progress" // at most one a second
	EventTFTPSent     EventKind = "tftp.sent"     // the last block was acknowledged
	EventTFTPAbort    EventKind = "tftp.abort"    // the client gave up, or stopped acknowledging; Detail.Reason
	EventTFTPMissing  EventKind = "tftp.missing"  // asked for a name that we do not have

	// services/httpboot. Detail carries URL, Profile, MatchedBy, Key, Text.
	EventLoaderSent     EventKind = "http.loader"         // a loader over HTTP
	EventFileSent       EventKind = "http.file"           // a kernel, initrd or ISO part
	EventFileMissing    EventKind = "http.file-missing"   // an iPXE asked for Detail.URL, and there is nothing; Detail.File when it was told so by a status, else it runs a script of ours
	EventScriptAsked    EventKind = "script.asked"        // an iPXE fetched the first script, which lets it say who it is
	EventScriptSent     EventKind = "script.sent"         // a machine's own script was written to it
	EventScriptWaiting  EventKind = "script.waiting"      // the unknown-machine script was written
	EventScriptConflict EventKind = "script.conflict"     // hostname, UUID and MAC name different machines
	EventScriptWithheld EventKind = "script.withheld"     // the address does not belong to the MAC
	EventScriptFailed   EventKind = "script.failed"       // we could not make the script; Detail.Reason
	EventReport         EventKind = "report"              // the machine's own word: Detail.Step, Detail.Code
	EventReportStray    EventKind = "report.stray"        // a report without a valid attempt and key
	EventInstalled      EventKind = "report.done"         // an installer said that it has finished
	EventInstallSeen    EventKind = "volume.installed"    // the machine is back from the installer of Detail.Profile, and Detail.Volume holds another boot loader than before it
	EventReportUp       EventKind = "report.up"           // the operating system said that it is up
	EventIgnoredMachine EventKind = "script.ignored"      // an ignored machine asked for its script, or (services/dhcp) was given an address and nothing to boot
	EventLoaderMissing  EventKind = "http.loader-missing" // asked for a loader that we do not have

	// services/iscsi. Detail carries Initiator, Target, ISID, Session, LUN,
	// Mapped, Opcode, Sense, Auth, Reason.
	EventISCSILogin      EventKind = "iscsi.login"       // full feature phase reached
	EventISCSIRefused    EventKind = "iscsi.refused"     // login refused: Detail.Status "0201", Detail.Reason
	EventISCSINoLUN      EventKind = "iscsi.no-lun"      // a command for a LUN that is not mapped: Detail.LUN asked, Detail.Mapped what exists
	EventISCSIFirstRead  EventKind = "iscsi.first-read"  // the session's first READ on a LUN succeeded
	EventISCSIFirstWrite EventKind = "iscsi.first-write" // the session's first WRITE on a LUN succeeded
	EventISCSIIO         EventKind = "iscsi.io"          // a sample of bytes moved; may coalesce
	EventISCSIIOFailed   EventKind = "iscsi.io-failed"   // a READ, WRITE or SYNC ended with CHECK CONDITION, or an iPXE's with RESERVATION CONFLICT: Detail.Status "18", Detail.Server has the volume
	EventISCSIStuck      EventKind = "iscsi.stuck"       // the volume's storage has a READ, WRITE or SYNC for Detail.Millis, and has not answered
	EventISCSILogout     EventKind = "iscsi.logout"
	EventISCSIClosed     EventKind = "iscsi.closed" // the session ended; Detail.Reason, Detail.Bytes read, Detail.Written

	// store/volume through its pool.
	EventVolumeFailed EventKind = "volume.failed" // a volume turned read-only or unreadable

	// services/inventory and services/events.
	EventSpace          EventKind = "space.changed"   // the room for volumes fell below what is to be kept, or is above again: Detail.Bytes are free, Detail.Reason
	EventMachineChanged EventKind = "machine.changed" // enrolled, changed, removed
	EventMachinePower   EventKind = "machine.power"   // its BMC was told something, or it was sent a magic packet: Detail.Step is the act that was carried out or failed, none when the machine was so already; Detail.Reason what became of it
	EventDropped        EventKind = "events.dropped"  // samples that were dropped: Detail.Bytes holds the count
)

// EventKinds lists every kind in boot order.
func EventKinds() []EventKind {
	return []EventKind{
		EventDHCPDiscover, EventDHCPOffer, EventDHCPRequest, EventDHCPAck, EventDHCPNak, EventDHCPDecline, EventDHCPConflict, EventDHCPRelease,
		EventDHCPNoAddress, EventDHCPNoLoader, EventDHCPNoISCSI, EventDHCPOtherPick, EventDHCPNoSubnet, EventDHCPProxyOffer, EventDHCPBootServer, EventRASent,
		EventTFTPProbe, EventTFTPStart, EventTFTPProgress, EventTFTPSent, EventTFTPAbort, EventTFTPMissing,
		EventLoaderSent, EventFileSent, EventFileMissing, EventLoaderMissing, EventScriptAsked, EventScriptSent, EventScriptWaiting, EventScriptConflict, EventScriptWithheld,
		EventScriptFailed, EventIgnoredMachine, EventReport, EventReportStray, EventInstalled, EventInstallSeen, EventReportUp,
		EventISCSILogin, EventISCSIRefused, EventISCSINoLUN, EventISCSIFirstRead, EventISCSIFirstWrite, EventISCSIIO, EventISCSIIOFailed,
		EventISCSIStuck, EventISCSILogout, EventISCSIClosed,
		EventVolumeFailed, EventSpace, EventMachineChanged, EventMachinePower, EventDropped,
	}
}

// Severity says whether an event of a kind is worth a look.
type Severity string

// The severities.
const (
	SeverityError   Severity = "error"   // something that a boot needs failed or was refused
	SeverityWarning Severity = "warning" // unusual: a boot may do without it
	SeverityInfo    Severity = "info"    // what happens when all is well
)

// Severities lists every severity, the worst first.
func Severities() []Severity { return []Severity{SeverityError, SeverityWarning, SeverityInfo} }

// Severity says whether events of the kind are worth a look.
func (k EventKind) Severity() Severity {
	switch k {
	case EventDHCPNoAddress, EventDHCPNoLoader, EventDHCPNoISCSI, EventLoaderMissing, EventScriptConflict, EventScriptWithheld, EventScriptFailed,
		EventReport, EventISCSIRefused, EventISCSINoLUN, EventISCSIIOFailed, EventVolumeFailed:
		return SeverityError
	case EventDHCPNak, EventDHCPDecline, EventDHCPConflict, EventDHCPOtherPick, EventDHCPNoSubnet, EventTFTPAbort, EventTFTPMissing, EventFileMissing,
		EventReportStray, EventSpace, EventDropped:
		return SeverityWarning
	}
	return SeverityInfo
}

// Sample reports whether the kind may coalesce or be dropped under load. Every
// other kind is a state and is never dropped.
func (k EventKind) Sample() bool {
	return k == EventTFTPProgress || k == EventISCSIIO
}

// Detail carries what an event knows beyond who and when. Every field is
// optional; each kind's comment names those that it fills. No field ever holds
// a secret.
type Detail struct {
	Interface string `json:"interface,omitempty"`
	Firmware  string `json:"firmware,omitempty"`   // "BIOS", "UEFI"
	Arch      string `json:"arch,omitempty"`       // "x86", "x86-64", "arm64"
	Class     string `json:"class,omitempty"`      // option 60
	UserClass string `json:"user_class,omitempty"` // option 77
	IPXE      bool   `json:"ipxe,omitempty"`       // the client is an iPXE
	PXE       bool   `json:"pxe,omitempty"`        // the client asks to boot from the network
	Hostname  string `json:"hostname,omitempty"`
	Secs      int    `json:"secs,omitempty"`    // DHCP secs field
	Server    string `json:"server,omitempty"`  // another server's address; the initiator that has the volume to itself
	Proxy     bool   `json:"proxy,omitempty"`   // on a network where another server gives the addresses
	Relay     string `json:"relay,omitempty"`   // the relay that it asks through: giaddr
	Router    string `json:"router,omitempty"`  // the gateway that it was given
	Network   string `json:"network,omitempty"` // behind a router: the network that a script was asked for from
	Port      string `json:"port,omitempty"`    // the switch and its port, as option 82 says

	Loader  string `json:"loader,omitempty"`
	File    string `json:"file,omitempty"`
	URL     string `json:"url,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`   // moved, or read by the machine
	Written int64  `json:"written,omitempty"` // written by the machine
	Total   int64  `json:"total,omitempty"`
	Millis  int64  `json:"ms,omitempty"`
	Blksize int    `json:"blksize,omitempty"`

	Profile   string `json:"profile,omitempty"`
	MatchedBy string `json:"matched_by,omitempty"` // "hostname", "uuid", "mac"
	Owned     bool   `json:"owned,omitempty"`      // of a script by a profile for one boot: who asked for it was shown to be the machine
	Key       string `json:"key,omitempty"`        // the attempt's report key
	Script    string `json:"script,omitempty"`     // the script's text with its secrets replaced

	Initiator string `json:"initiator,omitempty"`
	Target    string `json:"target,omitempty"`
	ISID      string `json:"isid,omitempty"`
	Session   string `json:"session,omitempty"`
	Asked     string `json:"asked,omitempty"` // of a refused login: the machine whose name it gave, or the target that is not here
	Auth      string `json:"auth,omitempty"`
	Status    string `json:"status,omitempty"` // login status class and detail, four hexadecimal digits; a SCSI status, two
	LUN       *int   `json:"lun,omitempty"`    // the LUN asked for; -1 when it has no number
	Mapped    []int  `json:"mapped,omitempty"` // the LUNs that exist for this initiator
	Opcode    string `json:"opcode,omitempty"`
	LBA       int64  `json:"lba,omitempty"`
	Sense     string `json:"sense,omitempty"` // "05/25/00"
	Volume    string `json:"volume,omitempty"`

	Step   string `json:"step,omitempty"`   // the script's step that a report speaks of
	Code   string `json:"code,omitempty"`   // iPXE's error code in hexadecimal
	Cause  Cause  `json:"cause,omitempty"`  // why, for rules
	Reason string `json:"reason,omitempty"` // why, in one sentence
}

// Event is one fact with a time.
type Event struct {
	Seq     int64      `json:"seq"` // rising, without holes within one journal
	At      time.Time  `json:"at"`
	Kind    EventKind  `json:"kind"`
	MAC     MAC        `json:"mac"`
	Addr    netip.Addr `json:"addr"`
	Machine MachineID  `json:"machine,omitempty"`
	Attempt AttemptID  `json:"attempt,omitempty"`
	Detail  Detail     `json:"detail"`
}

// Retention is what is kept of the log of events, the newest first; what exceeds
// any of the three is forgotten. The newest event stays in any case, since its
// number must not be given again.
type Retention struct {
	// Events is how many are kept.
	Events int
	// Bytes is what the log may hold on disk, attempts and indexes among it; 0 is
	// without a bound. The file itself does not shrink: what is free in it is
	// used again.
	Bytes int64
	// Since is when the oldest kept event came.
	Since time.Time
}

// EventFilter narrows a listing of events.
type EventFilter struct {
	After   int64 // only events with a larger Seq
	Machine MachineID
	MAC     MAC
	Attempt AttemptID
	Search  EventSearch
	Sort    string // one of EventColumns, with a hyphen before it the other way; empty: newest first
	Limit   int
	Offset  int
}
